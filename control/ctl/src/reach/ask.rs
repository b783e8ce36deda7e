//! Who is asked about the traffic of a pair.

use std::net::{IpAddr, SocketAddr};

use margay_model::Endpoint;
use margay_tables::classifier::{Direction, PacketFacts};

use super::class::Class;
use super::failsafe::OpenPort;
use super::list::generic;
use super::probe::Probe;
use crate::court::jury::{Question, Whom};
use crate::court::verdict::{Fate, Side};

/// A port that clients use, where rules do not care.
const CLIENT: u16 = 40_000;

/// What a class, being hosts, leaves open from or to another one whatever policies say.
pub(super) fn open(
    classes: &[Class<'_>],
    (class, other): (usize, usize),
    cluster: usize,
    ingress: bool,
    v4: bool,
) -> Vec<OpenPort> {
    let view = classes.get(class).and_then(|class| class.views.get(cluster));
    let failsafes = view.and_then(|view| view.failsafes.as_ref());
    let far = classes.get(other).and_then(|other| other.address(v4));
    match (failsafes, far) {
        (Some(failsafes), Some(far)) => failsafes.open(ingress, far).collect(),
        _ => Vec::new(),
    }
}

/// Who is asked about a probe at one end.
#[derive(Clone, Copy)]
pub(super) enum Asked<'c> {
    /// No endpoint is there.
    Nobody,
    /// It is one of the ports that keep a host reachable.
    Open,
    /// An endpoint's policies.
    Of(Question<'c>),
}

impl<'c> Asked<'c> {
    pub(super) fn question(&self) -> Option<Question<'c>> {
        match self {
            Self::Of(question) => Some(*question),
            Self::Nobody | Self::Open => None,
        }
    }

    /// What is said; if somebody is asked, by the next answer.
    pub(super) fn side(&self, answers: &mut impl Iterator<Item = Side>) -> Side {
        match self {
            Self::Of(_) => {
                // There is an answer to each question; without one nothing is allowed.
                let side = answers.next().unwrap_or(Side::without_policy(Fate::Deny));
                // What the profile of one namespace says is what that of another says.
                Side { policy: side.policy.as_ref().map(generic), ..side }
            }
            Self::Nobody => Side::NONE,
            Self::Open => Side::without_policy(Fate::Allow),
        }
    }
}

/// The questions about a pair of classes: egress and ingress of each probe.
pub(super) fn asked<'c>(
    classes: &[Class<'c>],
    (source, target): (usize, usize),
    cluster: usize,
    probes: &[Probe],
    v4: bool,
) -> Vec<Asked<'c>> {
    let of = |class: usize| {
        let class = classes.get(class)?;
        let address = class.address(v4)?;
        Some((address, class.views.get(cluster)?.endpoint))
    };
    let (Some((src, from)), Some((dst, to))) = (of(source), of(target)) else {
        return vec![Asked::Nobody; probes.len() * 2];
    };
    let open_from = open(classes, (source, target), cluster, false, v4);
    let open_to = open(classes, (target, source), cluster, true, v4);
    let of_probe = |probe: &Probe| {
        let facts = PacketFacts {
            src: src.into(),
            dst: dst.into(),
            src_port: probe.ports.map(|ports| representative(ports.src)),
            dst_port: probe.ports.map(|ports| ports.dst.first),
            protocol: probe.protocol,
            icmp: probe.icmp.map(icmp),
            established: false,
        };
        let port = probe.ports.map(|ports| (probe.protocol, ports.dst.first));
        let is_in = |open: &[OpenPort]| port.is_some_and(|port| open.contains(&port));
        ask([from, to], [is_in(&open_from), is_in(&open_to)], facts)
    };
    probes.iter().flat_map(of_probe).collect()
}

/// The questions about a packet: to the source about egress, to the destination about ingress.
pub(super) fn ask<'c>(
    [from, to]: [Option<&'c Endpoint>; 2],
    [open_from, open_to]: [bool; 2],
    facts: PacketFacts,
) -> [Asked<'c>; 2] {
    let ask = |endpoint, direction, open| match endpoint {
        None => Asked::Nobody,
        Some(_) if open => Asked::Open,
        Some(endpoint) => Asked::Of(Question { whom: Whom::End(endpoint), direction, facts }),
    };
    [ask(from, Direction::Egress, open_from), ask(to, Direction::Ingress, open_to)]
}

/// A client's packet to a backend.
pub(super) fn client_facts(src: IpAddr, backend: SocketAddr, protocol: u8) -> PacketFacts {
    PacketFacts {
        src: src.into(),
        dst: backend.ip().into(),
        src_port: Some(CLIENT),
        dst_port: Some(backend.port()),
        protocol,
        icmp: None,
        established: false,
    }
}

fn representative(range: margay_model::PortRange) -> u16 {
    if range.contains(CLIENT) { CLIENT } else { range.first }
}

/// A type and code for those that no rule names: the last ones, which nobody uses.
fn icmp((kind, code): (Option<u8>, Option<u8>)) -> (u8, Option<u8>) {
    (kind.unwrap_or(u8::MAX), Some(code.unwrap_or(u8::MAX)))
}
