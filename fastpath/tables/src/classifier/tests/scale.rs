//! Many policies. What is asserted are counts, not times: a decision may look at a handful of
//! rules only. Times are in the benches.

use margay_model::{PortRange, Update};

use super::*;

const MANY: u32 = 10_000;

fn nth_addr(n: u32) -> IpAddr {
    Addr::from_v4_bits(0x0a00_0000 + n).into()
}

/// `count` policies of one rule each at one endpoint.
fn world(count: u32, rule: impl Fn(u32) -> Rule) -> (Classifier, EndpointPolicy) {
    let mut book = PolicyBook::default();
    let keys: Vec<_> = (0..count).map(|n| format!("p{n}")).collect();
    for (n, key) in (0..).zip(&keys) {
        let members = (n * 10..n * 10 + 10).map(|m| Member::Net(nth_addr(m).into()));
        book.note(&Update::Set(format!("s{n}").into(), set(members)));
        book.note(&Update::Policy(policy(key, vec![rule(n)])));
    }
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let pod = endpoint("pod", vec![tier("one", DefaultAction::Deny, &keys)], &[]);
    (book.classifier(), book.endpoint(&pod))
}

fn from_set(n: u32) -> EntityMatch {
    EntityMatch { sets: vec![format!("s{n}").into()], ..EntityMatch::default() }
}

fn to_port(port: u16) -> EntityMatch {
    EntityMatch { ports: vec![PortRange::single(port)], ..EntityMatch::default() }
}

#[test]
fn of_ten_thousand_rules_a_packet_meets_a_handful() {
    let any = Rule::any(Action::Allow);
    let by_set =
        |n: u32| Rule { protocol: Some(6), src: from_set(n), dst: to_port(80), ..any.clone() };
    let by_port = |n: u32| Rule { protocol: Some(6), dst: to_port(n as u16), ..any.clone() };
    let by_net = |n: u32| {
        let net = ipnet::IpNet::new_assert(nth_addr(n << 8), 24);
        Rule { src: EntityMatch { nets: vec![net], ..EntityMatch::default() }, ..any.clone() }
    };
    let rules: [(&str, &dyn Fn(u32) -> Rule); 3] =
        [("set", &by_set), ("port", &by_port), ("net", &by_net)];
    for (name, rule) in rules {
        let (classifier, policy) = world(MANY, rule);
        for n in [0, 1, 4999, 9999] {
            let src = match name {
                "set" => nth_addr(n * 10 + 3),
                "net" => nth_addr((n << 8) + 7),
                _ => nth_addr(1),
            };
            let port = if name == "port" { n as u16 } else { 80 };
            let facts = tcp(&src.to_string(), "192.0.2.1", port);
            let met = policy.ingress.candidates(&classifier.sets, &facts);
            assert!(met <= 2, "by {name}: {met} candidates");
            let decision = classifier.decide(&policy, Direction::Ingress, &facts);
            assert_eq!(
                decision.policy.map(|key| key.to_string()),
                Some(format!("p{n}")),
                "by {name}"
            );
        }
    }
}
