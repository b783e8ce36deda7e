//! The node's own traffic with pods, and routes that end here or nowhere.

use std::sync::Arc;

use margay_engine::Why;
use margay_engine::snapshot::KernelRoute;
use margay_model::node::EndpointToHost;
use margay_model::{DropReason, PuntReason, RouteTarget};

use crate::support::*;

#[test]
fn pods_reach_a_server_at_a_link_local_address_of_their_node() {
    const CACHE: &str = "169.254.20.10";
    let mut node = Node::default();
    let question = udp("10.65.0.2:4000", &at(CACHE, 53));
    node.send(A, &question).dropped(DropReason::Martian);
    node.underlay.addresses.push(ip(CACHE));
    node.change(|_| ());
    assert_eq!(node.send(A, &question).by(HOST), to_host(&question));
    let answer = question.answer();
    assert_eq!(node.send(HOST, &answer).by(A), to_pod(A, &answer));
    node.send(WIRE, &udp("192.0.2.100:1", &at(CACHE, 53))).dropped(DropReason::Martian);
    // Neither does it leave the node.
    node.send(HOST, &udp(&at(CACHE, 1), "10.65.1.5:2")).dropped(DropReason::Martian);
}

#[test]
fn the_node_reaches_its_pods_whatever_their_policies_say() {
    for v4 in [true, false] {
        let mut node = Node::default();
        node.change(|state| isolate(state, "a", Some(vec![]), Some(vec![])));
        let own = if v4 { "192.0.2.1" } else { "2001:db8:1::1" };
        for request in [tcp(&at(own, 1), &at(pods(v4)[0], 10_250), SYN), ping(own, pods(v4)[0], 3)]
        {
            // The node is the source: it has lowered nothing before.
            assert_eq!(node.send(HOST, &request).by(A), to_pod(A, &request));
            let answer = request.answer();
            assert_eq!(node.send(A, &answer).by(HOST), to_host(&answer));
        }
    }
}

#[test]
fn a_stranger_that_the_kernel_forwards_is_policed() {
    let mut node = Node::default();
    node.change(|state| isolate(state, "a", Some(vec![]), None));
    node.send(HOST, &udp("172.31.0.9:1", "10.65.0.2:2")).dropped(DropReason::Policy);
}

#[test]
fn pod_to_its_host_is_judged_by_egress_and_then_by_the_setting() {
    let request = udp("10.65.0.2:1", "192.0.2.1:53");
    let mut node = Node::default();
    assert_eq!(node.send(A, &request).by(HOST), to_host(&request));
    let answer = request.clone().answer();
    assert_eq!(node.send(HOST, &answer).by(A), to_pod(A, &answer));
    let set = |node: &mut Node, action| {
        node.change(|state| Arc::make_mut(&mut state.node).settings.endpoint_to_host = action);
    };
    set(&mut node, EndpointToHost::Drop);
    node.send(A, &request).dropped(DropReason::EndpointToHost);
    node.send(A, &udp("10.65.0.2:1", "203.0.113.1:53")).dropped(DropReason::EndpointToHost);
    // The host's own connections to the pod stay its own.
    let own = udp("192.0.2.1:9", "10.65.0.2:9");
    node.send(HOST, &own).by(A);
    node.send(A, &own.answer()).by(HOST);
    set(&mut node, EndpointToHost::Accept);
    node.change(|state| isolate(state, "a", None, Some(vec![])));
    node.send(A, &request).dropped(DropReason::Policy);
}

#[test]
fn the_node_reaches_remote_pods_with_its_own_address_or_its_tunnels() {
    let mut node = Node::default();
    let routed = udp("192.0.2.1:1", "10.65.1.5:2");
    assert_eq!(node.send(HOST, &routed).by(WIRE), to_wire(NEAR_MAC, &routed));
    let tunneled = udp("192.0.2.1:1", "10.65.2.5:2").df();
    let carried =
        |inner: &Ip| packet(ip("192.0.2.1"), ip("198.51.100.2"), Body::Raw(4, inner.bytes())).df();
    let expected = to_wire(GATEWAY_MAC, &carried(&tunneled));
    assert_eq!(node.send(HOST, &tunneled).by(WIRE), expected, "CrossSubnet: the node's address");
    let mut node = Node::default();
    node.change(|state| {
        let pool = state.pools.get_mut(&"10.65.0.0/16".parse().unwrap()).unwrap();
        (pool.encap, pool.encap_always) = (margay_model::Encap::Ipip, true);
    });
    let frame = node.send(HOST, &tunneled).by(WIRE);
    let port = u16::from_be_bytes([frame[54], frame[55]]);
    let inner = tunneled.clone().from(&at("10.65.0.60", port));
    assert_eq!(frame, to_wire(GATEWAY_MAC, &carried(&inner)), "Always: the tunnel's");
    let answer = inner.answer();
    let back = packet(ip("198.51.100.2"), ip("192.0.2.1"), Body::Raw(4, answer.bytes()));
    assert_eq!(node.send(WIRE, &back).by(HOST), to_host(&tunneled.answer()));
}

#[test]
fn addresses_that_no_pod_has_are_unreachable() {
    let mut node = Node::default();
    let to = |dst: &str| udp("10.65.0.2:1", &at(dst, 2));
    assert_eq!(node.send(A, &to("10.65.0.9")).punted(), Why::Unreachable { host: true });
    node.rewire(|underlay| underlay.routes.clear());
    assert_eq!(node.send(A, &to("8.8.8.8")).punted(), Why::Unreachable { host: false });
    assert_eq!(node.connections(), 0);
}

#[test]
fn what_a_route_refuses_takes_no_shorter_one() {
    let mut node = Node::default();
    let packet = udp("10.65.0.2:1", "10.99.1.1:2");
    node.send(A, &packet).by(WIRE);
    node.rewire(|underlay| {
        let dst = "10.99.0.0/16".parse().unwrap();
        underlay.routes.push(KernelRoute { dst, hops: Vec::new() });
    });
    assert_eq!(node.send(A, &packet).punted(), Why::Unreachable { host: false });
    node.send(A, &udp("10.65.0.2:1", "10.98.1.1:2")).by(WIRE);
}

#[test]
fn the_longest_prefix_wins() {
    let mut node = Node::default();
    node.change(|state| {
        let far = RouteTarget::Node { node: "far".into(), encap: margay_model::Encap::None };
        state.routes.insert("10.65.1.7/32".parse().unwrap(), far);
    });
    let (one, block) = (udp("10.65.0.2:1", "10.65.1.7:2"), udp("10.65.0.2:1", "10.65.1.8:2"));
    assert_eq!(node.send(A, &one).by(WIRE), to_wire(GATEWAY_MAC, &one.ttl(63)));
    assert_eq!(node.send(A, &block).by(WIRE), to_wire(NEAR_MAC, &block.ttl(63)));
}

#[test]
fn a_neighbour_that_is_not_known_is_asked_for_and_then_used() {
    let mut node = Node::default();
    node.rewire(|underlay| {
        underlay.neighbours.remove(&(WIRE, ip("192.0.2.2")));
    });
    let request = udp("10.65.0.2:1", "10.65.1.5:2");
    let out = node.send(A, &request);
    assert_eq!(out.frame, frame_from(A, &request), "the packet is as it came");
    assert_eq!(out.punted().reason(), PuntReason::Neighbour);
    node.rewire(|underlay| {
        underlay.neighbours.insert((WIRE, ip("192.0.2.2")), margay_model::Mac(NEAR_MAC));
    });
    assert_eq!(node.send(A, &request).by(WIRE), to_wire(NEAR_MAC, &request.ttl(63)));
}

#[test]
fn a_route_that_moves_takes_its_flows_along_with_their_translation() {
    let mut node = Node::default();
    let request = udp("10.65.0.2:1", "8.8.8.8:2");
    let before = node.send(A, &request).by(WIRE);
    node.rewire(|underlay| {
        let default = underlay.routes.iter_mut().find(|r| r.dst.prefix_len() == 0).unwrap();
        default.hops[0].gateway = Some(ip("192.0.2.2"));
    });
    let after = node.send(A, &request).by(WIRE);
    assert_eq!((&before[..6], &after[..6]), (&GATEWAY_MAC[..], &NEAR_MAC[..]));
    assert_eq!(before[6..], after[6..], "the source port stays");
    assert_eq!(node.connections(), 1);
}

#[test]
fn of_several_routes_to_one_prefix_the_first_is_taken_bare_and_in_tunnels() {
    let mut node = Node::default();
    node.rewire(|underlay| {
        let mut second = underlay.routes.iter().find(|r| r.dst.prefix_len() == 0).unwrap().clone();
        second.hops[0].gateway = Some(ip("192.0.2.2"));
        underlay.routes.push(second);
    });
    for dst in ["8.8.8.8:2", "10.65.2.7:2"] {
        let frame = node.send(A, &udp("10.65.0.2:1", dst)).by(WIRE);
        assert_eq!(frame[..6], GATEWAY_MAC, "{dst}");
    }
}

#[test]
fn equal_ways_are_shared_and_a_flow_keeps_its_own() {
    let mut node = Node::default();
    node.rewire(|underlay| {
        let default = underlay.routes.iter_mut().find(|r| r.dst.prefix_len() == 0).unwrap();
        let mut second = default.hops[0];
        second.gateway = Some(ip("192.0.2.2"));
        default.hops.push(second);
    });
    let mut used = std::collections::BTreeSet::new();
    for port in 1..=40 {
        let request = udp(&at("10.65.0.2", port), "8.8.8.8:2");
        let first = node.send(A, &request).by(WIRE)[..6].to_vec();
        assert_eq!(node.send(A, &request).by(WIRE)[..6], first);
        used.insert(first);
    }
    assert_eq!(used.len(), 2);
}

#[test]
fn of_two_pods_with_one_address_the_higher_priority_has_it() {
    let mut node = Node::default();
    let packet = udp("10.65.0.2:1", "10.65.0.3:2");
    node.send(A, &packet).by(B);
    node.change(|state| {
        let twin = state.endpoints.get_mut("default/n/eth0").unwrap();
        let twin = Arc::make_mut(twin);
        (twin.addresses, twin.priority) = (vec![ip("10.65.0.3")], 1);
    });
    assert_eq!(node.send(A, &packet).by(N), to_pod(N, &packet.ttl(63)));
}
