//! The ports that keep a host reachable: no policy of a host endpoint is asked about them.

use std::net::IpAddr;

use ipnet::IpNet;
use margay_compile::Compiler;
use margay_model::EndpointKey;
use margay_resources::conf::FailsafePort;

/// The failsafe ports of a host endpoint's node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Failsafes {
    ingress: Vec<Open>,
    egress: Vec<Open>,
}

/// A protocol and a port, at the destination.
pub(super) type OpenPort = (u8, u16);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Open {
    port: OpenPort,
    /// Where the other end has to be.
    far: Option<IpNet>,
}

// === impl Failsafes ===

impl Failsafes {
    /// Those of an endpoint; `None` for a pod, which has none.
    pub(super) fn of(cluster: &Compiler, endpoint: &EndpointKey) -> Option<Self> {
        // Host endpoints have keys without a namespace.
        let node = cluster.node_of(endpoint).filter(|_| endpoint.starts_with('/'))?;
        let settings = cluster.felix_settings_of(node);
        let open =
            |port: &FailsafePort| Open { port: (port.protocol.number(), port.port), far: port.net };
        Some(Self {
            ingress: settings.failsafe_inbound_host_ports.iter().map(open).collect(),
            egress: settings.failsafe_outbound_host_ports.iter().map(open).collect(),
        })
    }

    /// The networks that they name.
    pub(super) fn nets(&self) -> impl Iterator<Item = IpNet> {
        self.ingress.iter().chain(&self.egress).filter_map(|open| open.far)
    }

    /// What is open from the other end, or to it.
    pub(super) fn open(&self, ingress: bool, far: IpAddr) -> impl Iterator<Item = OpenPort> {
        let all = if ingress { &self.ingress } else { &self.egress };
        let open = all.iter().filter(move |o| o.far.is_none_or(|net| net.contains(&far)));
        open.map(|open| open.port)
    }
}
