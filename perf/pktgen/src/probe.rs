//! What every packet carries behind its transport header, in network byte order:
//!
//! ```text
//!  0      2          6           10                 18
//!  | 4d67 | flow     | number    | left at (ns)     |
//! ```
//!
//! Numbers count from 0 in each flow and wrap at 2³². The time is that of CLOCK_MONOTONIC, so that
//! it means something to every process of the machine.

use margay_wire::{
    at,
    ethernet::{self, Ethernet, ethertype},
    ipv4::{self, Ipv4},
    ipv6, protocol,
    transport::TCP_LEN,
    vxlan,
};
use rustix::time::{ClockId, clock_gettime};

use crate::outer::VXLAN_PORT;

/// Bytes of a probe.
pub(crate) const LEN: usize = 18;

const MAGIC: [u8; 2] = *b"Mg";

/// One packet's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) flow: u32,
    pub(crate) number: u32,
    /// When it left, in nanoseconds.
    pub(crate) left: u64,
}

// === impl Probe ===

impl Probe {
    pub(crate) fn emit(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2..6].copy_from_slice(&self.flow.to_be_bytes());
        bytes[6..10].copy_from_slice(&self.number.to_be_bytes());
        bytes[10..].copy_from_slice(&self.left.to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        (at::<2>(bytes, 0)? == &MAGIC).then_some(())?;
        Some(Self {
            flow: u32::from_be_bytes(*at(bytes, 2)?),
            number: u32::from_be_bytes(*at(bytes, 6)?),
            left: u64::from_be_bytes(*at(bytes, 10)?),
        })
    }

    /// The probe in a frame, also if it is inside IP-in-IP or VXLAN.
    pub(crate) fn find(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ethernet::LEN..)?;
        match Ethernet(at(frame, 0)?).ethertype() {
            ethertype::IPV4 => Self::find_in_ipv4(ip),
            ethertype::IPV6 => {
                let payload = ipv6::payload(ip)?;
                Self::find_in_payload(payload.protocol, ip.get(payload.offset..)?)
            }
            _ => None,
        }
    }

    fn find_in_ipv4(ip: &[u8]) -> Option<Self> {
        let header = Ipv4(at(ip, 0)?);
        Self::find_in_payload(header.protocol(), ip.get(header.header_len().max(ipv4::LEN)..)?)
    }

    /// Each tunnel takes some bytes off, so that this ends.
    fn find_in_payload(protocol: u8, payload: &[u8]) -> Option<Self> {
        match protocol {
            protocol::TCP => Self::parse(payload.get(TCP_LEN..)?),
            protocol::UDP if u16::from_be_bytes(*at(payload, 2)?) == VXLAN_PORT => {
                Self::find(payload.get(vxlan::UDP_LEN + vxlan::LEN..)?)
            }
            protocol::UDP => Self::parse(payload.get(vxlan::UDP_LEN..)?),
            protocol::IPIP => Self::find_in_ipv4(payload),
            _ => None,
        }
    }
}

/// The time that probes are stamped with.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Probe = Probe { flow: 7, number: 0x0102_0304, left: 99 };

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = margay_wire::ipv4::Repr {
            traffic_class: 0,
            total_len: (20 + payload.len()) as u16,
            identification: 0,
            dont_fragment: true,
            ttl: 64,
            protocol,
            src: [10, 0, 0, 1],
            dst: [10, 0, 0, 2],
        };
        [&header.emit()[..], payload].concat()
    }

    fn ethernet(ip: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &[8, 0], ip].concat()
    }

    fn udp() -> Vec<u8> {
        ipv4(17, &[&[0x13, 0x88, 0x13, 0x88, 0, 26, 0, 0][..], &PROBE.emit()].concat())
    }

    #[test]
    fn a_probe_is_found_in_the_open_and_in_tunnels() {
        assert_eq!(Probe::find(&ethernet(&udp())), Some(PROBE));
        assert_eq!(Probe::find(&ethernet(&ipv4(4, &udp()))), Some(PROBE), "IP-in-IP");
        let vxlan = [&vxlan::emit(50_000, VXLAN_PORT, 0, 4096)[..], &ethernet(&udp())].concat();
        assert_eq!(Probe::find(&ethernet(&ipv4(17, &vxlan))), Some(PROBE), "VXLAN");
    }

    #[test]
    fn what_is_cut_short_or_strange_is_no_probe() {
        let frame = ethernet(&udp());
        for len in 0..frame.len() {
            assert_eq!(Probe::find(&frame[..len]), None, "{len}");
        }
        let without_length = [&[2; 12][..], &[8, 0, 0x40], &[0; 8], &[protocol::IPIP], &[0; 30]];
        assert_eq!(Probe::find(&without_length.concat()), None, "a header in itself");
        let mut other = frame;
        other[14 + 20 + 8] ^= 1;
        assert_eq!(Probe::find(&other), None);
    }
}
