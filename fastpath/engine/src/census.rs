//! What is counted of connections that have a limit, for those who are no worker.
//!
//! A roster that is new knows nothing of the connections that its pod had before: a limit that appears,
//! or all of them in a new process. They are counted once every worker puts new ones on it; one that
//! is put there twice for that is found by the roster itself.

use std::sync::Arc;

use margay_tables::flow::{Cursor, FlowRef, FlowTable, FlowWorker};

use crate::path::miss::{is_limited, is_there, rosters};
use crate::path::owner;
use crate::snapshot::{Connections, Snapshot};

/// Records that are looked at between two quiescent points.
const STEP: u32 = 1024;

/// The connections of a pod in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The pod's interface.
    pub port: Arc<str>,
    /// Whether others begin them.
    pub ingress: bool,
    /// How many there may be.
    pub limit: u32,
    /// How many there are.
    pub connections: u64,
}

/// Whether some pod has a limit of connections.
pub fn has_limits(snapshot: &Snapshot) -> bool {
    limits(snapshot).next().is_some()
}

/// Whether the snapshot has rosters that know nothing of earlier connections.
pub fn is_due(snapshot: &Snapshot) -> bool {
    limits(snapshot).any(|(_, _, limit)| !limit.roster.is_counted())
}

/// Puts the connections of the table on those rosters. To be called when all workers use the snapshot.
pub fn take(snapshot: &Snapshot, guest: &mut FlowWorker) {
    let table = guest.table().clone();
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        guest.quiesce();
        cursor = guest.list(from, STEP, |flow| enrol(snapshot, &table, *flow));
    }
    for (_, _, limit) in limits(snapshot) {
        limit.roster.set_counted();
    }
    guest.quiesce();
}

/// What there is of every limit.
pub fn counts(snapshot: &Snapshot, guest: &mut FlowWorker) -> Vec<Count> {
    guest.quiesce();
    let table = guest.table().clone();
    let counts = limits(snapshot).map(|(port, ingress, limit)| Count {
        port,
        ingress,
        limit: limit.limit,
        connections: limit.roster.count(|member| is_there(&table, member)),
    });
    counts.collect()
}

fn limits(snapshot: &Snapshot) -> impl Iterator<Item = (Arc<str>, bool, &Connections)> {
    snapshot.endpoints.iter().flat_map(|workload| {
        let ways = [false, true].into_iter().zip(&workload.connections);
        ways.filter_map(|(ingress, limit)| {
            Some((workload.endpoint.interface.clone(), ingress, limit.as_ref()?))
        })
    })
}

fn enrol(snapshot: &Snapshot, table: &FlowTable, flow: FlowRef<'_>) {
    if flow.is_denial() || !is_limited(flow) {
        return;
    }
    let (asked, answer) = (flow.tuple(), flow.peer().tuple());
    let ends = [asked.src, answer.src].map(|addr| owner(snapshot, addr));
    for limit in rosters(snapshot, asked.src, ends[0], ends[1]).into_iter().flatten() {
        if !limit.roster.is_counted() {
            limit.roster.reserve_anyway(|member| is_there(table, member));
            limit.roster.occupy(flow.id(), table.hash(&asked));
        }
    }
}
