//! The classifier: decisions at 10 and 10,000 rules, and what a change costs the control thread.
//!
//! `cargo bench -p margay-tables --bench policy`

mod world;

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use margay_model::{Member, Update};
use margay_tables::Direction;
use world::{By, addr, packet, policy, rule, world};

fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy/decide");
    for by in [By::Set, By::Port, By::Net] {
        for count in [10, 100, 1_000, 10_000] {
            let (mut book, endpoint) = world(by, count);
            let (list, classifier) = (book.endpoint(&endpoint), book.classifier());
            group.bench_function(format!("{by:?}/{count}"), |b| {
                b.iter(|| {
                    let facts = black_box(packet());
                    assert!(classifier.decide(&list, Direction::Ingress, &facts).allowed());
                });
            });
        }
    }
    group.finish();
}

fn changes(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy/change");
    group.sample_size(10);
    group.bench_function("build 10,000 policies with sets", |b| {
        b.iter(|| {
            let (mut book, endpoint) = world(By::Set, 10_000);
            book.endpoint(&endpoint)
        });
    });
    let (mut book, endpoint) = world(By::Set, 10_000);
    // What the workers hold makes every change copy what it touches.
    let mut held = (book.classifier(), book.endpoint(&endpoint));
    let mut round = 0;
    group.bench_function("one policy of 10,000 on one endpoint", |b| {
        b.iter(|| {
            round += 1;
            book.note(&policy(format!("p{}", round % 10_000), rule(By::Port, round)));
            held = (book.classifier(), book.endpoint(&endpoint));
        });
    });
    let everybody = (0..100_000).map(|n| Member::Net(IpAddr::from(addr(n)).into()));
    let everybody: Vec<_> = everybody.collect();
    book.note(&Update::Set("all".into(), Arc::new(everybody.into())));
    held = (book.classifier(), book.endpoint(&endpoint));
    group.bench_function("one member of 100,000", |b| {
        b.iter(|| {
            round += 1;
            let member = Member::Net(IpAddr::from(addr(round % 200_000)).into());
            let id = "all".into();
            let (add, remove) =
                if round % 2 == 0 { (vec![member], vec![]) } else { (vec![], vec![member]) };
            book.note(&Update::SetMembers { id, add, remove });
            held = (book.classifier(), book.endpoint(&endpoint));
        });
    });
    group.finish();
}

criterion_group!(benches, decisions, changes);
criterion_main!(benches);
