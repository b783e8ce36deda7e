//! On generated clusters, every cell says what `policy simulate` says of any two of its
//! members.

use std::net::IpAddr;

use fastrand::Rng;
use margay_compile::Compiler;
use margay_resources::Resource;
use proptest::prelude::*;
use serde_json::json;

use super::class::{Member, members};
use super::probe::Probe;
use super::service::targets;
use super::survey::{Scope, Survey};
use crate::court::flow::Flow;
use crate::court::verdict::Fate;
use crate::court::{self, Court, generate};

/// The class of each pod.
fn class_of(survey: &Survey<'_>, members: &[Member]) -> Vec<usize> {
    let class =
        |member| survey.classes.iter().position(|class| class.members.contains(&member)).unwrap();
    (0..members.len()).map(class).collect()
}

fn v4(member: &Member) -> IpAddr {
    member.addresses[0]
}

fn surveyed<'c>(members: &[Member], clusters: &[&'c Compiler], port: Option<Probe>) -> Survey<'c> {
    let services = targets(clusters, |_| true, port);
    let scope = Scope { members, services: &services, port, limit: usize::MAX };
    Survey::new(clusters, &scope).unwrap()
}

/// Whether the two are such as a cell speaks of: not the same one, and no host with a pod of its
/// own node.
fn strangers(compiler: &Compiler, from: &Member, to: &Member) -> bool {
    let pods = from.namespace.is_some() && to.namespace.is_some();
    let node = |member: &Member| compiler.node_of(&member.key);
    v4(from) != v4(to) && (pods || node(from) != node(to))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn one_port_of_every_pair_is_judged_as_simulate_judges_it(seed in any::<u64>()) {
        let mut rng = Rng::with_seed(seed);
        let compiler = court::compile(generate::cluster(&mut rng));
        let all = members(&compiler);
        let mut court = Court::small(&compiler);
        for (protocol, port) in [(6, 80), (17, 53), (6, 22), (6, 8080), (132, 85)] {
            let probe = Probe::of_port(protocol, port);
            let survey = surveyed(&all, &[&compiler], Some(probe));
            let classes = class_of(&survey, &all);
            for (from, src) in all.iter().zip(&classes) {
                for (to, dst) in all.iter().zip(&classes).filter(|(to, _)| strangers(&compiler, from, to)) {
                    let flow = Flow { src: v4(from), dst: v4(to), protocol,
                        src_port: Some(40_000), dst_port: Some(port), icmp: None };
                    let case = court.hear(&flow);
                    let answer = court.decide(case);
                    let outcome = survey.outcome(*src, *dst).unwrap();
                    prop_assert_eq!(outcome.parts.len(), 1);
                    prop_assert_eq!(outcome.parts[0].said[0].verdict, answer.verdict, "{:?}", flow);
                }
            }
        }
    }

    #[test]
    fn what_is_allowed_or_denied_on_all_ports_is_so_on_each(seed in any::<u64>()) {
        use super::outcome::Glance;
        let mut rng = Rng::with_seed(seed);
        let compiler = court::compile(generate::cluster(&mut rng));
        let all = members(&compiler);
        let mut court = Court::small(&compiler);
        let survey = surveyed(&all, &[&compiler], None);
        let classes = class_of(&survey, &all);
        for (from, src) in all.iter().zip(&classes) {
            for (to, dst) in all.iter().zip(&classes).filter(|(to, _)| strangers(&compiler, from, to)) {
                let outcome = survey.outcome(*src, *dst).unwrap();
                let glance = outcome.glance(0);
                for _ in 0..20 {
                    let mut flow = generate::flow(&mut rng);
                    (flow.src, flow.dst) = (v4(from), v4(to));
                    if matches!(flow.protocol, 6 | 17 | 132) {
                        flow.src_port = flow.src_port.or(Some(40_000));
                        flow.dst_port = flow.dst_port.or(Some(rng.u16(1..)));
                    } else if flow.protocol == 1 {
                        flow.icmp = Some((rng.u8(..), Some(rng.u8(0..3))));
                    }
                    let case = court.hear(&flow);
                    let verdict = court.decide(case).verdict;
                    match glance {
                        Glance::Allowed => prop_assert_eq!(verdict, Fate::Allow, "{:?}", flow),
                        Glance::Denied => prop_assert_eq!(verdict, Fate::Deny, "{:?}", flow),
                        Glance::Partly => {}
                        Glance::Unreachable => prop_assert!(false, "both have IPv4"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_service_is_what_simulate_says_of_its_backends(seed in any::<u64>()) {
        let mut rng = Rng::with_seed(seed);
        let compiler = court::compile(generate::cluster(&mut rng));
        let all = members(&compiler);
        let survey = surveyed(&all, &[&compiler], None);
        let classes = class_of(&survey, &all);
        let mut court = Court::small(&compiler);
        let key = compiler.state().services.keys().next().unwrap();
        let backends = compiler.usable_backends(key, None).unwrap_or_default().cluster;
        for (from, class) in all.iter().zip(classes) {
            let flow = Flow { src: v4(from), dst: "10.96.0.1".parse().unwrap(), protocol: 6,
                src_port: Some(40_000), dst_port: Some(80), icmp: None };
            let owner = |address| all.iter().find(|member| v4(member) == address).unwrap();
            if !backends.iter().all(|b| strangers(&compiler, from, owner(b.addr))) {
                continue;
            }
            let mut expected: Vec<_> = backends.iter().map(|backend| {
                let case = court.hear_at(&flow, (backend.addr, backend.port).into());
                court.decide(case).verdict
            }).collect();
            if expected.is_empty() {
                expected.push(Fate::Deny);
            }
            let outcome = &survey.outcomes[survey.cell(class, 0).unwrap()];
            for verdict in [Fate::Allow, Fate::Deny] {
                let said = outcome.parts.iter().any(|part| part.said[0].verdict == verdict);
                prop_assert_eq!(said, expected.contains(&verdict), "{:?} {:?}", from, outcome);
            }
        }
    }

    #[test]
    fn of_two_clusters_each_says_what_it_says_alone(seed in any::<u64>()) {
        let mut rng = Rng::with_seed(seed);
        let before = generate::cluster(&mut rng);
        let after = court::compile(generate::edited(&mut rng, &before));
        let before = court::compile(before);
        let there = members(&after);
        let mut all = members(&before);
        all.retain(|member| there.iter().any(|other| other.key == member.key));
        let mut courts = [Court::small(&before), Court::small(&after)];
        let whole = surveyed(&all, &[&before, &after], None);
        let probe = Probe::of_port(6, 80);
        let one = surveyed(&all, &[&before, &after], Some(probe));
        let (classes, of_whole) = (class_of(&one, &all), class_of(&whole, &all));
        for (i, from) in all.iter().enumerate() {
            for (j, to) in all.iter().enumerate().filter(|(_, to)| strangers(&before, from, to)) {
                let flow = Flow { src: v4(from), dst: v4(to), protocol: 6,
                    src_port: Some(40_000), dst_port: Some(80), icmp: None };
                let verdicts = courts.each_mut().map(|court| {
                    let case = court.hear(&flow);
                    court.decide(case).verdict
                });
                let outcome = one.outcome(classes[i], classes[j]).unwrap();
                let said: Vec<_> = outcome.parts[0].said.iter().map(|said| said.verdict).collect();
                prop_assert_eq!(&said[..], &verdicts[..], "{:?}", flow);
                // What changes on one port changes as a part of all ports.
                if verdicts[0] != verdicts[1] {
                    let outcome = whole.outcome(of_whole[i], of_whole[j]).unwrap();
                    prop_assert!(!outcome.changed().is_empty(), "{:?}", flow);
                }
            }
        }
    }
}

#[test]
fn what_passes_before_a_rule_denies_all_the_rest_is_judged_by_the_next_tier() {
    let policy = |name: &str, tier: &str, selector: &str, rules: serde_json::Value| {
        let v3 = "projectcalico.org/v3";
        json!({"apiVersion": v3, "kind": "GlobalNetworkPolicy", "metadata": {"name": name},
            "spec": {"tier": tier, "selector": selector, "types": ["Ingress"], "ingress": rules}})
    };
    let pod = |name: &str, address: &str| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "x", "labels": {"app": name}},
            "spec": {"nodeName": "n"}, "status": {"podIP": address}})
    };
    let compiler = court::compile(
        [
            json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier",
                "metadata": {"name": "early"}, "spec": {"order": 10}}),
            policy(
                "first",
                "early",
                "all()",
                json!([{"action": "Pass", "protocol": "TCP"}, {"action": "Deny"}]),
            ),
            policy("second", "default", "app == 'open'", json!([{"action": "Allow"}])),
            policy("third", "default", "app == 'shut'", json!([{"action": "Deny"}])),
            pod("open", "10.0.0.1"),
            pod("shut", "10.0.0.2"),
            pod("client", "10.0.0.3"),
        ]
        .map(|object| Resource::from_value(&object).unwrap()),
    );
    let all = members(&compiler);
    let survey = surveyed(&all, &[&compiler], Some(Probe::of_port(6, 80)));
    let classes = class_of(&survey, &all);
    let class = |name: &str| classes[all.iter().position(|member| member.name == name).unwrap()];
    let verdict = |to| survey.outcome(class("client"), class(to)).unwrap().parts[0].said[0].verdict;
    assert_eq!([verdict("open"), verdict("shut")], [Fate::Allow, Fate::Deny]);
}
