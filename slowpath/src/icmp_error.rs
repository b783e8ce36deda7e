//! ICMP and ICMPv6 errors: what to tell a sender, and when to be silent.
//!
//! Arrives: [`Request::TtlExpired`](crate::Request::TtlExpired), `TooBig`, `Unreachable`, and IPv6's
//! `Reassemble` that comes to nothing. Leaves: an error of the node's own, or a drop where none may
//! be sent (RFC 1812, section 4.3.2; RFC 4443, section 2.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_model::node::LocalNode;
use margay_model::reason::DropReason;
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv4TimeExceeded};
use smoltcp::wire::{
    Icmpv6DstUnreachable, Icmpv6Message, Icmpv6Packet, Icmpv6ParamProblem, Icmpv6TimeExceeded,
    Ipv4Packet,
};

use crate::packet::{self, ICMP, ICMPV6, IPV6_LEN, IpView};
use crate::punt::{Ingress, Unreachable};

/// An ICMP error is at most this long with its IP header (RFC 1812, section 4.3.2.3).
const MAX_V4: usize = 576;
/// An ICMPv6 error is at most this long with its IP header (RFC 4443, section 2.4 (c)).
const MAX_V6: usize = 1280;
const TTL_V4: u8 = 64;
const HOP_LIMIT_V6: u8 = 255;
/// Internetwork control (RFC 1812, section 4.3.2.5), as a DSCP.
const DSCP_CONTROL: u8 = 0x30;
/// No link that carries IPv6 takes less; senders ignore a smaller figure (RFC 8201, section 4).
const MIN_MTU_V6: u16 = 1280;
/// No link that carries IPv4 takes less (RFC 791).
const MIN_MTU_V4: u16 = 68;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The TTL or hop limit ran out.
    TtlExpired,
    /// The packet is larger than this many bytes, which is what the path takes.
    TooBig(u16),
    /// There is no way.
    Unreachable(Unreachable),
    /// The other pieces of its datagram did not come in time.
    Incomplete,
    /// A field of its headers cannot be.
    Malformed {
        /// Offset of the field in the packet.
        pointer: u32,
    },
}

// === impl Problem ===

impl Problem {
    /// How the packet counts where nobody can be told.
    pub fn refused(self) -> DropReason {
        match self {
            Self::TtlExpired => DropReason::TtlExpired,
            Self::TooBig(_) => DropReason::TooBig,
            Self::Unreachable(Unreachable::Net) => DropReason::NoRoute,
            Self::Unreachable(Unreachable::Host) => DropReason::NoEndpoint,
            Self::Unreachable(Unreachable::Port) => DropReason::PuntRefused,
            Self::Unreachable(Unreachable::Prohibited) => DropReason::Policy,
            Self::Incomplete | Self::Malformed { .. } => DropReason::Fragment,
        }
    }

    /// Type and code over IPv4.
    fn v4(self) -> (Icmpv4Message, u8) {
        let unreachable = |code: Icmpv4DstUnreachable| (Icmpv4Message::DstUnreachable, code.into());
        match self {
            Self::TtlExpired => {
                (Icmpv4Message::TimeExceeded, Icmpv4TimeExceeded::TtlExpired.into())
            }
            Self::TooBig(_) => unreachable(Icmpv4DstUnreachable::FragRequired),
            Self::Unreachable(Unreachable::Net) => {
                unreachable(Icmpv4DstUnreachable::NetUnreachable)
            }
            Self::Unreachable(Unreachable::Host) => {
                unreachable(Icmpv4DstUnreachable::HostUnreachable)
            }
            Self::Unreachable(Unreachable::Port) => {
                unreachable(Icmpv4DstUnreachable::PortUnreachable)
            }
            Self::Unreachable(Unreachable::Prohibited) => {
                unreachable(Icmpv4DstUnreachable::CommProhibited)
            }
            Self::Incomplete => {
                (Icmpv4Message::TimeExceeded, Icmpv4TimeExceeded::FragExpired.into())
            }
            Self::Malformed { .. } => (Icmpv4Message::ParamProblem, 0),
        }
    }

    /// Type and code over IPv6.
    fn v6(self) -> (Icmpv6Message, u8) {
        let unreachable = |code: Icmpv6DstUnreachable| (Icmpv6Message::DstUnreachable, code.into());
        match self {
            Self::TtlExpired => {
                (Icmpv6Message::TimeExceeded, Icmpv6TimeExceeded::HopLimitExceeded.into())
            }
            Self::TooBig(_) => (Icmpv6Message::PktTooBig, 0),
            Self::Unreachable(Unreachable::Net) => unreachable(Icmpv6DstUnreachable::NoRoute),
            Self::Unreachable(Unreachable::Host) => {
                unreachable(Icmpv6DstUnreachable::AddrUnreachable)
            }
            Self::Unreachable(Unreachable::Port) => {
                unreachable(Icmpv6DstUnreachable::PortUnreachable)
            }
            Self::Unreachable(Unreachable::Prohibited) => {
                unreachable(Icmpv6DstUnreachable::AdminProhibit)
            }
            Self::Incomplete => {
                (Icmpv6Message::TimeExceeded, Icmpv6TimeExceeded::FragReassemExceeded.into())
            }
            Self::Malformed { .. } => {
                (Icmpv6Message::ParamProblem, Icmpv6ParamProblem::ErroneousHdrField.into())
            }
        }
    }
}

/// Whether the frame was sent to many hosts: then nobody answers it with an error.
pub fn sent_to_many(frame: &[u8]) -> bool {
    frame.first().is_some_and(|byte| byte & 1 != 0)
}

/// Whether an error about this packet may be sent: never about an error or a redirect, a later
/// fragment of IPv4, a packet to many, or from what is not one host. Only "packet too big" of IPv6
/// answers multicast, since path MTU discovery lives by it (RFC 4443, section 2.4 (e.3)).
pub fn may_answer(view: &IpView<'_>, problem: Problem) -> bool {
    let too_big_v6 = view.src.is_ipv6() && matches!(problem, Problem::TooBig(_));
    packet::is_one_host(view.src)
        && (too_big_v6 || !packet::is_many(view.dst))
        && !(view.src.is_ipv4() && view.is_later_fragment())
        && !is_error(view)
}

/// Whether the packet is itself an ICMP error, or one that cannot be told from it.
pub fn is_error(view: &IpView<'_>) -> bool {
    let kind = view.payload().first().filter(|_| !view.is_later_fragment());
    match view.protocol {
        ICMP => kind.is_none_or(|k| {
            use Icmpv4Message as M;
            matches!(
                M::from(*k),
                M::DstUnreachable | M::Redirect | M::TimeExceeded | M::ParamProblem
            ) || *k == SOURCE_QUENCH
        }),
        // Below 128 are all errors (RFC 4443, section 2.1).
        ICMPV6 => kind.is_none_or(|k| *k < 128 || *k == u8::from(Icmpv6Message::Redirect)),
        _ => false,
    }
}

/// RFC 6633 has abolished it, old hosts have not.
const SOURCE_QUENCH: u8 = 4;

/// The node's address that an error to `to` carries: that of the tunnel where the packet came by
/// one, so that the way back of the error is the way of the packet.
pub fn source(node: &LocalNode, ingress: Ingress, to: IpAddr) -> Option<IpAddr> {
    let same_family = |addr: &IpAddr| addr.is_ipv4() == to.is_ipv4();
    let own = match to {
        IpAddr::V4(_) => node.v4.map(|(addr, _)| addr.into()),
        IpAddr::V6(_) => node.v6.map(|(addr, _)| addr.into()),
    };
    let tunnel = |wanted: Option<_>| {
        (node.tunnel_addresses.iter())
            .filter(|t| wanted.is_none_or(|encap| t.encap == encap))
            .map(|t| t.address)
            .find(same_family)
    };
    match ingress {
        Ingress::Tunnel(_, encap) => tunnel(Some(encap)).or(own),
        _ => own.or_else(|| tunnel(None)),
    }
}

/// The error about `view`, quoting as much of it as fits. `None` where `source` is of the other
/// family.
pub fn build(problem: Problem, source: IpAddr, view: &IpView<'_>) -> Option<Vec<u8>> {
    match (source, view.src) {
        (IpAddr::V4(source), IpAddr::V4(to)) => build_v4(problem, source, to, view.whole),
        (IpAddr::V6(source), IpAddr::V6(to)) => build_v6(problem, source, to, view.whole),
        _ => None,
    }
}

fn build_v4(problem: Problem, source: Ipv4Addr, to: Ipv4Addr, about: &[u8]) -> Option<Vec<u8>> {
    let quoted = about.get(..about.len().min(MAX_V4 - 20 - 8))?;
    let (kind, code) = problem.v4();
    let fill = |payload: &mut [u8]| {
        let (header, rest) = payload.split_at_mut(8);
        rest.copy_from_slice(quoted);
        if let Problem::TooBig(mtu) = problem {
            // Next-hop MTU (RFC 1191, section 4), which smoltcp has no name for.
            header[6..8].copy_from_slice(&mtu.max(MIN_MTU_V4).to_be_bytes());
        }
        if let Problem::Malformed { pointer } = problem {
            // RFC 792, which smoltcp has no name for either.
            header[4] = pointer as u8;
        }
        let mut icmp = Icmpv4Packet::new_unchecked(payload);
        icmp.set_msg_type(kind);
        icmp.set_msg_code(code);
        icmp.fill_checksum();
    };
    let mut out = packet::emit(source.into(), to.into(), ICMP, TTL_V4, 8 + quoted.len(), fill)?;
    let mut header = Ipv4Packet::new_unchecked(&mut out);
    header.set_dscp(DSCP_CONTROL);
    header.fill_checksum();
    Some(out)
}

fn build_v6(problem: Problem, source: Ipv6Addr, to: Ipv6Addr, about: &[u8]) -> Option<Vec<u8>> {
    let quoted = about.get(..about.len().min(MAX_V6 - IPV6_LEN - 8))?;
    let (kind, code) = problem.v6();
    let fill = |payload: &mut [u8]| {
        let (_, rest) = payload.split_at_mut(8);
        rest.copy_from_slice(quoted);
        let mut icmp = Icmpv6Packet::new_unchecked(payload);
        icmp.set_msg_type(kind);
        icmp.set_msg_code(code);
        if let Problem::TooBig(mtu) = problem {
            icmp.set_pkt_too_big_mtu(mtu.max(MIN_MTU_V6).into());
        }
        if let Problem::Malformed { pointer } = problem {
            icmp.set_param_problem_ptr(pointer);
        }
        icmp.fill_checksum(&source, &to);
    };
    packet::emit(source.into(), to.into(), ICMPV6, HOP_LIMIT_V6, 8 + quoted.len(), fill)
}
