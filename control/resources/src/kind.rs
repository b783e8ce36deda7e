//! The kinds of objects.

use std::fmt;

/// Declares the kinds: name, group and version, kind as documents write it, scope.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $api:expr, $text:literal, $scope:ident;)+) => {
        /// A kind of object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $kind,)+ }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Group and version, kind, scope.
            const fn row(self) -> (&'static str, &'static str, Scope) {
                match self { $(Self::$kind => ($api, $text, Scope::$scope),)+ }
            }
        }
    };
}

/// Whether objects of a kind live in namespaces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Namespaced,
    Cluster,
}

const CALICO: &str = "projectcalico.org/v3";
/// The group and version under which the Kubernetes API stores Calico's objects.
const CALICO_STORED: &str = "crd.projectcalico.org/v1";
const NETWORKING: &str = "networking.k8s.io/v1";

kinds! {
    /// Kubernetes namespace.
    Namespace, "v1", "Namespace", Cluster;
    /// Kubernetes node.
    KubernetesNode, "v1", "Node", Cluster;
    /// Pod.
    Pod, "v1", "Pod", Namespaced;
    /// Service.
    Service, "v1", "Service", Namespaced;
    /// Backends of a service.
    EndpointSlice, "discovery.k8s.io/v1", "EndpointSlice", Namespaced;
    /// Kubernetes network policy.
    KubernetesNetworkPolicy, NETWORKING, "NetworkPolicy", Namespaced;
    /// Service account.
    ServiceAccount, "v1", "ServiceAccount", Namespaced;
    /// Range of service addresses.
    ServiceCidr, NETWORKING, "ServiceCIDR", Cluster;
    /// Kubernetes policy of the cluster.
    ClusterNetworkPolicy, "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", Cluster;
    /// Policy of a namespace.
    NetworkPolicy, CALICO, "NetworkPolicy", Namespaced;
    /// Policy of the cluster.
    GlobalNetworkPolicy, CALICO, "GlobalNetworkPolicy", Cluster;
    /// Policy of a namespace that is not in force.
    StagedNetworkPolicy, CALICO, "StagedNetworkPolicy", Namespaced;
    /// Policy of the cluster that is not in force.
    StagedGlobalNetworkPolicy, CALICO, "StagedGlobalNetworkPolicy", Cluster;
    /// Kubernetes policy that is not in force.
    StagedKubernetesNetworkPolicy, CALICO, "StagedKubernetesNetworkPolicy", Namespaced;
    /// Group of policies.
    Tier, CALICO, "Tier", Cluster;
    /// Addresses with labels, in a namespace.
    NetworkSet, CALICO, "NetworkSet", Namespaced;
    /// Addresses with labels.
    GlobalNetworkSet, CALICO, "GlobalNetworkSet", Cluster;
    /// Interface of a host.
    HostEndpoint, CALICO, "HostEndpoint", Cluster;
    /// Rules and labels that endpoints share.
    Profile, CALICO, "Profile", Cluster;
    /// Pool of addresses.
    IpPool, CALICO, "IPPool", Cluster;
    /// Addresses that are not assigned automatically.
    IpReservation, CALICO, "IPReservation", Cluster;
    /// How addresses are assigned.
    IpamConfiguration, CALICO, "IPAMConfiguration", Cluster;
    /// Settings of BGP.
    BgpConfiguration, CALICO, "BGPConfiguration", Cluster;
    /// Session with a router.
    BgpPeer, CALICO, "BGPPeer", Cluster;
    /// What is imported and exported.
    BgpFilter, CALICO, "BGPFilter", Cluster;
    /// Report on a node.
    CalicoNodeStatus, CALICO, "CalicoNodeStatus", Cluster;
    /// Settings of the dataplane.
    FelixConfiguration, CALICO, "FelixConfiguration", Cluster;
    /// Settings of the controllers.
    KubeControllersConfiguration, CALICO, "KubeControllersConfiguration", Cluster;
    /// State of the cluster.
    ClusterInformation, CALICO, "ClusterInformation", Cluster;
    /// What the network knows of a node.
    Node, CALICO, "Node", Cluster;
    /// Interface of a workload.
    WorkloadEndpoint, CALICO, "WorkloadEndpoint", Namespaced;
    /// Block of addresses.
    IpamBlock, CALICO, "IPAMBlock", Cluster;
    /// Which node a block belongs to.
    BlockAffinity, CALICO, "BlockAffinity", Cluster;
    /// Addresses of one owner.
    IpamHandle, CALICO, "IPAMHandle", Cluster;
}

/// How an `apiVersion` and a `kind` were understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// A kind of ours.
    Kind(Kind),
    /// A kind of ours in a version that is not; the version that is.
    OtherVersion(&'static str),
    /// A kind that Calico does not have.
    UnknownCalico,
    /// Something else, which is of no concern.
    Foreign,
}

// === impl Kind ===

impl Kind {
    /// Finds a kind. Calico's kinds have two groups, and `IPAMConfig` is short for
    /// `IPAMConfiguration`.
    pub fn recognise(api_version: &str, kind: &str) -> Recognised {
        let kind = if kind == "IPAMConfig" { "IPAMConfiguration" } else { kind };
        let api_version = if api_version == CALICO_STORED { CALICO } else { api_version };
        let of_kind = || Self::ALL.iter().filter(|each| each.kind() == kind);
        if let Some(found) = of_kind().find(|each| each.api_version() == api_version) {
            return Recognised::Kind(*found);
        }
        let group = group_of(api_version);
        let other = of_kind().find(|each| group_of(each.api_version()) == group);
        match other {
            Some(other) => Recognised::OtherVersion(other.api_version()),
            None if group == "projectcalico.org" || group == "crd.projectcalico.org" => {
                Recognised::UnknownCalico
            }
            None => Recognised::Foreign,
        }
    }

    /// Group and version, as documents write them.
    pub fn api_version(self) -> &'static str {
        self.row().0
    }

    /// The group, empty for Kubernetes' core.
    pub fn group(self) -> &'static str {
        group_of(self.api_version())
    }

    /// The kind, as documents write it. Not unique: Kubernetes and Calico share two.
    pub fn kind(self) -> &'static str {
        self.row().1
    }

    /// Whether objects of the kind live in namespaces.
    pub fn is_namespaced(self) -> bool {
        self.row().2 == Scope::Namespaced
    }

    /// Whether machines write the objects of the kind.
    pub fn is_written_by_machines(self) -> bool {
        use Kind::{BlockAffinity, IpamBlock, IpamHandle, Node, WorkloadEndpoint};
        matches!(self, Node | WorkloadEndpoint | IpamBlock | BlockAffinity | IpamHandle)
    }

    /// Whether the kind is Calico's.
    pub fn is_calico(self) -> bool {
        self.api_version() == CALICO
    }
}

/// The group in an `apiVersion`; empty for Kubernetes' core.
fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_recognised_by_its_own_names() {
        for kind in Kind::ALL {
            let found = Kind::recognise(kind.api_version(), kind.kind());
            assert_eq!(found, Recognised::Kind(*kind));
            if kind.is_calico() {
                let found = Kind::recognise("crd.projectcalico.org/v1", kind.kind());
                assert_eq!(found, Recognised::Kind(*kind));
            }
        }
    }

    #[test]
    fn kinds_of_the_same_name_are_told_apart_by_group() {
        let table = [
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                Recognised::Kind(Kind::KubernetesNetworkPolicy),
            ),
            ("projectcalico.org/v3", "NetworkPolicy", Recognised::Kind(Kind::NetworkPolicy)),
            ("v1", "Node", Recognised::Kind(Kind::KubernetesNode)),
            ("crd.projectcalico.org/v1", "IPAMConfig", Recognised::Kind(Kind::IpamConfiguration)),
            (
                "networking.k8s.io/v1beta1",
                "NetworkPolicy",
                Recognised::OtherVersion("networking.k8s.io/v1"),
            ),
            ("projectcalico.org/v1", "Tier", Recognised::OtherVersion("projectcalico.org/v3")),
            ("projectcalico.org/v3", "Teir", Recognised::UnknownCalico),
            ("apps/v1", "Deployment", Recognised::Foreign),
            ("v1", "ConfigMap", Recognised::Foreign),
            ("networking.k8s.io/v1", "Ingress", Recognised::Foreign),
            ("", "", Recognised::Foreign),
        ];
        for (api_version, kind, expected) in table {
            assert_eq!(Kind::recognise(api_version, kind), expected, "{api_version} {kind}");
        }
    }
}
