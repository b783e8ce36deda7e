//! ICMP queries. A flow's tuple has the identifier alone, and that may be zero or the same in two
//! exchanges; so the flow is marked with the type that it began with.

use margay_wire::protocol;

/// Requests and their answers in pairs (RFC 792, RFC 4443); a mark is a place in it, from 1.
const QUERIES: [u8; 10] = [8, 0, 13, 14, 15, 16, 17, 18, 128, 129];

/// The mark of a flow that begins with this type; 0 for what is no query.
pub fn mark(ip_protocol: u8, kind: u8) -> u8 {
    if !is_icmp(ip_protocol) {
        return 0;
    }
    QUERIES.iter().position(|query| *query == kind).map_or(0, |at| at as u8 + 1)
}

/// The type that a flow with this mark began with; that of an echo for one without.
pub fn kind(mark: u8) -> u8 {
    let at = usize::from(mark).saturating_sub(1);
    QUERIES.get(at).copied().unwrap_or_default()
}

/// Whether two marks are of a request and its answer, or of the same.
pub fn is_same_exchange(one: u8, other: u8) -> bool {
    one.div_ceil(2) == other.div_ceil(2)
}

/// Whether this is ICMP of either family.
pub const fn is_icmp(ip_protocol: u8) -> bool {
    matches!(ip_protocol, protocol::ICMP | protocol::ICMPV6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_leads_back_to_its_type_and_to_its_answer_only() {
        for (n, query) in QUERIES.into_iter().enumerate() {
            let ip_protocol = if query < 128 { 1 } else { 58 };
            let own = mark(ip_protocol, query);
            assert_eq!(kind(own), query);
            for (m, other) in QUERIES.into_iter().enumerate() {
                let same = is_same_exchange(own, mark(1, other));
                assert_eq!(same, n / 2 == m / 2, "{query} and {other}");
            }
            assert!(!is_same_exchange(own, mark(1, 200)));
        }
        assert_eq!((mark(1, 200), mark(17, 8)), (0, 0));
    }
}
