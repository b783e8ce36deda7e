//! The packet path on one core, in memory, 64-byte frames, flows in random order.
//!
//! `cargo bench -p margay-engine --bench path`; a time is for a batch of 64 packets, its elements
//! are packets. Bringing the frames into place is not timed: a device does that.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use margay_engine::{BATCH, Batch, Fate, Frame};
use support::*;

/// Length of a chunk of packet memory: room before, and a frame.
const CHUNK: usize = 512;

/// Frames that a pod sends to one destination: one for each of `flows` connections, in an order
/// that no cache line helps.
fn traffic(flows: u32, dst: &str) -> Vec<Vec<u8>> {
    let frame = |n: u32| {
        let port = (n % flows).wrapping_mul(40_503) as u16;
        frame_from(A, &tcp(&at("10.65.0.2", port), dst, ACK).body_of(b"......".to_vec()))
    };
    (0..flows).map(frame).collect()
}

/// Runs batches through a node, of which only the engine's time counts: that of the median batch,
/// since on a busy machine some are interrupted.
fn time(node: &mut Node, traffic: &[Vec<u8>], batches: u64) -> Duration {
    let mut memory = vec![[0u8; CHUNK]; BATCH];
    let mut frames = traffic.iter().cycle();
    let mut spent = Vec::with_capacity(batches as usize);
    for _ in 0..batches {
        let mut batch = Batch::default();
        for (chunk, frame) in memory.iter_mut().zip(&mut frames) {
            let (start, len, ingress) = (HEADROOM, frame.len(), ingress(A));
            chunk[start..start + len].copy_from_slice(frame);
            batch.frames.push(Frame::new(chunk, start, len, ingress));
        }
        let begin = Instant::now();
        node.engine.run(&node.snapshot, node.now, &mut batch);
        spent.push(begin.elapsed());
        assert!(matches!(batch.fates[0], Fate::Forward(_)), "{:?}", batch.fates[0]);
    }
    let middle = spent.len() / 2;
    let median = *spent.select_nth_unstable(middle).1;
    median * u32::try_from(batches).unwrap()
}

fn node(flows: u32) -> Node {
    let mut node = Node::with_capacity(flows * 2 + 1024);
    node.change(|state| {
        serve(state, service("web", 6, "10.96.0.10:80", &["10.65.0.3:8080", "10.65.0.4:8080"]));
        serve(state, service("far", 6, "10.96.0.11:80", &["10.65.3.5:8080", "10.65.3.6:8080"]));
        isolate(state, "b", Some(vec![allow_ports(17, 1, 2), allow()]), None);
    });
    node
}

fn hits(c: &mut Criterion) {
    let mut group = c.benchmark_group("hit");
    group.throughput(Throughput::Elements(BATCH as u64));
    let cases = [
        ("forward", "10.65.0.3:80"),
        ("ipip", "10.65.2.5:80"),
        ("vxlan", "10.65.3.5:80"),
        ("service", "10.96.0.10:80"),
        ("service+vxlan", "10.96.0.11:80"),
    ];
    for (name, dst) in cases {
        for flows in [64, 65_536] {
            let (mut node, traffic) = (node(flows), traffic(flows, dst));
            time(&mut node, &traffic, (traffic.len() / BATCH) as u64);
            let missed = node.counters.misses.get();
            let id = BenchmarkId::new(name, flows);
            group.bench_function(id, |b| b.iter_custom(|n| time(&mut node, &traffic, n)));
            assert_eq!(node.counters.misses.get(), missed, "every packet was a hit");
        }
    }
    group.finish();
}

/// Each batch is of 64 connections that nobody has seen.
fn misses(c: &mut Criterion) {
    let mut group = c.benchmark_group("miss");
    group.throughput(Throughput::Elements(BATCH as u64));
    let flows = 65_536;
    for (name, dst) in [("forward", "10.65.0.3:80"), ("service", "10.96.0.10:80")] {
        let traffic = traffic(flows, dst);
        let batches = u64::from(flows) / BATCH as u64;
        let mut node = node(flows);
        group.bench_function(name, |b| {
            b.iter_custom(|n| {
                let mut spent = Duration::ZERO;
                let mut left = n;
                while left > 0 {
                    // An empty table for every round over the connections.
                    for pod in ["10.65.0.3", "10.65.0.4"] {
                        node.engine.forget(ip(pod).into());
                    }
                    let round = left.min(batches);
                    spent += time(&mut node, &traffic, round);
                    left -= round;
                }
                spent
            })
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(1));
    targets = hits, misses
}
criterion_main!(benches);
