//! Neighbours: who has to be known before frames can be sent there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use margay_engine::PortId;
use margay_engine::snapshot::HopKey;
use tracing::warn;

use super::{Control, When};
use crate::kernel::NeighbourState;
use crate::slow::Tell;

/// A neighbour that the slow path waits for.
pub(super) struct Wanted {
    since: Instant,
    /// It had failed when the kernel was asked, and nothing else was heard of it since.
    had_failed: bool,
}

// === impl Wanted ===

impl Wanted {
    fn new(state: Option<NeighbourState>) -> Self {
        Self { since: Instant::now(), had_failed: state == Some(NeighbourState::Failed) }
    }

    /// Whether the kernel has given up since it was asked. It does not say that it tries again: what
    /// failed before stays so in the view until there is an answer, and who waits is told in time.
    fn has_failed(&mut self, state: Option<NeighbourState>) -> bool {
        let failed = state == Some(NeighbourState::Failed);
        self.had_failed &= failed;
        failed && !self.had_failed
    }
}

// === impl Control ===

impl Control {
    /// Asks for a neighbour that the slow path waits for.
    pub(super) async fn want(&mut self, port: PortId, addr: IpAddr) {
        let index = self.underlay.ports.iter().find(|p| p.id == port).map(|p| p.ifindex);
        let Some(index) = index else { return };
        let state = self.view.neighbours.get(&(index, addr)).copied();
        self.wanted.insert((port, addr), Wanted::new(state));
        if let Err(error) = self.parts.keeper.ask((index, addr)).await {
            warn!(%addr, %error, "cannot ask for a neighbour");
        }
        // It may be known, and not in force yet.
        self.look_again(When::Soon).await;
    }

    /// Keeps the next hops known that tunnels and routes lead to.
    pub(super) async fn keep(&mut self) {
        let index = |port: PortId| {
            self.underlay.ports.iter().find(|info| info.id == port).map(|info| info.ifindex)
        };
        let remotes: BTreeSet<IpAddr> = (self.state.remotes.values())
            .flat_map(|r| [r.v4.map(IpAddr::from), r.v6.map(IpAddr::from)])
            .flatten()
            .collect();
        let gateways: BTreeSet<IpAddr> = (self.underlay.routes.iter())
            .flat_map(|route| route.hops.iter().filter_map(|hop| hop.gateway))
            .collect();
        let hops = (self.snapshot.adjacencies.iter())
            .filter_map(|hop| {
                let addr = IpAddr::from(hop.neighbour?);
                let tunnel =
                    matches!(hop.key, HopKey::Ipip(_) | HopKey::Vxlan(..) | HopKey::Direct(..));
                let ours = tunnel || remotes.contains(&addr) || gateways.contains(&addr);
                Some((index(hop.port).filter(|_| ours)?, addr))
            })
            .collect();
        self.parts.keeper.keep(Instant::now(), &hops, &self.view).await;
        self.resolve();
    }

    /// Tells the slow path of neighbours that it waits for.
    pub(super) fn resolve(&mut self) {
        let (view, ports) = (&self.view, &self.underlay.ports);
        let in_force = &self.underlay.neighbours;
        let tell = &self.parts.tell;
        self.wanted.retain(|(port, addr), wanted| {
            let index = ports.iter().find(|info| info.id == *port).map(|info| info.ifindex);
            let state = index.and_then(|index| view.neighbours.get(&(index, *addr))).copied();
            if wanted.has_failed(state) {
                let _ = tell.send(Tell::Unresolvable(*port, *addr));
                return false;
            }
            // In force, not only known: what waits would come back at once.
            if in_force.contains_key(&(*port, *addr)) {
                let _ = tell.send(Tell::Resolved(*port, *addr));
                return false;
            }
            wanted.since.elapsed() < Duration::from_secs(5)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NeighbourState::{Asking, Failed};

    #[test]
    fn a_neighbour_that_had_failed_is_waited_for_until_the_kernel_fails_again() {
        let mut first = Wanted::new(None);
        assert!(!first.has_failed(None) && !first.has_failed(Some(Asking)));
        assert!(first.has_failed(Some(Failed)));

        let mut again = Wanted::new(Some(Failed));
        assert!(!again.has_failed(Some(Failed)), "that is of before");
        assert!(!again.has_failed(Some(Asking)));
        assert!(again.has_failed(Some(Failed)));
    }
}
