//! The flow table on one core: hits in random order by the number of flows, on ordinary and on huge pages,
//! with and without asking memory for a batch at once; misses, insertions.
//!
//! `cargo bench -p margay-tables --bench flow`; a time is for a batch of 64 packets, or for one
//! new connection. Huge pages are measured where `MARGAY_HUGEPAGES` names a folder of theirs (hugetlbfs), beside
//! those of a file in `/dev/shm`, as margayd has them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{
    BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use margay_tables::{Addr, FlowConfig, FlowTable, FlowWorker, Insert, NewFlow, Region, Tuple};

const BATCH: usize = 64;

/// A multiplier that spreads numbers over 32 bits.
const SPREAD: u32 = 0x9e37_79b1;

/// The nth of many distinct connections, in an order that no cache line helps.
fn connection(n: u32, v6: bool) -> Tuple {
    let scattered = n.wrapping_mul(SPREAD);
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

/// A table for as many connections of a family, in memory of so many bytes that somebody gives.
fn table(flows: u32, v6: bool, memory: impl FnOnce(usize) -> Region) -> FlowWorker {
    let (enough, few) = (flows + flows / 8 + 1_024, 1_024);
    let (v4, v6) = if v6 { (few, enough) } else { (enough, few) };
    let config = FlowConfig { v4, v6, participants: 4, denial_share: 8 };
    let region = memory(FlowTable::required_bytes(&config).expect("sizes"));
    let table = FlowTable::create(region, &config, 0x5eed, 1).expect("room");
    FlowWorker::new(Arc::new(table)).expect("a seat")
}

/// Enters connections; their packets come in another order than the records were made.
fn fill(worker: &mut FlowWorker, flows: u32, v6: bool) -> Vec<Tuple> {
    let enter = |n| {
        let orig = connection(n, v6);
        let new = NewFlow::connection(orig, orig.reversed(), 0);
        assert!(matches!(worker.insert(&new), Insert::New(_)));
        if n % 2 == 0 { orig } else { orig.reversed() }
    };
    let mut tuples: Vec<_> = (0..flows).map(enter).collect();
    for n in (1..flows).rev() {
        let other = (u64::from(n.wrapping_mul(SPREAD)) * u64::from(n + 1)) >> 32;
        tuples.swap(n as usize, other as usize);
    }
    tuples
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

/// The same without asking memory beforehand.
fn one_by_one(table: &FlowTable, tuples: &[Tuple], now: u32) -> u32 {
    let mut found = 0;
    for tuple in tuples {
        if let Some(flow) = table.lookup(tuple, table.hash(tuple)) {
            black_box((flow.decision(), flow.rewrite()));
            flow.touch(now, 64);
            found += 1;
        }
    }
    found
}

/// Looks up batches of these, of each of which `found` are there.
fn bench(
    c: &mut Criterion,
    id: BenchmarkId,
    table: &FlowTable,
    tuples: &[Tuple],
    (look, found): (impl Fn(&FlowTable, &[Tuple], u32) -> u32, u32),
) {
    let mut group = c.benchmark_group("flow");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut batches = tuples.as_chunks::<BATCH>().0.iter().cycle();
    group.bench_function(id, |b| {
        b.iter_custom(|count| {
            let mut time = || {
                let begin = Instant::now();
                let seen = look(table, batches.next().expect("a batch"), 1);
                let spent = begin.elapsed();
                assert_eq!(seen, found);
                spent
            };
            let mut spent: Vec<_> = (0..count).map(|_| time()).collect();
            // The median batch stands for all, since on a busy machine some are interrupted.
            let middle = spent.len() / 2;
            *spent.select_nth_unstable(middle).1 * count as u32
        });
    });
    group.finish();
}

fn hits(c: &mut Criterion) {
    for (name, v6, flows) in [
        ("hit IPv4", false, &[64, 1 << 10, 1 << 16, 1 << 20, 1 << 22][..]),
        ("hit IPv6", true, &[1 << 10, 1 << 20]),
    ] {
        for flows in flows {
            let mut worker = table(*flows, v6, Region::heap);
            let tuples = fill(&mut worker, *flows, v6);
            let id = BenchmarkId::new(name, flows);
            bench(c, id, worker.table(), &tuples, (hit_batch, BATCH as u32));
        }
    }
    let flows = 1 << 20;
    let mut worker = table(flows, false, Region::heap);
    let tuples = fill(&mut worker, flows, false);
    let id = BenchmarkId::new("hit IPv4 one by one", flows);
    bench(c, id, worker.table(), &tuples, (one_by_one, BATCH as u32));
}

fn misses(c: &mut Criterion) {
    for flows in [1 << 10, 1 << 20] {
        let mut worker = table(flows, false, Region::heap);
        fill(&mut worker, flows, false);
        let others: Vec<_> = (flows..2 * flows).map(|n| connection(n, false)).collect();
        let id = BenchmarkId::new("miss IPv4", flows);
        bench(c, id, worker.table(), &others, (hit_batch, 0));
    }
}

/// A million flows in a file, on the pages that its folder has.
fn pages(c: &mut Criterion) {
    let huge = std::env::var_os("MARGAY_HUGEPAGES");
    for (name, folder) in [("4 KiB", Some("/dev/shm".into())), ("2 MiB", huge)] {
        let Some(folder) = folder else { continue };
        let path =
            std::path::Path::new(&folder).join(format!("margay-bench-{}", std::process::id()));
        let flows = 1 << 20;
        let mut worker = table(flows, false, |bytes| {
            Region::file(&path, bytes.next_multiple_of(2 << 20)).expect("a file in memory")
        });
        std::fs::remove_file(&path).expect("the file that was made");
        let tuples = fill(&mut worker, flows, false);
        let id = BenchmarkId::new("hit IPv4, 1 M flows on pages of", name);
        bench(c, id, worker.table(), &tuples, (hit_batch, BATCH as u32));
    }
}

fn insertions(c: &mut Criterion) {
    const NEW: u32 = 1_000_000;
    let mut group = c.benchmark_group("flow");
    group.throughput(Throughput::Elements(NEW.into()));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("insert, 1 M into an empty table", |b| {
        b.iter_batched(
            || table(NEW, false, Region::heap),
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

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = hits, misses, pages, insertions
}
criterion_main!(benches);
