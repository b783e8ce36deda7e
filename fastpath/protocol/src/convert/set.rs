//! Members of address sets.

use margay_model::Member;

use crate::bytes::{address, from_address, needed, small};
use crate::error::{At, FieldError};
use crate::proto;

impl From<&Member> for proto::Member {
    fn from(member: &Member) -> Self {
        Self {
            member: Some(match member {
                Member::Net(net) => proto::member::Member::Net(net.into()),
                Member::AddrPort { addr, protocol, port } => {
                    proto::member::Member::AddrPort(proto::AddrPort {
                        address: from_address(*addr),
                        protocol: (*protocol).into(),
                        port: (*port).into(),
                    })
                }
            }),
        }
    }
}

impl TryFrom<proto::Member> for Member {
    type Error = FieldError;

    fn try_from(member: proto::Member) -> Result<Self, FieldError> {
        match needed(member.member, "member")? {
            proto::member::Member::Net(net) => Ok(Self::Net(net.try_into().at("net")?)),
            proto::member::Member::AddrPort(addr_port) => addr_port.try_into().at("addr_port"),
        }
    }
}

impl TryFrom<proto::AddrPort> for Member {
    type Error = FieldError;

    fn try_from(member: proto::AddrPort) -> Result<Self, FieldError> {
        Ok(Self::AddrPort {
            addr: address(&member.address).at("address")?,
            protocol: small(member.protocol).at("protocol")?,
            port: small(member.port).at("port")?,
        })
    }
}
