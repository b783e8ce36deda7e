//! How long an idle connection is remembered.

use margay_model::node::Timeouts;
use margay_wire::protocol;

use super::State;

/// Lifetime of an idle connection in milliseconds.
pub fn timeout(timeouts: &Timeouts, ip_protocol: u8, state: State) -> u32 {
    match (ip_protocol, state) {
        (_, State::Denied) => timeouts.denied,
        (_, State::SynSent) => timeouts.tcp_syn_sent,
        (_, State::Established | State::FinWait) => timeouts.tcp_established,
        (_, State::Closing) => timeouts.tcp_fins_seen,
        (_, State::Reset) => timeouts.tcp_reset_seen,
        (protocol::UDP, _) => timeouts.udp,
        (protocol::ICMP | protocol::ICMPV6, _) => timeouts.icmp,
        _ => timeouts.generic,
    }
}
