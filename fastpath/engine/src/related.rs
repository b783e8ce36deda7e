//! Which connection an ICMP error is about.

use margay_tables::addr::Tuple;
use margay_tables::flow::FlowTable;

use crate::path;

/// The tuple with which the answer to a packet is delivered, by the one with which it would arrive;
/// `None` where no such packet has left by any connection. An address may have been somebody's own when
/// the packet was sent, and be a service's now: of a backend that has said nothing yet it cannot be.
///
/// The caller's thread is awake in the table.
pub fn delivered(table: &FlowTable, answer: &Tuple) -> Option<Tuple> {
    let flow = table.lookup(answer, table.hash(answer)).filter(|flow| !flow.is_denial())?;
    (flow.peer().packets() > 0).then(|| path::rewritten(flow, answer))
}
