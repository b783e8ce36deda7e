//! The node's states, assembled once: a base, and what edits make of it. In all of them pod b is
//! policed in the same way, which is what the watch knows by heart.

use std::collections::BTreeMap;
use std::sync::Arc;

use margay_engine::{Assembler, Snapshot, Underlay};
use margay_model::node::DnsServer;
use margay_model::{
    AddressSet, Encap, EntityMatch, Mac, RouteTarget, Rule, Selection, Service, State,
    TrafficPolicy, Update,
};
use margay_tables::flow::BackendId;

use crate::support::{
    CLIENT_MAC, FAR_VTEP_MAC, WIRE, allow, allow_icmp, allow_ports, base_state, deny, ip, isolate,
    serve, service, underlay,
};

/// Addresses of conversations; those of the same place mean the same in both families.
pub(super) const V4: [&str; 20] = [
    "10.65.0.2",
    "10.65.0.3",
    "10.65.0.4",
    "10.65.0.9",
    "10.65.0.60",
    "10.65.1.5",
    "10.65.2.5",
    "10.65.3.5",
    "10.96.0.10",
    "10.96.0.11",
    "198.18.0.1",
    "198.18.0.2",
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.100",
    "198.51.100.70",
    "8.8.8.8",
    "192.0.2.50",
    "203.0.113.1",
    "224.0.0.1",
];
pub(super) const V6: [&str; 20] = [
    "fd00:65::2",
    "fd00:65::3",
    "fd00:65::4",
    "fd00:65::9",
    "fd00:65::3c",
    "fd00:65:0:1::5",
    "fd00:65:0:1::6",
    "fd00:65:0:3::5",
    "fd96::10",
    "fd96::11",
    "fd96::10",
    "fd96::11",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:2::2",
    "2001:db8:66::7",
    "2001:4860::8888",
    "2001:db8:1::50",
    "fe80::1",
    "ff02::1",
];

/// Addresses that no packet crosses the node with, untranslated, but as a service's answer.
pub(super) const SERVED: [&str; 4] = ["10.96.0.10", "198.18.0.1", "198.18.0.2", "fd96::10"];
/// Where pod b may not send to.
pub(super) const FORBIDDEN: [&str; 2] = ["198.51.100.64/26", "2001:db8:66::/64"];
/// The only TCP port that pod b is reached at.
pub(super) const OPEN_PORT: u16 = 8080;

/// What a program runs in: snapshots by number, of which the first is the beginning.
pub(super) struct Scene {
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) states: Vec<Arc<margay_model::LocalNode>>,
    /// Backends that some service stops to have in some state.
    pub(super) lost: Vec<BackendId>,
}

// === impl Scene ===

impl Scene {
    pub(super) fn new() -> Self {
        let worlds: Vec<(State, Underlay)> = EDITS
            .iter()
            .map(|edit| {
                let (mut state, mut underlay) = (base(), underlay());
                edit(&mut state, &mut underlay);
                (state, underlay)
            })
            .collect();
        let mut assembler = Assembler::new(0);
        assembler.set_ready();
        let mut last = State::default();
        let mut lost = BTreeMap::new();
        let mut snapshots = Vec::new();
        // Twice, so that every next hop has its number in every state, as it has in a daemon that
        // has seen them all.
        for _ in 0..2 {
            snapshots.clear();
            for (state, underlay) in &worlds {
                last.diff(state).iter().for_each(|update| assembler.note(update));
                snapshots.push(assembler.assemble(state, underlay));
                lost.extend(assembler.take_lost().into_iter().map(|id| (id, ())));
                last = state.clone();
            }
        }
        let states = worlds.into_iter().map(|(state, _)| state.node).collect();
        Self { snapshots, states, lost: lost.into_keys().collect() }
    }
}

type Edit = fn(&mut State, &mut Underlay);

/// What the states are: the base, and what differs from it.
const EDITS: [Edit; 9] = [
    |_, _| {},
    |state, _| services(state, TrafficPolicy::Local),
    |state, _| drop(state.endpoints.remove("default/n/eth0")),
    |state, _| isolate(state, "a", Some(vec![allow_icmp(8)]), None),
    |state, _| state.services.clear(),
    |state, underlay| {
        state.apply(Update::Route(margay_model::Route {
            dst: "10.65.2.0/26".parse().expect("a network"),
            target: RouteTarget::Node { node: "far".into(), encap: Encap::Vxlan },
        }));
        underlay.neighbours.insert((WIRE, ip("192.0.2.50")), Mac(CLIENT_MAC));
        underlay.neighbours.insert((WIRE, ip("2001:db8:1::50")), Mac(CLIENT_MAC));
    },
    |state, _| names(state),
    |state, _| chosen_otherwise(state),
    |state, underlay| {
        let settings = &mut Arc::make_mut(&mut state.node).settings;
        (settings.snat_ports, settings.tcp_strict) = ((61_000, 61_001), true);
        (settings.clamp_mss, settings.allow_ipip_from_workloads) = (true, true);
        underlay.path_mtus.insert(ip("198.51.100.2"), 1300);
        state.remotes.remove("near");
    },
];

fn base() -> State {
    let mut state = base_state();
    services(&mut state, TrafficPolicy::Cluster);
    let [four, six] = FORBIDDEN.map(|net| net.parse().expect("a network"));
    let away = |net: ipnet::IpNet| {
        let dst = EntityMatch { nets: vec![net], ..EntityMatch::default() };
        let version = match net {
            ipnet::IpNet::V4(_) => margay_model::IpVersion::V4,
            ipnet::IpNet::V6(_) => margay_model::IpVersion::V6,
        };
        Rule { ip_version: Some(version), dst, ..deny() }
    };
    let egress = vec![away(four), away(six), allow()];
    isolate(&mut state, "b", Some(vec![allow_ports(6, OPEN_PORT, OPEN_PORT)]), Some(egress));
    state
}

/// A service on three protocols and both families, reached in every way.
fn services(state: &mut State, policy: TrafficPolicy) {
    let backends = ["10.65.0.2:8080", "10.65.0.3:8080", "10.65.1.5:8080", "192.0.2.1:8080"];
    let backends6 = ["[fd00:65::2]:8080", "[fd00:65::3]:8080", "[fd00:65:0:3::5]:8080"];
    for protocol in [6, 17, 132] {
        let four = service(&format!("v4-{protocol}"), protocol, "10.96.0.10:80", &backends);
        let six = service(&format!("v6-{protocol}"), protocol, "[fd96::10]:80", &backends6);
        let ways = |service: Service| Service {
            internal: policy,
            external: policy,
            node_port: Some(30_080),
            ..service
        };
        let addressed = Service {
            external_ips: vec![ip("198.18.0.1")],
            load_balancer_ips: vec![ip("198.18.0.2")],
            load_balancer_sources: vec!["192.0.2.0/24".parse().expect("a network")],
            ..four
        };
        serve(state, ways(addressed));
        serve(state, ways(six));
    }
    let dns = "kube-system/kube-dns:dns/UDP/IPv4";
    serve(state, service(dns, 17, "10.96.0.11:53", &["10.65.0.2:53", "10.65.1.5:53"]));
}

/// Pod a may reach what names are learned for; its conversations with name servers are read along.
fn names(state: &mut State) {
    let domains = ["a.example".parse().expect("a pattern")].into();
    state.apply(Update::Set("d".into(), Arc::new(AddressSet { domains, ..AddressSet::default() })));
    let dst = EntityMatch { sets: vec!["d".into()], learned: true, ..EntityMatch::default() };
    let named = Rule { dst, ..allow() };
    isolate(state, "a", None, Some(vec![allow_ports(17, 53, 53), allow_ports(6, 53, 53), named]));
    let settings = &mut Arc::make_mut(&mut state.node).settings;
    settings.dns.trusted = ["8.8.8.8", "10.96.0.11"]
        .map(|addr| DnsServer::Address { addr: ip(addr), port: 53 })
        .into();
    settings.dns.max_hold = 1_000;
}

/// Backends by consistent hashing and by the client's last, and another VTEP far away.
fn chosen_otherwise(state: &mut State) {
    for (number, service) in state.services.values_mut().enumerate() {
        let service = Arc::make_mut(service);
        if number % 2 == 0 {
            service.selection = Selection::Maglev;
        } else {
            service.affinity = Some(10_000);
        }
    }
    if let Some(far) = state.remotes.get_mut("far") {
        let [a, b, c, d, e, f] = FAR_VTEP_MAC;
        Arc::make_mut(far).vtep_mac = Mac([a, b, c, d, e, f + 1]);
    }
}
