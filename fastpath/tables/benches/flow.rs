//! The flow table on one core: hits in random order at 1 k and 1 M flows, misses, insertions.
//!
//! `cargo bench -p margay-tables --bench flow`; a time is for a batch of 64 packets, or for one
//! new connection.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use margay_tables::{Addr, FlowConfig, FlowTable, FlowWorker, Insert, NewFlow, Region, Tuple};

const BATCH: usize = 64;

/// The nth of many distinct connections, in an order that no cache line helps.
fn connection(n: u32, v6: bool) -> Tuple {
    let scattered = n.wrapping_mul(0x9e37_79b1);
    let addr = |bits: u32| match v6 {
        false => Addr::from_v4_bits(bits),
        true => Addr::from_bits(0xfd00 << 112 | u128::from(bits)),
    };
    Tuple {
        src: addr(0x0a00_0000 | scattered >> 12),
        dst: addr(0x0a60_0001 + (n & 0xff)),
        src_port: scattered as u16,
        dst_port: 80,
        protocol: 6,
        zone: 0,
    }
}

fn table(capacity: u32) -> FlowWorker {
    let config = FlowConfig { v4: capacity, v6: capacity, participants: 4, denial_share: 8 };
    let region = Region::heap(FlowTable::required_bytes(&config).expect("sizes"));
    let table = FlowTable::create(region, &config, 0x5eed, 1).expect("room");
    FlowWorker::new(Arc::new(table)).expect("a seat")
}

fn fill(worker: &mut FlowWorker, flows: u32, v6: bool) -> Vec<Tuple> {
    (0..flows)
        .map(|n| {
            let orig = connection(n, v6);
            let new = NewFlow::connection(orig, orig.reversed(), 0);
            assert!(matches!(worker.insert(&new), Insert::New(_)));
            if n % 2 == 0 { orig } else { orig.reversed() }
        })
        .collect()
}

/// As the engine does it: hash all, prefetch all, prefetch all records, look all up.
fn hit_batch(table: &FlowTable, tuples: &[Tuple], now: u32) -> u32 {
    let mut hashes = [0; BATCH];
    for (hash, tuple) in hashes.iter_mut().zip(tuples) {
        *hash = table.hash(tuple);
        table.prefetch(*hash);
    }
    hashes.iter().for_each(|hash| {
        table.prefetch_record(*hash);
    });
    let mut found = 0;
    for (hash, tuple) in hashes.iter().zip(tuples) {
        if let Some(flow) = table.lookup(tuple, *hash) {
            black_box((flow.decision(), flow.rewrite()));
            flow.touch(now, 64);
            found += 1;
        }
    }
    found
}

fn hits(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow/hit");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, flows, v6) in
        [("v4/1k", 1000, false), ("v4/1M", 1_000_000, false), ("v6/1k", 1000, true)]
    {
        let mut worker = table(flows.max(2000));
        let tuples = fill(&mut worker, flows, v6);
        let table = worker.table().clone();
        let mut at = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                at = if at + BATCH > tuples.len() { 0 } else { at };
                let found = hit_batch(&table, &tuples[at..at + BATCH], 1);
                at += BATCH;
                assert_eq!(found as usize, BATCH);
            });
        });
    }
    group.finish();
}

fn insertions(c: &mut Criterion) {
    const NEW: u32 = 1_000_000;
    let mut group = c.benchmark_group("flow/insert");
    group.throughput(Throughput::Elements(NEW.into()));
    group.sample_size(10);
    group.bench_function("v4/1M into an empty table", |b| {
        b.iter_batched(
            || table(NEW),
            |mut worker| {
                for n in 0..NEW {
                    let orig = connection(n, false);
                    let hash = worker.table().hash(&orig);
                    assert!(worker.table().lookup(&orig, hash).is_none());
                    black_box(worker.insert(&NewFlow::connection(orig, orig.reversed(), 0)));
                    if n % 64 == 0 {
                        worker.quiesce();
                    }
                }
                worker
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, hits, insertions);
criterion_main!(benches);
