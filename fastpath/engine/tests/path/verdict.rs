//! The verdict of policy is what a plain reading of the rules says.

use std::net::IpAddr;
use std::sync::Arc;

use margay_engine::Fate;
use margay_model::{
    Action, AddressSet, DefaultAction, DropReason, EntityMatch, IcmpMatch, IpVersion, Member,
    PortRange, Rule, State, TierPolicies, Update,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::properties::cases;
use crate::support::*;

const SETS: [(&str, &[&str]); 2] = [
    ("s:pods", &["10.65.0.0/30", "fd00:65::2/127"]),
    ("s:others", &["10.65.1.0/24", "8.8.8.8/32"]),
];
const NETS: [&str; 4] = ["10.65.0.0/26", "10.65.0.2/32", "0.0.0.0/0", "192.0.2.96/28"];
const NAMED: &str = "n:http";

fn member(text: &str) -> Member {
    Member::Net(text.parse().unwrap())
}

fn sets() -> [(Arc<str>, AddressSet); 3] {
    let [pods, others] =
        SETS.map(|(id, nets)| (id.into(), AddressSet::from(nets.iter().map(|n| member(n)))));
    let named = |addr: &str, port| Member::AddrPort { addr: ip(addr), protocol: 6, port };
    let named = AddressSet::from([named("10.65.0.3", 80), named("fd00:65::3", 8080)]);
    [pods, others, (NAMED.into(), named)]
}

prop_compose! {
    fn entity()(
        nets in subsequence(&NETS, 0..2),
        not_nets in subsequence(&NETS[..2], 0..2),
        sets in subsequence(vec!["s:pods", "s:others"], 0..2),
        not_sets in subsequence(vec!["s:pods", "s:others"], 0..2),
        ports in subsequence(vec![(80, 80), (50, 60), (8080, 9000)], 0..3),
        not_ports in subsequence(vec![(80, 80), (0, 100)], 0..2),
        named in any::<bool>(),
        use_each in any::<[bool; 6]>(),
    ) -> EntityMatch {
        let range = |(first, last)| PortRange { first, last };
        let keep = |n: usize| use_each[n] && use_each[(n + 1) % 6];
        EntityMatch {
            nets: nets.iter().filter(|_| keep(0)).map(|n| n.parse().unwrap()).collect(),
            not_nets: not_nets.iter().filter(|_| keep(1)).map(|n| n.parse().unwrap()).collect(),
            sets: sets.into_iter().filter(|_| keep(2)).map(Into::into).collect(),
            not_sets: not_sets.into_iter().filter(|_| keep(3)).map(Into::into).collect(),
            ports: ports.into_iter().filter(|_| keep(4)).map(range).collect(),
            not_ports: not_ports.into_iter().filter(|_| keep(5)).map(range).collect(),
            named_ports: if named && keep(4) { vec![NAMED.into()] } else { vec![] },
            ..EntityMatch::default()
        }
    }
}

prop_compose! {
    fn rule()(
        action in select(&[Action::Allow, Action::Allow, Action::Deny, Action::Pass, Action::Log]),
        protocol in select(&[None, None, Some(6), Some(17), Some(1)]),
        not_protocol in select(&[None, None, None, Some(6)]),
        icmp in select(&[None, None, None, Some((8, None)), Some((8, Some(1)))]),
        (src, dst) in (entity(), entity()),
    ) -> Rule {
        let (icmp, not_icmp) = match icmp {
            Some((kind, code)) => (Some(IcmpMatch { kind, code }), None),
            None => (None, None),
        };
        // The control plane names the family where a rule can only be about one.
        let nets = [&src.nets, &src.not_nets, &dst.nets, &dst.not_nets];
        let one_family = icmp.is_some() || nets.iter().any(|nets| !nets.is_empty());
        let ip_version = one_family.then_some(IpVersion::V4);
        Rule { number: 0, action, ip_version, protocol, not_protocol, icmp, not_icmp, src, dst }
    }
}

prop_compose! {
    fn packet_between()(
        v4: bool,
        (from_a, to_b) in (select(&["10.65.0.2", "192.0.2.100", "8.8.8.8"]), Just("10.65.0.3")),
        ports in (select(&[1u16, 55, 80, 8080]), select(&[1u16, 55, 80, 8080])),
        kind in 0..4,
        icmp in (select(&[8u8, 13]), 0u8..2),
    ) -> Ip {
        let (src, dst) = if v4 { (from_a, to_b) } else { ("fd00:65::2", "fd00:65::3") };
        let body = match kind {
            0 => Body::Tcp { ports, flags: SYN, seq: 1, ack: 0, window: 512, payload: vec![] },
            1 => Body::Udp { ports, payload: vec![], checksum: true },
            2 => Body::Sctp { ports, payload: vec![] },
            // Exchanges of their own have identifiers of their own.
            _ if v4 => Body::Icmp { kind: icmp.0, code: icmp.1, rest: [icmp.0, icmp.1, 0, 0], payload: vec![] },
            _ => Body::Icmp { kind: 128, code: 0, rest: [0, 1, 0, 0], payload: vec![] },
        };
        packet(ip(src), ip(dst), body)
    }
}

fn in_nets(nets: &[ipnet::IpNet], addr: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&addr))
}

fn in_set(id: &str, addr: IpAddr, protocol: u8, port: u16) -> bool {
    let all = sets();
    let (_, set) = all.iter().find(|(name, _)| &**name == id).unwrap();
    set.members.iter().any(|member| match member {
        Member::Net(net) => net.contains(&addr),
        Member::AddrPort { addr: a, protocol: p, port: n } => {
            (*a, *p, *n) == (addr, protocol, port)
        }
    })
}

fn entity_matches(entity: &EntityMatch, addr: IpAddr, protocol: u8, port: Option<u16>) -> bool {
    let any_port = entity.ports.is_empty() && entity.named_ports.is_empty();
    let port_fits = |port: u16| {
        let in_ranges =
            |ranges: &[PortRange]| ranges.iter().any(|r| r.first <= port && port <= r.last);
        let named = |ids: &[Arc<str>]| ids.iter().any(|id| in_set(id, addr, protocol, port));
        (any_port || in_ranges(&entity.ports) || named(&entity.named_ports))
            && !in_ranges(&entity.not_ports)
    };
    let no_port_condition = any_port && entity.not_ports.is_empty();
    (entity.nets.is_empty() || in_nets(&entity.nets, addr))
        && !in_nets(&entity.not_nets, addr)
        && entity.sets.iter().all(|id| in_set(id, addr, protocol, 0))
        && !entity.not_sets.iter().any(|id| in_set(id, addr, protocol, 0))
        && port.map_or(no_port_condition, port_fits)
}

fn matches(rule: &Rule, packet: &Ip) -> bool {
    let protocol = packet.protocol();
    let (ports, icmp) = match &packet.body {
        Body::Icmp { kind, code, .. } => (None, Some((*kind, *code))),
        _ => (Some(packet.ends()), None),
    };
    let family = if packet.src.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    rule.ip_version.is_none_or(|version| version == family)
        && rule.protocol.is_none_or(|p| p == protocol)
        && rule.not_protocol.is_none_or(|p| p != protocol)
        && rule.icmp.is_none_or(|want| {
            icmp.is_some_and(|(kind, code)| {
                want.kind == kind && want.code.is_none_or(|c| c == code)
            })
        })
        && entity_matches(&rule.src, packet.src, protocol, ports.map(|p| p.0))
        && entity_matches(&rule.dst, packet.dst, protocol, ports.map(|p| p.1))
}

/// A plain reading: tiers in order, in each the first match decides; then the profile, which
/// allows everything.
fn allows(state: &State, tiers: &[TierPolicies], ingress: bool, packet: &Ip) -> bool {
    for tier in tiers {
        let keys = if ingress { &tier.ingress } else { &tier.egress };
        if keys.is_empty() {
            continue;
        }
        let rules = keys.iter().flat_map(|key| {
            let policy = &state.policies[key];
            if ingress { &policy.ingress } else { &policy.egress }
        });
        let decided = rules.filter(|r| r.action != Action::Log).find(|rule| matches(rule, packet));
        match decided.map(|rule| rule.action) {
            Some(Action::Allow) => return true,
            Some(Action::Deny) => return false,
            None if tier.default_action == DefaultAction::Deny => return false,
            _ => {}
        }
    }
    true
}

fn tiers(state: &mut State, pod: &str, lists: Vec<(Vec<Vec<Rule>>, bool)>, ingress: bool) {
    let mut out = Vec::new();
    for (t, (policies, deny)) in lists.into_iter().enumerate() {
        let keys: Vec<Arc<str>> = (policies.into_iter().enumerate())
            .map(|(p, rules)| {
                let (name, other) = (format!("{pod}-{t}-{p}"), vec![]);
                if ingress {
                    policy(state, &name, rules, other)
                } else {
                    policy(state, &name, other, rules)
                }
            })
            .collect();
        let action = if deny { DefaultAction::Deny } else { DefaultAction::Pass };
        let keys: Vec<&Arc<str>> = keys.iter().collect();
        let (i, e) = if ingress { (&keys[..], &[][..]) } else { (&[][..], &keys[..]) };
        out.push(tier(&format!("t{t}"), action, i, e));
    }
    police(state, pod, out);
}

type Tiers = Vec<(Vec<Vec<Rule>>, bool)>;

fn some_tiers() -> impl Strategy<Value = Tiers> {
    let policies = prop::collection::vec(prop::collection::vec(rule(), 0..4), 1..3);
    prop::collection::vec((policies, any::<bool>()), 0..3)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_verdict_is_what_a_plain_reading_says(
        egress in some_tiers(),
        ingress in some_tiers(),
        packets in prop::collection::vec(packet_between(), 1..30),
        open_first: bool,
    ) {
        let mut node = Node::with_capacity(64);
        if open_first {
            // What is open already is judged like what is new.
            packets.iter().for_each(|p| drop(node.send(if p.src.to_string().ends_with('2') { A } else { WIRE }, p)));
        }
        node.change(|state| {
            sets().into_iter().for_each(|(id, set)| state.apply(Update::Set(id, Arc::new(set))));
            tiers(state, "a", egress, false);
            tiers(state, "b", ingress, true);
        });
        let of = |pod: &str| node.state.endpoints[&*format!("default/{pod}/eth0")].tiers.clone();
        let (a, b) = (of("a"), of("b"));
        for packet in packets {
            let from = if [ip("10.65.0.2"), ip("fd00:65::2")].contains(&packet.src) { A } else { WIRE };
            let expected = (from == WIRE || allows(&node.state, &a, false, &packet))
                && allows(&node.state, &b, true, &packet);
            let fate = node.send(from, &packet).fate;
            let wanted = if expected { Fate::Forward(B) } else { Fate::Drop(DropReason::Policy) };
            prop_assert_eq!(fate, wanted, "{:?}", packet);
            if expected && !matches!(packet.body, Body::Icmp { kind: 13, .. }) {
                let fate = node.send(B, &packet.answer()).fate;
                prop_assert_eq!(fate, Fate::Forward(from), "an answer");
            }
        }
    }
}
