//! How long an idle connection is remembered.

use margay_model::node::Timeouts;
use margay_wire::protocol;

use super::State;

/// Milliseconds for which TCP without handshake waits for its other end to be heard: what the kernel
/// calls `nf_conntrack_tcp_timeout_unacknowledged`.
const TCP_UNREPLIED: u32 = 300_000;

/// Lifetime of an idle connection in milliseconds.
pub fn timeout(timeouts: &Timeouts, ip_protocol: u8, state: State) -> u32 {
    match (ip_protocol, state) {
        (_, State::Denied) => timeouts.denied,
        (protocol::TCP, State::Unreplied) => TCP_UNREPLIED.min(timeouts.tcp_established),
        (_, State::SynSent) => timeouts.tcp_syn_sent,
        (_, State::Established | State::FinWait) => timeouts.tcp_established,
        (_, State::Closing) => timeouts.tcp_fins_seen,
        (_, State::Reset) => timeouts.tcp_reset_seen,
        (protocol::UDP, _) => timeouts.udp,
        (protocol::ICMP | protocol::ICMPV6, _) => timeouts.icmp,
        _ => timeouts.generic,
    }
}
