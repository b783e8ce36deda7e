//! Calico's NetworkPolicy, GlobalNetworkPolicy and Profile.

use std::sync::Arc;

use margay_model::{Action, IcmpMatch, IpVersion, PortRange};
use margay_resources::selector::{Selector, SelectorError};
use margay_resources::v3;

use super::{EntityIntent, PolicyIntent, PortIntent, ProfileIntent, RuleIntent, Stage, policy_key};
use crate::name::ObjectName;
use crate::request::{HttpMatch, PathMatch};

/// Converts a policy of a namespace (`NetworkPolicy`) or of the cluster (`GlobalNetworkPolicy`).
///
/// # Errors
/// A selector that is none; validation has refused it before.
pub(crate) fn policy(
    kind: &str,
    object: &v3::Object<v3::PolicySpec>,
) -> Result<PolicyIntent, SelectorError> {
    let (namespace, name, spec) = (object.namespace(), object.name(), &object.spec);
    let mut selector = Selector::parse(&spec.selector)?;
    if !namespace.is_empty() {
        selector = selector.and(&Selector::in_namespace(namespace));
    } else if !spec.namespace_selector.trim().is_empty() {
        selector = selector.and(&Selector::parse(&spec.namespace_selector)?.of_namespaces());
    }
    let accounts = Selector::service_accounts(&[], &spec.service_account_selector)?;
    let (polices_ingress, polices_egress) = directions(spec);
    Ok(PolicyIntent {
        key: policy_key(kind, namespace, name),
        tier: if spec.tier.is_empty() {
            v3::DEFAULT_TIER.into()
        } else {
            spec.tier.as_str().into()
        },
        order: spec.order,
        sort_name: format!("{name}/{namespace}/{kind}").into(),
        selector: selector.and(&accounts).into(),
        polices_ingress,
        polices_egress,
        stage: stage(spec),
        needed_everywhere: !spec.performance_hints.is_empty(),
        staged: None,
        ingress: rules(&spec.ingress, namespace)?,
        egress: rules(&spec.egress, namespace)?,
    })
}

/// Untracked and pre-DNAT policies are for what passes through as well, whatever they say of it.
fn stage(spec: &v3::PolicySpec) -> Stage {
    match (spec.do_not_track, spec.pre_dnat, spec.apply_on_forward) {
        (true, ..) => Stage::Untracked,
        (_, true, _) => Stage::PreDnat,
        (_, _, true) => Stage::Forward,
        _ => Stage::Ends,
    }
}

/// Converts a profile.
///
/// # Errors
/// As [`policy`].
pub(crate) fn profile(object: &v3::Profile) -> Result<ProfileIntent, SelectorError> {
    let labels = object.spec.labels_to_apply.iter();
    Ok(ProfileIntent {
        ingress: rules(&object.spec.ingress, "")?,
        egress: rules(&object.spec.egress, "")?,
        labels: labels.map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect(),
    })
}

/// Without `types` a policy is for ingress, or for what it has rules for.
fn directions(spec: &v3::PolicySpec) -> (bool, bool) {
    if spec.types.is_empty() {
        let egress = !spec.egress.is_empty();
        return (!egress || !spec.ingress.is_empty(), egress);
    }
    let has = |t| spec.types.contains(&t);
    (has(v3::PolicyType::Ingress), has(v3::PolicyType::Egress))
}

fn rules(rules: &[v3::Rule], namespace: &str) -> Result<Vec<RuleIntent>, SelectorError> {
    (0..).zip(rules).map(|(number, rule)| self::rule(number, rule, namespace)).collect()
}

fn rule(number: u32, rule: &v3::Rule, namespace: &str) -> Result<RuleIntent, SelectorError> {
    let action = match rule.action {
        v3::Action::Allow => Action::Allow,
        v3::Action::Deny => Action::Deny,
        v3::Action::Log => Action::Log,
        v3::Action::Pass => Action::Pass,
    };
    let ip_version = match rule.ip_version {
        Some(4) => Some(IpVersion::V4),
        Some(6) => Some(IpVersion::V6),
        _ => None,
    };
    Ok(RuleIntent {
        number,
        action,
        ip_version,
        protocol: rule.protocol.map(v3::Protocol::number),
        not_protocol: rule.not_protocol.map(v3::Protocol::number),
        icmp: rule.icmp.and_then(icmp),
        not_icmp: rule.not_icmp.and_then(icmp),
        src: entity(&rule.source, namespace)?,
        dst: entity(&rule.destination, namespace)?,
        http: rule.http.as_ref().map(http),
    })
}

fn http(http: &v3::HttpMatch) -> HttpMatch {
    let path = |path: &v3::HttpPath| match (&path.exact, &path.prefix) {
        (Some(exact), None) => Some(PathMatch::Exact(exact.as_str().into())),
        (None, Some(prefix)) => Some(PathMatch::Prefix(prefix.as_str().into())),
        // Validation has refused it before.
        _ => None,
    };
    HttpMatch {
        methods: http.methods.iter().map(|m| m.as_str().into()).collect(),
        paths: http.paths.iter().filter_map(path).collect(),
    }
}

fn icmp(icmp: v3::Icmp) -> Option<IcmpMatch> {
    let kind = u8::try_from(icmp.kind?).ok()?;
    Some(IcmpMatch { kind, code: icmp.code.and_then(|c| u8::try_from(c).ok()) })
}

fn entity(entity: &v3::EntityRule, namespace: &str) -> Result<EntityIntent, SelectorError> {
    let Selectors { selector, not_selector, identity } = selectors(entity, namespace)?;
    let service = entity.services.as_ref().map(|service| {
        let own = service.namespace.is_empty();
        let namespace = if own { namespace } else { &service.namespace };
        ObjectName::new(namespace, service.name.as_str())
    });
    Ok(EntityIntent {
        nets: entity.nets.iter().map(v3::Net::net).collect(),
        not_nets: entity.not_nets.iter().map(v3::Net::net).collect(),
        selector: selector.map(Into::into),
        not_selector: not_selector.map(Into::into),
        identity,
        nodes: None,
        service,
        domains: (!entity.domains.is_empty())
            .then(|| entity.domains.iter().filter_map(|text| text.parse().ok()).collect()),
        ports: entity.ports.iter().map(port).collect(),
        not_ports: entity.not_ports.iter().map(port).collect(),
    })
}

/// What the selectors of an entity mean together.
#[derive(Default)]
struct Selectors {
    selector: Option<Selector>,
    not_selector: Option<Selector>,
    /// The part of `selector` that is about namespaces and service accounts.
    identity: Option<Selector>,
}

/// What the selectors of an entity mean together: one that the address has to be selected by, or
/// else one that it must not be selected by. In a policy of a namespace any of them limits the
/// entity to that namespace, unless it selects namespaces itself.
fn selectors(entity: &v3::EntityRule, namespace: &str) -> Result<Selectors, SelectorError> {
    let given = |text: &str| !text.trim().is_empty();
    let accounts = match &entity.service_accounts {
        Some(a) if !a.names.is_empty() || given(&a.selector) => {
            Some(Selector::service_accounts(&a.names, &a.selector)?)
        }
        _ => None,
    };
    let any = given(&entity.selector)
        || given(&entity.not_selector)
        || given(&entity.namespace_selector)
        || accounts.is_some();
    let namespaces = if given(&entity.namespace_selector) {
        Some(Selector::parse(&entity.namespace_selector)?.of_namespaces())
    } else {
        (any && !namespace.is_empty()).then(|| Selector::in_namespace(namespace))
    };
    let own = match given(&entity.selector) {
        true => Some(Selector::parse(&entity.selector)?),
        false => None,
    };
    let identity = both(accounts.clone(), namespaces.clone());
    let positive = both(accounts, both(own, namespaces));
    if !given(&entity.not_selector) {
        return Ok(Selectors { selector: positive, not_selector: None, identity });
    }
    let negative = Selector::parse(&entity.not_selector)?;
    Ok(match positive {
        Some(positive) => {
            let selector = Some(positive.and(&negative.negated()));
            Selectors { selector, not_selector: None, identity }
        }
        None => Selectors { not_selector: Some(negative), ..Selectors::default() },
    })
}

/// The conjunction of what is given.
fn both(one: Option<Selector>, other: Option<Selector>) -> Option<Selector> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.and(&other)),
        (one, other) => one.or(other),
    }
}

fn port(port: &v3::Port) -> PortIntent {
    match port {
        v3::Port::Number(port) => PortIntent::Range(PortRange::single(*port)),
        v3::Port::Range(first, last) => PortIntent::Range(PortRange { first: *first, last: *last }),
        v3::Port::Name(name) => PortIntent::Named(Arc::from(name.as_str())),
    }
}
