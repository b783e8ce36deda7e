//! Connection state, kept in one word for each direction of a flow and written only by packets of
//! that direction; what the connection as a whole is follows from both words.
//!
//! A pure machine: flags in, state out; [`tcp`] follows RFC 9293 as far as an observer can, and
//! [`window`] says which segments it believes.

pub mod tcp;
pub mod window;
pub mod icmp;
mod timeouts;

pub use timeouts::timeout;

use margay_wire::{protocol, transport};

/// The state of a connection in the field's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// TCP: a SYN, no answer.
    SynSent,
    /// TCP: the handshake is complete, or the connection was picked up in its midst and both ends
    /// have been heard.
    Established,
    /// TCP: one end has closed.
    FinWait,
    /// TCP: both ends have closed.
    Closing,
    /// TCP: reset.
    Reset,
    /// Packets in one direction only; of TCP, without a handshake.
    Unreplied,
    /// Other protocols: packets in both directions.
    Replied,
    /// A cached denial.
    Denied,
}

impl State {
    /// As `margayctl flows` shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "SYN_SENT",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::Closing => "CLOSING",
            Self::Reset => "RESET",
            Self::Unreplied => "UNREPLIED",
            Self::Replied => "REPLIED",
            Self::Denied => "DENIED",
        }
    }

    /// Whether both ends have been heard, and none has closed.
    pub const fn is_assured(self) -> bool {
        matches!(self, Self::Established | Self::Replied)
    }

    /// Whether eviction may take it before complete connections.
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::Unreplied | Self::Closing | Self::Reset)
    }
}

/// The mark of a connection through a service that goes on untranslated to the node of its backend,
/// which answers the client itself: nothing is heard of the answers here.
pub const HANDED_ON: u8 = 0b1_0000;

/// The mark of one that another node has handed on to this one. (Queries of ICMP have another use for
/// the bit, and are of no service.)
pub const TAKEN_ON: u8 = 0b0_1000;

/// The state of a connection, by protocol, marks and the words of both directions. A direction
/// without packets has the word 0.
pub fn state(ip_protocol: u8, marks: u8, orig: u64, reply: u64) -> State {
    match (ip_protocol, reply) {
        (protocol::TCP, _) if marks & HANDED_ON != 0 => tcp::one_sided(orig),
        (protocol::TCP, _) => tcp::state(orig, reply),
        (_, 0) => State::Unreplied,
        _ => State::Replied,
    }
}

/// Whether a protocol has neither ports nor identifiers: addresses alone tell its connections apart.
pub const fn is_portless(ip_protocol: u8) -> bool {
    !transport::has_ports(ip_protocol) && !icmp::is_icmp(ip_protocol)
}

/// The word of a direction of a protocol without states, once it has seen a packet.
pub const SEEN: u64 = tcp::SEEN;
