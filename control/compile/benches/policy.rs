//! What a change of policy costs the agent: everything at once, one label, one member of a set.
//!
//! `cargo bench -p margay-compile --bench policy`

mod cluster;

use std::hint::black_box;
use std::time::Duration;

use cluster::{compile, of_a_node, pod, policy, surroundings, upsert, workload};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use margay_compile::{Compiler, ResourceChange, Scope};
use margay_model::Update;
use serde_json::json;

const PODS: usize = 5_000;
const POLICIES: usize = 10_000;
const MANY_PODS: usize = 100_000;
/// Pods of the node whose view is compiled.
const LOCAL: usize = cluster::NAMESPACES;

fn everything(pods: usize) -> Vec<ResourceChange> {
    let mut changes = surroundings();
    changes.extend((0..pods).map(|i| pod(i, None)));
    changes.extend((0..LOCAL).map(workload));
    changes.extend((0..POLICIES).map(policy));
    changes
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    let changes = everything(PODS);
    for (name, scope) in [("node", None), ("cluster", Some(Scope::Cluster))] {
        let fresh = || scope.clone().map_or_else(of_a_node, Compiler::new);
        group.bench_function(format!("{POLICIES} policies, {PODS} pods: {name}"), |b| {
            b.iter_batched_ref(
                fresh,
                |compiler| black_box(compile(compiler, &changes)),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn edits(c: &mut Criterion) {
    let mut group = c.benchmark_group("change");
    let mut compiler = of_a_node();
    compile(&mut compiler, &everything(PODS));
    let mut round = 0;
    group.bench_function(format!("one policy of {POLICIES}"), |b| {
        b.iter(|| {
            round += 1;
            // The same name with the rules of its neighbour.
            let other = policy(round % POLICIES / 4 * 4);
            black_box(compile(&mut compiler, &[other]))
        });
    });
    group.finish();
}

fn labels(c: &mut Criterion) {
    let mut group = c.benchmark_group("change");
    let mut compiler = of_a_node();
    compile(&mut compiler, &everything(MANY_PODS));
    let mentioning = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "extra"}, "spec": {"selector": "all()", "types": ["Ingress"],
            "ingress": [{"action": "Deny", "source": {"selector": "extra == 'yes'"}}]}});
    compile(&mut compiler, &[upsert(&mentioning)]);
    let pods = [Some("yes"), Some("no"), None].map(|extra| pod(MANY_PODS - 1, extra));
    let before = compiler.work();
    assert_eq!(members(&compile(&mut compiler, &pods[..1])), (1, 0));
    let work = compiler.work() - before;
    assert_eq!(work.selectors_evaluated, 1, "only the selector that mentions the label");

    let mut round = 0;
    group.bench_function(format!("one label of {MANY_PODS} pods: a member of a set"), |b| {
        b.iter(|| {
            round += 1;
            black_box(compile(&mut compiler, &pods[round % 2..=round % 2]))
        });
    });
    group.bench_function(format!("one label of {MANY_PODS} pods: nobody's"), |b| {
        b.iter(|| {
            round += 1;
            black_box(compile(&mut compiler, &pods[1 + round % 2..=1 + round % 2]))
        });
    });
    group.finish();
}

fn set_members(c: &mut Criterion) {
    let mut group = c.benchmark_group("change");
    let mut compiler = of_a_node();
    let mut changes = surroundings();
    changes.extend((0..MANY_PODS).map(|i| pod(i, None)));
    changes.extend((0..LOCAL).map(workload));
    changes.push(upsert(&json!({"apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy", "metadata": {"name": "everybody"},
        "spec": {"selector": "all()", "types": ["Ingress"],
            "ingress": [{"action": "Allow", "source": {"selector": "has(app)"}}]}})));
    compile(&mut compiler, &changes);
    let one_more = pod(MANY_PODS, None);
    let name = format!("pod-{MANY_PODS}");
    let namespace = format!("ns-{}", MANY_PODS % cluster::NAMESPACES);
    let one_less = cluster::delete(margay_resources::Kind::Pod, &namespace, &name);
    assert_eq!(members(&compile(&mut compiler, std::slice::from_ref(&one_more))), (1, 0));
    assert_eq!(members(&compile(&mut compiler, std::slice::from_ref(&one_less))), (0, 1));
    let both = [one_more, one_less];
    let mut round = 0;
    group.bench_function(format!("one member of {MANY_PODS}"), |b| {
        b.iter(|| {
            round += 1;
            black_box(compile(&mut compiler, &both[round % 2..=round % 2]))
        });
    });
    group.finish();
}

/// How many members of sets come and go.
fn members(updates: &[Update]) -> (usize, usize) {
    updates.iter().fold((0, 0), |(added, removed), update| match update {
        Update::SetMembers { add, remove, .. } => (added + add.len(), removed + remove.len()),
        Update::Set(..) => panic!("a whole set for one member"),
        _ => (added, removed),
    })
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    targets = whole, edits, labels, set_members
}
criterion_main!(benches);
