//! The classifier: decisions at 10 and 10,000 rules, and what a change costs the control thread.
//!
//! `cargo bench -p margay-tables --bench policy`

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use margay_model::{
    Action, DefaultAction, Endpoint, Mac, Member, Policy, PortRange, Rule, TierPolicies, Update,
};
use margay_tables::{Addr, Direction, Lpm, PacketFacts, PolicyBook, Prefix};

fn addr(n: u32) -> Addr {
    Addr::from_v4_bits(0x0a00_0000 + n)
}

/// What tells the rules of a world apart.
#[derive(Clone, Copy, Debug)]
enum By {
    Set,
    Port,
    Net,
}

fn rule(by: By, n: u32) -> Rule {
    let mut rule = Rule { protocol: Some(6), ..Rule::any(Action::Deny) };
    rule.dst.ports = vec![PortRange::single(if let By::Port = by { n as u16 } else { 80 })];
    match by {
        By::Set => rule.src.sets = vec![format!("s{n}").into()],
        By::Net => rule.src.nets = vec![ipnet::IpNet::new_assert(IpAddr::from(addr(n << 8)), 24)],
        By::Port => {}
    }
    rule
}

fn members(n: u32) -> Vec<Member> {
    (0..20).map(|m| Member::Net(IpAddr::from(addr((n * 7 + m * 131) % 5000)).into())).collect()
}

fn policy(key: String, rule: Rule) -> Update {
    Update::Policy(Arc::new(Policy { key: key.into(), ingress: vec![rule], egress: Vec::new() }))
}

/// A book with `count` policies that deny, a last one that allows, and the pod they apply to.
fn world(by: By, count: u32) -> (PolicyBook, Endpoint) {
    let mut book = PolicyBook::default();
    for n in 0..count {
        book.note(&Update::Set(format!("s{n}").into(), Arc::new(members(n).into())));
        book.note(&policy(format!("p{n}"), rule(by, n)));
    }
    book.note(&policy("last".into(), Rule::any(Action::Allow)));
    let keys = (0..count).map(|n| format!("p{n}").into()).chain(["last".into()]).collect();
    let tier = TierPolicies {
        name: "default".into(),
        default_action: DefaultAction::Deny,
        ingress: keys,
        egress: Vec::new(),
    };
    let endpoint = Endpoint {
        key: "pod".into(),
        interface: "cali0".into(),
        mac: Mac::default(),
        addresses: Vec::new(),
        allowed_sources: Vec::new(),
        mtu: 1500,
        tiers: Arc::new([tier]),
        pending: None,
        profiles: Arc::new([]),
        priority: 0,
    };
    (book, endpoint)
}

/// A packet that the last rule decides: it is in some sets, but its port is none of theirs.
fn packet() -> PacketFacts {
    PacketFacts {
        src: addr(4001),
        dst: addr(9_000_000),
        src_port: Some(40_000),
        dst_port: Some(60_000),
        protocol: 6,
        icmp: None,
        established: false,
    }
}

fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy/decide");
    for by in [By::Set, By::Port, By::Net] {
        for count in [10, 10_000] {
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

fn prefixes(c: &mut Criterion) {
    let mut group = c.benchmark_group("lpm");
    let nth = |n: u32| Prefix::new(addr(n << 6), [120, 122, 128, 112][n as usize % 4]);
    let mut table: Lpm = (0..100_000).map(|n| (nth(n), n)).collect();
    table.insert(Prefix::new(addr(0), 96), 0);
    let mut n = 0u32;
    group.bench_function("lookup in 100,000", |b| {
        b.iter(|| {
            n = n.wrapping_add(0x9e37_79b1);
            table.lookup(black_box(addr(n >> 9)))
        });
    });
    let mut held = table.clone();
    group.bench_function("one change of 100,000 beside a snapshot", |b| {
        b.iter(|| {
            n += 1;
            table.insert(nth(n % 100_000), n);
            held = table.clone();
        });
    });
    group.finish();
    drop(held);
}

criterion_group!(benches, decisions, changes, prefixes);
criterion_main!(benches);
