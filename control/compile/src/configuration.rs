//! Settings: FelixConfiguration, and the ranges of service addresses.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use margay_model::Settings;
use margay_model::node::EndpointToHost;
use margay_resources::selector::Selector;
use margay_resources::v3::FelixConfiguration;
use serde_json::Value;

use crate::profiles::LabelMap;

/// The objects that settings come from.
#[derive(Debug)]
pub(crate) struct Configuration {
    felix: BTreeMap<Arc<str>, FelixConfiguration>,
    ranges: BTreeMap<Arc<str>, Vec<IpNet>>,
    nodes: BTreeMap<Arc<str>, LabelMap>,
    changed: bool,
}

// === impl Configuration ===

impl Default for Configuration {
    fn default() -> Self {
        Self {
            felix: BTreeMap::new(),
            ranges: BTreeMap::new(),
            nodes: BTreeMap::new(),
            changed: true,
        }
    }
}

impl Configuration {
    /// Adds, replaces or removes a FelixConfiguration.
    pub(crate) fn set_felix(&mut self, name: &Arc<str>, felix: Option<FelixConfiguration>) {
        match felix {
            Some(felix) => self.felix.insert(name.clone(), felix),
            None => self.felix.remove(name),
        };
        self.changed = true;
    }

    /// Sets the ranges of a ServiceCIDR; none removes it.
    pub(crate) fn set_service_ranges(&mut self, name: &Arc<str>, cidrs: &[String]) {
        let cidrs: Vec<IpNet> = cidrs.iter().filter_map(|c| c.trim().parse().ok()).collect();
        if cidrs.is_empty() {
            self.ranges.remove(name);
        } else {
            self.ranges.insert(name.clone(), cidrs);
        }
        self.changed = true;
    }

    /// Sets the labels of a node, which settings may be limited to.
    pub(crate) fn set_node(&mut self, name: &Arc<str>, labels: Option<LabelMap>) {
        let old = match labels.clone() {
            Some(labels) => self.nodes.insert(name.clone(), labels),
            None => self.nodes.remove(name),
        };
        self.changed |= old != labels;
    }

    /// The settings of a node if anything has changed since the last call.
    pub(crate) fn flush(&mut self, node: Option<&str>) -> Option<Settings> {
        std::mem::take(&mut self.changed).then(|| self.settings(node.unwrap_or_default()))
    }

    /// The settings of a node.
    pub(crate) fn settings(&self, node: &str) -> Settings {
        let felix = Felix { layers: self.layers(node) };
        let defaults = Settings::default();
        let mut service_ranges: Vec<_> = self.ranges.values().flatten().copied().collect();
        service_ranges.sort_unstable();
        service_ranges.dedup();
        Settings {
            vxlan_port: felix.number("vxlanPort").unwrap_or(defaults.vxlan_port),
            vxlan_vni: felix.number("vxlanVNI").unwrap_or(defaults.vxlan_vni),
            snat_ports: felix.port_range("natPortRange").unwrap_or(defaults.snat_ports),
            endpoint_to_host: match felix.text("defaultEndpointToHostAction") {
                Some(action) if action.eq_ignore_ascii_case("drop") => EndpointToHost::Drop,
                // Return leaves it to the host endpoint's policy.
                _ => EndpointToHost::Accept,
            },
            service_ranges,
            allow_vxlan_from_workloads: felix
                .flag("allowVXLANPacketsFromWorkloads")
                .unwrap_or(defaults.allow_vxlan_from_workloads),
            allow_ipip_from_workloads: felix
                .flag("allowIPIPPacketsFromWorkloads")
                .unwrap_or(defaults.allow_ipip_from_workloads),
            ..defaults
        }
    }

    /// What applies to a node, the most specific first: its own, then those whose selector picks
    /// it (of several the oldest), then the default.
    fn layers(&self, node: &str) -> Vec<&FelixConfiguration> {
        let labels = self.nodes.get(node).cloned().unwrap_or_default();
        let own = self.felix.get(format!("node.{node}").as_str());
        let mut selected: Vec<_> = self
            .felix
            .values()
            .filter(|felix| {
                let selector = felix.spec.node_selector().map(Selector::parse);
                selector.is_some_and(|s| s.is_ok_and(|s| s.matches(&labels)))
            })
            .collect();
        selected.sort_by_key(|f| {
            let created = f.metadata.creation_timestamp.as_ref().map(|t| t.0.to_string());
            (created.is_none(), created, f.name().to_owned())
        });
        own.into_iter().chain(selected.first().copied()).chain(self.felix.get("default")).collect()
    }
}

/// Settings by name, in layers.
struct Felix<'a> {
    layers: Vec<&'a FelixConfiguration>,
}

impl<'a> Felix<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.layers.iter().find_map(|layer| layer.spec.0.get(name).filter(|v| !v.is_null()))
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name)?.as_str()
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.get(name)?.as_bool()
    }

    fn number<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        T::try_from(self.get(name)?.as_u64()?).ok()
    }

    /// `first:last`, or one port.
    fn port_range(&self, name: &str) -> Option<(u16, u16)> {
        let value = self.get(name)?;
        if let Some(port) = value.as_u64() {
            let port = u16::try_from(port).ok()?;
            return Some((port, port));
        }
        let text = value.as_str()?;
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        let range = (first.parse().ok()?, last.parse().ok()?);
        (range.0 > 0 && range.0 <= range.1).then_some(range)
    }
}
