//! What was seen of each flow last.

use std::collections::HashMap;

use margay_model::flow::FlowCount;
use margay_tables::addr::Tuple;
use margay_tables::flow::{FlowCopy, FlowRef};

use super::Said;

/// Flows that are followed through their life; those beyond are accounted when they end.
const MOST: usize = 1 << 17;

/// Packets are counted in 40 bits.
const PACKETS: u64 = (1 << 40) - 1;

/// All flows that were seen and have not ended.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    flows: HashMap<u64, Known>,
    round: u32,
}

/// A flow as it was seen last; the default is one that never was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Tells it from one that got its record later.
    key: Option<Tuple>,
    packets: [u64; 2],
    bytes: [u64; 2],
    /// What both ends said, and host endpoints on the way out and in.
    pub(super) said: [Said; 4],
    /// The round over the table in which it was seen.
    round: u32,
}

// === impl Tracked ===

impl Tracked {
    /// The flow as it was seen last.
    pub(super) fn get(&self, flow: &FlowCopy) -> Option<Known> {
        let known = self.flows.get(&flow.id.bits())?;
        let same = known.key == Some(flow.keys[0])
            && (0..2).all(|dir| known.bytes[dir] <= flow.bytes[dir] || flow.denial);
        same.then_some(*known)
    }

    /// Whether a living flow is as it was seen last; it is seen now.
    pub(super) fn is_idle(&mut self, flow: &FlowRef<'_>) -> bool {
        let Some(known) = self.flows.get_mut(&flow.id().bits()) else { return false };
        known.round = self.round;
        let bytes = [flow.bytes(), flow.peer().bytes()];
        let one_way = flow.is_denial();
        known.bytes[0] == bytes[0]
            && (one_way || known.bytes[1] == bytes[1])
            && known.key == Some(flow.tuple())
    }

    /// Notes the flow as it is now.
    pub(super) fn note(&mut self, flow: &FlowCopy, said: [Said; 4]) {
        if self.is_full() && !self.flows.contains_key(&flow.id.bits()) {
            return;
        }
        let (key, packets, bytes) = (Some(flow.keys[0]), flow.packets, flow.bytes);
        let known = Known { key, packets, bytes, said, round: self.round };
        self.flows.insert(flow.id.bits(), known);
    }

    /// The flow has ended.
    pub(super) fn forget(&mut self, flow: &FlowCopy) {
        let id = flow.id.bits();
        if self.flows.get(&id).is_some_and(|known| known.key == Some(flow.keys[0])) {
            self.flows.remove(&id);
        }
    }

    /// Whether no further flow can be followed.
    pub(super) fn is_full(&self) -> bool {
        self.flows.len() >= MOST
    }

    /// A round over the table is complete: who was not seen in it has ended unseen.
    pub(super) fn end_round(&mut self) {
        let round = self.round;
        self.flows.retain(|_, known| round.wrapping_sub(known.round) <= 1);
        self.round = round.wrapping_add(1);
    }
}

// === impl Known ===

impl Known {
    /// What a direction carried since.
    pub(super) fn more(&self, flow: &FlowCopy, dir: usize) -> FlowCount {
        let of = |both: &[u64; 2]| both.get(dir).copied().unwrap_or_default();
        FlowCount {
            packets: of(&flow.packets).wrapping_sub(of(&self.packets)) & PACKETS,
            bytes: of(&flow.bytes).saturating_sub(of(&self.bytes)),
        }
    }
}
