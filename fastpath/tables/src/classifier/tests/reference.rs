//! Random policies and packets: the compiled and prefiltered evaluation answers what a plain one
//! over the model's values answers.

use std::collections::{BTreeMap, BTreeSet};

use margay_model::{IcmpMatch, IpVersion, PortRange, State, Update};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

// --- the plain evaluation

fn evaluate(state: &State, endpoint: &Endpoint, facts: &PacketFacts) -> (bool, String) {
    for tier in endpoint.tiers.iter().filter(|tier| !tier.ingress.is_empty()) {
        match ask(state, &tier.ingress, facts) {
            Some((action @ (Action::Allow | Action::Deny), by)) => {
                return (action == Action::Allow, by);
            }
            Some(_) => {}
            None if tier.default_action == DefaultAction::Deny => {
                return (false, tier.name.to_string());
            }
            None => {}
        }
    }
    for profile in endpoint.profiles.iter() {
        if let Some((action @ (Action::Allow | Action::Deny), by)) =
            ask(state, std::slice::from_ref(profile), facts)
        {
            return (action == Action::Allow, by);
        }
    }
    (false, "nobody".into())
}

fn ask(state: &State, policies: &[PolicyKey], facts: &PacketFacts) -> Option<(Action, String)> {
    for key in policies {
        let Some(policy) = state.policies.get(key) else {
            return Some((Action::Deny, format!("{key} missing")));
        };
        for (nth, rule) in policy.ingress.iter().enumerate() {
            if rule.action != Action::Log && rule_matches(state, rule, facts) {
                return Some((rule.action, format!("{key} {nth}")));
            }
        }
    }
    None
}

fn rule_matches(state: &State, rule: &Rule, facts: &PacketFacts) -> bool {
    let v4 = facts.src.is_v4();
    let icmp = |asked: IcmpMatch| {
        let (kind, code) = facts.icmp.filter(|_| facts.protocol == if v4 { 1 } else { 58 })?;
        match (asked.code, code) {
            (Some(_), None) => None,
            (Some(asked_code), Some(code)) => Some(asked.kind == kind && asked_code == code),
            (None, _) => Some(asked.kind == kind),
        }
    };
    rule.ip_version.is_none_or(|version| (version == IpVersion::V4) == v4)
        && rule.protocol.is_none_or(|p| p == facts.protocol)
        && rule.not_protocol.is_none_or(|p| p != facts.protocol)
        && rule.icmp.is_none_or(|asked| icmp(asked) == Some(true))
        && rule.not_icmp.is_none_or(|asked| icmp(asked) == Some(false))
        && entity_matches(state, &rule.src, facts.src, facts.src_port, facts.protocol)
        && entity_matches(state, &rule.dst, facts.dst, facts.dst_port, facts.protocol)
}

fn entity_matches(
    state: &State,
    e: &EntityMatch,
    addr: Addr,
    port: Option<u16>,
    protocol: u8,
) -> bool {
    let ip = IpAddr::from(addr);
    let in_set = |id: &SetId| {
        let members = state.sets.get(id).into_iter().flat_map(|set| &set.members);
        members.into_iter().any(|m| matches!(m, Member::Net(net) if net.contains(&ip)))
    };
    let in_ports =
        |ranges: &[PortRange]| port.is_some_and(|port| ranges.iter().any(|r| r.contains(port)));
    let in_port_set = |id: &SetId| {
        let member = port.map(|port| Member::AddrPort { addr: ip, protocol, port });
        member.is_some_and(|m| state.sets.get(id).is_some_and(|set| set.members.contains(&m)))
    };
    let wants_port = !e.ports.is_empty()
        || !e.named_ports.is_empty()
        || !e.not_ports.is_empty()
        || !e.not_named_ports.is_empty()
        || !e.addr_port_sets.is_empty();
    (!wants_port || port.is_some())
        && (e.nets.is_empty() || e.nets.iter().any(|net| net.contains(&ip)))
        && !e.not_nets.iter().any(|net| net.contains(&ip))
        && e.sets.iter().all(in_set)
        && !e.not_sets.iter().any(in_set)
        && e.addr_port_sets.iter().all(in_port_set)
        && (e.ports.is_empty() && e.named_ports.is_empty()
            || in_ports(&e.ports)
            || e.named_ports.iter().any(in_port_set))
        && !in_ports(&e.not_ports)
        && !e.not_named_ports.iter().any(in_port_set)
}

// --- random values from a small world, so that they meet

const ADDRS: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1", "fd00::1", "fd00::2"];
const NETS: [&str; 7] =
    ["10.0.0.0/24", "10.0.0.0/8", "10.0.0.1/32", "0.0.0.0/0", "fd00::/16", "fd00::2/128", "::/0"];
const PORTS: [u16; 4] = [80, 81, 443, 8080];
const SETS: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "unknown"];

fn few<T: std::fmt::Debug + Clone>(
    value: impl Strategy<Value = T>,
    weight: u32,
) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![weight => Just(vec![]), 1 => prop::collection::vec(value, 1..3)]
}

fn member() -> impl Strategy<Value = Member> {
    prop_oneof![
        select(&NETS[..]).prop_map(net),
        select(&ADDRS[..]).prop_map(|addr| Member::Net(addr.parse::<IpAddr>().unwrap().into())),
        (select(&ADDRS[..]), select(&[6u8, 17][..]), select(&PORTS[..])).prop_map(
            |(addr, protocol, port)| Member::AddrPort {
                addr: addr.parse().unwrap(),
                protocol,
                port
            }
        ),
    ]
}

fn entity() -> impl Strategy<Value = EntityMatch> {
    let nets = || select(&NETS[..]).prop_map(|net| net.parse().unwrap());
    let sets = || select(&SETS[..]).prop_map(SetId::from);
    let range = || {
        (select(&PORTS[..]), select(&[0u16, 1, 300][..]))
            .prop_map(|(first, size)| PortRange { first, last: first + size })
    };
    (
        (few(nets(), 2), few(nets(), 8)),
        (few(sets(), 3), few(sets(), 8), few(sets(), 12)),
        (few(range(), 3), few(sets(), 8), few(range(), 12), few(sets(), 12)),
    )
        .prop_map(|((nets, not_nets), (sets, not_sets, addr_port_sets), ports)| {
            let (ports, named_ports, not_ports, not_named_ports) = ports;
            EntityMatch {
                nets,
                not_nets,
                sets,
                learned: false,
                not_sets,
                addr_port_sets,
                ports,
                named_ports,
                not_ports,
                not_named_ports,
            }
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    let actions = [Action::Allow, Action::Deny, Action::Pass, Action::Log];
    let icmp = || {
        let value = (select(&[8u8, 128][..]), prop::option::of(0u8..2));
        prop::option::weighted(0.1, value.prop_map(|(kind, code)| IcmpMatch { kind, code }))
    };
    (
        select(actions.to_vec()),
        prop::option::weighted(0.1, select(&[IpVersion::V4, IpVersion::V6][..])),
        prop::option::weighted(0.5, select(&[1u8, 6, 17, 58][..])),
        prop::option::weighted(0.1, select(&[6u8, 17][..])),
        (icmp(), icmp()),
        entity(),
        entity(),
    )
        .prop_map(
            |(action, ip_version, protocol, not_protocol, (icmp, not_icmp), src, dst)| Rule {
                number: 0,
                action,
                ip_version,
                protocol,
                not_protocol,
                icmp,
                not_icmp,
                src,
                dst,
            },
        )
}

fn facts() -> impl Strategy<Value = PacketFacts> {
    let port = || prop::option::weighted(0.9, select(&[80u16, 81, 82, 443, 500, 8080][..]));
    let icmp = prop::option::of((select(&[0u8, 8, 128][..]), prop::option::of(0u8..2)));
    (any::<bool>(), any::<[Index; 2]>(), port(), port(), select(&[1u8, 6, 17, 58][..]), icmp)
        .prop_map(|(v6, [src, dst], src_port, dst_port, protocol, icmp)| {
            let family = if v6 { &ADDRS[4..] } else { &ADDRS[..4] };
            let (src, dst) = (addr(src.get::<&str>(family)), addr(dst.get::<&str>(family)));
            PacketFacts { src, dst, src_port, dst_port, protocol, icmp, established: false }
        })
}

/// Three tiers over up to twelve policies, one of which is not there.
fn world() -> impl Strategy<Value = (State, Endpoint)> {
    let defaults = [DefaultAction::Deny, DefaultAction::Pass];
    let sets = prop::collection::vec(prop::collection::vec(member(), 0..6), 5);
    let policies = prop::collection::vec(prop::collection::vec(rule(), 0..6), 12);
    let tiers = prop::collection::vec(
        (select(defaults.to_vec()), prop::collection::vec(0usize..40, 0..6)),
        3,
    );
    (sets, policies, tiers, any::<bool>()).prop_map(|(sets, policies, tiers, missing)| {
        let mut state = State::default();
        for (id, members) in SETS.iter().zip(sets) {
            state.sets.insert((*id).into(), set(members));
        }
        for (nth, rules) in policies.into_iter().enumerate() {
            let policy = policy(&format!("p{nth}"), rules);
            state.policies.insert(policy.key.clone(), policy);
        }
        let tier = |(nth, (default, policies)): (usize, (DefaultAction, Vec<usize>))| {
            // Numbers above the policies' mostly fall on one of them; 39 is missing.
            let key =
                |n: usize| if n == 39 && missing { "gone".into() } else { format!("p{}", n % 12) };
            let keys: Vec<_> = policies.into_iter().map(key).collect();
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            tier(&format!("t{nth}"), default, &keys)
        };
        let tiers = tiers.into_iter().enumerate().map(tier).collect();
        (state, endpoint("pod", tiers, &["p0", "p1"]))
    })
}

fn show(decision: &Decision<'_>) -> (bool, String) {
    let by = match (decision.cause, decision.policy, decision.rule) {
        (Cause::Rule, Some(key), Some(rule)) => format!("{key} {rule}"),
        (Cause::PolicyMissing, Some(key), _) => format!("{key} missing"),
        (Cause::TierDefault, ..) => decision.tier.unwrap().to_string(),
        _ => "nobody".into(),
    };
    (decision.allowed(), by)
}

fn check(book: &mut PolicyBook, state: &State, endpoint: &Endpoint, packets: &[PacketFacts]) {
    let list = book.endpoint(endpoint);
    let classifier = book.classifier();
    for facts in packets {
        let decision = classifier.decide(&list, Direction::Ingress, facts);
        let linear = list.ingress.decide_linearly(&classifier.sets, facts);
        assert_eq!(decision, linear, "the prefilter lost something: {facts:?}");
        assert_eq!(show(&decision), evaluate(state, endpoint, facts), "{facts:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn it_answers_what_a_plain_evaluation_answers(
        (state, endpoint) in world(),
        packets in prop::collection::vec(facts(), 40),
    ) {
        check(&mut PolicyBook::from_state(&state), &state, &endpoint, &packets);
    }

    #[test]
    fn deltas_lead_where_a_full_state_leads(
        (old, endpoint) in world(),
        (new, other) in world(),
        packets in prop::collection::vec(facts(), 20),
    ) {
        let mut book = PolicyBook::from_state(&old);
        check(&mut book, &old, &endpoint, &packets);
        let mut state = old.clone();
        for update in old.diff(&new) {
            book.note(&update);
            state.apply(update);
        }
        check(&mut book, &state, &endpoint, &packets);
        check(&mut book, &state, &other, &packets);
        // And everything away again.
        let none = State { policies: BTreeMap::new(), ..State::default() };
        for update in state.diff(&none) {
            book.note(&update);
        }
        check(&mut book, &none, &other, &packets);
        book.note(&Update::EndpointGone(other.key.clone()));
        check(&mut book, &none, &endpoint, &packets);
    }

    #[test]
    fn an_endpoints_part_of_the_cluster_answers_what_its_own_list_answers(
        (state, everybody) in world(),
        chosen in any::<u64>(),
        packets in prop::collection::vec(facts(), 40),
    ) {
        let book = PolicyBook::from_state(&state);
        let mut seen = BTreeSet::new();
        let mut tiers = everybody.tiers.to_vec();
        tiers.iter_mut().for_each(|tier| tier.ingress.retain(|key| seen.insert(key.clone())));
        let cluster = book.cluster(&tiers);
        let mut bits = (0..64).map(|bit| chosen >> bit & 1 == 1).cycle();
        tiers.iter_mut().for_each(|tier| tier.ingress.retain(|_| bits.next() == Some(true)));
        let membership = cluster.membership(&tiers).unwrap();
        let list = book.apart(&tiers, &[]);
        let (classifier, mut vectors) = (book.classifier(), Vectors::default());
        for facts in &packets {
            let (of, to) = (&membership, Direction::Ingress);
            let decision = cluster.decide(&classifier, of, &mut vectors, to, facts);
            prop_assert_eq!(decision, classifier.decide(&list, to, facts), "{:?}", facts);
        }
    }
}
