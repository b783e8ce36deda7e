//! Flows as people see them.

use margay_model::flow::{FlowCount, FlowView};
use margay_tables::flow::{Dir, FlowRef};

use crate::decision::{Decision, Verdict};
use crate::path;
use crate::snapshot::Snapshot;

/// What is known of a flow. Whether it takes the shortcut is known elsewhere.
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
        orig: tuple.into(),
        reply: if denial { tuple.reversed() } else { reply.tuple() }.into(),
        orig_count: count(orig),
        reply_count: if denial { FlowCount::default() } else { count(reply) },
        state: path::state(flow).name(),
        idle_ms: orig.idle(now).min(if denial { u32::MAX } else { reply.idle(now) }).into(),
        allowed,
        shortcut: false,
        egress: name(orig.rule()),
        ingress: if denial { None } else { name(reply.rule()) },
    }
}

fn count(flow: FlowRef<'_>) -> FlowCount {
    FlowCount { packets: flow.packets(), bytes: flow.bytes() }
}
