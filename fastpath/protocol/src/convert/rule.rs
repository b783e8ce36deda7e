//! Rules.

use margay_model::{Action, EntityMatch, IcmpMatch, IpVersion, Rule};

use crate::bytes::{each, messages, names, small, strings};
use crate::error::{At, FieldError, Problem};
use crate::proto;

impl From<Action> for proto::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Deny => Self::Deny,
            Action::Pass => Self::Pass,
            Action::Log => Self::Log,
        }
    }
}

fn action(value: i32) -> Result<Action, Problem> {
    match proto::Action::try_from(value) {
        Ok(proto::Action::Allow) => Ok(Action::Allow),
        Ok(proto::Action::Deny) => Ok(Action::Deny),
        Ok(proto::Action::Pass) => Ok(Action::Pass),
        Ok(proto::Action::Log) => Ok(Action::Log),
        Ok(proto::Action::Unspecified) | Err(_) => Err(Problem::UnknownValue(value)),
    }
}

fn from_version(version: Option<IpVersion>) -> proto::IpVersion {
    match version {
        None => proto::IpVersion::Unspecified,
        Some(IpVersion::V4) => proto::IpVersion::V4,
        Some(IpVersion::V6) => proto::IpVersion::V6,
    }
}

fn version(value: i32) -> Result<Option<IpVersion>, Problem> {
    match proto::IpVersion::try_from(value) {
        Ok(proto::IpVersion::Unspecified) => Ok(None),
        Ok(proto::IpVersion::V4) => Ok(Some(IpVersion::V4)),
        Ok(proto::IpVersion::V6) => Ok(Some(IpVersion::V6)),
        Err(_) => Err(Problem::UnknownValue(value)),
    }
}

impl From<&IcmpMatch> for proto::IcmpMatch {
    fn from(icmp: &IcmpMatch) -> Self {
        Self { r#type: icmp.kind.into(), code: icmp.code.map(Into::into) }
    }
}

impl TryFrom<proto::IcmpMatch> for IcmpMatch {
    type Error = FieldError;

    fn try_from(icmp: proto::IcmpMatch) -> Result<Self, FieldError> {
        Ok(Self {
            kind: small(icmp.r#type).at("type")?,
            code: icmp.code.map(small).transpose().at("code")?,
        })
    }
}

impl From<&EntityMatch> for proto::EntityMatch {
    fn from(entity: &EntityMatch) -> Self {
        Self {
            nets: messages(&entity.nets),
            not_nets: messages(&entity.not_nets),
            sets: strings(&entity.sets),
            learned: entity.learned,
            not_sets: strings(&entity.not_sets),
            addr_port_sets: strings(&entity.addr_port_sets),
            ports: messages(&entity.ports),
            named_ports: strings(&entity.named_ports),
            not_ports: messages(&entity.not_ports),
            not_named_ports: strings(&entity.not_named_ports),
        }
    }
}

impl TryFrom<proto::EntityMatch> for EntityMatch {
    type Error = FieldError;

    fn try_from(entity: proto::EntityMatch) -> Result<Self, FieldError> {
        Ok(Self {
            nets: each(entity.nets, "nets")?,
            not_nets: each(entity.not_nets, "not_nets")?,
            sets: names(entity.sets),
            learned: entity.learned,
            not_sets: names(entity.not_sets),
            addr_port_sets: names(entity.addr_port_sets),
            ports: each(entity.ports, "ports")?,
            named_ports: names(entity.named_ports),
            not_ports: each(entity.not_ports, "not_ports")?,
            not_named_ports: names(entity.not_named_ports),
        })
    }
}

impl From<&Rule> for proto::Rule {
    fn from(rule: &Rule) -> Self {
        Self {
            action: proto::Action::from(rule.action).into(),
            ip_version: from_version(rule.ip_version).into(),
            protocol: rule.protocol.map(Into::into),
            not_protocol: rule.not_protocol.map(Into::into),
            icmp: rule.icmp.as_ref().map(Into::into),
            not_icmp: rule.not_icmp.as_ref().map(Into::into),
            src: from_entity(&rule.src),
            dst: from_entity(&rule.dst),
            number: rule.number,
        }
    }
}

/// Most rules have no condition on one end: that is no message at all.
fn from_entity(entity: &EntityMatch) -> Option<proto::EntityMatch> {
    (*entity != EntityMatch::default()).then(|| entity.into())
}

impl TryFrom<proto::Rule> for Rule {
    type Error = FieldError;

    fn try_from(rule: proto::Rule) -> Result<Self, FieldError> {
        Ok(Self {
            number: rule.number,
            action: action(rule.action).at("action")?,
            ip_version: version(rule.ip_version).at("ip_version")?,
            protocol: rule.protocol.map(small).transpose().at("protocol")?,
            not_protocol: rule.not_protocol.map(small).transpose().at("not_protocol")?,
            icmp: rule.icmp.map(TryInto::try_into).transpose().at("icmp")?,
            not_icmp: rule.not_icmp.map(TryInto::try_into).transpose().at("not_icmp")?,
            src: rule.src.unwrap_or_default().try_into().at("src")?,
            dst: rule.dst.unwrap_or_default().try_into().at("dst")?,
        })
    }
}
