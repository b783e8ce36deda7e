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

/// Bytes that each segment carries.
const PAYLOAD: usize = 6;

/// Offset of the sequence number in a frame.
const SEQUENCE: usize = 14 + 20 + 4;

/// What a pod sends to one destination: a segment of each connection, then the next of each.
struct Traffic {
    /// The frames, in an order that no cache line helps.
    frames: Vec<Vec<u8>>,
    sent: usize,
}

impl Traffic {
    fn new(flows: u32, dst: &str) -> Self {
        let frame = |n: u32| {
            let port = (n % flows).wrapping_mul(40_503) as u16;
            let body = vec![b'.'; PAYLOAD];
            frame_from(A, &tcp(&at("10.65.0.2", port), dst, ACK).body_of(body))
        };
        Self { frames: (0..flows).map(frame).collect(), sent: 0 }
    }

    /// Batches that every connection has one segment in.
    fn batches(&self) -> u64 {
        (self.frames.len() / BATCH) as u64
    }

    /// Writes the next frame into a chunk; its length.
    fn next_into(&mut self, chunk: &mut [u8; CHUNK]) -> usize {
        let (turn, at) = (self.sent / self.frames.len(), self.sent % self.frames.len());
        self.sent += 1;
        let frame = &self.frames[at];
        chunk[HEADROOM..][..frame.len()].copy_from_slice(frame);
        let seq = (turn * PAYLOAD) as u32;
        chunk[HEADROOM + SEQUENCE..][..4].copy_from_slice(&seq.to_be_bytes());
        frame.len()
    }
}

/// Runs batches through a node, of which only the engine's time counts: that of the median batch,
/// since on a busy machine some are interrupted.
fn time(node: &mut Node, traffic: &mut Traffic, batches: u64) -> Duration {
    let mut memory = vec![[0u8; CHUNK]; BATCH];
    let mut spent = Vec::with_capacity(batches as usize);
    for _ in 0..batches {
        let mut batch = Batch::default();
        for chunk in &mut memory {
            let len = traffic.next_into(chunk);
            batch.frames.push(Frame::new(chunk, HEADROOM, len, ingress(A)));
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
            let (mut node, mut traffic) = (node(flows), Traffic::new(flows, dst));
            let batches = traffic.batches();
            time(&mut node, &mut traffic, batches);
            let missed = node.counters.misses.get();
            let id = BenchmarkId::new(name, flows);
            group.bench_function(id, |b| b.iter_custom(|n| time(&mut node, &mut traffic, n)));
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
        let mut traffic = Traffic::new(flows, dst);
        let batches = traffic.batches();
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
                    spent += time(&mut node, &mut traffic, round);
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
