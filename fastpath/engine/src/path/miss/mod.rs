//! Arrives: a packet that no flow knows. Leaves: its flow, with the decision for every further
//! packet. The order is the design's; each stage is one file.

mod host;
mod dnat;
mod route;
mod policy;
mod snat;
mod admit;
mod compile;

use std::ops::ControlFlow::{self, Continue};

use margay_model::DropReason;
use margay_tables::addr::{Addr, Tuple};
use margay_tables::flow::{AffinityKey, BackendId, Dir, FlowRef};

use crate::Engine;
use crate::batch::{Fate, Packet, Side, Why};
use crate::conntrack;
use crate::path::parse::{dropped, is_hairpin, punt};
use crate::path::rewritten;
use crate::snapshot::{AdjacencyId, Snapshot};

pub(crate) use admit::{is_limited, is_there, rosters};
pub(crate) use compile::compile_denial;
pub(crate) use dnat::is_service;
pub(crate) use host::{Refusal, arrival, departure, is_nodes, judge_pre_dnat, passed, untracked};
pub(crate) use policy::{Denial, Met, facts, judge, log};
pub(crate) use route::{find, route, source_pod};

/// What the stages learn and choose for one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// The tuple as it is to leave: translated by `dnat`, then by `snat`.
    pub(crate) to: Tuple,
    /// Whether the source must become the node's.
    pub(crate) masquerade: bool,
    /// Whether the source port must be one of the range for masquerading.
    pub(crate) fresh_port: bool,
    /// Whether a service's backend was chosen.
    pub(crate) translated: bool,
    /// Whether the node of the chosen backend is to answer the client itself.
    pub(crate) handed_on: bool,
    /// What to remember once the connection is allowed: that the client stays with this backend.
    pub(crate) stays: Option<(AffinityKey, BackendId)>,
    /// The pod that sent it, if it is one of this node.
    pub(crate) src_pod: Option<u32>,
    /// The pod that it goes to, if it is one of this node.
    pub(crate) dst_pod: Option<u32>,
    /// Whether it goes to the node itself.
    pub(crate) to_host: bool,
    /// The tuple as its sender made it.
    pub(crate) asked: Tuple,
    /// Whether it goes between the kernel and an uplink, and the dataplane only judges it.
    pub(crate) is_kernels: bool,
    /// The host endpoint that it came in by.
    pub(crate) arrives: Option<u32>,
    /// Whether that one has allowed it before its other lists were asked.
    pub(crate) accepted: bool,
    /// The host endpoint that it leaves by.
    pub(crate) leaves: Option<u32>,
    /// Whether the connection was allowed before.
    pub(crate) established: bool,
    /// The next hop.
    pub(crate) hop: AdjacencyId,
    /// The address that the node's own and masqueraded packets carry on this way.
    pub(crate) source: Option<Addr>,
    /// The rules that decided, at the source's and the destination's end.
    pub(crate) rules: [u32; 2],
}

/// Walks the whole order once.
pub(crate) fn miss<'t>(
    engine: &mut Engine<'t>,
    snapshot: &Snapshot,
    packet: &Packet,
) -> ControlFlow<Fate, FlowRef<'t>> {
    engine.counters.misses.add(1);
    if !snapshot.ready {
        return ControlFlow::Break(Fate::Drop(DropReason::NotReady));
    }
    if is_hairpin(packet.tuple.dst) {
        // An answer of the node to itself whose flow has ended; nobody outside is to see it.
        return dropped(DropReason::InvalidState);
    }
    let mut way = Way::new(packet);
    // Who lies about its address is told nothing, and nobody is told on its behalf.
    way.src_pod = source_pod(snapshot, packet)?;
    route::reverse_path(snapshot, packet)?;
    // A host endpoint may say what is asked of services at all.
    host::pre_dnat(engine, snapshot, packet, &mut way)?;
    // Services first: everything behind judges what the packet is really meant for.
    dnat::dnat(engine, snapshot, packet, &mut way)?;
    // Unless the source changes too, the answers are known by this tuple: memory has its place in the
    // table ready once the policies are judged.
    engine.table.prefetch_entry(&way.to.reversed());
    // The route finds the pods at both ends.
    route(snapshot, packet, &mut way)?;
    way.leaves = departure(snapshot, way.hop);
    // Both ends' policies, on the translated destination and the source as it was.
    policy::policy(engine, snapshot, packet, &mut way)?;
    // The source last: policy has seen who is really asking.
    snat::snat(snapshot, packet, &mut way);
    // Is there room for it among the connections of the pods at both ends?
    let places = admit::admit(engine, snapshot, packet, &way)?;
    // The rest needs no second look: it becomes a flow.
    let flow = compile::compile(engine, snapshot, packet, &way, places)?;
    if let Some((client, backend)) = way.stays {
        engine.affinities().note(client, backend, engine.now);
    }
    if way.translated && way.to_host && packet.side == Side::Wire {
        // The kernel's answers would leave untranslated: they are to be steered here first.
        return punt(packet, Why::HostFlow);
    }
    if snat::is_answered_without_ports(snapshot, packet, &way) {
        return punt(packet, Why::Portless);
    }
    Continue(flow)
}

impl Way {
    /// Whether the TTL stays: the node is an end, or its kernel lowers it.
    pub(crate) fn keeps_ttl(&self, packet: &Packet) -> bool {
        self.to_host || self.is_kernels || packet.side == Side::Host
    }

    /// What a flow remembers of its packets' way.
    pub(crate) fn of(flow: FlowRef<'_>, packet: &Packet) -> Self {
        let handed_on = flow.marks() & conntrack::HANDED_ON != 0 && flow.dir() == Dir::Orig;
        Self { to: rewritten(flow, &packet.tuple), handed_on, ..Self::new(packet) }
    }

    pub(crate) fn new(packet: &Packet) -> Self {
        Self {
            to: packet.tuple,
            masquerade: false,
            fresh_port: false,
            translated: false,
            handed_on: false,
            stays: None,
            src_pod: None,
            dst_pod: None,
            to_host: false,
            asked: packet.tuple,
            is_kernels: false,
            arrives: None,
            accepted: false,
            leaves: None,
            established: false,
            hop: AdjacencyId::default(),
            source: None,
            rules: [0; 2],
        }
    }
}
