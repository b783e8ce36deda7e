//! Hits of the packet path on one core, in memory, flows in random order: by what is done with a packet,
//! by the number of flows, of policies, routes and services, by the size of frames and of batches, by stage.
//!
//! `cargo bench -p margay-engine --bench path`; a time is for 64 packets, its elements are packets.
//! Bringing the frames into place is not timed: a device does that.

#[path = "../tests/support/mod.rs"]
mod support;
mod traffic;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use margay_engine::BATCH;
use margay_engine::meter::Stage;
use margay_model::State;
use support::Node;
use traffic::*;

/// A node that has seen a packet of every connection.
fn seen(case: Case, traffic: Traffic, flows: u32) -> (Node, Traffic) {
    seen_in(case, traffic, flows, |_| {})
}

/// The same with more in force.
fn seen_in(
    case: Case,
    mut traffic: Traffic,
    flows: u32,
    edit: impl Fn(&mut State),
) -> (Node, Traffic) {
    let mut node = node(&case.table(flows));
    node.change(edit);
    let round = traffic.round();
    through(&mut node, &mut traffic, round);
    (node, traffic)
}

fn bench(
    c: &mut Criterion,
    id: BenchmarkId,
    (node, traffic): &mut (Node, Traffic),
    mut timed: impl FnMut(&mut Node, &mut Traffic, u64) -> Duration,
) {
    let missed = node.counters.misses.get();
    let mut group = c.benchmark_group("hit");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(id, |b| b.iter_custom(|n| timed(node, traffic, n)));
    group.finish();
    assert_eq!(node.counters.misses.get(), missed, "every packet was a hit");
}

fn by_flows(c: &mut Criterion) {
    for case in Case::ALL {
        let flows: &[u32] = match case {
            Case::Forward | Case::ServiceVxlan => &[64, 1 << 10, 1 << 16, 1 << 20, 1 << 22],
            _ => &[64, 1 << 16],
        };
        for flows in flows {
            let mut world = seen(case, case.small(*flows), *flows);
            bench(c, BenchmarkId::new(case.name(), flows), &mut world, through);
        }
    }
}

/// With much in force of what only a connection's first packet asks: policies before the one that lets it
/// in; routes and services, each connection to another.
fn by_state(c: &mut Criterion) {
    const FLOWS: u32 = 1 << 10;
    let case = Case::Forward;
    for count in [10, 10_000] {
        let mut world = seen_in(case, case.small(FLOWS), FLOWS, |state| policed(state, count));
        bench(c, BenchmarkId::new("policies", count), &mut world, through);
    }
    for count in [1, 100_000] {
        let traffic = case.small(FLOWS).to((0..count).map(block).collect());
        let mut world = seen_in(case, traffic, FLOWS, |state| routed(state, count));
        bench(c, BenchmarkId::new("routes", count), &mut world, through);
        let traffic = case.small(FLOWS).to((0..count).map(frontend).collect());
        let mut world = seen_in(case, traffic, FLOWS, |state| served(state, count));
        bench(c, BenchmarkId::new("services", count), &mut world, through);
    }
}

/// Frames of so many bytes, the Ethernet checksum included; of 64 are those above.
fn by_size(c: &mut Criterion) {
    for (case, size) in [
        (Case::Forward, 512),
        (Case::Forward, 1500),
        (Case::ServiceVxlan, 512),
        (Case::ServiceVxlan, 1400),
    ] {
        let mut world = seen(case, case.traffic(1 << 10, size - 58), 1 << 10);
        let name = format!("{} in frames of", case.name());
        bench(c, BenchmarkId::new(name, size), &mut world, through);
    }
}

/// What it brings to ask memory for a batch at once: the same packets one by one, by eights, and the whole.
fn by_batch(c: &mut Criterion) {
    let case = Case::Forward;
    let mut world = seen(case, case.small(1 << 20), 1 << 20);
    for size in [1, 8, BATCH] {
        let timed = |node: &mut Node, traffic: &mut Traffic, n| {
            let Node { engine, snapshot, now, .. } = node;
            time(traffic, size, n, |batch| engine.run(snapshot, *now, batch))
        };
        bench(c, BenchmarkId::new("1 M flows in batches of", size), &mut world, timed);
    }
}

/// With stages timed, as they are in a worker.
fn by_clock(c: &mut Criterion) {
    for case in [Case::Forward, Case::ServiceVxlan] {
        let mut world = seen(case, case.small(64), 64);
        world.0.engine.measure_by(margay_tables::ticks);
        let name = format!("{} with stages timed", case.name());
        bench(c, BenchmarkId::new(name, 64), &mut world, through);
    }
}

/// Parse, with what brings a packet out of its tunnel, and the rest, with what puts it into one.
fn by_stage(c: &mut Criterion) {
    for case in [Case::Forward, Case::Vxlan, Case::Ipip, Case::OutOfVxlan, Case::OutOfIpip] {
        let mut world = seen(case, case.small(64), 64);
        world.0.engine.measure_by(nanoseconds);
        for stage in [Stage::Parse, Stage::Decide] {
            let timed = |node: &mut Node, traffic: &mut Traffic, n| {
                let Node { engine, snapshot, now, counters, .. } = node;
                let ticks = || counters.meters.stage(stage).ticks.get();
                let mut spent = Vec::with_capacity(n as usize);
                time(traffic, BATCH, n, |batch| {
                    // What was before is not parse's.
                    engine.lap(Stage::Receive, BATCH);
                    let before = ticks();
                    engine.run(snapshot, *now, batch);
                    spent.push(Duration::from_nanos(ticks() - before));
                });
                median(&mut spent) * n as u32
            };
            let id = BenchmarkId::new(format!("{} {}", stage.name(), case.name()), 64);
            bench(c, id, &mut world, timed);
        }
    }
}

fn nanoseconds() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = by_flows, by_state, by_size, by_batch, by_clock, by_stage
}
criterion_main!(benches);
