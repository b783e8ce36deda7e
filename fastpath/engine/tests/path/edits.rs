//! What is in force depends on the state, not on the way to it.

use std::sync::Arc;

use margay_engine::{Fate, PortId, Punt, Why};
use margay_model::node::EndpointToHost;
use margay_model::{AddressSet, Encap, Member, RouteTarget, State, TrafficPolicy, Update};
use proptest::prelude::*;
use proptest::sample::select;

use super::properties::cases;
use crate::support::*;

/// One of the things that operators and pods do.
fn edit(state: &mut State, which: u8) {
    let b_is_there = state.endpoints.contains_key("default/b/eth0");
    match which {
        0 | 1 | 3 if !b_is_there => {}
        0 => isolate(state, "b", Some(vec![allow_set("s:web")]), None),
        1 => isolate(state, "b", Some(vec![allow_ports(17, 1, 99)]), Some(vec![])),
        2 => isolate(state, "a", None, Some(vec![allow_ports(17, 50, 60), allow_icmp(8)])),
        3 => police(state, "b", vec![]),
        4 => drop(state.policies.remove("NetworkPolicy/default/b")),
        5 => set(state, &["10.65.0.2/32"]),
        6 => set(state, &["10.65.0.0/24", "192.0.2.100/32"]),
        7 => drop(state.sets.remove("s:web")),
        8 => serve(state, service("s", 17, "10.96.0.10:80", &["10.65.0.3:80"])),
        9 => {
            let service = service("s", 17, "10.96.0.11:80", &["10.65.0.4:80", "10.65.1.5:80"]);
            let (internal, node_port) = (TrafficPolicy::Local, Some(30_080));
            serve(state, margay_model::Service { internal, node_port, ..service });
        }
        10 => drop(state.services.remove("s")),
        11 => drop(state.endpoints.remove("default/b/eth0")),
        12 => {
            let back = endpoint("b", "calib", pod_mac(B), &["10.65.0.3", "10.65.0.9"]);
            state.apply(Update::Endpoint(Arc::new(back)));
        }
        13 => drop(state.routes.remove(&"10.65.1.0/26".parse().unwrap())),
        14 => {
            let target = RouteTarget::Node { node: "near".into(), encap: Encap::Vxlan };
            state.routes.insert("10.65.1.0/26".parse().unwrap(), target);
        }
        15 => drop(state.remotes.remove("far")),
        16 => state.pools.values_mut().for_each(|pool| pool.nat_outgoing = !pool.nat_outgoing),
        _ => {
            let settings = &mut Arc::make_mut(&mut state.node).settings;
            settings.endpoint_to_host = EndpointToHost::Drop;
            settings.service_ranges.clear();
        }
    }
}

fn set(state: &mut State, nets: &[&str]) {
    let members = nets.iter().map(|net| Member::Net(net.parse().unwrap()));
    state.apply(Update::Set("s:web".into(), Arc::new(AddressSet::from(members))));
}

fn packets() -> Vec<(PortId, Ip)> {
    let ends = ["10.65.0.3", "10.65.0.4", "10.65.0.9", "10.65.1.5", "10.65.2.5", "10.96.0.10"];
    let more = ["10.96.0.11", "192.0.2.1", "8.8.8.8"];
    let mut out = Vec::new();
    for dst in ends.into_iter().chain(more) {
        for (from, src) in
            [(A, "10.65.0.2"), (B, "10.65.0.3"), (WIRE, "192.0.2.100"), (HOST, "192.0.2.1")]
        {
            for port in [53, 80, 30_080] {
                out.push((from, udp(&at(src, 1000), &at(dst, port))));
            }
            out.push((from, ping(src, dst, 3)));
        }
    }
    out
}

/// A fate without the number of a next hop, which is the assembler's own.
fn named(out: Out) -> (Option<Fate>, Vec<u8>) {
    match out.fate {
        Fate::Punt(Punt { why: Why::Neighbour(_), .. }) => (None, out.frame),
        fate => (Some(fate), out.frame),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases / 8, ..cases() })]

    #[test]
    fn a_state_that_was_edited_is_the_state_that_was_given(
        edits in prop::collection::vec(select((0u8..18).collect::<Vec<_>>()), 0..12),
        one_by_one: bool,
    ) {
        let mut edited = Node::with_capacity(256);
        if one_by_one {
            edits.iter().for_each(|which| edited.change(|state| edit(state, *which)));
        } else {
            edited.change(|state| edits.iter().for_each(|which| edit(state, *which)));
        }
        let mut given = Node::build(256, edited.state.clone());
        for (from, packet) in packets() {
            let (one, other) = (edited.send(from, &packet), given.send(from, &packet));
            prop_assert_eq!(named(one), named(other), "{:?}", packet);
        }
    }
}
