//! Networks and port ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use margay_model::PortRange;

use crate::bytes::{address, from_address, small, v4, v6};
use crate::error::{At, FieldError, Problem};
use crate::proto;

impl From<&IpNet> for proto::Net {
    fn from(net: &IpNet) -> Self {
        Self { address: from_address(net.addr()), length: net.prefix_len().into() }
    }
}

impl TryFrom<proto::Net> for IpNet {
    type Error = FieldError;

    fn try_from(net: proto::Net) -> Result<Self, FieldError> {
        let address = address(&net.address).at("address")?;
        let length = length(net.length, if address.is_ipv4() { 32 } else { 128 })?;
        // The length was checked against the family's: only that could fail.
        IpNet::new(address, length)
            .map_err(|_| Problem::AddressLength(net.address.len()))
            .at("address")
    }
}

/// An address with the length of its subnet as a message.
pub(super) fn from_subnet((address, length): (impl Into<IpAddr>, u8)) -> proto::Net {
    proto::Net { address: from_address(address.into()), length: length.into() }
}

pub(super) fn subnet_v4(net: proto::Net) -> Result<(Ipv4Addr, u8), FieldError> {
    Ok((v4(&net.address).at("address")?, length(net.length, 32)?))
}

pub(super) fn subnet_v6(net: proto::Net) -> Result<(Ipv6Addr, u8), FieldError> {
    Ok((v6(&net.address).at("address")?, length(net.length, 128)?))
}

fn length(value: u32, max: u8) -> Result<u8, FieldError> {
    u8::try_from(value)
        .ok()
        .filter(|length| *length <= max)
        .ok_or(Problem::TooLarge { value: value.into(), max: max.into() })
        .at("length")
}

impl From<&PortRange> for proto::PortRange {
    fn from(range: &PortRange) -> Self {
        Self { first: range.first.into(), last: range.last.into() }
    }
}

impl TryFrom<proto::PortRange> for PortRange {
    type Error = FieldError;

    fn try_from(range: proto::PortRange) -> Result<Self, FieldError> {
        let (first, last) = (small(range.first).at("first")?, small(range.last).at("last")?);
        if last < first {
            return Err(Problem::EmptyRange { first, last }.into());
        }
        Ok(Self { first, last })
    }
}
