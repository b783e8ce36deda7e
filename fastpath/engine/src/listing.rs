//! Flows as people see them.

use margay_model::DropReason;
use margay_model::flow::{FlowCount, FlowView};
use margay_tables::addr::Tuple;
use margay_tables::classifier::Direction;
use margay_tables::flow::{FlowCopy, FlowRef};

use crate::conntrack::{self, State, icmp};
use crate::decision::{Decision, Verdict};
use crate::path;
use crate::path::miss::facts;
use crate::snapshot::{Place, Snapshot};

/// What is known of a flow. Whether it takes the shortcut is known elsewhere.
pub fn view(snapshot: &Snapshot, flow: FlowRef<'_>, now: u32) -> FlowView {
    view_of(snapshot, &FlowCopy::new(&flow), now)
}

/// The same of one that may have ended since.
pub fn view_of(snapshot: &Snapshot, flow: &FlowCopy, now: u32) -> FlowView {
    let [orig, reply] = flow.keys;
    let denied = denied(flow);
    let [egress, ingress] = rules(snapshot, flow).map(|rule| snapshot.classifier.rule(rule));
    FlowView {
        orig: orig.into(),
        reply: reply.into(),
        orig_count: count(flow, 0),
        reply_count: if flow.denial { FlowCount::default() } else { count(flow, 1) },
        state: state(flow).name(),
        idle_ms: flow.idle(now).into(),
        allowed: denied.is_none(),
        denied,
        shortcut: false,
        egress,
        ingress,
        passed: passed(snapshot, flow).map(|rule| snapshot.classifier.rule(rule?)),
    }
}

/// Why a flow's packets are dropped, if they are: as it was decided last.
pub fn denied(flow: &FlowCopy) -> Option<DropReason> {
    let [orig, reply] = flow.decisions;
    // 0 is no decision. Generations wrap.
    let reply_is_newer = !flow.denial
        && reply.generation != 0
        && (reply.generation.wrapping_sub(orig.generation) as i32) > 0;
    let newest = if reply_is_newer { reply } else { orig };
    match Decision::unpack(newest.action)?.verdict {
        Verdict::Drop { reason, .. } => Some(reason),
        Verdict::Forward { .. } => None,
    }
}

/// The numbers of the rules that decided at the source's and at the destination's endpoint, 0 for
/// none, and for those that another process gave.
pub fn rules(snapshot: &Snapshot, flow: &FlowCopy) -> [u32; 2] {
    let known = flow.decisions.iter().any(|decision| {
        decision.generation != 0
            && (decision.generation.wrapping_sub(snapshot.inherited) as i32) > 0
    });
    if known { flow.rules } else { [0; 2] }
}

/// The numbers of the rules by which host endpoints let the connection pass through the node, where
/// it leaves and where it came in, by policy as it is now.
pub fn passed(snapshot: &Snapshot, flow: &FlowCopy) -> [Option<u32>; 2] {
    if flow.denial || denied(flow).is_some() {
        return [None; 2];
    }
    let [asked, reply] = flow.keys;
    let tuple = Tuple { dst: reply.src, dst_port: reply.src_port, ..asked };
    let hops = flow.decisions.map(|decision| match Decision::unpack(decision.action)?.verdict {
        Verdict::Forward { hop, .. } => Some(hop),
        Verdict::Drop { .. } => None,
    });
    path::miss::passed(snapshot, &asked, &tuple, (icmp::kind(flow.marks), 0), hops)
}

/// What the source's and the destination's endpoint would say if all staged policies were enforced:
/// the number of what would decide, and whether it would allow. `None` where no staged policy
/// concerns the endpoint, or it is not asked: the source's word comes first.
pub fn pending(snapshot: &Snapshot, flow: &FlowCopy) -> [Option<(u32, bool)>; 2] {
    let [orig, reply] = flow.keys;
    let tuple = Tuple { dst: reply.src, dst_port: reply.src_port, ..orig };
    let facts = facts(&tuple, (icmp::kind(flow.marks), 0));
    let pod = |addr| match snapshot.place(addr) {
        Some(Place::Pod(index)) => Some(*index),
        _ => None,
    };
    let (src, dst) = (pod(tuple.src), pod(tuple.dst));
    if src.is_some() && src == dst {
        return [None; 2];
    }
    let say = |index: Option<u32>, direction| {
        let pending = snapshot.workload(index?)?.pending.as_ref()?;
        let decision = snapshot.classifier.decide(pending, direction, &facts);
        Some((decision.rule_id(), decision.allowed()))
    };
    let egress = say(src, Direction::Egress);
    // The node reaches its own pods whatever their policies say.
    let came = egress.is_none_or(|(_, allowed)| allowed) && !snapshot.is_own(tuple.src);
    [egress, say(dst, Direction::Ingress).filter(|_| came)]
}

/// The connection's state.
pub(crate) fn state(flow: &FlowCopy) -> State {
    if flow.denial {
        return State::Denied;
    }
    let [orig, reply] = flow.conntrack;
    conntrack::state(flow.keys[0].protocol, flow.marks, orig, reply)
}

fn count(flow: &FlowCopy, dir: usize) -> FlowCount {
    let of = |both: &[u64; 2]| both.get(dir).copied().unwrap_or_default();
    FlowCount { packets: of(&flow.packets), bytes: of(&flow.bytes) }
}
