//! Headers by themselves: checksums in full and by difference, reading a frame, writing what goes around it.
//!
//! `cargo bench -p margay-wire --bench headers`

mod frames;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use frames::*;

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in LENGTHS {
        let bytes = vec![0x5a; len];
        group.bench_function(BenchmarkId::new("in full", len), |b| {
            b.iter(|| sum(black_box(&bytes)));
        });
    }
    group.bench_function("by difference", |b| {
        b.iter(|| mended(black_box(0x1234), black_box([10, 0, 0, 2])));
    });
    group.bench_function("pseudo-header", |b| b.iter(|| pseudo_v4(black_box([10, 0, 0, 2]))));
    group.finish();
}

fn reading(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let (v4, v6) = (frame(false), frame(true));
    group.bench_function("IPv4", |b| b.iter(|| read_v4(black_box(&v4)).expect("a segment")));
    group.bench_function("IPv6", |b| b.iter(|| read_v6(black_box(&v6)).expect("a segment")));
    group.finish();
}

fn writing(c: &mut Criterion) {
    let mut group = c.benchmark_group("encap");
    group.bench_function("ipip", |b| b.iter(|| black_box(outer_v4()).emit()));
    group.bench_function("IPv6", |b| b.iter(|| black_box(inner_v6()).emit()));
    group.bench_function("vxlan", |b| b.iter(|| vxlan_around(black_box(50_000))));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700));
    targets = checksums, reading, writing
}
criterion_main!(benches);
