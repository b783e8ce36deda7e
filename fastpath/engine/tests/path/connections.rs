//! What a node is told about connections: whether they have to be seen from their beginning, and
//! what size of segments they are told.

use std::net::IpAddr;
use std::sync::Arc;

use etherparse::TcpHeader;
use margay_model::DropReason;

use crate::support::*;

/// A SYN from pod a that tells a maximum segment size behind `before`.
fn syn(dst: &str, before: &[u8], mss: u16) -> Ip {
    let (src, dst): (IpAddr, IpAddr) =
        (ip(if dst.contains(':') { "fd00:65::2" } else { "10.65.0.2" }), ip(dst));
    let mut header = TcpHeader::new(40_000, 80, 1, 64_000);
    header.syn = true;
    let mut options = [before, &[2, 4], &mss.to_be_bytes()].concat();
    options.resize(options.len().next_multiple_of(4), 0);
    header.set_options_raw(&options).unwrap();
    header.checksum = match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            header.calc_checksum_ipv4_raw(s.octets(), d.octets(), &[]).unwrap()
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            header.calc_checksum_ipv6_raw(s.octets(), d.octets(), &[]).unwrap()
        }
        _ => unreachable!("one family"),
    };
    packet(src, dst, Body::Raw(6, header.to_bytes().to_vec()))
}

fn clamping() -> Node {
    let mut node = Node::default();
    node.change(|state| Arc::make_mut(&mut state.node).settings.clamp_mss = true);
    node
}

#[test]
fn a_segment_size_above_what_fits_the_way_is_lowered_and_one_below_is_kept() {
    let (window, timestamps) = (&[3u8, 3, 7][..], &[1u8, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0][..]);
    for (dst, most) in [("10.65.1.5", 1460), ("fd00:65:0:1::5", 1440)] {
        for before in [&[][..], &[1], &[1, 1], window, timestamps] {
            for (told, heard) in [(9000, most), (most + 1, most), (most, most), (536, 536)] {
                let sent = clamping().send(A, &syn(dst, before, told)).by(WIRE);
                assert_eq!(sent, to_wire(NEAR_MAC, &syn(dst, before, heard).ttl(63)), "{before:?}");
            }
        }
    }
}

#[test]
fn a_tunnels_headers_are_taken_off_the_segment_size() {
    for (dst, outer, heard) in [("10.65.2.5", 34, 1440), ("10.65.3.5", 64, 1410)] {
        let sent = clamping().send(A, &syn(dst, &[], 1460)).by(WIRE);
        assert_eq!(&sent[outer..], syn(dst, &[], heard).ttl(63).bytes(), "{dst}");
    }
}

#[test]
fn nobody_lowers_a_segment_size_unless_told_to_nor_reads_options_that_are_wrong() {
    let large = syn("10.65.3.5", &[], 9000);
    let sent = Node::default().send(A, &large).by(WIRE);
    assert_eq!(&sent[64..], large.clone().ttl(63).bytes());
    // An option of no length, one that is longer than the header, and the end before the size.
    for before in [&[8u8, 0][..], &[8, 1], &[8, 40], &[0]] {
        let packet = syn("10.65.1.5", before, 9000);
        let sent = clamping().send(A, &packet).by(WIRE);
        assert_eq!(sent, to_wire(NEAR_MAC, &packet.ttl(63)), "{before:?}");
    }
}

#[test]
fn a_connection_that_nobody_saw_begin_is_picked_up_unless_the_node_is_strict() {
    let amid = tcp("10.65.0.2:40000", "10.65.1.5:80", ACK);
    Node::default().send(A, &amid).by(WIRE);
    let mut strict = Node::default();
    strict.change(|state| Arc::make_mut(&mut state.node).settings.tcp_strict = true);
    for flags in [ACK, FIN | ACK, SYN | ACK, RST, RST | ACK] {
        let packet = tcp("10.65.0.2:40000", "10.65.1.5:80", flags);
        strict.send(A, &packet).dropped(DropReason::InvalidState);
    }
    let opening = tcp("10.65.0.2:40000", "10.65.1.5:80", SYN);
    strict.send(A, &opening).by(WIRE);
    strict.send(WIRE, &tcp("10.65.1.5:80", "10.65.0.2:40000", SYN | ACK)).by(A);
    strict.send(A, &amid).by(WIRE);
    // Another generation judges it again, and does not forget it.
    strict.change(|state| isolate(state, "b", Some(vec![deny()]), None));
    strict.send(A, &amid).by(WIRE);
    strict.conserved();
}
