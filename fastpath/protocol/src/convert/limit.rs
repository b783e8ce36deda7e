//! Limits of workload endpoints.

use margay_model::{Bandwidth, Dscp, Limits, PacketRate, Peak, Usage};

use crate::error::{At, FieldError, Problem};
use crate::proto;

impl From<&Limits> for proto::Limits {
    fn from(limits: &Limits) -> Self {
        Self {
            ingress: Some(limits.ingress.into()),
            egress: Some(limits.egress.into()),
            dscp: limits.dscp.map(|dscp| dscp.get().into()),
        }
    }
}

impl TryFrom<proto::Limits> for Limits {
    type Error = FieldError;

    fn try_from(limits: proto::Limits) -> Result<Self, FieldError> {
        let usage = |usage: Option<proto::Usage>| usage.map(Into::into).unwrap_or_default();
        Ok(Self {
            ingress: usage(limits.ingress),
            egress: usage(limits.egress),
            dscp: limits.dscp.map(dscp).transpose().at("dscp")?,
        })
    }
}

pub(super) fn dscp(number: u32) -> Result<Dscp, Problem> {
    let too_large = Problem::TooLarge { value: number.into(), max: Dscp::MAX.into() };
    u8::try_from(number).ok().and_then(Dscp::new).ok_or(too_large)
}

impl From<Usage> for proto::Usage {
    fn from(usage: Usage) -> Self {
        Self {
            bandwidth: usage.bandwidth.map(Into::into),
            packets: usage
                .packets
                .map(|PacketRate { rate, burst }| proto::PacketRate { rate, burst }),
            connections: usage.connections,
        }
    }
}

impl From<proto::Usage> for Usage {
    fn from(usage: proto::Usage) -> Self {
        Self {
            bandwidth: usage.bandwidth.map(Into::into),
            packets: usage
                .packets
                .map(|proto::PacketRate { rate, burst }| PacketRate { rate, burst }),
            connections: usage.connections,
        }
    }
}

impl From<Bandwidth> for proto::Bandwidth {
    fn from(bandwidth: Bandwidth) -> Self {
        let Bandwidth { rate, burst, peak } = bandwidth;
        Self { rate, burst, peak: peak.map(|Peak { rate, burst }| proto::Peak { rate, burst }) }
    }
}

impl From<proto::Bandwidth> for Bandwidth {
    fn from(bandwidth: proto::Bandwidth) -> Self {
        let proto::Bandwidth { rate, burst, peak } = bandwidth;
        Self { rate, burst, peak: peak.map(|proto::Peak { rate, burst }| Peak { rate, burst }) }
    }
}
