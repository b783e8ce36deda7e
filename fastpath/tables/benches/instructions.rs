//! Instructions and memory accesses of single table operations, counted by callgrind: the same on a
//! busy machine as on an idle one.
//!
//! `cargo install gungraun-runner --version 0.20.0`, then
//! `cargo bench -p margay-tables --bench instructions`

#![allow(missing_docs, reason = "of what the macros make")]

mod world;

use std::hint::black_box;
use std::sync::Arc;

use gungraun::prelude::*;
use margay_tables::{
    Addr, Classifier, Direction, EndpointPolicy, FlowConfig, FlowTable, FlowWorker, Insert, Lpm,
    NewFlow, Prefix, Region, Tuple,
};
use world::{By, addr, packet, world};

fn rules(by: By, count: u32) -> (Classifier, EndpointPolicy) {
    let (mut book, endpoint) = world(by, count);
    let list = book.endpoint(&endpoint);
    let classifier = book.classifier();
    // The first packet finds nothing in the caches; the benches are of later ones.
    classifier.decide(&list, Direction::Ingress, &packet());
    (classifier, list)
}

#[library_benchmark(setup = rules)]
#[bench::set_10(By::Set, 10)]
#[bench::set_100(By::Set, 100)]
#[bench::set_1000(By::Set, 1_000)]
#[bench::set_10000(By::Set, 10_000)]
#[bench::port_10(By::Port, 10)]
#[bench::port_10000(By::Port, 10_000)]
#[bench::net_10(By::Net, 10)]
#[bench::net_10000(By::Net, 10_000)]
fn decide(world: (Classifier, EndpointPolicy)) -> (bool, (Classifier, EndpointPolicy)) {
    let verdict = world.0.decide(&world.1, Direction::Ingress, &black_box(packet()));
    (verdict.allowed(), world)
}

fn tuple(n: u32) -> Tuple {
    Tuple {
        src: Addr::from_v4_bits(0x0a00_0000 | n),
        dst: Addr::from_v4_bits(0x0a60_0001),
        src_port: 40_000,
        dst_port: 80,
        protocol: 6,
        zone: 0,
    }
}

/// A table with 1,000 connections.
fn flows() -> FlowWorker {
    let config = FlowConfig { v4: 4_000, v6: 4_000, participants: 4, denial_share: 8 };
    let region = Region::heap(FlowTable::required_bytes(&config).expect("sizes"));
    let table = FlowTable::create(region, &config, 0x5eed, 1).expect("room");
    let mut worker = FlowWorker::new(Arc::new(table)).expect("a seat");
    for n in 0..1_000 {
        let inserted = worker.insert(&NewFlow::connection(tuple(n), tuple(n).reversed(), 0));
        assert!(matches!(inserted, Insert::New(_)));
    }
    worker
}

#[library_benchmark(setup = flows)]
#[bench::hit()]
fn flow_lookup(worker: FlowWorker) -> FlowWorker {
    let (table, tuple) = (worker.table(), black_box(tuple(500)));
    black_box(table.lookup(&tuple, table.hash(&tuple)).is_some());
    worker
}

#[library_benchmark(setup = flows)]
#[bench::new()]
fn flow_insert(mut worker: FlowWorker) -> FlowWorker {
    let tuple = black_box(tuple(2_000));
    black_box(worker.insert(&NewFlow::connection(tuple, tuple.reversed(), 0)));
    worker
}

fn prefixes(count: u32) -> Lpm<u32> {
    (0..count)
        .map(|n| (Prefix::new(addr(n << 6), [120, 122, 128, 112][n as usize % 4]), n))
        .chain([(Prefix::new(addr(0), 96), 0)])
        .collect()
}

#[library_benchmark(setup = prefixes)]
#[bench::among_100(100)]
#[bench::among_100000(100_000)]
fn longest_prefix(table: Lpm<u32>) -> (Option<u32>, Lpm<u32>) {
    (table.lookup(black_box(addr(77 << 6))), table)
}

library_benchmark_group!(name = policy, benchmarks = [decide]);
library_benchmark_group!(name = flow, benchmarks = [flow_lookup, flow_insert]);
library_benchmark_group!(name = route, benchmarks = [longest_prefix]);
main!(library_benchmark_groups = [policy, flow, route]);
