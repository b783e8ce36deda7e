//! Pods of one node.

use crate::support::*;

#[test]
fn pod_to_pod_lowers_the_ttl_once_and_changes_nothing_else() {
    for v4 in [true, false] {
        let [a, b] = pods(v4);
        let (src, dst) = (at(a, 40_000), at(b, 80));
        for packet in
            [tcp(&src, &dst, SYN), udp(&src, &dst), sctp(&src, &dst), ping(a, b, 7).class(0xb9)]
        {
            let mut node = Node::default();
            let sent = node.send(A, &packet).by(B);
            assert_eq!(sent, to_pod(B, &packet.clone().ttl(63)), "{packet:?}");
            let answer = packet.answer();
            let sent = node.send(B, &answer).by(A);
            assert_eq!(sent, to_pod(A, &answer.ttl(63)));
            assert_eq!((node.connections(), node.counters.misses.get()), (1, 1));
        }
    }
}

#[test]
fn a_native_port_knows_its_gateway_by_calicos_address() {
    let mut node = Node::default();
    let packet = udp("10.65.0.4:9", "10.65.0.2:9");
    assert_eq!(node.send(N, &packet).by(A), to_pod(A, &packet.clone().ttl(63)));
    let answer = packet.answer();
    assert_eq!(node.send(A, &answer).by(N), to_pod(N, &answer.ttl(63)));
}

#[test]
fn a_native_pod_may_leave_its_checksums_to_its_interface() {
    for v4 in [true, false] {
        let src = if v4 { "10.65.0.4:40000" } else { "[fd00:65::4]:40000" };
        let dst = at(pods(v4)[0], 80);
        let data = tcp(src, &dst, ACK).sized(1001);
        for packet in [tcp(src, &dst, SYN), data, udp(src, &dst).sized(7), sctp(src, &dst)] {
            let right = frame_from(N, &packet);
            let start = if v4 { 34 } else { 54 };
            let (addresses, field) = (if v4 { 26..34 } else { 22..54 }, start + packet.sum_at());
            let mut frame = right.clone();
            if packet.protocol() == 132 {
                frame[field..field + 4].fill(0);
            } else {
                // The pseudo-header: addresses, length, protocol.
                let len = (frame.len() - start) as u16;
                let words = frame[addresses].chunks(2).map(|w| u16::from_be_bytes([w[0], w[1]]));
                let sum: u32 = words.chain([len, packet.protocol().into()]).map(u32::from).sum();
                let folded = (sum & 0xffff) + (sum >> 16);
                frame[field..field + 2].copy_from_slice(&(folded as u16).to_be_bytes());
            }
            let mut node = Node::default();
            assert_eq!(
                node.frame(N, frame).by(A),
                to_pod(A, &packet.clone().ttl(63)),
                "{packet:?}"
            );
            assert_eq!(node.frame(N, right).by(A), to_pod(A, &packet.ttl(63)));
        }
    }
}

#[test]
fn sctp_leaves_as_scapy_writes_it() {
    // IP(src="10.65.0.2", dst="10.65.0.3", ttl=63, id=0)/SCTP(sport=40000, dport=80, tag=9)
    // /b"\x01chunk!!"
    let scapy =
        hex("45000028000000003f8466cc0a4100020a4100039c40005000000009f7fa4b79016368756e6b2121");
    let mut node = Node::default();
    let frame = node.send(A, &sctp("10.65.0.2:40000", "10.65.0.3:80")).by(B);
    assert_eq!(frame[14..], scapy);
}
