//! First packets of connections, on one core, in memory: by what is done with them, by the number of rules,
//! of routes and of services; and a million of them into an empty table.
//!
//! `cargo bench -p margay-engine --bench miss`; elements are packets. Bringing the frames into place is
//! not timed: a device does that.

#[path = "../tests/support/mod.rs"]
mod support;
mod traffic;

use std::net::IpAddr;
use std::time::Duration;

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use margay_engine::BATCH;
use margay_model::State;
use margay_model::node::Timeouts;
use margay_tables::flow::Share;
use support::*;
use traffic::*;

/// Connections of a round, after which the table is emptied.
const FLOWS: u32 = 1 << 16;

/// Times batches of packets that open connections which nobody has seen.
fn bench(c: &mut Criterion, id: BenchmarkId, traffic: &mut Traffic, edit: impl Fn(&mut State)) {
    let mut node = node(&Case::Forward.table(FLOWS));
    node.change(edit);
    bench_in(c, id, traffic, node);
}

fn bench_in(c: &mut Criterion, id: BenchmarkId, traffic: &mut Traffic, mut node: Node) {
    let mut group = c.benchmark_group("miss");
    group.throughput(Throughput::Elements(BATCH as u64));
    let (mut sent, round) = (0, traffic.round());
    group.bench_function(id, |b| {
        b.iter_custom(|count| {
            let (mut spent, mut left) = (Duration::ZERO, count);
            while left > 0 {
                empty(&mut node, traffic);
                let part = left.min(round);
                spent += through(&mut node, traffic, part);
                (left, sent) = (left - part, sent + part);
            }
            spent
        });
    });
    group.finish();
    assert_eq!(node.counters.misses.get(), sent * BATCH as u64, "every packet was a miss");
    assert_eq!(node.counters.by_reason().0.iter().sum::<u64>(), 0, "none was dropped");
}

/// Ends every connection of the pod that sends.
fn empty(node: &mut Node, traffic: &mut Traffic) {
    node.engine.forget(ip("10.65.0.2").into());
    traffic.rewind();
}

/// SYNs of a pod to each of the targets in turn.
fn opening(targets: Vec<(IpAddr, u16)>, flows: u32) -> Traffic {
    Traffic::new(A, &tcp("10.65.0.2:1", "10.65.0.3:80", SYN), None, targets, flows)
}

fn by_case(c: &mut Criterion) {
    for case in [Case::Forward, Case::Vxlan, Case::Service, Case::ServiceVxlan] {
        let mut traffic = opening(case.targets(FLOWS), FLOWS);
        bench(c, BenchmarkId::from_parameter(case.name()), &mut traffic, |_| {});
    }
}

/// With stages timed, as they are in a worker.
fn by_clock(c: &mut Criterion) {
    let mut traffic = opening(Case::Forward.targets(FLOWS), FLOWS);
    let mut node = node(&Case::Forward.table(FLOWS));
    node.engine.measure_by(margay_tables::ticks);
    bench_in(c, BenchmarkId::from_parameter("forward with stages timed"), &mut traffic, node);
}

fn by_policies(c: &mut Criterion) {
    for count in [10, 100, 1_000, 10_000] {
        let mut traffic = opening(Case::Forward.targets(FLOWS), FLOWS);
        bench(c, BenchmarkId::new("policies", count), &mut traffic, |state| policed(state, count));
    }
}

/// Every connection is to another block than the one before.
fn by_routes(c: &mut Criterion) {
    for count in [1, 1_000, 10_000, 100_000] {
        let mut traffic = opening((0..count).map(block).collect(), FLOWS);
        bench(c, BenchmarkId::new("routes", count), &mut traffic, |state| routed(state, count));
    }
}

/// Every connection is to another service than the one before.
fn by_services(c: &mut Criterion) {
    for count in [1, 1_000, 10_000, 100_000] {
        let mut traffic = opening((0..count).map(frontend).collect(), FLOWS);
        bench(c, BenchmarkId::new("services", count), &mut traffic, |state| served(state, count));
    }
}

/// A million connections through services into an empty table, with a step of ageing after every batch
/// and a hundred policies before the one that lets them in.
fn a_million(c: &mut Criterion) {
    const MANY: u32 = 1 << 20;
    const PARTS: u64 = 64;
    let mut node = node(&Case::Service.table(MANY));
    node.change(|state| policed(state, 100));
    let mut traffic = opening(Case::Service.targets(MANY), MANY);
    let timeouts = Timeouts::default();
    let mut group = c.benchmark_group("miss");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(MANY.into()));
    group.bench_function("1 M into an empty table", |b| {
        b.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for _ in 0..count {
                empty(&mut node, &mut traffic);
                // A part's median stands for it, as the table becomes fuller.
                for _ in 0..PARTS {
                    let Node { engine, snapshot, now, .. } = &mut node;
                    let batches = traffic.round() / PARTS;
                    spent += time(&mut traffic, BATCH, batches, |batch| {
                        engine.run(snapshot, *now, batch);
                        engine.housekeep(&timeouts, *now, Share { index: 0, of: 1 });
                    });
                }
                assert_eq!(node.connections(), u64::from(MANY));
            }
            spent
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = by_case, by_clock, by_policies, by_routes, by_services, a_million
}
criterion_main!(benches);
