//! The columns of each kind's table.

use margay_resources::Kind;
use serde_json::Value;

/// A column: its title, where its value stands in the document, and whether only `-o wide` has it.
pub(super) struct Column {
    pub(super) title: &'static str,
    pointer: &'static str,
    wide: bool,
}

const fn column(title: &'static str, pointer: &'static str) -> Column {
    Column { title, pointer, wide: false }
}

const fn wide(title: &'static str, pointer: &'static str) -> Column {
    Column { title, pointer, wide: true }
}

const NAMESPACE: Column = column("NAMESPACE", "/metadata/namespace");
const NAME: Column = column("NAME", "/metadata/name");

/// The columns of a kind after its name.
fn after_name(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy => {
            &const {
                [
                    column("TIER", "/spec/tier"),
                    wide("ORDER", "/spec/order"),
                    wide("SELECTOR", "/spec/selector"),
                ]
            }
        }
        Kind::Tier => {
            &const { [column("ORDER", "/spec/order"), wide("DEFAULT", "/spec/defaultAction")] }
        }
        Kind::IpPool => {
            &const {
                [
                    column("CIDR", "/spec/cidr"),
                    wide("NAT", "/spec/natOutgoing"),
                    wide("IPIPMODE", "/spec/ipipMode"),
                    wide("VXLANMODE", "/spec/vxlanMode"),
                    wide("DISABLED", "/spec/disabled"),
                    wide("BLOCKSIZE", "/spec/blockSize"),
                    column("SELECTOR", "/spec/nodeSelector"),
                ]
            }
        }
        Kind::Node => {
            &const {
                [
                    wide("ASN", "/spec/bgp/asNumber"),
                    wide("IPV4", "/spec/bgp/ipv4Address"),
                    wide("IPV6", "/spec/bgp/ipv6Address"),
                ]
            }
        }
        Kind::WorkloadEndpoint => {
            &const {
                [
                    column("WORKLOAD", "/spec/pod"),
                    column("NODE", "/spec/node"),
                    column("NETWORKS", "/spec/ipNetworks"),
                    column("INTERFACE", "/spec/interfaceName"),
                    wide("PROFILES", "/spec/profiles"),
                ]
            }
        }
        Kind::HostEndpoint => {
            &const {
                [
                    column("NODE", "/spec/node"),
                    wide("INTERFACE", "/spec/interfaceName"),
                    wide("IPS", "/spec/expectedIPs"),
                    wide("PROFILES", "/spec/profiles"),
                ]
            }
        }
        Kind::NetworkSet | Kind::GlobalNetworkSet => &const { [wide("NETS", "/spec/nets")] },
        Kind::Profile => &const { [wide("LABELS", "/spec/labelsToApply")] },
        Kind::IpReservation => &const { [column("CIDRS", "/spec/reservedCIDRs")] },
        Kind::BgpPeer => {
            &const {
                [
                    column("PEERIP", "/spec/peerIP"),
                    column("NODE", "/spec/node"),
                    column("ASN", "/spec/asNumber"),
                ]
            }
        }
        Kind::BgpConfiguration => {
            &const {
                [
                    column("LOGSEVERITY", "/spec/logSeverityScreen"),
                    column("MESHENABLED", "/spec/nodeToNodeMeshEnabled"),
                    column("ASNUMBER", "/spec/asNumber"),
                ]
            }
        }
        Kind::ClusterInformation => {
            &const {
                [
                    column("READY", "/spec/datastoreReady"),
                    wide("VERSION", "/spec/calicoVersion"),
                    wide("TYPE", "/spec/clusterType"),
                    wide("GUID", "/spec/clusterGUID"),
                ]
            }
        }
        Kind::IpamBlock => {
            &const { [column("CIDR", "/spec/cidr"), column("AFFINITY", "/spec/affinity")] }
        }
        Kind::BlockAffinity => {
            &const {
                [
                    column("CIDR", "/spec/cidr"),
                    column("NODE", "/spec/node"),
                    column("STATE", "/spec/state"),
                ]
            }
        }
        Kind::Pod => {
            &const {
                [
                    column("IP", "/status/podIP"),
                    column("NODE", "/spec/nodeName"),
                    wide("PHASE", "/status/phase"),
                ]
            }
        }
        Kind::Service => {
            &const { [column("TYPE", "/spec/type"), column("CLUSTER-IP", "/spec/clusterIP")] }
        }
        _ => &[],
    }
}

/// The columns of a kind's table.
pub(super) fn columns(kind: Kind, want_wide: bool) -> impl Iterator<Item = &'static Column> {
    let namespace = kind.is_namespaced().then_some(&NAMESPACE);
    let rest = after_name(kind).iter().filter(move |column| want_wide || !column.wide);
    namespace.into_iter().chain([&NAME]).chain(rest)
}

// === impl Column ===

impl Column {
    /// The cell of a document.
    pub(super) fn cell(&self, document: &Value) -> String {
        document.pointer(self.pointer).map(text).unwrap_or_default()
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Object(map) => {
            let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
            pairs.join(",")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
