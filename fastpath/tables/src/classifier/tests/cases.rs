//! Calico's order of evaluation and meaning of rules, one case each.

use DefaultAction::{Deny as End, Pass as Next};
use margay_model::{DropReason, IcmpMatch, IpVersion, PortRange, Update};

use super::*;

/// A rule for TCP to a port.
fn to_port(action: Action, port: u16) -> Rule {
    let dst = EntityMatch { ports: vec![PortRange::single(port)], ..EntityMatch::default() };
    Rule { protocol: Some(6), dst, ..Rule::any(action) }
}

fn book(policies: &[Arc<Policy>]) -> PolicyBook {
    let mut book = PolicyBook::default();
    for policy in policies {
        book.note(&Update::Policy(policy.clone()));
    }
    book
}

#[track_caller]
fn expect(book: &mut PolicyBook, endpoint: &Endpoint, facts: PacketFacts, expected: Answer<'_>) {
    let policy = book.endpoint(endpoint);
    let classifier = book.classifier();
    let decision = classifier.decide(&policy, Direction::Ingress, &facts);
    assert_eq!(answer(&decision), expected);
    if let Some(rule) = decision.rule {
        let named = classifier.rule(decision.rule_id());
        assert_eq!(named, Some((decision.policy.unwrap().clone(), rule)));
    }
}

fn packet(port: u16) -> PacketFacts {
    tcp("10.0.0.1", "10.0.0.2", port)
}

#[test]
fn tiers_are_asked_in_order_and_the_first_allow_or_deny_decides() {
    let mut book = book(&[
        policy("a", vec![to_port(Action::Deny, 1), to_port(Action::Pass, 2)]),
        policy("b", vec![to_port(Action::Allow, 2), to_port(Action::Allow, 3)]),
        policy("c", vec![to_port(Action::Allow, 1), to_port(Action::Deny, 2)]),
        policy("p", vec![Rule::any(Action::Allow)]),
    ]);
    let tiers = vec![tier("one", Next, &["a", "b"]), tier("two", End, &["c"])];
    let pod = endpoint("pod", tiers, &["p"]);
    expect(&mut book, &pod, packet(1), (false, Some("one"), Some("a"), Some(0)));
    // Pass leaves the tier: b is not asked.
    expect(&mut book, &pod, packet(2), (false, Some("two"), Some("c"), Some(1)));
    expect(&mut book, &pod, packet(3), (true, Some("one"), Some("b"), Some(1)));
    expect(&mut book, &pod, packet(4), (false, Some("two"), None, None));
}

#[test]
fn pass_in_the_last_tier_leads_to_the_profiles_past_its_default() {
    let mut book = book(&[
        policy("a", vec![to_port(Action::Pass, 2)]),
        policy("p", vec![to_port(Action::Allow, 2)]),
    ]);
    let pod = endpoint("pod", vec![tier("one", End, &["a"])], &["p"]);
    expect(&mut book, &pod, packet(2), (true, None, Some("p"), Some(0)));
    expect(&mut book, &pod, packet(3), (false, Some("one"), None, None));
}

#[test]
fn a_tier_whose_policies_have_no_rules_still_ends_in_its_default() {
    let mut book = book(&[
        policy("pass", vec![Rule::any(Action::Pass)]),
        policy("empty", vec![]),
        policy("p", vec![Rule::any(Action::Allow)]),
    ]);
    let passed = vec![tier("one", Next, &["pass"]), tier("two", End, &["empty"])];
    let pod = endpoint("pod", passed, &["p"]);
    expect(&mut book, &pod, packet(2), (false, Some("two"), None, None));
    let pod = endpoint("pod", vec![tier("two", Next, &["empty"])], &["p"]);
    expect(&mut book, &pod, packet(2), (true, None, Some("p"), Some(0)));
}

#[test]
fn a_tier_without_policies_in_the_direction_is_skipped() {
    let mut book = book(&[policy("p", vec![Rule::any(Action::Allow)]), policy("e", vec![])]);
    let egress_only = TierPolicies { egress: vec!["e".into()], ..tier("one", End, &[]) };
    let pod = endpoint("pod", vec![egress_only], &["p"]);
    expect(&mut book, &pod, packet(2), (true, None, Some("p"), Some(0)));
}

#[test]
fn nobody_deciding_is_a_denial_and_no_tiers_and_profiles_too() {
    let mut book = book(&[policy("p", vec![to_port(Action::Allow, 7)])]);
    let pod = endpoint("pod", vec![], &["p"]);
    expect(&mut book, &pod, packet(2), (false, None, None, None));
    expect(&mut book, &endpoint("bare", vec![], &[]), packet(2), (false, None, None, None));
}

#[test]
fn the_first_profile_that_decides_wins() {
    let mut book = book(&[
        policy("p", vec![to_port(Action::Allow, 1), to_port(Action::Pass, 2)]),
        policy("q", vec![to_port(Action::Deny, 1), to_port(Action::Allow, 2)]),
    ]);
    let pod = endpoint("pod", vec![], &["p", "q"]);
    expect(&mut book, &pod, packet(1), (true, None, Some("p"), Some(0)));
    expect(&mut book, &pod, packet(2), (true, None, Some("q"), Some(1)));
}

#[test]
fn a_missing_policy_denies_what_gets_to_it() {
    let mut book = book(&[policy("a", vec![to_port(Action::Allow, 1)])]);
    let pod = endpoint("pod", vec![tier("one", Next, &["a", "gone"])], &[]);
    expect(&mut book, &pod, packet(1), (true, Some("one"), Some("a"), Some(0)));
    expect(&mut book, &pod, packet(2), (false, Some("one"), Some("gone"), None));
    let list = book.endpoint(&pod);
    let decision = book.classifier();
    let decision = decision.decide(&list, Direction::Ingress, &packet(2));
    assert_eq!(decision.drop_reason(), DropReason::PolicyMissing);
    // It is asked as soon as it is there.
    book.note(&Update::Policy(policy("gone", vec![to_port(Action::Allow, 2)])));
    expect(&mut book, &pod, packet(2), (true, Some("one"), Some("gone"), Some(0)));
    expect(
        &mut book,
        &endpoint("x", vec![], &["nope"]),
        packet(1),
        (false, None, Some("nope"), None),
    );
}

#[test]
fn log_goes_on_with_the_next_rule_and_is_reported() {
    let mut book = book(&[policy("a", vec![Rule::any(Action::Log), to_port(Action::Allow, 1)])]);
    let pod = endpoint("pod", vec![tier("one", End, &["a"])], &[]);
    let list = book.endpoint(&pod);
    let classifier = book.classifier();
    let decision = classifier.decide(&list, Direction::Ingress, &packet(1));
    assert_eq!(answer(&decision), (true, Some("one"), Some("a"), Some(1)));
    let logged: Vec<_> = decision.logged.iter().map(|id| classifier.rule(*id)).collect();
    assert_eq!(logged, [Some(("a".into(), 0))]);
}

/// Whether the only rule of a policy matches.
fn matches(rule: Rule, facts: PacketFacts) -> bool {
    let mut book = book(&[policy("a", vec![Rule { action: Action::Allow, ..rule }])]);
    book.note(&Update::Set("net".into(), set([net("10.0.0.0/24")])));
    let port = |port| Member::AddrPort { addr: "10.0.0.2".parse().unwrap(), protocol: 6, port };
    book.note(&Update::Set("http".into(), set([port(8080), port(8081)])));
    let list = book.endpoint(&endpoint("pod", vec![tier("one", End, &["a"])], &[]));
    book.classifier().decide(&list, Direction::Ingress, &facts).allowed()
}

fn src(entity: EntityMatch) -> Rule {
    Rule { src: entity, ..Rule::any(Action::Allow) }
}

fn dst(entity: EntityMatch) -> Rule {
    Rule { dst: entity, ..Rule::any(Action::Allow) }
}

#[test]
fn nets_are_alternatives_and_not_nets_exclude() {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
    let any =
        src(EntityMatch { nets: nets(&["10.0.0.0/24", "192.0.2.0/24"]), ..EntityMatch::default() });
    assert!(matches(any.clone(), tcp("192.0.2.9", "10.0.0.2", 1)));
    assert!(!matches(any, tcp("192.0.3.9", "10.0.0.2", 1)));
    let but = src(EntityMatch { not_nets: nets(&["10.0.0.0/30"]), ..EntityMatch::default() });
    assert!(!matches(but.clone(), tcp("10.0.0.1", "10.0.0.2", 1)));
    assert!(matches(but, tcp("10.0.0.9", "10.0.0.2", 1)));
    let all_v6 = Rule {
        ip_version: Some(IpVersion::V6),
        ..src(EntityMatch { nets: nets(&["::/0"]), ..EntityMatch::default() })
    };
    assert!(!matches(all_v6.clone(), tcp("10.0.0.1", "10.0.0.2", 1)));
    assert!(matches(all_v6, tcp("fd00::1", "fd00::2", 1)));
}

#[test]
fn sets_must_all_hold_the_address_and_not_sets_none() {
    let sets = |sets: &[&str]| sets.iter().map(|id| SetId::from(*id)).collect::<Vec<_>>();
    let both = src(EntityMatch { sets: sets(&["net", "unknown"]), ..EntityMatch::default() });
    assert!(!matches(both, packet(1)));
    let one = src(EntityMatch { sets: sets(&["net"]), ..EntityMatch::default() });
    assert!(matches(one.clone(), packet(1)) && !matches(one, tcp("10.9.0.1", "10.0.0.2", 1)));
    let none = src(EntityMatch { not_sets: sets(&["net"]), ..EntityMatch::default() });
    assert!(!matches(none.clone(), packet(1)) && matches(none, tcp("10.9.0.1", "10.0.0.2", 1)));
}

#[test]
fn numbers_and_names_of_ports_are_alternatives() {
    let named = dst(EntityMatch {
        ports: vec![PortRange { first: 80, last: 90 }],
        named_ports: vec!["http".into()],
        ..EntityMatch::default()
    });
    for (port, expected) in [(79, false), (80, true), (90, true), (91, false), (8081, true)] {
        assert_eq!(matches(named.clone(), packet(port)), expected, "{port}");
    }
    assert!(!matches(named.clone(), tcp("10.0.0.1", "10.0.0.3", 8080)), "another pod's port");
    assert!(!matches(named, PacketFacts { protocol: 17, ..packet(8080) }));
    let services =
        dst(EntityMatch { addr_port_sets: vec!["http".into()], ..EntityMatch::default() });
    assert!(matches(services.clone(), packet(8080)) && !matches(services, packet(80)));
}

#[test]
fn a_packet_without_ports_matches_no_condition_on_ports() {
    let none = PacketFacts { src_port: None, dst_port: None, protocol: 47, ..packet(1) };
    let range = vec![PortRange { first: 0, last: u16::MAX }];
    for entity in [
        EntityMatch { ports: range.clone(), ..EntityMatch::default() },
        EntityMatch { not_ports: vec![PortRange::single(9)], ..EntityMatch::default() },
        EntityMatch { named_ports: vec!["http".into()], ..EntityMatch::default() },
        EntityMatch { not_named_ports: vec!["unknown".into()], ..EntityMatch::default() },
        EntityMatch { addr_port_sets: vec!["http".into()], ..EntityMatch::default() },
    ] {
        assert!(!matches(dst(entity.clone()), none), "{entity:?}");
        assert!(!matches(src(entity), none));
    }
    let not = EntityMatch { not_ports: vec![PortRange::single(9)], ..EntityMatch::default() };
    assert!(matches(dst(not.clone()), packet(1)) && !matches(dst(not), packet(9)));
}

#[test]
fn icmp_is_matched_in_its_own_family_and_with_the_code_that_is_asked_for() {
    let icmp = |src: &str, dst: &str, protocol, kind, code| PacketFacts {
        protocol,
        src_port: None,
        dst_port: None,
        icmp: Some((kind, code)),
        ..tcp(src, dst, 0)
    };
    let ping = |code| icmp("10.0.0.1", "10.0.0.2", 1, 8, code);
    let rule =
        |kind, code| Rule { icmp: Some(IcmpMatch { kind, code }), ..Rule::any(Action::Allow) };
    assert!(matches(rule(8, None), ping(None)) && matches(rule(8, Some(0)), ping(Some(0))));
    assert!(!matches(rule(8, Some(0)), ping(None)) && !matches(rule(8, Some(1)), ping(Some(0))));
    assert!(!matches(rule(0, None), ping(Some(0))) && !matches(rule(8, None), packet(1)));
    // Protocol 1 in IPv6 is no ICMP.
    assert!(!matches(rule(8, None), icmp("fd00::1", "fd00::2", 1, 8, None)));
    assert!(matches(rule(128, None), icmp("fd00::1", "fd00::2", 58, 128, None)));
    let not =
        |kind| Rule { not_icmp: Some(IcmpMatch { kind, code: None }), ..Rule::any(Action::Allow) };
    assert!(
        matches(not(0), ping(None)) && !matches(not(8), ping(None)) && !matches(not(0), packet(1))
    );
}

#[test]
fn protocol_and_not_protocol_may_both_be_asked() {
    let rule = |protocol, not_protocol| Rule { protocol, not_protocol, ..Rule::any(Action::Allow) };
    assert!(matches(rule(Some(6), Some(17)), packet(1)));
    assert!(!matches(rule(Some(17), None), packet(1)) && !matches(rule(None, Some(6)), packet(1)));
}
