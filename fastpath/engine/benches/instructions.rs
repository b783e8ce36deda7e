//! Instructions and memory accesses of one batch of 64 packets, by what has to be done with them,
//! counted by callgrind: the same on a busy machine as on an idle one.
//!
//! `cargo install gungraun-runner --version 0.20.0`, then
//! `cargo bench -p margay-engine --bench instructions`; a sixty-fourth is a packet's. Putting the
//! frames into the batch is part of it.

#![allow(missing_docs, reason = "of what the macros make")]

#[path = "../tests/support/mod.rs"]
mod support;
mod traffic;

use std::sync::Arc;

use gungraun::prelude::*;
use margay_engine::{BATCH, Fate};
use margay_model::{AddressSet, Member, Update};
use support::*;
use traffic::{CHUNK, Case, Traffic, memory, node};

/// A node, and the next frames of 64 connections.
struct Work {
    node: Node,
    traffic: Traffic,
    memory: Vec<[u8; CHUNK]>,
}

// === impl Work ===

impl Work {
    /// Pod b may be reached at `rules` ports that nobody uses, and by the last rule at all.
    fn new(case: Case, payload: usize, rules: u16) -> Self {
        let mut node = node(&case.table(BATCH as u32));
        node.change(|state| {
            let unused = (0..rules).map(|n| allow_ports(6, 20_000 + n, 20_000 + n));
            isolate(state, "b", Some(unused.chain([allow()]).collect()), None);
        });
        let (mut traffic, mut memory) = (case.traffic(BATCH as u32, payload), memory());
        traffic.fill(&mut memory);
        Self { node, traffic, memory }
    }

    /// Nobody has seen the connections.
    fn first(case: Case, rules: u16) -> Self {
        Self::new(case, 6, rules)
    }

    /// They have been seen.
    fn seen(case: Case) -> Self {
        Self::first(case, 10).later()
    }

    /// The same with so many bytes behind each transport header.
    fn seen_of(case: Case, payload: usize) -> Self {
        Self::new(case, payload, 10).later()
    }

    /// When they have been seen.
    fn later(mut self) -> Self {
        self.run();
        self.traffic.fill(&mut self.memory);
        self
    }

    fn run(&mut self) {
        let mut batch = self.traffic.batch(&mut self.memory);
        self.node.engine.run(&self.node.snapshot, self.node.now, &mut batch);
        assert!(matches!(batch.fates[0], Fate::Forward(_)), "{:?}", batch.fates[0]);
    }
}

#[library_benchmark]
#[bench::forward(Work::seen(Case::Forward))]
#[bench::forward_1500(Work::seen_of(Case::Forward, 1_442))]
#[bench::forward_v6(Work::seen(Case::Forward6))]
#[bench::forward_udp(Work::seen(Case::Udp))]
#[bench::ipip(Work::seen(Case::Ipip))]
#[bench::vxlan(Work::seen(Case::Vxlan))]
#[bench::service(Work::seen(Case::Service))]
#[bench::service_vxlan(Work::seen(Case::ServiceVxlan))]
#[bench::rules_10000(Work::first(Case::Forward, 10_000).later())]
fn hit(mut work: Work) -> Work {
    work.run();
    work
}

/// The sender is in 40 of the sets that rules about other ports name, at 10 rules in one.
fn in_sets(rules: u16) -> Work {
    let mut work = Work::first(Case::Forward, 0);
    work.node.change(|state| {
        for n in 0..rules {
            let net = if n % 250 == 0 { "10.65.0.2/32" } else { "192.0.2.77/32" };
            let members = AddressSet::from([Member::Net(net.parse().expect("a network"))]);
            state.apply(Update::Set(format!("s{n}").into(), Arc::new(members)));
        }
        let by_set = |n| {
            let mut rule = allow_set(&format!("s{n}"));
            rule.dst.ports = allow_ports(6, 9, 9).dst.ports;
            rule
        };
        let rules = (0..rules).map(by_set).chain([allow()]);
        isolate(state, "b", Some(rules.collect()), None);
    });
    work
}

#[library_benchmark]
#[bench::ipip(Work::seen(Case::OutOfIpip))]
#[bench::vxlan(Work::seen(Case::OutOfVxlan))]
fn arrival(mut work: Work) -> Work {
    work.run();
    work
}

#[library_benchmark]
#[bench::rules_10(Work::first(Case::Forward, 10))]
#[bench::rules_100(Work::first(Case::Forward, 100))]
#[bench::rules_1000(Work::first(Case::Forward, 1_000))]
#[bench::rules_10000(Work::first(Case::Forward, 10_000))]
#[bench::service(Work::first(Case::Service, 10))]
#[bench::sets_10(in_sets(10))]
#[bench::sets_10000(in_sets(10_000))]
fn miss(mut work: Work) -> Work {
    work.run();
    work
}

library_benchmark_group!(name = path, benchmarks = [hit, arrival, miss]);
main!(library_benchmark_groups = [path]);
