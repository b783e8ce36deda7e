//! Connections that the dataplane has seen lately, before and after.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use margay_compile::Compiler;
use margay_resources::v3::Protocol;
use serde::Serialize;

use crate::court::Court;
use crate::court::flow::Flow;
use crate::court::verdict::{Answer, Fate, PassageSide, Side};
use crate::dataplane::flows::{Seen, seen};
use crate::dataplane::names::Known;
use crate::failure::{Failure, with_sources};
use crate::options::Options;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// The queries whose answers connection tracking follows: an echo request of either family.
const ECHO: (u8, u8) = (8, 128);

/// What becomes of the connections.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlowChanges {
    /// How many were compared.
    pub(super) compared: usize,
    /// Why none were.
    pub(super) not_compared: Option<String>,
    pub(super) changed: Vec<FlowChange>,
}

/// Connections whose verdict changes, that differ in nothing but the client's port.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlowChange {
    pub(super) count: usize,
    #[serde(flatten)]
    pub(super) ends: Ends,
    pub(super) old: Told,
    pub(super) new: Told,
}

/// What a connection is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ends {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: String,
    pub(super) dst_port: Option<u16>,
    /// Who answers for a service.
    pub(super) backend: Option<SocketAddr>,
}

/// A verdict with what both ends say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Told {
    pub(super) verdict: Fate,
    pub(super) egress: Side,
    pub(super) ingress: Side,
    /// What host endpoints between the ends say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) passages: Vec<PassageSide>,
}

/// Compares what the connections of the dataplane are told in two clusters.
pub(super) fn compare(options: &Options, clusters: [&Compiler; 2]) -> FlowChanges {
    let seen = match lately(options) {
        Ok(seen) => seen,
        Err(error) => {
            let not_compared = Some(with_sources(&error));
            return FlowChanges { compared: 0, not_compared, changed: Vec::new() };
        }
    };
    let known = Known::of(options);
    let [mut before, mut after] = clusters.map(|cluster| Court::small(cluster).knowing(&known));
    let mut changed: BTreeMap<Ends, FlowChange> = BTreeMap::new();
    for seen in &seen {
        let (flow, backend) = flow(seen);
        let (old, new) = (told(&mut before, &flow, backend), told(&mut after, &flow, backend));
        if old.verdict == new.verdict {
            continue;
        }
        let ends = Ends {
            src: flow.src,
            dst: flow.dst,
            protocol: Protocol::of_number(flow.protocol).to_string(),
            dst_port: flow.dst_port,
            backend,
        };
        let change = FlowChange { count: 0, ends: ends.clone(), old, new };
        changed.entry(ends).or_insert(change).count += 1;
    }
    let changed = changed.into_values().collect();
    FlowChanges { compared: seen.len(), not_compared: None, changed }
}

fn lately(options: &Options) -> Result<Vec<Seen>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(seen(options))
}

/// The flow of a connection's first packet, and the backend if a service was in the way: who
/// answers is then another than was asked.
fn flow(seen: &Seen) -> (Flow, Option<SocketAddr>) {
    let Seen { src, dst, protocol, src_port, dst_port, answers } = *seen;
    let has_ports = Protocol::of_number(protocol).has_ports();
    let icmp = match protocol {
        ICMP => Some((ECHO.0, Some(0))),
        ICMPV6 => Some((ECHO.1, Some(0))),
        _ => None,
    };
    let flow = Flow {
        src,
        dst,
        protocol,
        src_port: Some(src_port).filter(|_| has_ports),
        dst_port: Some(dst_port).filter(|_| has_ports),
        icmp,
    };
    let translated = has_ports && answers != SocketAddr::new(dst, dst_port);
    (flow, translated.then_some(answers))
}

/// What a cluster says. A connection stays with its backend, whatever becomes of the service.
fn told(court: &mut Court<'_>, flow: &Flow, backend: Option<SocketAddr>) -> Told {
    let case = match backend {
        Some(backend) => court.hear_at(flow, backend),
        None => court.hear(flow),
    };
    let Answer { verdict, egress, ingress, passages, .. } = court.decide(case);
    Told { verdict, egress, ingress, passages: passages.unwrap_or_default() }
}
