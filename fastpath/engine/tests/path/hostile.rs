//! Frames that are wrong, odd, or not for the fast path.

use margay_engine::snapshot::trunk_mac;
use margay_engine::{Fate, Why};
use margay_model::DropReason;

use crate::support::*;

/// Changes a frame behind its Ethernet header and mends the IPv4 header checksum.
fn bent(packet: &Ip, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = frame_from(A, packet);
    edit(&mut frame);
    frame[24..26].fill(0);
    let header_len = usize::from(frame[14] & 15) * 4;
    let end = (14 + header_len.max(20)).min(frame.len());
    let words =
        frame[14..end].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn good() -> Ip {
    udp("10.65.0.2:1", "10.65.0.3:2")
}

#[test]
fn a_wrong_header_checksum_is_dropped() {
    let mut node = Node::default();
    let frame = frame_from(A, &good());
    for bit in 0..16 {
        let mut frame = frame.clone();
        frame[24 + bit / 8] ^= 1 << (bit % 8);
        node.frame(A, frame).dropped(DropReason::Checksum);
    }
}

#[test]
fn a_wrong_transport_checksum_stays_wrong() {
    let mut node = Node::default();
    node.change(|state| serve(state, service("s", 17, "10.96.0.1:2", &["10.65.0.3:53"])));
    let mut frame = frame_from(A, &udp("10.65.0.2:1", "10.96.0.1:2"));
    frame[41] ^= 0x55;
    let sent = node.frame(A, frame).frame;
    let right = to_pod(B, &udp("10.65.0.2:1", "10.65.0.3:53").ttl(63));
    assert_ne!(sent[40..42], right[40..42], "the receiver is to notice");
    assert_eq!((&sent[..40], &sent[42..]), (&right[..40], &right[42..]));
}

#[test]
fn a_frame_cut_anywhere_is_malformed() {
    for packet in [
        udp("10.65.0.2:1", "10.65.0.3:2"),
        tcp("10.65.0.2:1", "10.65.0.3:2", SYN),
        sctp("10.65.0.2:1", "10.65.0.3:2"),
        ping("10.65.0.2", "10.65.0.3", 1),
        udp("[fd00:65::2]:1", "[fd00:65::3]:2"),
    ] {
        let mut node = Node::default();
        let frame = frame_from(A, &packet);
        for len in 0..frame.len() {
            node.frame(A, frame[..len].to_vec()).dropped(DropReason::Malformed);
        }
        assert_eq!(node.connections(), 0);
    }
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let mut node = Node::default();
    let mut malformed = |edit: &dyn Fn(&mut Vec<u8>)| {
        node.frame(A, bent(&good(), edit)).dropped(DropReason::Malformed);
    };
    malformed(&|f| f[17] = f[17].wrapping_add(1)); // longer than the frame
    malformed(&|f| f[16..18].copy_from_slice(&[0xff, 0xff]));
    malformed(&|f| f[16..18].copy_from_slice(&[0, 19])); // shorter than the header
    malformed(&|f| f[16..18].copy_from_slice(&[0, 0]));
    malformed(&|f| f[16..18].copy_from_slice(&[0, 20])); // no room for UDP
    malformed(&|f| f[14] = 0x44); // IHL below five words
    malformed(&|f| f[14] = 0x40);
    malformed(&|f| f[14] = 0x4f); // header longer than the packet
    malformed(&|f| f[14] = 0x55); // version
    malformed(&|f| f[14] = 0x65);
    malformed(&|f| f[38..40].copy_from_slice(&[0, 7])); // UDP length
    malformed(&|f| f[38..40].copy_from_slice(&[0, 12]));
    let segment = tcp("10.65.0.2:1", "10.65.0.3:2", ACK);
    for offset in [0x00, 0x40, 0xf0] {
        let frame = bent(&segment, |f| f[46] = offset);
        node.frame(A, frame).dropped(DropReason::Malformed);
    }
}

#[test]
fn ethernet_padding_is_not_forwarded() {
    let mut node = Node::default();
    let mut frame = frame_from(A, &good());
    frame.resize(60, 0x99);
    assert_eq!(node.frame(A, frame).by(B), to_pod(B, &good().ttl(63)));
}

#[test]
fn who_chooses_his_packets_way_is_dropped() {
    let mut node = Node::default();
    for kind in [0x83, 0x89] {
        let mut packet = good();
        packet.options = vec![1, kind, 7, 4, 10, 65, 0, 9];
        node.send(A, &packet).dropped(DropReason::Malformed);
    }
}

#[test]
fn options_are_carried_along_and_counted_into_the_offset() {
    let mut node = Node::default();
    node.change(|state| serve(state, service("s", 17, "10.96.0.1:2", &["10.65.0.3:53"])));
    let mut packet = udp("10.65.0.2:1", "10.96.0.1:2");
    packet.options = vec![0x94, 4, 0, 0, 1, 1, 1, 0]; // router alert, padding
    let expected = to_pod(B, &packet.clone().to("10.65.0.3:53").ttl(63));
    assert_eq!(node.send(A, &packet).by(B), expected);
}

#[test]
fn fragments_go_to_be_reassembled_and_only_from_their_owner() {
    let mut node = Node::default();
    for field in [0x2000u16, 0x0001, 0x2001, 0x1fff] {
        let frame = bent(&good(), |f| f[20..22].copy_from_slice(&field.to_be_bytes()));
        // A last fragment that ends past 65,535 belongs to no datagram.
        match node.frame(A, frame.clone()).fate {
            Fate::Drop(reason) => assert_eq!((reason, field), (DropReason::Fragment, 0x1fff)),
            Fate::Punt(punt) => assert_eq!(punt.why, Why::Reassemble),
            other => panic!("{other:?}"),
        }
        // Nobody outside is a pod of this node.
        let mut taken = frame.clone();
        taken[..14].copy_from_slice(&frame_from(WIRE, &good())[..14]);
        if field != 0x1fff {
            node.frame(WIRE, taken).dropped(DropReason::Spoof);
        }
        let stolen = bent(&udp("10.65.0.9:1", "10.65.0.3:2"), |f| {
            f[20..22].copy_from_slice(&field.to_be_bytes());
        });
        let Fate::Drop(reason) = node.frame(A, stolen).fate else { panic!("spoofed fragment") };
        assert!(matches!(reason, DropReason::Spoof | DropReason::Fragment));
    }
    let fragment = [17, 0, 0, 1, 0, 0, 0, 7];
    let body = [&fragment[..], &[0; 16]].concat();
    let six = packet(ip("fd00:65::2"), ip("fd00:65::3"), Body::Raw(44, body));
    assert_eq!(node.send(A, &six).punted(), Why::Reassemble);
    assert_eq!(node.connections(), 0, "a fragment opens no flow");
}

#[test]
fn a_reassembled_datagram_goes_on_and_is_cut_again() {
    let mut node = Node::default();
    for packet in [good().sized(3000), udp("[fd00:65::2]:1", "[fd00:65::3]:2").sized(3000)] {
        let out = node.again(ingress(A), frame_from(A, &packet.clone().df()), true);
        assert_eq!(out.frame[14..], packet.df().ttl(63).bytes());
        assert_eq!(out.punted(), Why::Fragment { egress: B, mtu: 1500, ip: 14 });
    }
}

#[test]
fn what_came_in_pieces_leaves_the_cluster_in_pieces_that_pass_everywhere() {
    let mut node = Node::default();
    // Its sender cut it small, for a link far away that carries no more.
    for size in [1400, 3000] {
        let packet = udp("[fd00:65::2]:1", "[2001:4860::8888]:2").sized(size);
        let out = node.again(ingress(A), frame_from(A, &packet), true);
        assert_eq!(out.punted(), Why::Fragment { egress: WIRE, mtu: 1280, ip: 14 });
    }
    let packet = udp("[fd00:65::2]:1", "[2001:4860::8888]:2").sized(1000);
    let out = node.again(ingress(A), frame_from(A, &packet), true);
    assert!(matches!(out.fate, Fate::Forward(WIRE)));
    // Routers cut IPv4 themselves, and to a pod nothing smaller is on the way.
    let packet = udp("10.65.0.2:1", "8.8.8.8:2").sized(1400);
    assert!(matches!(
        node.again(ingress(A), frame_from(A, &packet), true).fate,
        Fate::Forward(WIRE)
    ));
    let packet = udp("[fd00:65::2]:1", "[fd00:65::3]:2").sized(1400);
    assert!(matches!(node.again(ingress(A), frame_from(A, &packet), true).fate, Fate::Forward(B)));
}

#[test]
fn an_atomic_fragment_is_whole() {
    let mut node = Node::default();
    let whole = udp("[fd00:65::2]:1", "[fd00:65::3]:2").bytes();
    let body = [&[17, 0, 0, 0, 0, 0, 0, 7], &whole[40..]].concat();
    let packet = packet(ip("fd00:65::2"), ip("fd00:65::3"), Body::Raw(44, body));
    let frame = node.send(A, &packet).by(B);
    assert_eq!(frame, to_pod(B, &packet.ttl(63)));
}

#[test]
fn extension_headers_do_not_hide_the_ports() {
    let mut node = Node::default();
    node.change(|state| isolate(state, "b", Some(vec![allow_ports(17, 53, 53)]), None));
    for (port, allowed) in [(53, true), (54, false)] {
        let whole = udp("[fd00:65::2]:1", &at("fd00:65::3", port)).bytes();
        let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
        let destination = [17, 0, 1, 4, 0, 0, 0, 0];
        let body = [&hop_by_hop[..], &destination, &whole[40..]].concat();
        let packet = packet(ip("fd00:65::2"), ip("fd00:65::3"), Body::Raw(0, body));
        let out = node.send(A, &packet);
        match allowed {
            true => assert_eq!(out.by(B), to_pod(B, &packet.ttl(63))),
            false => out.dropped(DropReason::Policy),
        }
    }
}

#[test]
fn arp_and_discovery_are_a_pods_only() {
    let mut node = Node::default();
    let arp = |dst: [u8; 6], src: [u8; 6]| [&dst[..], &src, &[8, 6], &[0; 28]].concat();
    let from_pod = frame_from(A, &good());
    let arp_of_pod = [&from_pod[..12], &arp([0; 6], [0; 6])[12..]].concat();
    assert_eq!(node.frame(A, arp_of_pod).punted(), Why::Arp);
    node.frame(WIRE, arp(UPLINK_MAC, NEAR_MAC)).dropped(DropReason::NotIp);
    let solicitation = Body::Icmp { kind: 135, code: 0, rest: [0; 4], payload: vec![0xfe; 24] };
    // The source is judged by the slow path: it may be unspecified or link-local.
    for src in ["::", "fe80::1", "fd00:65::2"] {
        let packet = packet(ip(src), ip("ff02::1:ff00:1"), solicitation.clone());
        assert_eq!(node.send(A, &packet).punted(), Why::Ndisc);
        node.send(WIRE, &packet).dropped(DropReason::Martian);
    }
}

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    let mut node = Node::default();
    for src in ["10.65.0.3", "10.65.0.9", "192.0.2.1", "8.8.8.8", "0.0.0.0", "255.255.255.255"] {
        node.send(A, &udp(&at(src, 1), "10.65.0.3:2")).dropped(DropReason::Spoof);
    }
    for src in ["fd00:65::3", "fe80::1", "::", "2001:db8::1"] {
        node.send(A, &udp(&at(src, 1), "[fd00:65::3]:2")).dropped(DropReason::Spoof);
    }
    // An offer of DHCP is nobody's here.
    node.send(A, &udp("0.0.0.0:68", "255.255.255.255:67")).dropped(DropReason::Spoof);
    node.change(|state| {
        let endpoint = state.endpoints.get_mut("default/a/eth0").unwrap();
        let endpoint = std::sync::Arc::make_mut(endpoint);
        endpoint.allowed_sources.push("8.8.8.0/24".parse().unwrap());
        endpoint.addresses.push(ip("10.65.0.22"));
    });
    node.send(A, &udp("8.8.8.8:1", "10.65.0.3:2")).by(B);
    node.send(A, &udp("10.65.0.22:1", "10.65.0.3:2")).by(B);
    node.send(A, &udp("8.8.9.8:1", "10.65.0.3:2")).dropped(DropReason::Spoof);
}

#[test]
fn what_an_ipv6_stack_says_to_its_link_is_no_spoofing() {
    let mut node = Node::default();
    let report = Body::Icmp { kind: 143, code: 0, rest: [0; 4], payload: vec![0; 20] };
    for (src, dst) in [("::", "ff02::16"), ("fe80::1", "ff02::16"), ("fe80::1", "fe80::2")] {
        let packet = packet(ip(src), ip(dst), report.clone());
        node.send(A, &packet).dropped(DropReason::LinkLocal);
    }
    for dst in ["fd00:65::3", "ff0e::1"] {
        node.send(A, &packet(ip("fe80::1"), ip(dst), report.clone())).dropped(DropReason::Spoof);
    }
}

#[test]
fn martians_are_never_forwarded() {
    let mut node = Node::default();
    for dst in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"]
    {
        node.send(A, &udp("10.65.0.2:1", &at(dst, 2))).dropped(DropReason::Martian);
        node.send(WIRE, &udp("8.8.8.8:1", &at(dst, 2))).dropped(DropReason::Martian);
        node.send(WIRE, &udp(&at(dst, 2), "10.65.0.2:1")).dropped(DropReason::Martian);
    }
    for dst in ["::", "::1", "fe80::1", "ff02::1", "ff0e::1", "::ffff:10.65.0.3"] {
        node.send(A, &udp("[fd00:65::2]:1", &at(dst, 2))).dropped(DropReason::Martian);
        node.send(WIRE, &udp(&at(dst, 2), "[fd00:65::2]:1")).dropped(DropReason::Martian);
    }
}

#[test]
fn who_takes_a_remote_pods_address_without_its_tunnel_is_a_liar() {
    let mut node = Node::default();
    let plain = || [("10.65.2.5:1", "10.65.0.2:2"), ("[fd00:65:0:3::5]:1", "[fd00:65::2]:2")];
    for (src, dst) in plain() {
        node.send(WIRE, &udp(src, dst)).by(A);
        node.send(WIRE, &udp("192.0.2.100:1", "10.65.0.2:2")).by(A);
    }
    node.change(|state| {
        for pool in state.pools.values_mut() {
            (pool.encap, pool.encap_always) = (margay_model::Encap::Vxlan, true);
        }
    });
    for (n, (src, dst)) in plain().into_iter().enumerate() {
        // A connection from before the pool was changed goes on; nodes do not change at once.
        node.send(WIRE, &udp(src, dst)).by(A);
        let other = src.replace(":1", &format!(":{}", n + 7));
        node.send(WIRE, &udp(&other, dst)).dropped(DropReason::Spoof);
    }
    // An address that no node has a block for is a pod's all the same, soon.
    node.send(WIRE, &udp("10.65.9.9:1", "10.65.0.2:2")).dropped(DropReason::Spoof);
    node.send(WIRE, &udp("192.0.2.100:1", "10.65.0.2:3")).by(A);
    // To a node port pods come plainly where they are not masqueraded.
    node.change(|state| serve(state, service("s", 17, "192.0.2.1:30000", &["10.65.0.3:53"])));
    node.send(WIRE, &udp("10.65.2.5:9", "192.0.2.1:30000")).by(B);
}

#[test]
fn broadcast_addresses_of_networks_are_never_forwarded_to_nor_answered() {
    let mut node = Node::default();
    for all in ["192.0.2.255", "192.0.2.0"] {
        node.send(A, &udp("10.65.0.2:1", &at(all, 2))).dropped(DropReason::Martian);
        node.send(WIRE, &udp("198.51.100.9:1", &at(all, 2))).dropped(DropReason::Martian);
        node.send(WIRE, &udp(&at(all, 1), "10.65.0.2:2")).dropped(DropReason::Martian);
    }
}

#[test]
fn a_pod_has_no_tunnels_of_its_own_unless_it_may() {
    let mut node = Node::default();
    let vxlan = udp("10.65.0.2:1", "10.65.0.3:4789");
    let ipip = packet(ip("10.65.0.2"), ip("10.65.0.3"), Body::Raw(4, good().bytes()));
    node.send(A, &vxlan).dropped(DropReason::TunnelFromWorkload);
    node.send(A, &ipip).dropped(DropReason::TunnelFromWorkload);
    node.change(|state| {
        let settings = &mut std::sync::Arc::make_mut(&mut state.node).settings;
        settings.allow_vxlan_from_workloads = true;
        settings.allow_ipip_from_workloads = true;
    });
    assert!(matches!(node.send(A, &vxlan).fate, Fate::Forward(_)));
    node.send(A, &ipip).by(B);
}

#[test]
fn ttl_one_is_reported_and_ttl_two_passes() {
    let mut node = Node::default();
    for (from, packet) in [
        (A, udp("10.65.0.2:1", "10.65.0.3:2")),
        (A, udp("[fd00:65::2]:1", "[fd00:65::3]:2")),
        (WIRE, udp("192.0.2.100:1", "10.65.0.2:2")),
    ] {
        for ttl in [0, 1] {
            let out = node.send(from, &packet.clone().ttl(ttl));
            assert_eq!(out.frame[14..], packet.clone().ttl(ttl).bytes(), "quoted as it came");
            assert_eq!(out.punted(), Why::TtlExpired);
        }
        let frame = node.send(from, &packet.clone().ttl(2)).frame;
        assert_eq!(frame[14..], packet.ttl(1).bytes());
    }
    // What is for the node itself has arrived (RFC 1812 §4.2.2.9).
    node.send(A, &udp("10.65.0.2:1", "192.0.2.1:2").ttl(1)).by(HOST);
    node.send(HOST, &udp("192.0.2.1:2", "10.65.0.2:1").ttl(1)).by(A);
}

#[test]
fn frames_of_nobody_and_of_no_ip_are_counted() {
    let mut node = Node::default();
    let packet = good();
    node.frame(A, packet.frame([2, 0x4d, 0, 0, 0, 99], pod_mac(A)))
        .dropped(DropReason::UnknownPort);
    node.frame(A, packet.frame([0xff; 6], pod_mac(A))).dropped(DropReason::UnknownPort);
    for kind in [0x8100u16, 0x88a8, 0x0842, 0x05dc, 0x86dc] {
        let mut frame = frame_from(A, &packet);
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        node.frame(A, frame).dropped(DropReason::NotIp);
    }
    // An interface whose endpoint is gone.
    node.change(|state| drop(state.endpoints.remove("default/a/eth0")));
    node.send(A, &packet).dropped(DropReason::UnknownPort);
}

#[test]
fn nothing_is_decided_before_the_state_is_complete() {
    use margay_engine::Assembler;
    let mut node = Node::default();
    node.snapshot = Assembler::new(0).assemble(&node.state, &node.underlay);
    node.send(A, &good()).dropped(DropReason::NotReady);
}

#[test]
fn a_frame_that_the_wire_meant_for_somebody_else_is_not_forwarded() {
    let mut node = Node::default();
    node.change(|state| serve(state, service("s", 17, "10.96.0.10:80", &["10.65.0.3:8080"])));
    let multicast = [0x01, 0, 0x5e, 0, 0, 1];
    for mac in [NEAR_MAC, [0xff; 6], multicast, trunk_mac(0), [0; 6]] {
        for dst in ["10.65.0.2:2", "192.0.2.1:2", "8.8.8.8:2"] {
            let frame = udp("192.0.2.100:1", dst).frame(mac, CLIENT_MAC);
            node.frame(WIRE, frame).dropped(DropReason::NotForUs);
        }
        // A tunnel's packet too, whatever is in it.
        let inner = udp("10.65.2.2:1", "10.65.0.2:2");
        let outer = packet(ip("198.51.100.2"), ip("192.0.2.1"), Body::Raw(4, inner.bytes()));
        node.frame(WIRE, outer.frame(mac, GATEWAY_MAC)).dropped(DropReason::NotForUs);
    }
    assert_eq!(node.connections(), 0);
    node.send(WIRE, &udp("192.0.2.100:1", "10.65.0.2:2")).by(A);
}

#[test]
fn impossible_flags_are_dropped_whether_the_connection_is_known_or_not() {
    let mut node = Node::default();
    let segment = |flags| tcp("10.65.0.2:4000", "10.65.0.3:8080", flags);
    for impossible in [0, FIN, FIN | SYN, SYN | RST, FIN | SYN | ACK, 0x3f, 0x20, 0x29] {
        node.send(A, &segment(impossible)).dropped(DropReason::TcpFlags);
    }
    assert_eq!(node.connections(), 0);
    node.send(A, &segment(SYN)).by(B);
    node.send(A, &segment(SYN | FIN)).dropped(DropReason::TcpFlags);
    node.send(A, &segment(0)).dropped(DropReason::TcpFlags);
    node.send(A, &segment(SYN | 0xc0)).by(B);
}
