//! Workers that share a flow table: packets a second of all together, each with connections of its own,
//! and all with the same.
//!
//! `cargo bench -p margay-engine --bench workers`; a time is for 64 packets of each, its elements are
//! packets of all. Bringing the frames into place is part of it, as all have to begin and end together.

#[path = "../tests/support/mod.rs"]
mod support;
mod traffic;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use margay_engine::{BATCH, Counters, Engine};
use support::{Node, ip};
use traffic::{Case, Traffic, memory, node};

/// Connections of all workers.
const FLOWS: u32 = 1 << 16;

/// What each of so many workers sends. Datagrams, as the next segment of a connection can be only one's.
fn shares(workers: u32, same: bool) -> Vec<Traffic> {
    let share = |n| match same {
        true => Case::Udp.small(FLOWS),
        false => Traffic::new(
            support::A,
            &support::udp("10.65.0.2:1", "10.65.0.3:80").sized(18),
            None,
            vec![(ip("10.65.0.3"), 80 + n)],
            FLOWS / workers,
        ),
    };
    (0..workers as u16).map(share).collect()
}

/// Has each worker send so many batches; how long it took until the last had done so.
fn run(node: &Node, shares: &mut [Traffic], batches: u64) -> Duration {
    let (begin, end) = (Barrier::new(shares.len() + 1), Barrier::new(shares.len() + 1));
    thread::scope(|scope| {
        for traffic in shares {
            let (begin, end) = (&begin, &end);
            scope.spawn(move || {
                let counters = Arc::new(Counters::default());
                let mut engine = Engine::new(node.table, counters.clone()).expect("a seat");
                let mut memory = memory();
                begin.wait();
                for _ in 0..batches {
                    traffic.fill(&mut memory);
                    engine.run(&node.snapshot, node.now, &mut traffic.batch(&mut memory));
                }
                end.wait();
            });
        }
        begin.wait();
        let began = Instant::now();
        end.wait();
        began.elapsed()
    })
}

fn scaling(c: &mut Criterion) {
    for (name, same) in [("connections of their own", false), ("the same connections", true)] {
        let mut group = c.benchmark_group(format!("workers with {name}"));
        for workers in [1, 2, 4] {
            let node = node(&Case::Udp.table(FLOWS));
            let mut shares = shares(workers, same);
            for share in shares.chunks_mut(1) {
                let round = share[0].round();
                run(&node, share, round);
            }
            group.throughput(Throughput::Elements(u64::from(workers) * BATCH as u64));
            let id = BenchmarkId::from_parameter(workers);
            group.bench_function(id, |b| b.iter_custom(|n| run(&node, &mut shares, n)));
            assert_eq!(node.connections(), u64::from(FLOWS), "every packet was a hit");
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = scaling
}
criterion_main!(benches);
