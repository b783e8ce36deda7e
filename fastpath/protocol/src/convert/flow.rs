//! Connections, as they are shown, and the filter that chooses them.

use ipnet::IpNet;
use margay_model::flow::{FlowCount, FlowReport, FlowTuple, FlowView, Judgement};
use margay_model::{DropReason, PolicyKey};

use crate::bytes::{from_address, small};
use crate::error::{At, FieldError};
use crate::proto;

impl From<&FlowView> for proto::Flow {
    fn from(flow: &FlowView) -> Self {
        let [passed_egress, passed_ingress] = flow.passed.each_ref().map(Option::as_ref);
        Self {
            orig: Some((&flow.orig).into()),
            reply: Some((&flow.reply).into()),
            orig_count: Some((&flow.orig_count).into()),
            reply_count: Some((&flow.reply_count).into()),
            state: flow.state.to_owned(),
            idle_ms: flow.idle_ms,
            allowed: flow.allowed,
            denied: flow.denied.map(DropReason::name).unwrap_or_default().to_owned(),
            shortcut: flow.shortcut,
            egress: flow.egress.as_ref().map(from_hit),
            ingress: flow.ingress.as_ref().map(from_hit),
            passed_egress: passed_egress.map(from_hit),
            passed_ingress: passed_ingress.map(from_hit),
        }
    }
}

impl From<&FlowTuple> for proto::FlowTuple {
    fn from(tuple: &FlowTuple) -> Self {
        Self {
            src: from_address(tuple.src),
            dst: from_address(tuple.dst),
            protocol: tuple.protocol.into(),
            src_port: tuple.src_port.into(),
            dst_port: tuple.dst_port.into(),
        }
    }
}

impl From<&FlowCount> for proto::FlowCount {
    fn from(count: &FlowCount) -> Self {
        Self { packets: count.packets, bytes: count.bytes }
    }
}

impl From<&FlowReport> for proto::FlowReport {
    fn from(report: &FlowReport) -> Self {
        let [src, dst] = report.endpoints.clone().map(|key| key.unwrap_or_default().to_string());
        let [egress, ingress] = report.enforced.each_ref().map(from_judgement);
        let [egress_pending, ingress_pending] = report.pending.each_ref().map(from_judgement);
        Self {
            flow: Some((&report.flow).into()),
            orig_more: Some((&report.more[0]).into()),
            reply_more: Some((&report.more[1]).into()),
            begun: report.begun,
            ended: report.ended,
            src,
            dst,
            egress,
            ingress,
            egress_pending,
            ingress_pending,
        }
    }
}

fn from_judgement(judgement: &Option<Judgement>) -> Option<proto::Judgement> {
    judgement.as_ref().map(|judgement| proto::Judgement {
        allowed: judgement.allowed,
        policy: judgement.policy.as_deref().unwrap_or_default().to_owned(),
        tier: judgement.tier.as_deref().unwrap_or_default().to_owned(),
        rule: judgement.rule,
    })
}

fn from_hit((policy, rule): &(PolicyKey, u32)) -> proto::RuleHit {
    proto::RuleHit { policy: policy.to_string(), rule: *rule }
}

/// Which connections are wanted; see the message of the same name for what its fields mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// An address of either direction lies in this network.
    pub net: Option<IpNet>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// A port of either direction.
    pub port: Option<u16>,
    /// Allowed or denied.
    pub allowed: Option<bool>,
    /// At most so many.
    pub limit: Option<u32>,
}

// === impl FlowFilter ===

impl FlowFilter {
    /// Whether the connection is one of those that are wanted; the limit is the caller's.
    pub fn matches(&self, flow: &FlowView) -> bool {
        let tuples = [&flow.orig, &flow.reply];
        self.allowed.is_none_or(|allowed| flow.allowed == allowed)
            && self.protocol.is_none_or(|protocol| flow.orig.protocol == protocol)
            && self
                .port
                .is_none_or(|port| tuples.iter().any(|t| t.src_port == port || t.dst_port == port))
            && self.net.is_none_or(|net| {
                tuples.iter().any(|t| net.contains(&t.src) || net.contains(&t.dst))
            })
    }
}

impl From<&FlowFilter> for proto::FlowFilter {
    fn from(filter: &FlowFilter) -> Self {
        Self {
            net: filter.net.as_ref().map(Into::into),
            protocol: filter.protocol.map(Into::into),
            port: filter.port.map(Into::into),
            allowed: filter.allowed,
            limit: filter.limit.unwrap_or(0),
        }
    }
}

impl TryFrom<proto::FlowFilter> for FlowFilter {
    type Error = FieldError;

    fn try_from(filter: proto::FlowFilter) -> Result<Self, FieldError> {
        Ok(Self {
            net: filter.net.map(TryInto::try_into).transpose().at("net")?,
            protocol: filter.protocol.map(small).transpose().at("protocol")?,
            port: filter.port.map(small).transpose().at("port")?,
            allowed: filter.allowed,
            limit: (filter.limit != 0).then_some(filter.limit),
        })
    }
}
