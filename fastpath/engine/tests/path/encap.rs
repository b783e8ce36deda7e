//! Pods to pods of other nodes.

use margay_engine::{PortId, Why};

use crate::support::*;

/// The frame as sent, in a tunnel or not, by a pod's packet of this kind to the far node.
fn sent(node: &mut Node, packet: &Ip) -> Vec<u8> {
    node.send(A, packet).by(WIRE)
}

/// Splits a frame into its outer headers and the inner packet, at the length of the former.
fn open(frame: &[u8], outer: usize) -> (&[u8], &[u8]) {
    frame.split_at(outer)
}

#[test]
fn without_encapsulation_the_packet_goes_to_the_nodes_own_address() {
    let mut node = Node::default();
    for (src, dst) in [("10.65.0.2:1", "10.65.1.5:2"), ("[fd00:65::2]:1", "[fd00:65:0:1::5]:2")] {
        let packet = udp(src, dst);
        assert_eq!(sent(&mut node, &packet), to_wire(NEAR_MAC, &packet.clone().ttl(63)));
        let answer = packet.answer();
        assert_eq!(node.send(WIRE, &answer).by(A), to_pod(A, &answer.ttl(63)));
    }
}

#[test]
fn ipip_puts_one_header_before_and_copies_mark_and_df() {
    for (class, df) in [(0, false), (0xb8, true), (0x02, true), (0x03, false), (0x01, false)] {
        let mut node = Node::default();
        let mut packet = tcp("10.65.0.2:1", "10.65.2.5:2", SYN).class(class);
        packet.dont_fragment = df;
        let inner = packet.clone().ttl(63);
        let mut outer = crate::support::packet(
            ip("192.0.2.1"),
            ip("198.51.100.2"),
            Body::Raw(4, inner.bytes()),
        );
        (outer.class, outer.dont_fragment) = (class, df);
        let frame = sent(&mut node, &packet);
        outer.identification = u16::from_be_bytes([frame[18], frame[19]]);
        assert_eq!(outer.identification == 0, df, "DF alone makes it meaningless (RFC 6864)");
        assert_eq!(frame, to_wire(GATEWAY_MAC, &outer));
        packet.identification = 77;
        let next = sent(&mut node, &packet);
        assert_eq!(next[18..20] == frame[18..20], df);
    }
}

#[test]
fn ipip_is_what_scapy_writes() {
    // Ether(dst="02:00:00:00:00:fe", src="02:00:00:00:00:01")/IP(src="192.0.2.1",
    // dst="198.51.100.2", id=0, flags="DF", tos=0xb8)/IP(src="10.65.0.2", dst="10.65.2.5", ttl=63,
    // id=0, flags="DF", tos=0xb8)/UDP(sport=1, dport=2)/b"odd"
    const SCAPY: &str = "0200000000fe0200000000010800\
        45b800330000400040044dd8c0000201c6336402\
        45b8001f000040003f11248e0a4100020a410205\
        00010002000b15e8\
        6f6464";
    let mut node = Node::default();
    let packet = udp("10.65.0.2:1", "10.65.2.5:2").class(0xb8).df();
    assert_eq!(sent(&mut node, &packet), hex(SCAPY));
}

#[test]
fn vxlan_carries_an_ethernet_frame_between_vteps() {
    let mut node = Node::default();
    let packet = tcp("10.65.0.2:1", "10.65.3.5:2", SYN).class(0x02).df();
    let frame = sent(&mut node, &packet);
    let source = u16::from_be_bytes([frame[34], frame[35]]);
    assert!(source >= 49_152, "source port {source}");
    let inner = packet.ttl(63).frame(FAR_VTEP_MAC, VTEP_MAC);
    // Flags exactly 0x08, VNI 4096, reserved bits zero.
    let payload = [&[0x08, 0, 0, 0, 0x00, 0x10, 0x00, 0][..], &inner].concat();
    let udp = Body::Udp { ports: (source, 4789), payload, checksum: false };
    let outer = crate::support::packet(ip("192.0.2.1"), ip("198.51.100.2"), udp);
    assert_eq!(frame, to_wire(GATEWAY_MAC, &outer.class(0x02).df()));
}

#[test]
fn vxlan_of_ipv6_goes_over_ipv6_with_a_checksum() {
    let mut node = Node::default();
    let packet = tcp("[fd00:65::2]:1", "[fd00:65:0:3::5]:2", SYN).class(0xba);
    let frame = sent(&mut node, &packet);
    let source = u16::from_be_bytes([frame[54], frame[55]]);
    assert!(source >= 49_152, "source port {source}");
    let inner = packet.ttl(63).frame(FAR_VTEP_MAC, VTEP_MAC);
    let payload = [&[0x08, 0, 0, 0, 0x00, 0x10, 0x00, 0][..], &inner].concat();
    let udp = Body::Udp { ports: (source, 4789), payload, checksum: true };
    let outer = crate::support::packet(ip("2001:db8:1::1"), ip("2001:db8:2::2"), udp);
    assert_eq!(frame, to_wire(GATEWAY_MAC, &outer.class(0xba)));
}

#[test]
fn the_source_port_of_vxlan_is_the_flows() {
    let mut node = Node::default();
    let mut port = |client: u16| {
        let frame = sent(&mut node, &udp(&at("10.65.0.2", client), "10.65.3.5:2"));
        u16::from_be_bytes([frame[34], frame[35]])
    };
    let ports: std::collections::BTreeSet<u16> = (1..=32).map(&mut port).collect();
    assert!(ports.len() > 24, "32 flows over {} source ports", ports.len());
    assert!(ports.iter().all(|p| *p >= 49_152));
    assert_eq!(port(7), port(7), "all packets of a flow have one");
}

#[test]
fn what_the_outer_headers_leave_no_room_for_is_told_the_inner_mtu() {
    for (dst, mtu) in [("10.65.1.5:2", 1500), ("10.65.2.5:2", 1480), ("10.65.3.5:2", 1450)] {
        let mut node = Node::default();
        let fits = udp("10.65.0.2:1", dst).df().sized(mtu - 28);
        let frame = node.send(A, &fits).by(WIRE);
        let (_, inner) = open(&frame, frame.len() - mtu);
        assert_eq!(inner, fits.ttl(63).bytes());
        assert_eq!(frame.len(), 1514, "{dst}: the uplink's MTU is used to the last byte");
        let over = udp("10.65.0.2:1", dst).df().sized(mtu - 27);
        let mtu = mtu as u16;
        let out = node.send(A, &over);
        assert_eq!(out.frame, frame_from(A, &over), "what is quoted is as it came");
        assert_eq!(out.punted(), Why::TooBig { mtu });
    }
    let mut node = Node::default();
    let over = udp("[fd00:65::2]:1", "[fd00:65:0:3::5]:2").sized(1430 - 47);
    assert_eq!(node.send(A, &over).punted(), Why::TooBig { mtu: 1430 });
}

#[test]
fn without_df_the_packet_is_finished_and_handed_over_to_be_cut() {
    for (dst, mtu, outer) in
        [("10.65.1.5:2", 1500, 14), ("10.65.2.5:2", 1480, 34), ("10.65.3.5:2", 1450, 64)]
    {
        let mut node = Node::default();
        let packet = udp("10.65.0.2:1", dst).sized(mtu - 27);
        let out = node.send(A, &packet);
        let (_, inner) = open(&out.frame, outer);
        assert_eq!(inner, packet.ttl(63).bytes());
        let egress: PortId = WIRE;
        let (mtu, ip) = (mtu as u16, outer as u16);
        assert_eq!(out.punted(), Why::Fragment { egress, mtu, ip });
    }
}

#[test]
fn a_pod_with_a_small_mtu_is_protected_by_it() {
    let mut node = Node::default();
    node.change(|state| {
        let endpoint = state.endpoints.get_mut("default/b/eth0").unwrap();
        std::sync::Arc::make_mut(endpoint).mtu = 1400;
    });
    let packet = udp("10.65.0.2:1", "10.65.0.3:2").df().sized(1400 - 27);
    assert_eq!(node.send(A, &packet).punted(), Why::TooBig { mtu: 1400 });
}

#[test]
fn a_frame_without_headroom_is_dropped_not_written_outside() {
    use margay_engine::{Batch, Fate, Frame};
    let mut node = Node::default();
    for headroom in 0..50 {
        let packet = udp("10.65.0.2:1", "10.65.3.5:2");
        let bytes = frame_from(A, &packet);
        let mut chunk = [&vec![0; headroom][..], &bytes].concat();
        let mut batch = Batch::default();
        let (start, len, ingress) = (headroom, bytes.len(), ingress(A));
        batch.frames.push(Frame::new(&mut chunk, start, len, ingress));
        node.engine.run(&node.snapshot, node.now, &mut batch);
        assert_eq!(batch.fates[0], Fate::Drop(margay_model::DropReason::NoHeadroom), "{headroom}");
    }
}
