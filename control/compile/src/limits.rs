//! What a pod may use of the network, as its node's dataplane is told.

use margay_model::{Bandwidth, Dscp, Limits, PacketRate, Peak, Usage};
use margay_resources::qos::{DEFAULT_BURST, DEFAULT_PACKET_BURST};
use margay_resources::v3::{self, QosControls, QosDirection};

/// Length of an Ethernet header, which the kernel's `tbf` counts.
const ETHERNET: u64 = 14;

/// The limits of an interface whose packets have `mtu` bytes at most.
pub(crate) fn limits(controls: &QosControls, mtu: u16) -> Limits {
    let frame = u64::from(mtu) + ETHERNET;
    let usage = |of: QosDirection| Usage {
        bandwidth: bandwidth((of.bandwidth, of.burst), (of.peakrate, of.minburst.max(frame))),
        packets: packets(of.packet_rate, of.packet_burst),
        connections: connections(of.max_connections),
    };
    Limits {
        ingress: usage(controls.ingress()),
        egress: usage(controls.egress()),
        dscp: dscp(controls.dscp.as_ref()),
    }
}

/// A code point, if it is one.
pub(crate) fn dscp(said: Option<&v3::Dscp>) -> Option<Dscp> {
    said.and_then(v3::Dscp::number).and_then(Dscp::new)
}

fn bandwidth((rate, burst): (u64, u64), (peakrate, minburst): (u64, u64)) -> Option<Bandwidth> {
    let peak = Peak { rate: peakrate, burst: small(minburst) };
    (rate != 0).then(|| Bandwidth {
        rate,
        burst: if burst == 0 { DEFAULT_BURST } else { burst },
        peak: (peakrate != 0).then_some(peak),
    })
}

fn packets(rate: u64, burst: u64) -> Option<PacketRate> {
    let burst = if burst == 0 { DEFAULT_PACKET_BURST } else { burst };
    (rate != 0).then(|| PacketRate { rate: small(rate), burst: small(burst) })
}

fn connections(most: u64) -> Option<u32> {
    (most != 0).then(|| small(most))
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_calicos_default() {
        assert!(limits(&QosControls::default(), 1450).is_none());
        let controls = QosControls {
            ingress_bandwidth: 1000,
            ingress_peakrate: 2000,
            egress_packet_rate: 10,
            egress_max_connections: 7,
            ..QosControls::default()
        };
        let bandwidth =
            Bandwidth { rate: 1000, burst: 4 << 30, peak: Some(Peak { rate: 2000, burst: 1464 }) };
        let packets = PacketRate { rate: 10, burst: 5 };
        let expected = Limits {
            ingress: Usage { bandwidth: Some(bandwidth), ..Usage::default() },
            egress: Usage { packets: Some(packets), connections: Some(7), ..Usage::default() },
            dscp: None,
        };
        assert_eq!(limits(&controls, 1450), expected);
    }
}
