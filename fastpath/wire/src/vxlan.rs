//! VXLAN, RFC 7348, and the UDP header before it.

/// Length of the VXLAN header in bytes.
pub const LEN: usize = 8;

/// Length of a UDP header in bytes.
pub const UDP_LEN: usize = 8;

/// First source port that RFC 7348 §5 recommends; the last is 65535.
pub const FIRST_SOURCE_PORT: u16 = 49_152;

/// The identifier of a header, or nothing where its I flag is not set (RFC 7348 §5: all other
/// bits are ignored on receipt).
pub fn vni(header: &[u8; LEN]) -> Option<u32> {
    let [flags, _, _, _, a, b, c, _] = *header;
    (flags & 0x08 != 0).then(|| u32::from_be_bytes([0, a, b, c]))
}

/// The UDP and VXLAN headers; `udp_len` counts both headers and the inner frame, in bytes.
pub fn emit(src_port: u16, dst_port: u16, udp_len: u16, vni: u32) -> [u8; UDP_LEN + LEN] {
    let [s0, s1] = src_port.to_be_bytes();
    let [d0, d1] = dst_port.to_be_bytes();
    let [l0, l1] = udp_len.to_be_bytes();
    let [_, v0, v1, v2] = vni.to_be_bytes();
    [s0, s1, d0, d1, l0, l1, 0, 0, 0x08, 0, 0, 0, v0, v1, v2, 0]
}

/// Fills in source port and length of UDP.
#[inline]
pub fn fill_in(headers: &mut [u8; UDP_LEN + LEN], src_port: u16, udp_len: u16) {
    headers[..2].copy_from_slice(&src_port.to_be_bytes());
    headers[4..6].copy_from_slice(&udp_len.to_be_bytes());
}

/// The source port for a flow's hash: 49152–65535, the same for all packets of the flow.
pub const fn source_port(hash: u32) -> u16 {
    FIRST_SOURCE_PORT | (hash ^ (hash >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_scapy_writes() {
        // scapy: raw(UDP(sport=50000, dport=4789, len=66, chksum=0)/VXLAN(flags="Instance",
        // vni=4096))
        let expected =
            [0xc3, 0x50, 0x12, 0xb5, 0x00, 0x42, 0, 0, 0x08, 0, 0, 0, 0x00, 0x10, 0x00, 0x00];
        let bytes = emit(50_000, 4789, 66, 4096);
        assert_eq!(bytes, expected);
        assert_eq!(vni(crate::at(&bytes, UDP_LEN).unwrap()), Some(4096));
        assert_eq!(vni(&[0; LEN]), None);
    }

    #[test]
    fn source_ports_stay_in_the_recommended_range() {
        for hash in [0, 1, 0xffff_ffff, 0x1234_5678] {
            assert!(source_port(hash) >= FIRST_SOURCE_PORT);
        }
    }
}
