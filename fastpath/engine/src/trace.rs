//! One packet's way, watched. What is done with the packet is what is done with all others: it is
//! looked at before, runs through the path in a batch of its own, and is looked at behind it.

use margay_model::flow::{FlowTuple, FlowView};

use crate::batch::{Batch, Fate, Frame, Packet};
use crate::decision::{Decision, Verdict};
use crate::listing::view;
use crate::path;
use crate::snapshot::{AdjacencyId, PortId, Snapshot};
use crate::{Engine, FlowRef, Moment};

/// What a frame is, before anything is done with it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The port it came from, if it is one.
    pub port: Option<PortId>,
    /// What parse says; `None` where the packet ends there.
    pub packet: Option<Packet>,
}

/// How the flow stage found its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The packet ended before.
    None,
    /// A flow had the decision.
    Hit,
    /// A flow had an old one: it was made anew.
    Stale,
    /// No flow knew the packet: it took the miss walk.
    Miss,
}

/// What became of a packet.
#[derive(Clone, Debug)]
pub struct Traced {
    /// What it was.
    pub seen: Seen,
    /// How its decision was found.
    pub lookup: Lookup,
    /// The connection that it belongs to, or the denial, as it is now.
    pub flow: Option<FlowView>,
    /// The addresses and ports that it was to leave with.
    pub leaving: Option<FlowTuple>,
    /// The next hop that was decided on.
    pub hop: Option<AdjacencyId>,
    /// What became of it.
    pub fate: Fate,
}

// === impl Seen ===

impl Seen {
    /// Addresses and ports, as it arrived.
    #[must_use]
    pub fn tuple(&self) -> Option<FlowTuple> {
        self.packet.as_ref().map(|packet| packet.tuple.into())
    }
}

// === impl Engine ===

impl Engine<'_> {
    /// What a frame is. Parses a copy of it in `scratch`.
    pub fn look(&self, snapshot: &Snapshot, frame: &Frame<'_>, scratch: &mut Vec<u8>) -> Seen {
        scratch.clear();
        scratch.extend_from_slice(frame.bytes());
        let len = scratch.len();
        let Frame { ingress, reassembled, read, .. } = *frame;
        let chunk = scratch;
        let copy = &mut Frame { chunk, start: 0, len, ingress, reassembled, read };
        path::look(snapshot, copy)
    }

    /// Runs a batch of one frame, of which [`Engine::look`] has said what it is.
    pub fn watch(
        &mut self,
        snapshot: &Snapshot,
        now: impl Into<Moment>,
        seen: Seen,
        batch: &mut Batch<'_>,
    ) -> Traced {
        let now = now.into();
        let before = (self.counters.misses.get(), self.counters.stale.get());
        self.run(snapshot, now, batch);
        let fate = batch.fates.first().copied().unwrap_or(path::NO_FATE);
        let flow = self.flow_of(&seen);
        let lookup = match flow {
            _ if self.counters.misses.get() != before.0 => Lookup::Miss,
            _ if self.counters.stale.get() != before.1 => Lookup::Stale,
            Some(_) => Lookup::Hit,
            None => Lookup::None,
        };
        let leaving = self.leaving(&seen);
        let hop = flow.and_then(|flow| match Decision::unpack(flow.decision().action)?.verdict {
            Verdict::Forward { hop, .. } => Some(hop),
            Verdict::Drop { .. } => None,
        });
        let flow = flow.map(|flow| view(snapshot, flow, now.ms));
        Traced { seen, lookup, flow, leaving, hop, fate }
    }

    /// The addresses and ports that a packet of a known connection leaves with.
    pub fn leaving(&self, seen: &Seen) -> Option<FlowTuple> {
        let flow = self.flow_of(seen).filter(|flow| !flow.is_denial())?;
        Some(path::rewritten(flow, &seen.packet?.tuple).into())
    }

    fn flow_of(&self, seen: &Seen) -> Option<FlowRef<'_>> {
        let tuple = seen.packet?.tuple;
        self.lookup(&tuple, self.hash(&tuple))
    }
}
