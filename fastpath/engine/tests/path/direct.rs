//! Services whose backends answer clients from outside themselves: what the node that is asked hands
//! on, and what the node of the backend does with it.

use std::sync::Arc;

use margay_engine::snapshot::DIRECT_VNI;
use margay_engine::{Why, shortcut};
use margay_model::{DropReason, Service, State};
use margay_tables::addr::Tuple;

use crate::support::*;

const FAR: &str = "10.65.3.5:8080";
const CLIENT: &str = "192.0.2.100:40000";

fn web(backends: &[&str]) -> Service {
    Service {
        external_ips: vec![ip("198.18.0.1")],
        load_balancer_ips: vec![ip("198.18.0.2")],
        node_port: Some(30_080),
        ..service("default/web", 6, "10.96.0.10:80", backends)
    }
}

/// A node whose services are answered directly.
fn node(services: impl IntoIterator<Item = Service>) -> Node {
    let mut node = Node::default();
    node.change(|state| {
        Arc::make_mut(&mut state.node).settings.direct_return = true;
        services.into_iter().for_each(|service| serve(state, service));
    });
    node
}

fn settings(state: &mut State) -> &mut margay_model::Settings {
    &mut Arc::make_mut(&mut state.node).settings
}

/// VXLAN in the network for what is answered directly, between this node and the far one.
fn handed_on(source: u16, there: bool, inner: &Ip) -> Ip {
    let ends = match (inner.src.is_ipv4(), there) {
        (true, true) => ("192.0.2.1", "198.51.100.2"),
        (true, false) => ("198.51.100.2", "192.0.2.1"),
        (false, true) => ("2001:db8:1::1", "2001:db8:2::2"),
        (false, false) => ("2001:db8:2::2", "2001:db8:1::1"),
    };
    let [_, a, b, c] = DIRECT_VNI.to_be_bytes();
    let macs = if there { (FAR_VTEP_MAC, VTEP_MAC) } else { (VTEP_MAC, FAR_VTEP_MAC) };
    let payload = [&[8, 0, 0, 0, a, b, c, 0][..], &inner.frame(macs.0, macs.1)].concat();
    let udp = Body::Udp { ports: (source, 4789), payload, checksum: inner.src.is_ipv6() };
    packet(ip(ends.0), ip(ends.1), udp)
}

/// What the node sends of a packet, if it hands it on.
#[track_caller]
fn hands_on(node: &mut Node, request: &Ip) {
    let frame = node.send(WIRE, request).by(WIRE);
    let at = if request.src.is_ipv4() { 34 } else { 54 };
    let source = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let mut outer = handed_on(source, true, &request.clone().ttl(request.ttl - 1));
    outer.dont_fragment = request.dont_fragment;
    if request.src.is_ipv4() {
        outer.identification = u16::from_be_bytes([frame[18], frame[19]]);
    }
    assert_eq!(frame, to_wire(GATEWAY_MAC, &outer));
}

#[test]
fn what_is_for_a_backend_elsewhere_travels_as_its_client_sent_it() {
    for to in ["192.0.2.1:30080", "203.0.113.1:30080", "198.18.0.1:80", "198.18.0.2:80"] {
        let mut node = node([web(&[FAR])]);
        let syn = tcp(CLIENT, to, SYN).df();
        hands_on(&mut node, &syn);
        hands_on(&mut node, &tcp(CLIENT, to, ACK).numbered(1001, 77).df());
        assert_eq!(node.connections(), 1);
        assert_eq!(state_of(&node, &syn), "ESTABLISHED", "no answer is waited for");
        hands_on(&mut node, &tcp(CLIENT, to, FIN | ACK).numbered(1006, 77).df());
        assert_eq!(state_of(&node, &syn), "CLOSING");
        assert_eq!(shortcut::legs(&node.snapshot, node.table, &tuple(&syn)), None);
        node.conserved();
    }
}

#[test]
fn ipv6_travels_over_ipv6() {
    let service = Service {
        node_port: Some(30_080),
        ..service("default/web", 17, "[fd96::10]:80", &["[fd00:65:0:3::5]:8080"])
    };
    let mut node = node([service]);
    hands_on(&mut node, &udp("[2001:db8:1::64]:40000", "[2001:db8:1::1]:30080"));
}

#[test]
fn nothing_else_is_handed_on() {
    let masqueraded = |node: &mut Node, from, request: &Ip| {
        let frame = node.send(from, request).by(WIRE);
        // VXLAN of the pods' own network, translated.
        assert_eq!(frame[46..49], [0x00, 0x10, 0x00], "{request:?}");
    };
    let (np, lb) = ("192.0.2.1:30080", "198.18.0.2:80");
    let mut off = node([web(&[FAR])]);
    off.change(|state| settings(state).direct_return = false);
    masqueraded(&mut off, WIRE, &tcp(CLIENT, np, SYN));
    let mut except = node([web(&[FAR])]);
    except.change(|state| {
        settings(state).direct_return_except = vec!["192.0.2.96/28".parse().unwrap()];
    });
    masqueraded(&mut except, WIRE, &tcp(CLIENT, np, SYN));
    hands_on(&mut except, &tcp("192.0.2.99:1", np, SYN).from("192.0.2.9:1"));
    let mut all = node([web(&[FAR])]);
    masqueraded(&mut all, A, &tcp("10.65.0.2:1", lb, SYN));
    masqueraded(&mut all, HOST, &tcp("192.0.2.1:1", lb, SYN));
    masqueraded(&mut all, WIRE, &tcp(CLIENT, "10.96.0.10:80", SYN));
    let mut here = node([web(&["10.65.0.3:8080"])]);
    here.send(WIRE, &tcp(CLIENT, np, SYN)).by(B);
}

#[test]
fn the_backends_node_translates_and_answers_in_the_others_name() {
    for to in ["198.51.100.2:30080", "198.18.0.1:80"] {
        let mut node = node([web(&["10.65.0.3:8080", FAR])]);
        let syn = tcp(CLIENT, to, SYN);
        let seen = node.send(WIRE, &handed_on(50_000, false, &syn)).by(B);
        let inside = syn.clone().to("10.65.0.3:8080");
        assert_eq!(seen, to_pod(B, &inside.clone().ttl(63)), "the client is who is seen");
        let answer = node.send(B, &inside.answer()).by(WIRE);
        assert_eq!(answer, to_wire(CLIENT_MAC, &syn.clone().answer().ttl(63)));
        let ack = tcp(CLIENT, to, ACK).numbered(1001, 1001);
        node.send(WIRE, &handed_on(50_000, false, &ack)).by(B);
        assert_eq!(node.connections(), 1);
        assert_eq!(state_of(&node, &syn), "ESTABLISHED");
        assert_eq!(shortcut::legs(&node.snapshot, node.table, &tuple(&syn)), None);
        // A snapshot later, too; and resets are held against the window.
        node.change(|state| settings(state).direct_return = false);
        node.send(WIRE, &handed_on(50_000, false, &ack)).by(B);
        let reset = tcp(CLIENT, to, RST).numbered(1 << 30, 0);
        node.send(WIRE, &handed_on(50_000, false, &reset)).dropped(DropReason::TcpReset);
        node.conserved();
    }
}

#[test]
fn policy_at_the_backend_sees_the_client() {
    let mut node = node([web(&["10.65.0.3:8080"])]);
    node.change(|state| isolate(state, "b", Some(vec![allow_from("192.0.2.100/32")]), None));
    let to = "198.51.100.2:30080";
    node.send(WIRE, &handed_on(50_000, false, &tcp(CLIENT, to, SYN))).by(B);
    let other = tcp("192.0.2.101:1", to, SYN);
    node.send(WIRE, &handed_on(50_000, false, &other)).dropped(DropReason::Policy);
}

#[test]
fn a_node_without_a_backend_any_more_sends_on_as_ever() {
    let mut node = node([web(&[FAR])]);
    let syn = tcp(CLIENT, "198.51.100.2:30080", SYN);
    let frame = node.send(WIRE, &handed_on(50_000, false, &syn)).by(WIRE);
    assert_eq!(frame[46..49], [0x00, 0x10, 0x00], "masqueraded, never back and forth");
}

#[test]
fn what_arrives_outside_of_that_network_or_from_a_stranger_is_no_service_of_this_node() {
    let mut node = node([web(&["10.65.0.3:8080"])]);
    let syn = tcp(CLIENT, "198.51.100.2:30080", SYN);
    let mut stranger = handed_on(50_000, false, &syn);
    stranger.src = ip("198.51.100.77");
    node.send(WIRE, &stranger).dropped(DropReason::UnknownTunnelPeer);
    // The mark is the tunnel's, not the frame's.
    let frame = node.send(WIRE, &syn).by(WIRE);
    assert_eq!(frame, to_wire(GATEWAY_MAC, &syn.ttl(63)));
}

#[test]
fn a_datagram_in_pieces_is_still_handed_on_once_it_is_whole() {
    let mut udp_service = service("default/web", 17, "10.96.0.10:80", &["10.65.0.3:8080"]);
    udp_service.node_port = Some(30_080);
    let mut node = node([udp_service]);
    let mut piece = udp(CLIENT, "198.51.100.2:30080").bytes();
    piece[6] = 0x20;
    piece[10..12].fill(0);
    let sum = etherparse::Ipv4HeaderSlice::from_slice(&piece).unwrap().to_header();
    piece[10..12].copy_from_slice(&sum.calc_header_checksum().to_be_bytes());
    let [_, a, b, c] = DIRECT_VNI.to_be_bytes();
    let ethernet = [&VTEP_MAC[..], &FAR_VTEP_MAC, &[8, 0]].concat();
    let payload = [&[8, 0, 0, 0, a, b, c, 0][..], &ethernet, &piece].concat();
    let body = Body::Udp { ports: (50_000, 4789), payload, checksum: false };
    let out = node.send(WIRE, &packet(ip("198.51.100.2"), ip("192.0.2.1"), body));
    let header = out.frame[..14].to_vec();
    assert_eq!(out.punted(), Why::Reassemble);
    // The slow path gives back the datagram behind the header that its pieces had.
    let whole = udp(CLIENT, "198.51.100.2:30080");
    let frame = [&header[..], &whole.bytes()].concat();
    let out = node.again(margay_engine::Ingress::Tunnel(WIRE), frame, true);
    assert_eq!(out.by(B), to_pod(B, &whole.to("10.65.0.3:8080").ttl(63)));
}

#[test]
fn an_error_about_an_answer_goes_to_the_node_that_gave_it() {
    let mut node = node([web(&[FAR])]);
    let syn = tcp(CLIENT, "192.0.2.1:30080", SYN);
    hands_on(&mut node, &syn);
    let error = |about: &Ip| {
        let quoted = about.bytes()[..28].to_vec();
        let body = Body::Icmp { kind: 3, code: 4, rest: [0, 0, 5, 0], payload: quoted };
        packet(ip("192.0.2.254"), ip("192.0.2.1"), body)
    };
    hands_on(&mut node, &error(&syn.clone().answer()));
    let nobodys = error(&syn.clone().from("192.0.2.100:1").answer());
    assert_eq!(node.send(WIRE, &nobodys).punted(), Why::IcmpError);
    node.conserved();
}

#[test]
fn too_large_for_the_way_to_the_backend_is_told_to_the_client() {
    let mut node = node([web(&[FAR])]);
    let large = tcp(CLIENT, "192.0.2.1:30080", ACK).df().sized(1411);
    assert_eq!(node.send(WIRE, &large).punted(), Why::TooBig { mtu: 1450 });
}

#[test]
fn udp_whose_backend_is_gone_goes_to_another_and_tcp_when_it_begins_anew() {
    let both = ["10.65.3.5:8080", "10.65.0.3:8080"];
    for protocol in [6, 17] {
        let mut far = service("default/web", protocol, "10.96.0.10:80", &both[..1]);
        far.node_port = Some(30_080);
        let mut near = service("default/web", protocol, "10.96.0.10:80", &both[1..]);
        near.node_port = Some(30_080);
        let mut node = node([far]);
        let request = match protocol {
            6 => tcp(CLIENT, "192.0.2.1:30080", ACK),
            _ => udp(CLIENT, "192.0.2.1:30080"),
        };
        hands_on(&mut node, &request);
        node.change(|state| serve(state, near));
        match protocol {
            6 => {
                hands_on(&mut node, &request);
                // Its backend has reset it, and nobody here has heard that.
                let anew = tcp(CLIENT, "192.0.2.1:30080", SYN);
                drop(node.send(WIRE, &anew).by(B));
            }
            _ => drop(node.send(WIRE, &request).by(B)),
        }
    }
}

fn tuple(packet: &Ip) -> Tuple {
    let (src, dst, (src_port, dst_port)) = (packet.src.into(), packet.dst.into(), packet.ends());
    Tuple { src, dst, src_port, dst_port, protocol: 6, zone: 0 }
}

fn state_of(node: &Node, packet: &Ip) -> &'static str {
    let tuple = tuple(packet);
    let flow = node.table.lookup(&tuple, node.table.hash(&tuple)).unwrap();
    margay_engine::view(&node.snapshot, flow, node.now).state
}
