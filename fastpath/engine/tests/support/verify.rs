//! Checksums of what was sent, computed in full by others' code.

use etherparse::{
    Icmpv4Type, Icmpv6Slice, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpSlice, UdpSlice,
};

/// Panics with the packet where a checksum of the IP packet, or of one in a tunnel of it, is
/// wrong. Fragments and cut payloads are not looked into.
pub fn sums_are_right(ip: &[u8]) {
    match ip[0] >> 4 {
        4 => v4(ip),
        6 => v6(ip),
        version => panic!("IP version {version}: {ip:02x?}"),
    }
}

fn v4(ip: &[u8]) {
    let slice = Ipv4HeaderSlice::from_slice(ip).unwrap();
    let header = slice.to_header();
    let (total, header_len) = (usize::from(header.total_len), header.header_len());
    assert_eq!(total, ip.len(), "length of {ip:02x?}");
    // etherparse would leave out the bit that RFC 791 reserves, which a sender may have set.
    let words = slice.slice().chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "IPv4 header of {ip:02x?}");
    if header.is_fragmenting_payload() {
        return;
    }
    let body = &ip[header_len..];
    let (src, dst) = (header.source, header.destination);
    match header.protocol {
        IpNumber::TCP => {
            let slice = TcpSlice::from_slice(body).unwrap();
            assert_eq!(slice.calc_checksum_ipv4(src, dst), Ok(slice.checksum()), "{ip:02x?}");
        }
        IpNumber::UDP => {
            let slice = UdpSlice::from_slice(body).unwrap();
            let header = slice.to_header();
            if header.checksum != 0 {
                let sum = header.calc_checksum_ipv4_raw(src, dst, slice.payload());
                assert_eq!(sum, Ok(header.checksum), "{ip:02x?}");
            }
            vxlan(slice);
        }
        IpNumber::ICMP => {
            let (type_u8, code_u8) = (body[0], body[1]);
            let bytes5to8 = [body[4], body[5], body[6], body[7]];
            let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
            assert_eq!(body[2..4], kind.calc_checksum(&body[8..]).to_be_bytes(), "{ip:02x?}");
        }
        IpNumber::IPV4 => sums_are_right(body),
        other => any(other, body),
    }
}

fn v6(ip: &[u8]) {
    let header = Ipv6HeaderSlice::from_slice(ip).unwrap().to_header();
    assert_eq!(usize::from(header.payload_length) + 40, ip.len(), "length of {ip:02x?}");
    let body = &ip[40..];
    let (src, dst) = (header.source, header.destination);
    match header.next_header {
        IpNumber::TCP => {
            let slice = TcpSlice::from_slice(body).unwrap();
            assert_eq!(slice.calc_checksum_ipv6(src, dst), Ok(slice.checksum()), "{ip:02x?}");
        }
        IpNumber::UDP => {
            let slice = UdpSlice::from_slice(body).unwrap();
            let header = slice.to_header();
            let sum = header.calc_checksum_ipv6_raw(src, dst, slice.payload());
            assert_eq!(sum, Ok(header.checksum), "{ip:02x?}");
            vxlan(slice);
        }
        IpNumber::IPV6_ICMP => {
            let slice = Icmpv6Slice::from_slice(body).unwrap();
            assert!(slice.is_checksum_valid(src, dst), "{ip:02x?}");
        }
        other => any(other, body),
    }
}

fn any(protocol: IpNumber, body: &[u8]) {
    if protocol == IpNumber::SCTP {
        let mut zeroed = body.to_vec();
        zeroed[8..12].fill(0);
        assert_eq!(body[8..12], crc32c(&zeroed).to_le_bytes(), "{body:02x?}");
    }
}

fn vxlan(slice: UdpSlice<'_>) {
    if let Some(frame) = slice.payload().strip_prefix(&[8, 0, 0, 0, 0, 0x10, 0, 0]) {
        sums_are_right(&frame[14..]);
    }
}

/// CRC32c bit by bit (RFC 9260, appendix A), to compare a quicker one with.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}
