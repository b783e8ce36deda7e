//! What people call a kind: its name in any case, singular or plural, or calicoctl's short name.

use margay_resources::Kind;

use crate::failure::Failure;

/// Short names, and the two names that Kubernetes and Calico share. All lower-case.
const SHORT: &[(&str, Kind)] = &[
    ("np", Kind::NetworkPolicy),
    ("gnp", Kind::GlobalNetworkPolicy),
    ("snp", Kind::StagedNetworkPolicy),
    ("sgnp", Kind::StagedGlobalNetworkPolicy),
    ("sknp", Kind::StagedKubernetesNetworkPolicy),
    ("netset", Kind::NetworkSet),
    ("netsets", Kind::NetworkSet),
    ("gns", Kind::GlobalNetworkSet),
    ("globalnetset", Kind::GlobalNetworkSet),
    ("hep", Kind::HostEndpoint),
    ("heps", Kind::HostEndpoint),
    ("wep", Kind::WorkloadEndpoint),
    ("weps", Kind::WorkloadEndpoint),
    ("pool", Kind::IpPool),
    ("ipp", Kind::IpPool),
    ("ipr", Kind::IpReservation),
    ("ipamconfig", Kind::IpamConfiguration),
    ("ipamconfigs", Kind::IpamConfiguration),
    ("bgpconfig", Kind::BgpConfiguration),
    ("bgpconfigs", Kind::BgpConfiguration),
    ("felixconfig", Kind::FelixConfiguration),
    ("felixconfigs", Kind::FelixConfiguration),
    ("kubecontrollersconfig", Kind::KubeControllersConfiguration),
    ("clusterinfo", Kind::ClusterInformation),
    ("clusterinfos", Kind::ClusterInformation),
    ("ns", Kind::Namespace),
    ("po", Kind::Pod),
    ("svc", Kind::Service),
    ("sa", Kind::ServiceAccount),
    ("eps", Kind::EndpointSlice),
    ("cnp", Kind::ClusterNetworkPolicy),
    ("networkpolicy.networking.k8s.io", Kind::KubernetesNetworkPolicy),
    ("networkpolicies.networking.k8s.io", Kind::KubernetesNetworkPolicy),
    ("kubernetesnetworkpolicy", Kind::KubernetesNetworkPolicy),
    ("knp", Kind::KubernetesNetworkPolicy),
    ("kubernetesnode", Kind::KubernetesNode),
    ("kubernetesnodes", Kind::KubernetesNode),
];

/// The kind that is meant. A name that Kubernetes and Calico share means Calico's.
pub(super) fn kind(text: &str) -> Result<Kind, Failure> {
    let wanted = text.to_ascii_lowercase();
    if let Some((_, kind)) = SHORT.iter().find(|(short, _)| *short == wanted) {
        return Ok(*kind);
    }
    let is_meant = |kind: &&Kind| {
        let name = kind.kind().to_ascii_lowercase();
        wanted == name
            || wanted == plural(&name)
            || wanted == format!("{}.{}", plural(&name), kind.group())
    };
    let calico = Kind::ALL.iter().filter(|kind| kind.is_calico());
    let others = Kind::ALL.iter().filter(|kind| !kind.is_calico());
    calico
        .chain(others)
        .find(is_meant)
        .copied()
        .ok_or_else(|| Failure::UnknownKind(text.to_owned()))
}

/// The word that a kind is written by: its name in lower case, unless that means another.
pub(crate) fn word(of: Kind) -> String {
    let name = of.kind().to_ascii_lowercase();
    if kind(&name).is_ok_and(|found| found == of) {
        return name;
    }
    let short = SHORT.iter().find(|(_, kind)| *kind == of);
    short.map_or(name, |(short, _)| (*short).to_owned())
}

/// The plural of a kind's name, as the Kubernetes API writes it.
fn plural(name: &str) -> String {
    match name.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if name.ends_with('s') => format!("{name}es"),
        None => format!("{name}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_but_two_is_found_by_its_name_and_plural_and_all_by_their_word() {
        for each in Kind::ALL {
            let (singular, plural) = (each.kind(), plural(each.kind()));
            let shared = [Kind::KubernetesNode, Kind::KubernetesNetworkPolicy].contains(each);
            for name in [singular.to_owned(), plural.clone(), plural.to_uppercase()] {
                assert_eq!(kind(&name).ok() == Some(*each), !shared, "{name}");
            }
            assert_eq!(kind(&word(*each)).ok(), Some(*each));
        }
    }

    #[test]
    fn what_calicoctl_calls_them_is_understood() {
        for (name, expected) in [
            ("np", Kind::NetworkPolicy),
            ("networkPolicy", Kind::NetworkPolicy),
            ("gnp", Kind::GlobalNetworkPolicy),
            ("ippool", Kind::IpPool),
            ("ipPools", Kind::IpPool),
            ("ippools.projectcalico.org", Kind::IpPool),
            ("nodes", Kind::Node),
            ("bgpPeers", Kind::BgpPeer),
            ("wep", Kind::WorkloadEndpoint),
            ("pods", Kind::Pod),
            ("networkpolicies.networking.k8s.io", Kind::KubernetesNetworkPolicy),
            ("clusterinformation", Kind::ClusterInformation),
        ] {
            assert_eq!(kind(name).ok(), Some(expected), "{name}");
        }
        assert!(
            matches!(kind("deployment"), Err(Failure::UnknownKind(name)) if name == "deployment")
        );
    }
}
