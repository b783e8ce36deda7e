//! Instructions and memory accesses of one batch of 64 packets, by what has to be done with them,
//! counted by callgrind: the same on a busy machine as on an idle one.
//!
//! `cargo install gungraun-runner --version 0.20.0`, then
//! `cargo bench -p margay-engine --bench instructions`; a sixty-fourth is a packet's. Putting the
//! frames into the batch is part of it.

#![allow(missing_docs, reason = "of what the macros make")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use gungraun::prelude::*;
use margay_engine::{BATCH, Batch, Fate, Frame, PortId};
use margay_model::{AddressSet, Member, Update};
use support::*;

/// Length of a chunk of packet memory: room before, and a frame.
const CHUNK: usize = 512;

/// A node, and the frames of 64 connections that a pod sends to one destination.
struct Work {
    node: Node,
    memory: Vec<[u8; CHUNK]>,
    len: usize,
    from: PortId,
}

// === impl Work ===

impl Work {
    /// Pod b may be reached at `rules` ports that nobody uses, and by the last rule at all.
    fn new(dst: &str, rules: u16) -> Self {
        let mut node = Node::with_capacity(4_096);
        node.change(|state| {
            serve(state, service("web", 6, "10.96.0.10:80", &["10.65.0.3:8080", "10.65.0.4:8080"]));
            serve(state, service("far", 6, "10.96.0.11:80", &["10.65.3.5:8080", "10.65.3.6:8080"]));
            let unused = (0..rules).map(|n| allow_ports(6, 20_000 + n, 20_000 + n));
            isolate(state, "b", Some(unused.chain([allow()]).collect()), None);
        });
        let mut work = Self { node, memory: vec![[0; CHUNK]; BATCH], len: 0, from: A };
        work.fill(dst, 1_000);
        work
    }

    /// The same after its connections have been seen.
    fn seen(dst: &str) -> Self {
        let mut work = Self::new(dst, 10);
        work.run();
        work.fill(dst, 1_006);
        work
    }

    fn fill(&mut self, dst: &str, seq: u32) {
        for (n, chunk) in self.memory.iter_mut().enumerate() {
            let packet = tcp(&at("10.65.0.2", 1_000 + n as u16), dst, ACK);
            let frame = frame_from(A, &packet.numbered(seq, 0).body_of(b"......".to_vec()));
            self.len = frame.len();
            chunk[HEADROOM..HEADROOM + self.len].copy_from_slice(&frame);
        }
    }

    fn run(&mut self) {
        let mut batch = Batch::default();
        for chunk in &mut self.memory {
            batch.frames.push(Frame::new(chunk, HEADROOM, self.len, ingress(self.from)));
        }
        self.node.engine.run(&self.node.snapshot, self.node.now, &mut batch);
        assert!(matches!(batch.fates[0], Fate::Forward(_)), "{:?}", batch.fates[0]);
    }
}

#[library_benchmark]
#[bench::forward(Work::seen("10.65.0.3:80"))]
#[bench::ipip(Work::seen("10.65.2.5:80"))]
#[bench::vxlan(Work::seen("10.65.3.5:80"))]
#[bench::service(Work::seen("10.96.0.10:80"))]
#[bench::service_vxlan(Work::seen("10.96.0.11:80"))]
fn hit(mut work: Work) -> Work {
    work.run();
    work
}

/// The sender is in 40 of the sets that rules about other ports name, at 10 rules in one.
fn in_sets(rules: u16) -> Work {
    let mut work = Work::new("10.65.0.3:80", 0);
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

/// The frames of 64 connections of a pod elsewhere, out of its tunnel to a pod, once they are known.
fn arriving(how: u8) -> Work {
    let mut work = Work::new("10.65.0.3:80", 10);
    work.from = WIRE;
    for seq in [1_000, 1_006] {
        for (n, chunk) in work.memory.iter_mut().enumerate() {
            let packet = tcp(&at("10.65.3.5", 1_000 + n as u16), "10.65.0.3:80", ACK);
            let inner = packet.numbered(seq, 0).body_of(b"......".to_vec());
            let frame = frame_from(WIRE, &tunneled(&inner, how, 0));
            work.len = frame.len();
            chunk[HEADROOM..HEADROOM + work.len].copy_from_slice(&frame);
        }
        if seq == 1_000 {
            work.run();
        }
    }
    work
}

#[library_benchmark]
#[bench::ipip(arriving(0))]
#[bench::vxlan(arriving(1))]
fn arrival(mut work: Work) -> Work {
    work.run();
    work
}

#[library_benchmark]
#[bench::rules_10(Work::new("10.65.0.3:80", 10))]
#[bench::rules_100(Work::new("10.65.0.3:80", 100))]
#[bench::rules_1000(Work::new("10.65.0.3:80", 1_000))]
#[bench::rules_10000(Work::new("10.65.0.3:80", 10_000))]
#[bench::service(Work::new("10.96.0.10:80", 10))]
#[bench::sets_10(in_sets(10))]
#[bench::sets_10000(in_sets(10_000))]
fn miss(mut work: Work) -> Work {
    work.run();
    work
}

library_benchmark_group!(name = path, benchmarks = [hit, arrival, miss]);
main!(library_benchmark_groups = [path]);
