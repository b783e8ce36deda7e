//! Keeps the Ethernet addresses of next hops known.
//!
//! The dataplane's packets do not pass the kernel's neighbour table, so the kernel would let its
//! entries go stale. A *managed* entry (`NTF_EXT_MANAGED`, Linux 5.16) is probed by the kernel on its
//! own; an older kernel is asked (`NTF_USE`) whenever the entry is not usable. Addresses are never
//! written: only who answers is believed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::Handle;

use futures::StreamExt;

use super::view::{KernelView, NeighbourState};
use super::{Result, connect, refused};

/// Time between two questions for one next hop.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A next hop: link and address.
pub type Hop = (u32, IpAddr);

/// Keeps a set of next hops known.
#[derive(Debug)]
pub struct Keeper {
    handle: Handle,
    /// What is kept, with the time of the last question.
    kept: BTreeMap<Hop, Instant>,
}

// === impl Keeper ===

impl Keeper {
    /// Keeps nothing yet.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn new() -> Result<Self> {
        Ok(Self { handle: connect()?, kept: BTreeMap::new() })
    }

    /// Keeps these next hops and no others; to be called when they or the view change, and once a
    /// second. Those that are not known are asked, at most once a second each.
    ///
    /// A next hop on a link that has gone is no error; another refusal is logged and tried again.
    pub async fn keep(&mut self, now: Instant, hops: &BTreeSet<Hop>, view: &KernelView) {
        let gone: Vec<_> = self.kept.keys().filter(|hop| !hops.contains(hop)).copied().collect();
        for hop in gone {
            self.kept.remove(&hop);
            self.manage(hop, false, view).await;
        }
        for hop in hops.iter().filter(|(index, _)| view.links.contains_key(index)) {
            let known = view.mac(hop.0, hop.1).is_some();
            let asked = self.kept.get(hop).copied();
            let due = asked.is_none_or(|at| !known && now.duration_since(at) >= ASK_EVERY);
            if due {
                self.kept.insert(*hop, now);
                self.manage(*hop, true, view).await;
            }
        }
    }

    /// Asks for one neighbour now, whether it is kept or not. Not to be done for
    /// [`NeighbourState::Fixed`].
    ///
    /// # Errors
    /// The kernel refused, for instance because the link has no neighbours.
    pub async fn ask(&self, hop: Hop) -> Result<()> {
        self.request(hop, NeighbourFlags::Use, NeighbourExtFlags::empty()).await
    }

    /// Lets the kernel forget what was kept.
    pub async fn release(&mut self, view: &KernelView) {
        for hop in std::mem::take(&mut self.kept).into_keys() {
            self.manage(hop, false, view).await;
        }
    }

    async fn manage(&self, hop: Hop, on: bool, view: &KernelView) {
        let there = view.neighbours.get(&hop);
        // A question would turn a permanent entry into an ordinary one.
        if matches!(there, Some(NeighbourState::Fixed(_))) || (!on && there.is_none()) {
            return;
        }
        let managed = self.request(hop, NeighbourFlags::empty(), NeighbourExtFlags::Managed);
        let done = match on {
            // Linux before 5.16 knows no managed entries.
            true => match managed.await {
                Ok(()) => Ok(()),
                Err(_) => self.ask(hop).await,
            },
            // The flag alone is taken back, the entry stays.
            false => self.ask(hop).await,
        };
        if let Err(error) = done {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, link = hop.0, address = %hop.1, "neighbour not kept");
        }
    }

    async fn request(
        &self,
        (index, addr): Hop,
        flags: NeighbourFlags,
        ext: NeighbourExtFlags,
    ) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family =
            if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = index;
        message.header.state = Nud::None;
        message.header.flags = flags;
        let addr_attribute = match addr {
            IpAddr::V4(a) => netlink_packet_route::neighbour::NeighbourAddress::Inet(a),
            IpAddr::V6(a) => netlink_packet_route::neighbour::NeighbourAddress::Inet6(a),
        };
        message.attributes.push(NeighbourAttribute::Destination(addr_attribute));
        if !ext.is_empty() {
            message.attributes.push(NeighbourAttribute::ExtFlags(ext));
        }
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let context = || refused("ask for neighbour", addr);
        let mut answers = self.handle.clone().request(request).map_err(context())?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(context()(rtnetlink::Error::NetlinkError(error)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Watch;
    use super::super::testing::{Elsewhere, in_namespace, run};
    use super::*;

    /// A link, and its far end still in the same namespace: nobody answers on it.
    async fn pair() -> (Watch, u32) {
        run("ip link add u0 type veth peer name u1");
        run("ip addr add 192.0.2.1/24 dev u0");
        run("ip link set u1 up");
        run("ip link set u0 up");
        let watch = Watch::start().await.unwrap();
        let index = watch.views().borrow().link("u0").unwrap().index;
        (watch, index)
    }

    #[test]
    fn a_kept_next_hop_becomes_managed_and_a_forgotten_one_ordinary() {
        in_namespace(|| async {
            let (watch, index) = pair().await;
            let _answers = Elsewhere::with("u1", "192.0.2.2/24");
            let mut views = watch.views();
            views.wait_for(|v| v.links[&index].up).await.unwrap();
            let hop = (index, "192.0.2.2".parse().unwrap());
            let mut keeper = Keeper::new().unwrap();
            let view = views.borrow().clone();
            keeper.keep(Instant::now(), &BTreeSet::from([hop]), &view).await;
            let known = views.wait_for(|v| v.mac(hop.0, hop.1).is_some());
            let known = tokio::time::timeout(Duration::from_secs(3), known).await;
            let view = known.unwrap().unwrap().clone();
            assert!(run("ip neigh show 192.0.2.2 dev u0").contains("managed"));
            keeper.keep(Instant::now(), &BTreeSet::new(), &view).await;
            let after = run("ip neigh show 192.0.2.2 dev u0");
            assert!(!after.contains("managed") && after.contains("lladdr"), "{after}");
        });
    }

    #[test]
    fn a_permanent_neighbour_is_left_alone() {
        in_namespace(|| async {
            let (watch, index) = pair().await;
            run("ip neigh add 192.0.2.3 dev u0 lladdr 02:00:00:00:00:08 nud permanent");
            let hop = (index, "192.0.2.3".parse().unwrap());
            let mut views = watch.views();
            let view = views.wait_for(|v| v.mac(hop.0, hop.1).is_some()).await.unwrap().clone();
            let mut keeper = Keeper::new().unwrap();
            keeper.keep(Instant::now(), &BTreeSet::from([hop]), &view).await;
            keeper.release(&view).await;
            assert!(run("ip neigh show 192.0.2.3 dev u0").contains("PERMANENT"));
        });
    }

    #[test]
    fn a_neighbour_that_does_not_answer_is_reported_and_asked_again() {
        in_namespace(|| async {
            let (watch, index) = pair().await;
            run("sysctl -qw net.ipv4.neigh.u0.retrans_time_ms=20");
            let hop = (index, "192.0.2.4".parse().unwrap());
            let keeper = Keeper::new().unwrap();
            keeper.ask(hop).await.unwrap();
            let mut views = watch.views();
            let failed = |v: &KernelView| v.neighbours.get(&hop) == Some(&NeighbourState::Failed);
            let seen = tokio::time::timeout(Duration::from_secs(2), views.wait_for(failed)).await;
            assert!(seen.is_ok(), "{:?}", watch.views().borrow().neighbours);
        });
    }
}
