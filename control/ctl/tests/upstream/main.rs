//! The test cases of Kubernetes, of ClusterNetworkPolicy's conformance suite and of Calico, each a
//! row of a table with upstream's title and documents of our own, asked of `policy simulate`.
//!
//! A table (`*.yaml` beside this file) has rows of
//! - `suite` and `case`: upstream's names; `vary`: the row stands for several, each with these words
//!   in the places of `<WORD>`. Addresses are words too: `<x/a.4>`, `<n1.6>`, `<out.4>`;
//! - `steps`, each of which puts documents (`KIND NAME [LABEL=VALUE]`, with the specification) or takes
//!   them away, and says which pods (`SPACE/POD`, `SPACE` or `*`) reach which others (`at`: protocols
//!   and ports, in both families; `closed`, of which `open` are exceptions), and of other ends with `+`
//!   and `-` whether their flows are allowed (`probes`);
//! - `held_by`: tests that prove it elsewhere, above all with live packets, by their names
//!   (`scripts/check-behaviours` looks for them);
//! - `otherwise`: why Margay has it otherwise, or not at all.
//!
//! `scripts/tests/test_policy_upstream.py` asks the same tables of live packets.
//!
//! - `table`: the rows; `world`: the pods, and documents in full.

#[path = "../common/mod.rs"]
mod common;
mod table;
mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use table::{Case, Step, read};
use world::World;

/// What was asked before, by documents and lines: rows share steps.
#[derive(Default)]
struct Asked(HashMap<(String, String), Vec<Value>>);

// === impl Asked ===

impl Asked {
    fn answers(&mut self, documents: String, lines: String) -> &[Value] {
        let key = (documents, lines);
        self.0.entry(key).or_insert_with_key(|(documents, lines)| {
            let (answers, errors) = common::simulate(documents, lines);
            assert_eq!(errors, "", "{documents}");
            answers
        })
    }
}

/// Walks a row; what is not as it says.
fn differences(world: &World, case: &Case, asked: &mut Asked) -> Vec<String> {
    let (mut put, mut found) = (BTreeMap::new(), Vec::new());
    for (number, step) in case.steps.iter().enumerate() {
        put.retain(|key, _| !step.take.contains(key));
        put.extend(step.put.clone());
        let flows = world.flows(step);
        assert!(!flows.is_empty(), "{case}: step {number} asks nothing");
        let lines: String = flows.iter().map(|(flow, _)| format!("{flow}\n")).collect();
        let answers = asked.answers(world.documents(&put), lines);
        assert_eq!(answers.len(), flows.len(), "{case}");
        let wrong = flows.iter().zip(answers).filter(|((_, allowed), answer)| {
            answer["verdict"] != if *allowed { "allow" } else { "deny" }
        });
        let wrong =
            wrong.map(|((flow, _), answer)| format!("{case}, step {number}: {flow}: {answer}"));
        found.extend(wrong.take(4));
    }
    found
}

fn hold(table: &str) {
    let (world, mut asked) = (World::new(), Asked::default());
    let wrong: Vec<_> =
        read(table, &world).iter().flat_map(|case| differences(&world, case, &mut asked)).collect();
    assert!(wrong.is_empty(), "{} are otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

const TABLES: [&str; 3] =
    [include_str!("kubernetes.yaml"), include_str!("cluster.yaml"), include_str!("calico.yaml")];

#[test]
fn every_case_of_kubernetes_is_as_upstream_says() {
    hold(TABLES[0]);
}

#[test]
fn every_case_of_cluster_policies_is_as_upstream_says() {
    hold(TABLES[1]);
}

#[test]
fn every_case_of_calico_is_as_upstream_says() {
    hold(TABLES[2]);
}

#[test]
fn every_row_is_there_once_and_has_a_proof_or_a_reason() {
    let (world, mut seen) = (World::new(), BTreeSet::new());
    for case in TABLES.iter().flat_map(|table| read(table, &world)) {
        let proven = !case.steps.is_empty() || !case.held_by.is_empty();
        assert!(proven || case.otherwise.is_some(), "{case}: neither proof nor reason");
        assert!(case.otherwise.is_none() || case.steps.is_empty(), "{case}: proven, and otherwise");
        assert!(!case.to_string().contains('<'), "{case}: a word that is not known");
        assert!(seen.insert(case.to_string()), "{case}: twice");
    }
}

/// The table of a policy that closes nothing, as it would be if rows were not compared at all.
#[test]
fn a_row_that_is_not_as_it_says_is_found() {
    let world = World::new();
    let step = |put: Value, closed: &str| -> Step {
        let put: BTreeMap<String, Value> = serde_json::from_value(put).unwrap();
        let at = vec!["TCP 80".to_owned()];
        Step { put, at, closed: vec![closed.to_owned()], ..Step::default() }
    };
    let deny = json!({"kubernetes x/p": {"podSelector": {}, "policyTypes": ["Ingress"]}});
    for (put, closed, right) in
        [(deny.clone(), "* > x", true), (deny, "x > *", false), (json!({}), "* > x", false)]
    {
        let case = Case { steps: vec![step(put, closed)], ..Case::default() };
        assert_eq!(differences(&world, &case, &mut Asked::default()).is_empty(), right);
    }
}
