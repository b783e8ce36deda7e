//! What routers said of the way to tunnels' far ends.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a router's word is taken (Linux: `net.ipv4.route.mtu_expires`).
const LIFETIME: Duration = Duration::from_secs(600);
/// Less is not believed: nobody has such links, but whoever wants to slow us down may claim them
/// (Linux: `net.ipv4.route.min_pmtu`; RFC 8200 for IPv6).
const LEAST: (u16, u16) = (552, 1280);
/// Far ends that are remembered.
const MOST: usize = 4096;

/// Path MTUs by far end.
#[derive(Debug, Default)]
pub(crate) struct PathMtus {
    learned: BTreeMap<IpAddr, (u16, Instant)>,
}

impl PathMtus {
    /// Takes a router's word for it; whether it is news.
    pub(crate) fn learn(&mut self, peer: IpAddr, mtu: u16, now: Instant) -> bool {
        let mtu = mtu.max(if peer.is_ipv4() { LEAST.0 } else { LEAST.1 });
        if self.learned.len() >= MOST && !self.learned.contains_key(&peer) {
            return false;
        }
        self.learned.insert(peer, (mtu, now)).is_none_or(|(old, _)| old != mtu)
    }

    /// What holds now.
    pub(crate) fn in_force(&mut self, now: Instant) -> BTreeMap<IpAddr, u16> {
        self.learned.retain(|_, (_, since)| now.duration_since(*since) < LIFETIME);
        self.learned.iter().map(|(peer, (mtu, _))| (*peer, *mtu)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routers_word_holds_for_ten_minutes_and_not_below_reason() {
        let (mut mtus, now) = (PathMtus::default(), Instant::now());
        let (v4, v6): (IpAddr, IpAddr) =
            ("192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap());
        assert!(mtus.learn(v4, 1400, now));
        assert!(!mtus.learn(v4, 1400, now), "no news");
        assert!(mtus.learn(v6, 68, now));
        assert_eq!(mtus.in_force(now), [(v4, 1400), (v6, 1280)].into());
        assert_eq!(mtus.in_force(now + LIFETIME), BTreeMap::new());
    }
}
