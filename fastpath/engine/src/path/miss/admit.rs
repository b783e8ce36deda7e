//! Arrives: a packet that may pass, with its source and destination as they will be. Leaves: with a
//! place for its connection on the rosters of the pods at both ends that have a limit of connections.
//!
//! Limits are of TCP alone, as Calico's are. Policy comes first: whom it denies is told nothing. What
//! goes on with a connection that was there before counts, and is not refused. The node's own
//! connections to its pods do not count, lest the kubelet find a busy pod dead.
//!
//! Punts: connection_limit.

use std::ops::ControlFlow::{self, Continue};

use margay_tables::addr::Addr;
use margay_tables::flow::{FlowId, FlowRef, FlowTable};
use margay_wire::protocol;
use margay_wire::transport::tcp_flags;

use super::Way;
use crate::Engine;
use crate::batch::{Fate, Packet, Why};
use crate::conntrack::State;
use crate::path::parse::punt;
use crate::path::state;
use crate::roster::{Member, Roster};
use crate::snapshot::{Connections, Snapshot};

/// Places that were taken for a connection: given back unless it is put there.
#[derive(Default)]
pub(super) struct Places<'s>([Option<&'s Roster>; 2]);

/// Takes the places, or has the packet refused.
pub(super) fn admit<'s>(
    engine: &Engine<'_>,
    snapshot: &'s Snapshot,
    packet: &Packet,
    way: &Way,
) -> ControlFlow<Fate, Places<'s>> {
    let Some(facts) = packet.tcp else { return Continue(Places::default()) };
    let begins = facts.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN;
    let mut places = Places::default();
    let limits = rosters(snapshot, packet.tuple.src, way.src_pod, way.dst_pod);
    for (place, limit) in places.0.iter_mut().zip(limits) {
        let Some(Connections { limit, roster }) = limit else { continue };
        let is_there = |member: &Member| is_there(engine.table, member);
        if !begins {
            roster.reserve_anyway(is_there);
        } else if !roster.reserve(*limit, engine.fine, is_there) {
            return punt(packet, Why::ConnectionLimit);
        }
        *place = Some(roster);
    }
    Continue(places)
}

/// What limits a connection: of the pod that begins it, and of the pod that it goes to. `src` is its
/// first packet's source as it was.
pub(crate) fn rosters(
    snapshot: &Snapshot,
    src: Addr,
    src_pod: Option<u32>,
    dst_pod: Option<u32>,
) -> [Option<&Connections>; 2] {
    let of =
        |index: Option<u32>, way: usize| snapshot.workload(index?)?.connections.get(way)?.as_ref();
    [of(src_pod, 0), of(dst_pod, 1).filter(|_| !snapshot.is_own(src))]
}

/// Whether a connection counts: TCP, until it is closed or reset (`already_closed` of the kernel's
/// `nf_conncount`).
pub(crate) fn is_limited(flow: FlowRef<'_>) -> bool {
    flow.tuple().protocol == protocol::TCP && !matches!(state(flow), State::Closing | State::Reset)
}

/// Whether a member of a roster is the connection that it was, and still counts.
pub(crate) fn is_there(table: &FlowTable, member: &Member) -> bool {
    table.still(member.flow, member.hash).is_some_and(is_limited)
}

// === impl Places ===

impl Places<'_> {
    /// Puts a connection there, by its record and the hash of its first packet's tuple.
    pub(super) fn occupy(mut self, flow: FlowId, hash: u64) {
        for roster in self.0.iter_mut().filter_map(Option::take) {
            roster.occupy(flow, hash);
        }
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        self.0.iter().flatten().for_each(|roster| roster.give_back());
    }
}
