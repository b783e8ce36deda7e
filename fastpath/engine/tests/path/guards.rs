//! Host endpoints: the node's own traffic through an uplink, and what passes through the node.

use std::net::IpAddr;
use std::sync::Arc;

use margay_engine::snapshot::{PortInfo, arrival_mac, trunk_mac};
use margay_engine::{Fate, Ingress, PortId};
use margay_model::{
    Action, DefaultAction, DropReason, Dscp, Failsafe, HostEndpoint, HostInterface, Rule, Service,
    State, TierPolicies, Update,
};
use margay_tables::addr::Tuple;
use margay_tables::flow::{Entry, FlowCopy, FlowWorker};
use proptest::prelude::*;

use crate::properties::{busy_node, cases, harm, hurt, leaves_whole, mend, well_formed};
use crate::support::*;

const NODE: &str = "192.0.2.1";
const CLIENT: &str = "192.0.2.100";

/// A host endpoint of the uplink without policies.
fn eth0() -> HostEndpoint {
    HostEndpoint {
        key: "eth0".into(),
        interface: HostInterface::Named("eth0".into()),
        untracked: Arc::new([]),
        pre_dnat: Arc::new([]),
        forward: Arc::new([]),
        tiers: Arc::new([]),
        profiles: Arc::new([]),
        dscp: None,
    }
}

fn guard(node: &mut Node, edit: impl FnOnce(&mut State, &mut HostEndpoint)) {
    node.change(|state| {
        let mut host = eth0();
        edit(state, &mut host);
        state.apply(Update::Host(Arc::new(host)));
    });
}

/// One policy in a tier.
fn list(
    state: &mut State,
    name: &str,
    end: DefaultAction,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Arc<[TierPolicies]> {
    let (has_in, has_out) = (ingress.is_some(), egress.is_some());
    let key = policy(state, name, ingress.unwrap_or_default(), egress.unwrap_or_default());
    let keys = [&key];
    let part = |has: bool| if has { &keys[..] } else { &[] };
    Arc::new([tier("default", end, part(has_in), part(has_out))])
}

const END: DefaultAction = DefaultAction::Deny;
/// What the control plane gives untracked and pre-DNAT tiers.
const OPEN: DefaultAction = DefaultAction::Pass;

/// A frame that the kernel had sent out of the uplink to a neighbour.
fn departs(node: &mut Node, neighbour: [u8; 6], packet: &Ip) -> Out {
    let frame = packet.frame(trunk_mac(ifindex(WIRE)), neighbour);
    let (outs, _) = node.batch(vec![(Ingress::Trunk, frame)]);
    outs.into_iter().next().unwrap()
}

/// What the node's kernel is handed.
fn arrived(packet: &Ip) -> Vec<u8> {
    packet.frame(UPLINK_MAC, arrival_mac(ifindex(WIRE)))
}

#[test]
fn what_the_kernel_sends_out_to_the_node_itself_opens_no_way_for_answers() {
    let mut node = Node::default();
    guard(&mut node, |_, _| {});
    for (far, own) in [(CLIENT, NODE), ("2001:db8:9::1", "2001:db8:1::1")] {
        let question = udp(&at(far, 7), &at(own, 9));
        departs(&mut node, NEAR_MAC, &question).dropped(DropReason::Martian);
        departs(&mut node, NEAR_MAC, &question.answer()).dropped(DropReason::Policy);
    }
    node.conserved();
}

#[test]
fn without_a_host_endpoint_nothing_is_as_the_kernels_own() {
    let mut node = Node::default();
    let ask = udp(&at(CLIENT, 7), &at(NODE, 61_000));
    assert_eq!(node.send(WIRE, &ask).by(HOST), to_host(&ask));
    // A frame that was on its way when the host endpoint went is not lost.
    let own = udp(&at(NODE, 9), &at(CLIENT, 9));
    assert_eq!(departs(&mut node, CLIENT_MAC, &own).by(WIRE), to_wire(CLIENT_MAC, &own));
}

#[test]
fn what_a_host_endpoint_lets_in_no_other_uplink_brings() {
    const OTHER: PortId = PortId(5);
    let mut node = Node::default();
    let eth0 = node.underlay.ports.iter().find(|port| port.id == WIRE).unwrap().clone();
    let eth1 = PortInfo { id: OTHER, name: "eth1".into(), ifindex: ifindex(OTHER), ..eth0 };
    node.underlay.ports.push(eth1);
    guard(&mut node, |state, _| {
        for (name, address, backend) in
            [("four", "10.96.0.9:80", "10.65.0.2:80"), ("six", "[fd96::9]:80", "[fd00:65::2]:80")]
        {
            let node_port = Some(30_009);
            serve(state, Service { node_port, ..service(name, 17, address, &[backend]) });
        }
    });
    for (far, own) in [("169.254.10.10", NODE), ("fe80::9", "2001:db8:1::1")] {
        let ask = udp(&at(far, 5), &at(own, 30_009));
        for _ in 0..2 {
            node.send(WIRE, &ask).by(A);
            let frame = ask.frame(UPLINK_MAC, GATEWAY_MAC);
            let (outs, _) = node.batch(vec![(Ingress::Port(OTHER), frame)]);
            outs.into_iter().next().unwrap().dropped(DropReason::Martian);
        }
    }
}

#[test]
fn without_policy_or_profile_a_host_endpoint_closes_the_node_and_lets_others_pass() {
    for v4 in [true, false] {
        let mut node = Node::default();
        guard(&mut node, |_, _| {});
        let (own, far) = if v4 { (NODE, CLIENT) } else { ("2001:db8:1::1", "2001:db8:1::2") };
        node.send(WIRE, &tcp(&at(far, 5), &at(own, 80), SYN)).dropped(DropReason::Policy);
        departs(&mut node, CLIENT_MAC, &udp(&at(own, 5), &at(far, 53))).dropped(DropReason::Policy);
        let through = udp(&at(far, 5), &at(pods(v4)[0], 80));
        node.send(WIRE, &through).by(A);
        // And the node reaches its pods, and they reach it.
        node.send(HOST, &udp(&at(own, 5), &at(pods(v4)[0], 81))).by(A);
        node.send(A, &udp(&at(pods(v4)[0], 5), &at(own, 82))).by(HOST);
    }
}

#[test]
fn a_connection_by_an_uplink_with_a_host_endpoint_needs_the_workers() {
    let mut node = Node::default();
    let packet = tcp("10.65.0.2:40000", "10.65.1.5:80", ACK);
    let (src, dst, (src_port, dst_port)) = (packet.src.into(), packet.dst.into(), packet.ends());
    let tuple = Tuple { src, dst, src_port, dst_port, protocol: 6, zone: 0 };
    let allowed = |node: &mut Node| {
        node.send(A, &tcp("10.65.0.2:40000", "10.65.1.5:80", SYN)).by(WIRE);
        node.send(WIRE, &tcp("10.65.1.5:80", "10.65.0.2:40000", SYN | ACK)).by(A);
        node.send(A, &packet).by(WIRE);
        margay_engine::shortcut::legs(&node.snapshot, node.table, &tuple).is_some()
    };
    assert!(allowed(&mut node));
    guard(&mut node, |_, _| {});
    assert!(!allowed(&mut node));
}

#[test]
fn what_is_allowed_goes_between_kernel_and_wire_untouched_and_answers_follow() {
    for v4 in [true, false] {
        let mut node = Node::default();
        guard(&mut node, |state, host| {
            let rules = || Some(vec![allow_ports(6, 80, 80)]);
            host.tiers = list(state, "web", END, rules(), rules());
        });
        let (own, far) = if v4 { (NODE, CLIENT) } else { ("2001:db8:1::1", "2001:db8:1::2") };
        let ask = tcp(&at(far, 5), &at(own, 80), SYN);
        assert_eq!(node.send(WIRE, &ask).by(HOST), arrived(&ask));
        let answer = ask.clone().answer();
        // The neighbour is the kernel's choice, whatever the routes say.
        assert_eq!(departs(&mut node, [9; 6], &answer).by(WIRE), to_wire([9; 6], &answer));
        let own_ask = tcp(&at(own, 5), &at(far, 80), SYN);
        let out = departs(&mut node, CLIENT_MAC, &own_ask).by(WIRE);
        assert_eq!(out, to_wire(CLIENT_MAC, &own_ask));
        let answer = own_ask.answer();
        assert_eq!(node.send(WIRE, &answer).by(HOST), arrived(&answer));
        node.send(WIRE, &tcp(&at(far, 6), &at(own, 81), SYN)).dropped(DropReason::Policy);
        departs(&mut node, CLIENT_MAC, &tcp(&at(own, 6), &at(far, 81), SYN))
            .dropped(DropReason::Policy);
    }
}

#[test]
fn what_the_node_sends_out_of_the_cluster_is_marked_as_its_host_endpoint_says() {
    for (v4, tracked) in [(true, true), (false, true), (true, false)] {
        let mut node = Node::default();
        let dscp = Dscp::new(46);
        guard(&mut node, |state, host| {
            let rules = || Some(vec![allow()]);
            host.tiers = list(state, "all", END, rules(), rules());
            if !tracked {
                host.untracked = list(state, "each", OPEN, rules(), rules());
            }
            host.dscp = dscp;
        });
        let marked = |packet: &Ip| packet.clone().class(46 << 2 | 1);
        let (own, far) = if v4 { (NODE, CLIENT) } else { ("2001:db8:1::1", "2001:db8:9::9") };
        let ask = udp(&at(own, 5), &at(far, 53)).class(1);
        let out = departs(&mut node, CLIENT_MAC, &ask).by(WIRE);
        assert_eq!(out, to_wire(CLIENT_MAC, &marked(&ask)));
        // Answers that the node gives too; what comes to it stays as it is.
        let asked = udp(&at(far, 7), &at(own, 80)).class(1);
        assert_eq!(node.send(WIRE, &asked).by(HOST), arrived(&asked));
        let answer = asked.answer().class(1);
        let out = departs(&mut node, CLIENT_MAC, &answer).by(WIRE);
        assert_eq!(out, to_wire(CLIENT_MAC, &marked(&answer)));
        // Not to nodes and pools, not what the kernel forwards for others, nor what pods send.
        let [near, pod] =
            if v4 { ["192.0.2.2", "10.65.1.5"] } else { ["2001:db8:1::2", "fd00:65:0:1::5"] };
        for (src, dst) in [(own, near), (own, pod), ("198.51.100.7", CLIENT)] {
            if src.contains(':') == dst.contains(':') {
                let packet = udp(&at(src, 5), &at(dst, 53)).class(1);
                let out = departs(&mut node, NEAR_MAC, &packet).by(WIRE);
                assert_eq!(out, to_wire(NEAR_MAC, &packet), "{src} {dst}");
            }
        }
        let of_pod = udp(&at(pods(v4)[0], 5), &at(far, 53)).class(1);
        let out = node.send(A, &of_pod).by(WIRE);
        assert_eq!(if v4 { out[15] } else { out[14] << 4 | out[15] >> 4 }, 1);
    }
}

#[test]
fn the_nodes_own_node_port_answers_by_the_host_port() {
    for v4 in [true, false] {
        let (own, far) = if v4 { (NODE, CLIENT) } else { ("2001:db8:1::1", "2001:db8:1::2") };
        let cluster = if v4 { "10.96.0.10:80" } else { "[fd96::10]:80" };
        let mut node = Node::default();
        guard(&mut node, |state, host| {
            host.tiers = list(state, "out", END, None, Some(vec![allow_ports(6, 1, 65_535)]));
            let service = service("s", 6, cluster, &[&at(far, 8080)]);
            serve(state, Service { node_port: Some(30_080), ..service });
        });
        let ask = tcp(&at(own, 5), &at(own, 30_080), SYN);
        let sent = ask.clone().to(&at(far, 8080));
        // Whatever source port it was given.
        let mut frame = node.send(HOST, &ask).by(WIRE);
        let source = crate::services::source_of(&frame.split_off(14), &ask);
        let answer = sent.from(&source).answer();
        assert_eq!(node.send(WIRE, &answer).by(HOST), to_host(&ask.answer()));
    }
}

#[test]
fn an_edit_cuts_what_it_forbids() {
    let mut node = Node::default();
    let rules = |state: &mut State, port| {
        list(state, "web", END, Some(vec![allow_ports(17, port, port)]), None)
    };
    guard(&mut node, |state, host| host.tiers = rules(state, 80));
    let ask = udp(&at(CLIENT, 5), &at(NODE, 80));
    node.send(WIRE, &ask).by(HOST);
    departs(&mut node, CLIENT_MAC, &ask.clone().answer()).by(WIRE);
    guard(&mut node, |state, host| host.tiers = rules(state, 81));
    departs(&mut node, CLIENT_MAC, &ask.clone().answer()).dropped(DropReason::Policy);
    node.send(WIRE, &ask).dropped(DropReason::Policy);
    node.change(|state| state.apply(Update::HostGone("eth0".into())));
    assert_eq!(node.send(WIRE, &ask).by(HOST), to_host(&ask));
}

#[test]
fn failsafe_ports_are_open_for_the_node_and_not_for_others() {
    let mut node = Node::default();
    guard(&mut node, |state, host| {
        let none = || Some(vec![deny()]);
        host.tiers = list(state, "none", END, none(), none());
        host.forward = host.tiers.clone();
        host.pre_dnat = list(state, "no-nat", OPEN, Some(vec![]), None);
        let settings = &mut Arc::make_mut(&mut state.node).settings;
        let open = |port, net: Option<&str>| Failsafe {
            protocol: 6,
            port,
            net: net.map(|net| net.parse().unwrap()),
        };
        settings.failsafe_inbound = vec![open(22, None), open(23, Some("198.51.100.0/24"))];
        settings.failsafe_outbound = vec![open(6443, None)];
    });
    node.send(WIRE, &tcp(&at(CLIENT, 5), &at(NODE, 22), SYN)).by(HOST);
    node.send(WIRE, &tcp(&at(CLIENT, 5), &at(NODE, 23), SYN)).dropped(DropReason::Policy);
    node.send(WIRE, &tcp(&at("198.51.100.9", 5), &at(NODE, 23), SYN)).by(HOST);
    node.send(WIRE, &udp(&at(CLIENT, 5), &at(NODE, 22))).dropped(DropReason::Policy);
    node.send(WIRE, &tcp(&at(CLIENT, 5), "10.65.0.2:22", SYN)).dropped(DropReason::Policy);
    departs(&mut node, CLIENT_MAC, &tcp(&at(NODE, 5), &at(CLIENT, 6443), SYN)).by(WIRE);
    departs(&mut node, CLIENT_MAC, &tcp(&at(NODE, 5), &at(CLIENT, 22), SYN))
        .dropped(DropReason::Policy);
}

#[test]
fn what_passes_through_is_judged_by_forward_policy_where_it_comes_in_and_where_it_leaves() {
    let mut node = Node::default();
    guard(&mut node, |state, host| {
        let rules = || Some(vec![allow_ports(17, 80, 80)]);
        host.forward = list(state, "through", END, rules(), rules());
    });
    let inward = |port| udp(&at(CLIENT, 5), &at("10.65.0.2", port));
    node.send(WIRE, &inward(81)).dropped(DropReason::Policy);
    node.send(WIRE, &inward(80)).by(A);
    node.send(A, &inward(80).answer()).by(WIRE);
    let outward = |port| udp("10.65.0.2:5", &at("10.65.1.5", port));
    node.send(A, &outward(81)).dropped(DropReason::Policy);
    node.send(A, &outward(80)).by(WIRE);
    node.send(WIRE, &outward(80).answer()).by(A);
    // A tunnel is no packet of the uplink's.
    node.send(A, &udp("10.65.0.2:5", "10.65.3.5:81")).by(WIRE);
    // Nor is what goes from pod to pod.
    node.send(A, &udp("10.65.0.2:5", "10.65.0.3:81")).by(B);
}

#[test]
fn one_for_all_interfaces_stands_for_tunnels_and_for_uplinks_without_their_own() {
    let mut node = Node::default();
    guard(&mut node, |state, host| {
        (host.key, host.interface) = ("all".into(), HostInterface::All);
        host.forward = list(state, "through", END, None, Some(vec![allow_ports(17, 80, 80)]));
    });
    for dst in ["10.65.1.5", "10.65.3.5", "10.65.2.5"] {
        node.send(A, &udp("10.65.0.2:5", &at(dst, 81))).dropped(DropReason::Policy);
        node.send(A, &udp("10.65.0.2:5", &at(dst, 80))).by(WIRE);
        // The node's own is judged by the other list, which is empty: closed.
        node.send(HOST, &udp("192.0.2.1:5", &at(dst, 80))).dropped(DropReason::Policy);
    }
    // The uplink has one of its own now; tunnels have not.
    node.change(|state| {
        state.apply(Update::Host(Arc::new(eth0())));
    });
    node.send(A, &udp("10.65.0.2:6", "10.65.1.5:81")).by(WIRE);
    node.send(A, &udp("10.65.0.2:6", "10.65.3.5:81")).dropped(DropReason::Policy);
}

#[test]
fn of_several_that_fit_an_interface_the_first_by_name_counts() {
    let mut node = Node::default();
    node.change(|state| {
        let open = list(state, "open", END, Some(vec![allow()]), None);
        let host = |key: &str, interface, open: &Arc<[TierPolicies]>| HostEndpoint {
            key: key.into(),
            interface,
            tiers: open.clone(),
            ..eth0()
        };
        let none = Arc::default();
        state.apply(Update::Host(Arc::new(host("a", HostInterface::All, &none))));
        state.apply(Update::Host(Arc::new(host("b", HostInterface::Named("eth1".into()), &none))));
        let with = HostInterface::With(vec![ip("203.0.113.9"), ip(NODE)]);
        state.apply(Update::Host(Arc::new(host("c", with, &open))));
        state.apply(Update::Host(Arc::new(host("d", HostInterface::Named("eth0".into()), &none))));
    });
    node.send(WIRE, &udp(&at(CLIENT, 5), &at(NODE, 80))).by(HOST);
}

#[test]
fn pre_dnat_policy_sees_what_was_asked_for_and_its_allow_is_enough() {
    let mut node = Node::default();
    node.change(|state| {
        let mut web = service("web", 17, "10.96.0.1:80", &["10.65.0.2:8080"]);
        web.node_port = Some(30_080);
        serve(state, web);
    });
    guard(&mut node, |state, host| {
        let from = |net: &str, rule: Rule| {
            let src = margay_model::EntityMatch {
                nets: vec![net.parse().unwrap()],
                ..Default::default()
            };
            Rule { ip_version: Some(margay_model::IpVersion::V4), src, ..rule }
        };
        let rules = vec![
            from("192.0.2.0/24", allow_ports(17, 30_080, 30_080)),
            from(
                "198.51.100.0/25",
                Rule { action: deny().action, ..allow_ports(17, 30_080, 30_080) },
            ),
        ];
        host.pre_dnat = list(state, "node-ports", OPEN, Some(rules), None);
        // Nothing may pass through but what pre-DNAT policy has let in.
        host.forward = list(state, "none", END, Some(vec![]), None);
    });
    let ask = |src: &str| udp(&at(src, 5), &at(NODE, 30_080));
    node.send(WIRE, &ask(CLIENT)).by(A);
    node.send(WIRE, &ask("198.51.100.9")).dropped(DropReason::Policy);
    node.send(WIRE, &ask("198.51.100.200")).dropped(DropReason::Policy);
    // What it does not decide goes on to the other lists: the node is closed.
    node.send(WIRE, &udp(&at(CLIENT, 5), &at(NODE, 80))).dropped(DropReason::Policy);
    // The decision is made again from the very same facts.
    node.change(|_| {});
    node.send(WIRE, &ask(CLIENT)).by(A);
}

#[test]
fn untracked_policy_judges_each_packet_and_keeps_no_connection() {
    let mut node = Node::default();
    guard(&mut node, |state, host| {
        let mut back = allow();
        back.protocol = Some(17);
        back.src.ports = vec![margay_model::PortRange::single(53)];
        host.untracked =
            list(state, "dns", OPEN, Some(vec![allow_ports(17, 53, 53)]), Some(vec![back]));
    });
    let before = node.connections();
    let ask = udp(&at(CLIENT, 5), &at(NODE, 53));
    assert_eq!(node.send(WIRE, &ask).by(HOST), arrived(&ask));
    let answer = ask.answer();
    assert_eq!(departs(&mut node, [9; 6], &answer).by(WIRE), to_wire([9; 6], &answer));
    assert_eq!(node.connections(), before);
    // What it does not decide is judged as ever.
    node.send(WIRE, &udp(&at(CLIENT, 5), &at(NODE, 54))).dropped(DropReason::Policy);
    // Without the way back, there is none.
    guard(&mut node, |state, host| {
        let none = Some(vec![deny()]);
        host.untracked = list(state, "dns", OPEN, Some(vec![allow_ports(17, 53, 53)]), none);
    });
    let ask = udp(&at(CLIENT, 5), &at(NODE, 53));
    node.send(WIRE, &ask).by(HOST);
    departs(&mut node, CLIENT_MAC, &ask.answer()).dropped(DropReason::Policy);
}

#[test]
fn untracked_allow_leaves_services_and_pods_connected() {
    let mut node = Node::default();
    guard(&mut node, |state, host| {
        host.untracked = list(state, "all", OPEN, Some(vec![allow()]), None);
        host.forward = list(state, "none", END, Some(vec![]), None);
        let mut web = service("web", 17, "10.96.0.1:80", &["10.65.0.2:8080"]);
        web.node_port = Some(30_080);
        serve(state, web);
    });
    node.send(WIRE, &udp(&at(CLIENT, 5), &at(NODE, 30_080))).by(A);
    // A masqueraded answer finds its pod.
    let ask = udp("10.65.0.2:5", "198.51.100.9:53");
    let frame = node.send(A, &ask).by(WIRE);
    let port = u16::from_be_bytes([frame[34], frame[35]]);
    node.send(WIRE, &udp("198.51.100.9:53", &at(NODE, port))).by(A);
}

#[test]
fn the_links_own_words_reach_the_kernel_if_policy_allows() {
    let mut node = Node::default();
    guard(&mut node, |state, host| {
        host.tiers = list(state, "some", END, Some(vec![allow_ports(17, 5353, 5353)]), None);
        host.profiles = Arc::new([PROFILE.into()]);
    });
    let said = |port| udp(&at("192.0.2.2", 5353), &at("224.0.0.251", port));
    let frame = |port| said(port).frame([1, 0, 0x5e, 0, 0, 0xfb], NEAR_MAC);
    let expected = said(5353).frame([1, 0, 0x5e, 0, 0, 0xfb], arrival_mac(ifindex(WIRE)));
    assert_eq!(node.frame(WIRE, frame(5353)).by(HOST), expected);
    node.frame(WIRE, frame(5354)).dropped(DropReason::Policy);
    // A network's broadcast is for the node too.
    node.send(WIRE, &udp(&at(CLIENT, 5), "192.0.2.255:9")).dropped(DropReason::Policy);
    // The node says the like: the profile allows it.
    let own = udp(&at(NODE, 5353), "224.0.0.251:5353");
    let group = [1, 0, 0x5e, 0, 0, 0xfb];
    assert_eq!(departs(&mut node, group, &own).by(WIRE), to_wire(group, &own));
    // What a switch floods is for nobody here.
    let other = udp(&at(CLIENT, 5), &at(NODE, 5353)).frame([4; 6], CLIENT_MAC);
    node.frame(WIRE, other).dropped(DropReason::NotForUs);
}

#[test]
fn what_the_kernel_forwards_meets_forward_policy_and_keeps_its_ttl() {
    let mut node = Node::default();
    guard(&mut node, |state, host| {
        host.tiers = list(state, "some", END, Some(vec![allow_ports(17, 80, 80)]), Some(vec![]));
    });
    node.send(WIRE, &udp(&at(CLIENT, 5), &at(NODE, 81))).dropped(DropReason::Policy);
    let through = udp(&at(CLIENT, 5), "172.31.0.1:81").ttl(1);
    assert_eq!(node.send(WIRE, &through).by(HOST), arrived(&through));
    let answer = through.answer();
    assert_eq!(departs(&mut node, CLIENT_MAC, &answer).by(WIRE), to_wire(CLIENT_MAC, &answer));
}

/// Source and destination of the packet in a frame.
fn ends(frame: &[u8]) -> (IpAddr, IpAddr) {
    let four = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
    let six = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    if frame[14] >> 4 == 4 { (four(26), four(30)) } else { (six(22), six(38)) }
}

/// Whether an address is the node's, or one that it has in common with others.
fn is_nodes(addr: IpAddr) -> bool {
    is_own(addr) || addr == ip("192.0.2.255") || addr.is_multicast() || addr.is_loopback()
}

fn is_own(addr: IpAddr) -> bool {
    let own = [NODE, "2001:db8:1::1", "203.0.113.1", "10.65.0.60", "10.65.0.61"];
    own.contains(&addr.to_string().as_str())
}

fn is_own_pods(addr: IpAddr) -> bool {
    local_nets().iter().any(|net| net.contains(&addr))
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever is in the packet, and whatever was decided before: the node's own traffic is closed,
    /// both ways, and what else leaves is whole.
    #[test]
    fn nothing_reaches_or_leaves_a_node_whose_host_endpoint_allows_nothing(
        packets in prop::collection::vec(
            (well_formed(), 0u8..3, prop::collection::vec(harm(), 0..2), any::<bool>()), 1..64),
        untracked: bool,
    ) {
        let mut node = busy_node();
        guard(&mut node, |state, host| if untracked {
            host.untracked = list(state, "other", OPEN, Some(vec![allow_ports(250, 1, 2)]), None);
        });
        let frames = packets.iter().map(|(packet, way, harms, mended)| {
            let mut frame = match way {
                0 => frame_from(WIRE, packet),
                1 => packet.frame(trunk_mac(ifindex(WIRE)), NEAR_MAC),
                _ => frame_from(A, packet),
            };
            harms.iter().for_each(|harm| hurt(&mut frame, harm));
            if *mended {
                mend(&mut frame);
            }
            (if *way == 0 { Ingress::Port(WIRE) } else { Ingress::Trunk }, frame)
        });
        let frames: Vec<_> = frames.collect();
        let outs = node.batch(frames.clone()).0;
        for ((out, (_, sent)), (packet, way, ..)) in outs.iter().zip(frames).zip(&packets) {
            leaves_whole(out)?;
            let Fate::Forward(port) = out.fate else { continue };
            let nodes = match way {
                0 => port == HOST && is_nodes(ends(&out.frame).1),
                // What passes may leave with the node's address, what was its own may not, but to its
                // own pods, who may ask it.
                1 => is_own(ends(&sent).0) && !is_own_pods(ends(&sent).1),
                _ => false,
            };
            prop_assert!(!nodes, "{packet:?} {out:?}");
        }
    }
}

// === what those see who keep accounts ===

fn entries(node: &Node) -> Vec<Entry> {
    let journal = node.table.journal().expect("the fixture keeps one");
    std::iter::from_fn(|| journal.take()).collect()
}

fn log() -> Rule {
    Rule { action: Action::Log, ..allow() }
}

/// The policies and directions of the lines that are due.
fn logged(node: &Node) -> Vec<(String, bool)> {
    let name = |id| node.snapshot.classifier.rule(id).unwrap().0.to_string();
    let lines = entries(node).into_iter().filter_map(|entry| match entry {
        Entry::Logged(packet) => Some((name(packet.rule), packet.ingress)),
        _ => None,
    });
    lines.collect()
}

#[test]
fn log_rules_of_every_list_give_a_line_for_a_connection() {
    let mut node = Node::default();
    let key = |name: &str| format!("NetworkPolicy/default/{name}");
    guard(&mut node, |state, host| {
        host.pre_dnat = list(state, "pre", OPEN, Some(vec![log()]), None);
        host.forward =
            list(state, "fwd", END, Some(vec![log(), allow()]), Some(vec![log(), allow()]));
        host.tiers =
            list(state, "own", END, Some(vec![log(), allow()]), Some(vec![log(), allow()]));
    });
    let through = udp(&at(CLIENT, 5), "10.65.0.2:80");
    for _ in 0..3 {
        node.send(WIRE, &through).by(A);
    }
    assert_eq!(logged(&node), [(key("pre"), true), (key("fwd"), true)]);
    node.send(A, &udp("10.65.0.2:9", &at(CLIENT, 9))).by(WIRE);
    assert_eq!(logged(&node), [(key("fwd"), false)]);
    node.send(WIRE, &udp(&at(CLIENT, 5), &at(NODE, 80))).by(HOST);
    assert_eq!(logged(&node), [(key("pre"), true), (key("own"), true)]);
    departs(&mut node, CLIENT_MAC, &udp(&at(NODE, 7), &at(CLIENT, 9))).by(WIRE);
    assert_eq!(logged(&node), [(key("own"), false)]);
}

#[test]
fn packets_of_untracked_policies_are_summed_by_rule_and_logged_one_by_one() {
    let mut node = Node::default();
    guard(&mut node, |state, host| {
        let rules = vec![
            log(),
            allow_ports(17, 53, 53),
            Rule { action: Action::Deny, ..allow_ports(17, 54, 54) },
        ];
        host.untracked = list(state, "raw", OPEN, Some(rules), None);
        host.profiles = Arc::new([PROFILE.into()]);
    });
    let ask = |port| udp(&at(CLIENT, 5), &at(NODE, port));
    let frame = |port| (Ingress::Port(WIRE), ask(port).frame(UPLINK_MAC, CLIENT_MAC));
    let len = ask(53).bytes().len() as u64;
    node.batch(vec![frame(53), frame(54), frame(53), frame(55)]);
    let all = entries(&node);
    let sums: Vec<_> = (all.iter())
        .filter_map(|entry| match entry {
            Entry::Tally(sum) => {
                let (_, place) = node.snapshot.classifier.rule(sum.rule).unwrap();
                Some((place, sum.ingress, sum.allowed, sum.packets, sum.bytes))
            }
            _ => None,
        })
        .collect();
    assert_eq!(sums, [(1, true, true, 2, 2 * len), (2, true, false, 1, len)]);
    assert_eq!(all.iter().filter(|entry| matches!(entry, Entry::Logged(_))).count(), 4);
}

/// The rules by which the only connection passed: policies and places, on the way out and in.
fn passed(node: &Node) -> [Option<(String, u32)>; 2] {
    let worker = FlowWorker::new(node.table.clone()).unwrap();
    let mut found = Vec::new();
    worker.list(Default::default(), 64, |flow| found.push(FlowCopy::new(flow)));
    let [flow] = &found[..] else { panic!("one flow: {found:?}") };
    let view = margay_engine::view_of(&node.snapshot, flow, node.now);
    view.passed.map(|rule| rule.map(|(policy, place)| (policy.to_string(), place)))
}

#[test]
fn what_let_a_connection_pass_through_the_node_is_known_with_its_first_packet() {
    let rule = |name: &str, place| Some((format!("NetworkPolicy/default/{name}"), place));
    let guarded = || {
        let mut node = Node::default();
        guard(&mut node, |state, host| {
            host.pre_dnat = list(state, "pre", OPEN, Some(vec![allow_ports(17, 70, 79)]), None);
            let ways =
                || Some(vec![Rule { action: Action::Deny, ..allow_ports(17, 1, 1) }, allow()]);
            host.forward = list(state, "fwd", END, ways(), ways());
            host.profiles = Arc::new([PROFILE.into()]);
        });
        node
    };
    let mut node = guarded();
    let ask = udp(&at(CLIENT, 5), "10.65.0.2:80");
    node.send(WIRE, &ask).by(A);
    assert_eq!(passed(&node), [None, rule("fwd", 1)]);
    node.send(A, &ask.answer()).by(WIRE);
    assert_eq!(passed(&node), [None, rule("fwd", 1)]);

    let mut node = guarded();
    node.send(A, &udp("10.65.0.2:9", &at(CLIENT, 9))).by(WIRE);
    assert_eq!(passed(&node), [rule("fwd", 1), None]);

    // What pre-DNAT policy allows, for a pod and for the node.
    for (target, port) in [("10.65.0.2:70", A), ("192.0.2.1:70", HOST)] {
        let mut node = guarded();
        node.send(WIRE, &udp(&at(CLIENT, 5), target)).by(port);
        assert_eq!(passed(&node), [None, rule("pre", 0)]);
    }
    // The node's own, and what stays on it, passes nobody.
    let mut node = guarded();
    node.send(WIRE, &udp(&at(CLIENT, 5), &at(NODE, 80))).by(HOST);
    assert_eq!(passed(&node), [None, None]);
    let mut node = guarded();
    node.send(A, &udp("10.65.0.2:9", "10.65.0.3:9")).by(B);
    assert_eq!(passed(&node), [None, None]);
}
