//! What records and handles are called. All of it as Calico does, so that its tools find them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// Who a block belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A node.
    Host(String),
    /// Nobody's node, e.g. `load-balancer`.
    Virtual(String),
}

// === impl Owner ===

impl Owner {
    /// A node.
    pub fn host(name: &str) -> Self {
        Self::Host(name.to_owned())
    }

    /// Reads the affinity of a block: `host:NODE` or `virtual:NAME`.
    pub fn of_affinity(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("host", name) => Some(Self::Host(name.to_owned())),
            ("virtual", name) => Some(Self::Virtual(name.to_owned())),
            _ => None,
        }
    }

    /// Type and name, as a BlockAffinity has them. A missing type is a host's.
    pub fn of_parts(kind: &str, name: &str) -> Self {
        match kind {
            "virtual" => Self::Virtual(name.to_owned()),
            _ => Self::Host(name.to_owned()),
        }
    }

    /// `host` or `virtual`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Virtual(_) => "virtual",
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Self::Host(name) | Self::Virtual(name) => name,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.name())
    }
}

impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Name of an IPAMBlock: the network with `.`, `:` and `/` replaced by `-`.
pub fn block(cidr: IpNet) -> String {
    cidr.to_string().replace(['.', ':', '/'], "-")
}

/// Name of a BlockAffinity.
pub fn affinity(owner: &Owner, cidr: IpNet) -> String {
    match owner {
        Owner::Host(name) => format!("{}-{}", name.to_lowercase(), block(cidr)),
        // Apart from the host of the same name.
        Owner::Virtual(name) => format!("virtual-{}-{}", name.to_lowercase(), block(cidr)),
    }
}

/// Name of an IPAMHandle.
pub fn handle(handle_id: &str) -> String {
    handle_id.to_lowercase()
}

/// Handle of a container's addresses in a network.
pub fn container_handle(network: &str, container_id: &str) -> String {
    format!("{network}.{container_id}")
}

/// How many addresses a network has, as far as 128 bits can say.
pub(crate) fn size(net: IpNet) -> u128 {
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    1_u128.checked_shl(bits).unwrap_or(u128::MAX)
}

/// The address at `offset` from the beginning of the network, which must be inside of it.
pub(crate) fn address_at(net: IpNet, offset: u128) -> IpAddr {
    match net.network() {
        IpAddr::V4(first) => {
            // An offset inside an IPv4 network has at most 32 bits.
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            IpAddr::V4(first.to_bits().wrapping_add(offset).into())
        }
        IpAddr::V6(first) => IpAddr::V6(first.to_bits().wrapping_add(offset).into()),
    }
}

/// The distance of an address from the beginning of the network, if it is in it.
pub(crate) fn offset_of(net: IpNet, address: IpAddr) -> Option<u128> {
    match (net.network(), address) {
        _ if !net.contains(&address) => None,
        (IpAddr::V4(first), IpAddr::V4(it)) => Some((it.to_bits() - first.to_bits()).into()),
        (IpAddr::V6(first), IpAddr::V6(it)) => Some(it.to_bits() - first.to_bits()),
        _ => None,
    }
}

/// The network of `length` bits that an address lies in.
pub(crate) fn net_of(address: IpAddr, length: u8) -> Option<IpNet> {
    IpNet::new(address, length).ok().map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_called_as_calico_calls_them() {
        let (v4, v6) = ("10.0.1.64/26".parse().unwrap(), "fd00::40/122".parse().unwrap());
        assert_eq!(block(v4), "10-0-1-64-26");
        assert_eq!(block(v6), "fd00--40-122");
        assert_eq!(affinity(&Owner::host("Node-1"), v4), "node-1-10-0-1-64-26");
        assert_eq!(container_handle("k8s-pod-network", "abc"), "k8s-pod-network.abc");
    }

    #[test]
    fn offsets_and_addresses_are_inverse() {
        for net in ["10.0.0.0/26", "0.0.0.0/0", "fd00::/122", "::/0"] {
            let net: IpNet = net.parse().unwrap();
            for offset in [0, 1, 63] {
                assert_eq!(offset_of(net, address_at(net, offset)), Some(offset));
            }
        }
        assert_eq!(offset_of("10.0.0.0/26".parse().unwrap(), "10.0.0.64".parse().unwrap()), None);
        assert_eq!(size("::/0".parse().unwrap()), u128::MAX);
    }
}
