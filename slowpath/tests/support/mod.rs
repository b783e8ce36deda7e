//! What the tests share: the vectors, a node, and short forms of punts and actions.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod dns;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use margay_model::flow::FlowTuple;
use margay_model::node::{Encap, LocalNode, TunnelAddress};
use margay_model::reason::DropReason;
use margay_slowpath::{Action, Config, Ingress, Injection, Limits, Past, Punt, Request, SlowPath};

static VECTORS: LazyLock<BTreeMap<&str, Vec<u8>>> = LazyLock::new(|| {
    let lines = include_str!("../golden/vectors.txt").lines();
    lines.filter_map(|line| line.split_once(' ')).map(|(name, hex)| (name, bytes(hex))).collect()
});

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// The packet of this name in `golden/vectors.txt`.
pub(crate) fn vector(name: &str) -> Vec<u8> {
    VECTORS.get(name).unwrap_or_else(|| panic!("no vector {name}")).clone()
}

/// All frames and packets of the file.
pub(crate) fn vectors() -> impl Iterator<Item = Vec<u8>> {
    VECTORS.values().cloned()
}

pub(crate) const POD_PORT: u32 = 7;
pub(crate) const POD: Ingress = Ingress::Port(POD_PORT);
pub(crate) const UPLINK: Ingress = Ingress::Port(1);
pub(crate) const TUNNEL: Ingress = Ingress::Tunnel(1, Encap::Ipip);

pub(crate) fn node() -> LocalNode {
    LocalNode {
        v4: Some(("192.0.2.1".parse().unwrap(), 24)),
        v6: Some(("2001:db8::1".parse().unwrap(), 64)),
        tunnel_addresses: vec![TunnelAddress {
            encap: Encap::Ipip,
            address: "10.1.0.64".parse().unwrap(),
        }],
        ..LocalNode::default()
    }
}

pub(crate) fn slow_path() -> SlowPath {
    with_limits(Limits::default())
}

pub(crate) fn with_limits(limits: Limits) -> SlowPath {
    SlowPath::new(Config { node: Arc::new(node()), limits })
}

/// A punt of a frame whose IP packet follows the Ethernet header.
pub(crate) fn punt(ingress: Ingress, frame: Vec<u8>, request: Request) -> Punt {
    Punt { ingress, past: Past::default(), frame, ip_start: 14, request }
}

/// No connection at all.
pub(crate) fn no_flows(_: &FlowTuple) -> Option<FlowTuple> {
    None
}

/// The answer of a fresh slow path to one frame.
pub(crate) fn ask(ingress: Ingress, frame: Vec<u8>, request: Request) -> Vec<Action> {
    slow_path().handle(0, punt(ingress, frame, request), &no_flows)
}

/// The injections among actions.
pub(crate) fn injected(actions: &[Action]) -> Vec<Injection> {
    let injections = actions.iter().filter_map(|action| match action {
        Action::Inject(_, injection) => Some(injection.clone()),
        _ => None,
    });
    injections.collect()
}

/// How many punts ended.
pub(crate) fn ended(actions: &[Action]) -> usize {
    let end = |a: &&Action| matches!(a, Action::Consumed(_) | Action::Dropped(..));
    actions.iter().filter(end).count()
}

/// The one reason of the drops among actions.
pub(crate) fn drop_reason(actions: &[Action]) -> Option<DropReason> {
    actions.iter().find_map(|action| match action {
        Action::Dropped(_, why) => Some(*why),
        _ => None,
    })
}
