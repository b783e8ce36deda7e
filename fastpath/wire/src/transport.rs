//! What the packet path needs of TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260) and ICMP
//! (RFC 792, 4443): ports, TCP's flags, and where the checksum stands.

use crate::protocol;

/// TCP flags.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
    const PSH: u8 = 0x08;
    const URG: u8 = 0x20;

    /// The combinations that connections are made of, a bit for each; those of congestion
    /// (RFC 3168) say nothing here. As the kernel's `tcp_valid_flags`.
    const VALID: u64 = {
        let plain = 1 << SYN | 1 << (SYN | ACK) | 1 << RST | 1 << (RST | ACK);
        let urgent = 1 << (SYN | URG) | 1 << (ACK | URG) | 1 << (FIN | ACK | URG);
        let all: u64 = plain | 1 << ACK | 1 << (FIN | ACK) | urgent;
        all | all << PSH
    };

    /// Whether some end of a connection says this: not nothing at all, nor that it begins and ends.
    #[inline]
    pub const fn are_valid(flags: u8) -> bool {
        VALID >> (flags & 0x3f) & 1 != 0
    }
}

/// Length of a TCP header without options.
pub const TCP_LEN: usize = 20;

/// Source and destination port: the first four bytes of TCP, UDP, UDP-Lite and SCTP.
pub fn ports(bytes: &[u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]]))
}

/// What the path reads of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFacts {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Length of the header with options in bytes.
    pub header_len: usize,
    /// Flags, [`tcp_flags`].
    pub flags: u8,
    /// Window, not scaled.
    pub window: u16,
}

impl TcpFacts {
    /// Reads a header.
    pub fn parse(b: &[u8; TCP_LEN]) -> Self {
        Self {
            seq: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
            ack: u32::from_be_bytes([b[8], b[9], b[10], b[11]]),
            header_len: usize::from(b[12] >> 4) * 4,
            flags: b[13],
            window: u16::from_be_bytes([b[14], b[15]]),
        }
    }
}

/// Where the value of a TCP header's option stands, by the option's kind and the length of its value:
/// the first of that kind and length, behind options that are right (RFC 9293 §3.1).
pub fn tcp_option(header: &[u8], kind: u8, len: usize) -> Option<usize> {
    let mut at = TCP_LEN;
    loop {
        match *header.get(at..)? {
            // The end of the list, and padding.
            [] | [0, ..] => return None,
            [1, ..] => at += 1,
            [found, long, ..] if found == kind && usize::from(long) == len + 2 => {
                return (at + len + 2 <= header.len()).then_some(at + 2);
            }
            [_, long, ..] if long >= 2 => at += usize::from(long),
            _ => return None,
        }
    }
}

/// The window scale that a SYN's header offers (RFC 7323 §2.2).
pub fn window_scale(header: &[u8]) -> Option<u8> {
    header.get(tcp_option(header, 3, 1)?).copied()
}

/// Where the checksum of a protocol with a pseudo-header stands, from the start of its header.
///
/// SCTP's is none of these: its CRC32c covers neither addresses nor needs a change with them, but
/// it covers the ports.
pub const fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        protocol::TCP => Some(16),
        protocol::UDP | protocol::UDPLITE => Some(6),
        protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

/// Whether the protocol has ports where TCP has them.
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDPLITE)
}

/// What an ICMP or ICMPv6 message is to connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpClass {
    /// A query, with its identifier where one exists.
    Request,
    /// An answer to a query.
    Reply,
    /// An error that quotes a packet.
    Error,
    /// Neighbour or router discovery, RFC 4861.
    Discovery,
    /// Everything else.
    Other,
}

/// Classifies an ICMP message by type.
pub const fn icmp_class(protocol: u8, kind: u8) -> IcmpClass {
    if protocol == protocol::ICMPV6 {
        return match kind {
            1..=4 => IcmpClass::Error,
            128 => IcmpClass::Request,
            129 => IcmpClass::Reply,
            133..=137 => IcmpClass::Discovery,
            _ => IcmpClass::Other,
        };
    }
    match kind {
        3 | 4 | 5 | 11 | 12 => IcmpClass::Error,
        8 | 13 | 15 | 17 => IcmpClass::Request,
        0 | 14 | 16 | 18 => IcmpClass::Reply,
        _ => IcmpClass::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_facts_are_what_scapy_wrote() {
        // scapy: raw(TCP(sport=1000, dport=80, seq=0x01020304, ack=0x0a0b0c0d, flags="SA",
        // window=512, chksum=0))
        let bytes = [
            0x03, 0xe8, 0x00, 0x50, 1, 2, 3, 4, 0x0a, 0x0b, 0x0c, 0x0d, 0x50, 0x12, 2, 0, 0, 0, 0,
            0,
        ];
        let facts = TcpFacts::parse(&bytes);
        assert_eq!(ports(&[bytes[0], bytes[1], bytes[2], bytes[3]]), (1000, 80));
        assert_eq!((facts.seq, facts.ack), (0x0102_0304, 0x0a0b_0c0d));
        assert_eq!((facts.header_len, facts.window), (20, 512));
        assert_eq!(facts.flags, tcp_flags::SYN | tcp_flags::ACK);
    }

    /// The table of the kernel's nf_conntrack_proto_tcp.c, which leaves out PSH, ECE and CWR.
    #[test]
    fn flags_are_valid_as_the_kernel_has_it() {
        let kernels = [0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30];
        for flags in 0..=u8::MAX {
            let known = kernels.contains(&(flags & 0x37));
            assert_eq!(tcp_flags::are_valid(flags), known, "{flags:#04x}");
        }
    }

    #[test]
    fn options_are_found_behind_others_and_not_behind_broken_ones() {
        let header = |options: &[u8]| [&[0; TCP_LEN], options].concat();
        // scapy: TCP(options=[("MSS",1460),("NOP",None),("WScale",7)])
        let both = header(&[2, 4, 5, 0xb4, 1, 3, 3, 7]);
        assert_eq!((tcp_option(&both, 2, 2), window_scale(&both)), (Some(22), Some(7)));
        for none in
            [&[][..], &[0, 3, 3, 7], &[8, 1, 3, 3, 7], &[3, 3], &[3, 4, 7, 0], &[8, 200], &[3]]
        {
            assert_eq!(window_scale(&header(none)), None, "{none:?}");
        }
        assert_eq!(window_scale(&[]), None);
    }
}
