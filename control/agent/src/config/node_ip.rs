//! The addresses of the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The node's own addresses with the lengths of their subnets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// IPv4.
    pub v4: Option<(Ipv4Addr, u8)>,
    /// IPv6.
    pub v6: Option<(Ipv6Addr, u8)>,
}

/// The text is no list of a node's addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeIpError {
    /// No address.
    #[error("{0:?} is no address: write A.B.C.D, A.B.C.D/len, or an IPv6 address likewise")]
    Address(String),
    /// A length beyond the family's.
    #[error("{0:?}: the length of the subnet is no number from 0 to {1}")]
    Length(String, u8),
    /// Two of one family.
    #[error("{0:?} is a second address of its family; give one of each at most")]
    Twice(String),
    /// An address that no packet can be sent to from elsewhere.
    #[error("{0} is loopback, multicast or unspecified and cannot be a node's address")]
    Unusable(IpAddr),
}

// === impl NodeAddresses ===

impl FromStr for NodeAddresses {
    type Err = NodeIpError;

    fn from_str(text: &str) -> Result<Self, NodeIpError> {
        let mut addresses = Self::default();
        for part in text.split(',').map(str::trim) {
            let twice = match parse(part)? {
                (IpAddr::V4(address), length) => addresses.v4.replace((address, length)).is_some(),
                (IpAddr::V6(address), length) => addresses.v6.replace((address, length)).is_some(),
            };
            if twice {
                return Err(NodeIpError::Twice(part.to_owned()));
            }
        }
        Ok(addresses)
    }
}

/// An address and the length of its subnet; without one the subnet is the address alone.
fn parse(text: &str) -> Result<(IpAddr, u8), NodeIpError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| NodeIpError::Address(text.to_owned()))?;
    if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(NodeIpError::Unusable(address));
    }
    let max = if address.is_ipv4() { 32 } else { 128 };
    let Some(length) = length else { return Ok((address, max)) };
    let length = length.parse().ok().filter(|length| *length <= max);
    Ok((address, length.ok_or_else(|| NodeIpError::Length(text.to_owned(), max))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_with_and_without_lengths_are_read() {
        let v4 = Ipv4Addr::new(192, 168, 1, 2);
        let v6: Ipv6Addr = "fd00::2".parse().unwrap();
        for (text, expected) in [
            ("192.168.1.2", NodeAddresses { v4: Some((v4, 32)), v6: None }),
            ("192.168.1.2/24", NodeAddresses { v4: Some((v4, 24)), v6: None }),
            ("fd00::2/64", NodeAddresses { v4: None, v6: Some((v6, 64)) }),
            ("192.168.1.2/24,fd00::2", NodeAddresses { v4: Some((v4, 24)), v6: Some((v6, 128)) }),
            ("fd00::2/64, 192.168.1.2", NodeAddresses { v4: Some((v4, 32)), v6: Some((v6, 64)) }),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_node_is_refused() {
        for bad in [
            "",
            "x",
            "10.0.0.1/33",
            "10.0.0.1/",
            "10.0.0.1/-1",
            "fd00::/129",
            "127.0.0.1",
            "::",
            "224.0.0.1",
            "10.0.0.1,10.0.0.2",
            "10.0.0.1,",
            "10.0.0.1/24/24",
        ] {
            assert!(bad.parse::<NodeAddresses>().is_err(), "{bad:?}");
        }
    }
}
