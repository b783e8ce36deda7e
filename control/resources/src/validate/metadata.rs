//! Names, namespaces, labels and annotations.

use std::collections::BTreeMap;

use super::text;
use crate::field::Report;
use crate::kind::Kind;
use crate::resource::Resource;
use crate::selector::NAMESPACE_LABEL;

/// Annotations of an object may have so many bytes together.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Checks the metadata of an object.
pub(super) fn check(resource: &Resource, report: &mut Report<'_>) {
    let (kind, metadata) = (resource.kind(), resource.metadata());
    name(kind, resource.name(), report);
    let namespace = resource.namespace();
    if kind.is_namespaced() {
        let fits = text::is_dns_label(namespace);
        report.wrong_if(!fits, "namespace", text::not_a_name(namespace));
    } else if !namespace.is_empty() {
        report.wrong_at("namespace", format!("{kind} lives in no namespace; remove the field"));
    }
    if let Some(labels) = &metadata.labels {
        report.within("labels", |report| check_labels(labels, report));
        let is_set = matches!(kind, Kind::NetworkSet | Kind::GlobalNetworkSet);
        if is_set && labels.contains_key(NAMESPACE_LABEL) {
            report.within("labels", |report| {
                report.wrong_at(NAMESPACE_LABEL, "is reserved; remove it");
            });
        }
    }
    if let Some(annotations) = &metadata.annotations {
        report.within("annotations", |report| check_annotations(annotations, report));
    }
}

fn name(kind: Kind, name: &str, report: &mut Report<'_>) {
    if name.is_empty() {
        return report.wrong_at("name", "is missing");
    }
    match kind {
        // Machines write these, under names that they make up.
        Kind::WorkloadEndpoint | Kind::IpamBlock | Kind::BlockAffinity | Kind::IpamHandle => {}
        Kind::Namespace | Kind::Service | Kind::Tier if !text::is_dns_label(name) => {
            let why = format!(
                "`{name}` is not a name of at most 63 lower-case letters, digits and `-`, with a \
                 letter or digit at both ends"
            );
            report.wrong_at("name", why);
        }
        Kind::ClusterInformation | Kind::IpamConfiguration | Kind::KubeControllersConfiguration
            if name != "default" =>
        {
            report.wrong_at("name", format!("the only {kind} is called default"));
        }
        Kind::BgpConfiguration if name != "default" && !name.starts_with("node.") => {
            report.wrong_at("name", "is default, or node. and the name of a node");
        }
        _ if !text::is_dns_subdomain(name) => report.wrong_at("name", text::not_a_name(name)),
        _ => {}
    }
}

/// Checks names and values of labels.
pub(super) fn check_labels(labels: &BTreeMap<String, String>, report: &mut Report<'_>) {
    for (name, value) in labels {
        if !text::is_qualified_name(name) {
            report.wrong_at(name, not_a_label(name));
        }
        if !text::is_label_value(value) {
            report.wrong_at(name, not_a_value(value));
        }
    }
}

/// Checks names of annotations, which may have capitals in the prefix, and their size.
pub(super) fn check_annotations(annotations: &BTreeMap<String, String>, report: &mut Report<'_>) {
    for name in annotations.keys().filter(|name| !text::is_qualified_name(&name.to_lowercase())) {
        report.wrong_at(name, not_a_label(name));
    }
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_ANNOTATIONS {
        report.wrong(format!("are {size} bytes together; {MAX_ANNOTATIONS} are allowed"));
    }
}

pub(super) fn not_a_label(name: &str) -> String {
    format!(
        "`{name}` is not a label name: at most 63 letters, digits, `-`, `_` and `.`, with a letter \
         or digit at both ends, perhaps after a DNS name and `/`"
    )
}

pub(super) fn not_a_value(value: &str) -> String {
    format!(
        "`{value}` is not a label value: at most 63 letters, digits, `-`, `_` and `.`, with a \
         letter or digit at both ends, or nothing"
    )
}
