//! Lookups that a first packet makes: a network by the number of routes, a service by the number of
//! services, a backend by the number of backends.
//!
//! `cargo bench -p margay-tables --bench lookup`

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use margay_model::{Backend, Selection, Service, TrafficPolicy};
use margay_tables::{Addr, Lpm, Prefix, ServiceTable};

const COUNTS: [u32; 4] = [1, 1_000, 10_000, 100_000];

/// A multiplier that spreads numbers over 32 bits.
const SPREAD: u32 = 0x9e37_79b1;

fn addr(v6: bool, n: u32) -> Addr {
    match v6 {
        false => Addr::from_v4_bits(0x0a00_0000 | n),
        true => Addr::from_bits(0xfd00 << 112 | u128::from(n) << 32),
    }
}

/// The nth network: hosts, blocks and larger ones.
fn network(v6: bool, n: u32) -> Prefix {
    let lens = if v6 { [96, 90, 122, 80] } else { [120, 122, 128, 112] };
    Prefix::new(addr(v6, n << 6), lens[n as usize % lens.len()])
}

fn networks(c: &mut Criterion) {
    let mut group = c.benchmark_group("lpm");
    for (name, v6) in [("IPv4", false), ("IPv6", true)] {
        for count in COUNTS {
            let mut table: Lpm = (0..count).map(|n| (network(v6, n), n)).collect();
            table.insert(Prefix::new(addr(v6, 0), if v6 { 8 } else { 96 }), 0);
            let mut n = 0u32;
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    n = n.wrapping_add(SPREAD);
                    // Mostly of the networks, in no order.
                    let nth = ((u64::from(n) * u64::from(count)) >> 32) as u32;
                    table.lookup(black_box(addr(v6, nth << 6)))
                });
            });
        }
    }
    let mut table: Lpm = (0..100_000).map(|n| (network(false, n), n)).collect();
    let (mut held, mut n) = (table.clone(), 0);
    group.bench_function("one change of 100,000 beside a snapshot", |b| {
        b.iter(|| {
            n += 1;
            table.insert(network(false, n % 100_000), n);
            held = table.clone();
        });
    });
    group.finish();
    drop(held);
}

fn service(n: u32, backends: u16, selection: Selection) -> Service {
    let backend =
        |b: u16| Backend { addr: IpAddr::from([10, 65, (b >> 8) as u8, b as u8]), port: 80 };
    Service {
        key: format!("s{n}").into(),
        protocol: 6,
        port: 80,
        cluster_ips: vec![IpAddr::from((0x0a60_0000 + n).to_be_bytes())],
        cluster_backends: (0..backends).map(backend).collect(),
        selection,
        ..Service::default()
    }
}

fn services(c: &mut Criterion) {
    let mut group = c.benchmark_group("service");
    for count in COUNTS {
        let mut table = ServiceTable::default();
        for n in 0..count {
            table.insert(&Arc::new(service(n, 2, Selection::Even)));
        }
        let mut n = 0u32;
        group.bench_function(BenchmarkId::new("frontend among", count), |b| {
            b.iter(|| {
                n = n.wrapping_add(SPREAD);
                let nth = ((u64::from(n) * u64::from(count)) >> 32) as u32;
                let found = table.frontend(black_box(Addr::from_v4_bits(0x0a60_0000 + nth)), 6, 80);
                found.expect("a service").service.hash
            });
        });
    }
    for (name, selection) in [("even", Selection::Even), ("maglev", Selection::Maglev)] {
        for backends in [2, 10, 100, 1_000] {
            let mut table = ServiceTable::default();
            table.insert(&Arc::new(service(0, backends, selection)));
            let service = table.iter().next().expect("the service").clone();
            let mut hash = 0u64;
            group.bench_function(
                BenchmarkId::new(format!("backend by {name} among"), backends),
                |b| {
                    b.iter(|| {
                        hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
                        service.pick(black_box(hash), TrafficPolicy::Cluster).expect("a backend")
                    });
                },
            );
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700));
    targets = networks, services
}
criterion_main!(benches);
