//! The connections of pods that may have only so many.

use std::sync::Arc;

use margay_engine::Snapshot;
use margay_engine::census::{self, Count};
use margay_tables::flow::{FlowTable, FlowWorker};
use tracing::warn;

use crate::shared::Shared;

/// Counts the connections that pods had before a limit of theirs was in force. To be called when all
/// workers use the snapshot.
pub(crate) fn count_earlier(snapshot: &Snapshot, table: &Arc<FlowTable>) {
    if !census::is_due(snapshot) {
        return;
    }
    match FlowWorker::new(table.clone()) {
        Some(mut guest) => census::take(snapshot, &mut guest),
        // The next change tries again.
        None => warn!("earlier connections are not counted: the flow table has no seat left"),
    }
}

/// How many there are and may be.
pub(crate) fn counts(shared: &Shared) -> Vec<Count> {
    let snapshot = shared.view().snapshot.filter(|snapshot| census::has_limits(snapshot));
    let guest = snapshot.as_ref().and_then(|_| FlowWorker::new(shared.table.clone()));
    let counted = snapshot.zip(guest);
    counted.map(|(snapshot, mut guest)| census::counts(&snapshot, &mut guest)).unwrap_or_default()
}
