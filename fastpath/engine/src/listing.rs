//! Flows as people see them.

use margay_model::flow::{FlowCount, FlowTuple, FlowView};
use margay_tables::addr::Tuple;
use margay_tables::flow::{Dir, FlowRef};

use crate::decision::{Decision, Verdict};
use crate::path;
use crate::snapshot::Snapshot;

/// What is known of a flow.
pub fn view(snapshot: &Snapshot, flow: FlowRef<'_>, now: u32) -> FlowView {
    let (orig, reply) = match flow.dir() {
        Dir::Orig => (flow, flow.peer()),
        Dir::Reply => (flow.peer(), flow),
    };
    let denial = flow.is_denial();
    let allowed = !denial
        && Decision::unpack(orig.decision().action)
            .is_none_or(|decision| matches!(decision.verdict, Verdict::Forward { .. }));
    let tuple = orig.tuple();
    let name = |rule: u32| snapshot.classifier.rule(rule);
    FlowView {
        orig: flow_tuple(&tuple),
        reply: flow_tuple(&if denial { tuple.reversed() } else { reply.tuple() }),
        orig_count: count(orig),
        reply_count: if denial { FlowCount::default() } else { count(reply) },
        state: path::state(flow).name(),
        idle_ms: orig.idle(now).min(if denial { u32::MAX } else { reply.idle(now) }).into(),
        allowed,
        egress: name(orig.rule()),
        ingress: if denial { None } else { name(reply.rule()) },
    }
}

fn count(flow: FlowRef<'_>) -> FlowCount {
    FlowCount { packets: flow.packets(), bytes: flow.bytes() }
}

fn flow_tuple(tuple: &Tuple) -> FlowTuple {
    FlowTuple {
        src: tuple.src.into(),
        dst: tuple.dst.into(),
        protocol: tuple.protocol,
        src_port: tuple.src_port,
        dst_port: tuple.dst_port,
    }
}
