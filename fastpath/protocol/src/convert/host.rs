//! Host endpoints and failsafe ports.

use std::net::IpAddr;

use margay_model::{Failsafe, HostEndpoint, HostInterface, PolicyKey, TierPolicies};

use super::limit::dscp;
use crate::bytes::{addresses, each, from_addresses, messages, names, needed, small, strings};
use crate::error::{At, FieldError};
use crate::proto;
use crate::proto::host_endpoint::Interface;

impl From<&HostEndpoint> for proto::HostEndpoint {
    fn from(host: &HostEndpoint) -> Self {
        Self {
            key: host.key.to_string(),
            interface: Some((&host.interface).into()),
            untracked: messages(host.untracked.iter()),
            pre_dnat: messages(host.pre_dnat.iter()),
            forward: messages(host.forward.iter()),
            tiers: messages(host.tiers.iter()),
            profiles: strings(host.profiles.iter()),
            dscp: host.dscp.map(|dscp| dscp.get().into()),
        }
    }
}

impl TryFrom<proto::HostEndpoint> for HostEndpoint {
    type Error = FieldError;

    fn try_from(host: proto::HostEndpoint) -> Result<Self, FieldError> {
        let tiers = |tiers, field| each::<_, TierPolicies>(tiers, field).map(Into::into);
        Ok(Self {
            key: host.key.into(),
            interface: needed(host.interface, "interface")?.try_into().at("interface")?,
            untracked: tiers(host.untracked, "untracked")?,
            pre_dnat: tiers(host.pre_dnat, "pre_dnat")?,
            forward: tiers(host.forward, "forward")?,
            tiers: tiers(host.tiers, "tiers")?,
            profiles: names::<PolicyKey>(host.profiles).into(),
            dscp: host.dscp.map(dscp).transpose().at("dscp")?,
        })
    }
}

impl From<&HostInterface> for Interface {
    fn from(interface: &HostInterface) -> Self {
        match interface {
            HostInterface::All => Self::All(proto::AllInterfaces {}),
            HostInterface::Named(name) => Self::Named(name.to_string()),
            HostInterface::With(list) => {
                Self::With(proto::Addresses { addresses: from_addresses(list) })
            }
        }
    }
}

impl TryFrom<Interface> for HostInterface {
    type Error = FieldError;

    fn try_from(interface: Interface) -> Result<Self, FieldError> {
        Ok(match interface {
            Interface::All(_) => Self::All,
            Interface::Named(name) => Self::Named(name.into()),
            Interface::With(list) => {
                let list: Vec<IpAddr> = addresses(list.addresses, "addresses").at("with")?;
                Self::With(list)
            }
        })
    }
}

impl From<&Failsafe> for proto::Failsafe {
    fn from(failsafe: &Failsafe) -> Self {
        Self {
            protocol: failsafe.protocol.into(),
            port: failsafe.port.into(),
            net: failsafe.net.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Failsafe> for Failsafe {
    type Error = FieldError;

    fn try_from(failsafe: proto::Failsafe) -> Result<Self, FieldError> {
        Ok(Self {
            protocol: small(failsafe.protocol).at("protocol")?,
            port: small(failsafe.port).at("port")?,
            net: failsafe.net.map(TryInto::try_into).transpose().at("net")?,
        })
    }
}
