//! Which packets are wanted.

use ipnet::IpNet;
use margay_protocol::proto;
use margay_resources::v3::Protocol;

use crate::dataplane::flows::network;
use crate::failure::Failure;

/// Which packets are wanted; all conditions together.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Packets of a pod of this node, as they arrive or as they leave
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pod: Option<String>,
    /// Packets with an address in this network, as they arrive or as they leave
    #[arg(long, value_name = "IP|CIDR", value_parser = network)]
    net: Option<IpNet>,
    /// Protocol, by name (TCP, UDP, …) or number
    #[arg(long)]
    pub(super) protocol: Option<Protocol>,
    /// A source or destination port, as they arrive or as they leave
    #[arg(long)]
    port: Option<u16>,
    /// Packets that come from this interface
    #[arg(long, value_name = "INTERFACE")]
    pub(super) from: Option<String>,
    /// Packets that leave through this interface
    #[arg(long, value_name = "INTERFACE")]
    to: Option<String>,
    /// Dropped packets only
    #[arg(long, conflicts_with = "to")]
    drops: bool,
}

// === impl Filter ===

impl Filter {
    /// The question for at most `limit` packets, 0 for all.
    pub(super) fn request(&self, limit: u64) -> Result<proto::TraceRequest, Failure> {
        let pod = self.pod.as_ref().map(|pod| match pod.split_once('/') {
            Some(_) => pod.clone(),
            None => format!("default/{pod}"),
        });
        Ok(proto::TraceRequest {
            pod: pod.unwrap_or_default(),
            net: self.net.as_ref().map(Into::into),
            protocol: self.protocol.map(|protocol| protocol.number().into()),
            port: self.port.map(Into::into),
            from: self.from.clone().unwrap_or_default(),
            to: self.to.clone().unwrap_or_default(),
            drops: self.drops,
            limit,
        })
    }
}
