//! Keeps a [`KernelView`] current.
//!
//! One netlink socket listens, another asks, so that answers are not lost when notifications
//! overflow. Links, addresses and neighbours are changed by what their notifications say; routes are
//! read again as a whole, since a notification does not say which route of the same destination it
//! replaces. When the kernel says that notifications were lost (ENOBUFS), everything is read again.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::route::RouteMessage;
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{Handle, IpVersion, MulticastGroup, RouteMessageBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::rules::is_node_port_rule;
use super::view::{KernelView, Route};
use super::{KernelError, Result, connect, decode, errno, own_protocol, refused};

/// A burst of notifications is published as one change after this long.
const SETTLE: Duration = Duration::from_millis(20);
/// After a failure to read from the kernel, the next attempt.
const RETRY: Duration = Duration::from_millis(200);
/// Bytes of notifications that may wait; the kernel cuts it to `net.core.rmem_max`.
const RECEIVE_BUFFER: u32 = 4 << 20;
/// The table of the node's own addresses; packets to those are not routed.
const LOCAL_TABLE: u32 = 255;

/// `EOPNOTSUPP`, `EAFNOSUPPORT`.
const UNSUPPORTED: i32 = 95;
const NO_FAMILY: i32 = 97;

const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

type Notification = (NetlinkMessage<Message>, rtnetlink::sys::SocketAddr);

/// The running watch. It ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    views: watch::Receiver<KernelView>,
    task: JoinHandle<()>,
}

/// What has to be read again before the next publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stale {
    all: bool,
    routes: bool,
}

struct Watcher {
    handle: Handle,
    view: KernelView,
    stale: Stale,
    views: watch::Sender<KernelView>,
}

// === impl Watch ===

impl Watch {
    /// Reads everything and begins to listen.
    ///
    /// # Errors
    /// No netlink socket, or the kernel does not answer the first questions.
    pub async fn start() -> Result<Self> {
        Self::start_with_buffer(RECEIVE_BUFFER).await
    }

    /// The newest view, and a notice of every change.
    pub fn views(&self) -> watch::Receiver<KernelView> {
        self.views.clone()
    }

    pub(super) async fn start_with_buffer(bytes: u32) -> Result<Self> {
        let (mut listener, _own_handle, notifications) =
            rtnetlink::new_multicast_connection(GROUPS).map_err(KernelError::Socket)?;
        let socket = listener.socket_mut().socket_mut();
        socket.set_rx_buf_sz(bytes).map_err(KernelError::Socket)?;
        let (sender, views) = watch::channel(KernelView::default());
        let mut watcher = Watcher {
            handle: connect()?,
            view: KernelView::default(),
            stale: Stale { all: true, routes: true },
            views: sender,
        };
        // Listening begins before reading, so that no change falls between the two.
        let listener = tokio::spawn(listener);
        watcher.publish().await?;
        let task = tokio::spawn(async move {
            watcher.run(notifications).await;
            listener.abort();
        });
        Ok(Self { views, task })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Watcher ===

impl Watcher {
    async fn run(mut self, mut notifications: impl futures::Stream<Item = Notification> + Unpin) {
        let mut due: Option<Instant> = None;
        loop {
            let timer = sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                notification = notifications.next() => {
                    let Some((message, _)) = notification else {
                        tracing::error!("the kernel's notifications have ended");
                        return;
                    };
                    if self.take(message.payload) {
                        due.get_or_insert_with(|| Instant::now() + SETTLE);
                    }
                }
                () = timer, if due.is_some() => {
                    due = None;
                    if let Err(error) = self.publish().await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "cannot read the kernel's tables, trying again");
                        due = Some(Instant::now() + RETRY);
                    }
                }
            }
        }
    }

    /// Applies a notification; returns whether it may have changed something.
    fn take(&mut self, payload: NetlinkPayload<Message>) -> bool {
        let message = match payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => {
                tracing::info!("notifications of the kernel were lost, reading everything again");
                self.stale.all = true;
                return true;
            }
            _ => return false,
        };
        match message {
            Message::NewLink(m) => decode::link(&m).is_some_and(|link| {
                Arc::make_mut(&mut self.view.links).insert(link.index, link);
                // The kernel drops and revives routes with their links without a word (IPv4).
                self.stale.routes = true;
                true
            }),
            Message::DelLink(m) => {
                decode::link(&m).is_some_and(|link| self.forget_link(link.index))
            }
            Message::NewAddress(m) => decode::address(&m)
                .is_some_and(|a| Arc::make_mut(&mut self.view.addresses).insert(a)),
            Message::DelAddress(m) => decode::address(&m)
                .is_some_and(|a| Arc::make_mut(&mut self.view.addresses).remove(&a)),
            Message::NewNeighbour(m) => decode::neighbour(&m).is_some_and(|(key, state)| {
                let old = self.view.neighbours.get(&key);
                // Most notifications only say that a known neighbour was seen again.
                old != Some(&state) && {
                    Arc::make_mut(&mut self.view.neighbours).insert(key, state);
                    true
                }
            }),
            Message::DelNeighbour(m) => decode::neighbour(&m).is_some_and(|(key, _)| {
                Arc::make_mut(&mut self.view.neighbours).remove(&key).is_some()
            }),
            Message::DelRoute(m) if m.header.protocol == own_protocol() => self.miss_our_own(),
            Message::DelRule(m) if is_node_port_rule(&m) => self.miss_our_own(),
            Message::NewRoute(_)
            | Message::DelRoute(_)
            | Message::NewRule(_)
            | Message::DelRule(_) => {
                self.stale.routes = true;
                true
            }
            _ => false,
        }
    }

    fn miss_our_own(&mut self) -> bool {
        self.view.own_removed += 1;
        true
    }

    fn forget_link(&mut self, index: u32) -> bool {
        Arc::make_mut(&mut self.view.links).remove(&index);
        Arc::make_mut(&mut self.view.addresses).retain(|(link, _)| *link != index);
        Arc::make_mut(&mut self.view.neighbours).retain(|(link, _), _| *link != index);
        self.stale.routes = true;
        true
    }

    /// Reads what is stale and publishes the view if it changed.
    async fn publish(&mut self) -> Result<()> {
        let stale = std::mem::take(&mut self.stale);
        let read = self.read(stale).await;
        if read.is_err() {
            self.stale = stale;
        }
        self.views.send_if_modified(|published| {
            let changed = *published != self.view;
            if changed {
                published.clone_from(&self.view);
            }
            changed
        });
        read
    }

    async fn read(&mut self, stale: Stale) -> Result<()> {
        if stale.all {
            self.view.links = Arc::new(self.links().await?);
            self.view.addresses = Arc::new(self.addresses().await?);
            self.view.neighbours = Arc::new(self.neighbours().await?);
        }
        if stale.all || stale.routes {
            self.view.routes = Arc::new(self.routes().await?);
        }
        Ok(())
    }

    async fn links(&self) -> Result<std::collections::BTreeMap<u32, super::Link>> {
        let found = self.handle.link().get().execute();
        let found = found.try_filter_map(async |m| Ok(decode::link(&m).map(|l| (l.index, l))));
        found.try_collect().await.map_err(refused("list", "links"))
    }

    async fn addresses(&self) -> Result<std::collections::BTreeSet<(u32, ipnet::IpNet)>> {
        let found = self.handle.address().get().execute();
        let found = found.try_filter_map(async |m| Ok(decode::address(&m)));
        found.try_collect().await.map_err(refused("list", "addresses"))
    }

    async fn neighbours(
        &self,
    ) -> Result<std::collections::BTreeMap<(u32, std::net::IpAddr), super::NeighbourState>> {
        let found = self.handle.neighbours().get().execute();
        let found = found.try_filter_map(async |m| Ok(decode::neighbour(&m)));
        found.try_collect().await.map_err(refused("list", "neighbours"))
    }

    async fn routes(&self) -> Result<Vec<Route>> {
        let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
        let mut routes = self.routes_of(IpVersion::V4, v4).await?;
        routes.extend(self.routes_of(IpVersion::V6, v6).await?);
        routes.sort_by_key(Route::order);
        Ok(routes)
    }

    async fn routes_of(&self, family: IpVersion, question: RouteMessage) -> Result<Vec<Route>> {
        let rules = self.handle.rule().get(family).execute();
        let tables = rules.try_filter_map(async |m| Ok(decode::unconditional_table(&m)));
        let mut tables: Vec<_> = match tables.try_collect().await {
            Ok(tables) => tables,
            // A kernel without IPv6 has no rules of it.
            Err(error) if matches!(errno(&error), Some(UNSUPPORTED | NO_FAMILY)) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(refused("list", "rules")(error)),
        };
        tables.retain(|(_, table)| *table != LOCAL_TABLE);
        tables.sort_unstable();
        let rank = |message: &RouteMessage| {
            let table = decode::table(message);
            let position = tables.iter().position(|(_, t)| *t == table)?;
            u32::try_from(position).ok()
        };
        let found = self.handle.route().get(question).execute();
        let found =
            found.try_filter_map(async |m| Ok(rank(&m).and_then(|rank| decode::route(&m, rank))));
        found.try_collect().await.map_err(refused("list", "routes"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_namespace, run};
    use super::super::view::{NeighbourState, RouteKind};
    use super::*;
    use std::net::IpAddr;

    /// Next hops follow within this long.
    const SOON: Duration = Duration::from_secs(1);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn until(
        watch: &Watch,
        what: &str,
        condition: impl Fn(&KernelView) -> bool,
    ) -> KernelView {
        let mut views = watch.views();
        let found = tokio::time::timeout(SOON, views.wait_for(|v| condition(v))).await;
        match found {
            Ok(view) => view.unwrap().clone(),
            Err(_) => panic!("{what}: not within {SOON:?}: {:#?}", watch.views().borrow()),
        }
    }

    #[test]
    fn links_addresses_routes_and_neighbours_are_followed() {
        in_namespace(|| async {
            run("ip link add u0 type veth peer name u1");
            run("ip addr add 192.0.2.1/24 dev u0");
            let watch = Watch::start().await.unwrap();
            let view = watch.views().borrow().clone();
            let u0 = view.link("u0").unwrap().clone();
            assert!(!u0.up && u0.veth && u0.peer == Some(view.link("u1").unwrap().index));
            assert!(view.has_address(ip("192.0.2.1")));
            assert_eq!(view.route(ip("198.51.100.1")), None);

            run("ip link set u1 up");
            run("ip link set u0 up mtu 1400");
            until(&watch, "up", |v| v.links[&u0.index].up && v.links[&u0.index].mtu == 1400).await;

            run("ip route add default via 192.0.2.254 mtu 1300");
            let view = until(&watch, "route", |v| v.route(ip("198.51.100.1")).is_some()).await;
            let route = view.route(ip("198.51.100.1")).unwrap();
            assert_eq!(route.mtu, Some(1300));
            assert_eq!(route.next_hops[0].index, u0.index);
            assert_eq!(route.next_hops[0].gateway, Some(ip("192.0.2.254")));

            run("ip route replace default via 192.0.2.253");
            until(&watch, "replaced route", |v| {
                let route = v.route(ip("198.51.100.1"));
                route.is_some_and(|r| r.next_hops[0].gateway == Some(ip("192.0.2.253")))
            })
            .await;

            let gateway = (u0.index, ip("192.0.2.253"));
            run("ip neigh add 192.0.2.253 dev u0 lladdr 02:00:00:00:00:99 nud reachable");
            let view = until(&watch, "neighbour", |v| v.mac(gateway.0, gateway.1).is_some()).await;
            assert_eq!(view.mac(gateway.0, gateway.1).unwrap().to_string(), "02:00:00:00:00:99");
            run("ip neigh del 192.0.2.253 dev u0");
            until(&watch, "no neighbour", |v| v.mac(gateway.0, gateway.1).is_none()).await;

            run("ip link del u0");
            until(&watch, "gone", |v| {
                v.link("u0").is_none() && v.routes.is_empty() && v.neighbours.is_empty()
            })
            .await;
        });
    }

    #[test]
    fn a_link_that_goes_down_takes_its_routes_along() {
        in_namespace(|| async {
            run("ip link add u0 type veth peer name u1");
            run("ip addr add 192.0.2.1/24 dev u0");
            run("ip link set u1 up");
            run("ip link set u0 up");
            run("ip route add 198.51.100.0/24 via 192.0.2.254");
            let watch = Watch::start().await.unwrap();
            until(&watch, "route", |v| v.route(ip("198.51.100.1")).is_some()).await;
            run("ip link set u0 down");
            until(&watch, "no route", |v| v.route(ip("198.51.100.1")).is_none()).await;
        });
    }

    #[test]
    fn several_next_hops_other_tables_and_refusing_routes_are_understood() {
        in_namespace(|| async {
            run("ip link add u0 type veth peer name u1");
            run("ip addr add 192.0.2.1/24 dev u0");
            run("ip addr add 2001:db8::1/64 dev u0 nodad");
            run("ip link set u1 up");
            run("ip link set u0 up");
            run(
                "ip route add 198.51.100.0/24 nexthop via 192.0.2.2 weight 3 nexthop via 192.0.2.3",
            );
            run("ip route add blackhole 203.0.113.0/24");
            run("ip route add 203.0.113.0/25 via 192.0.2.9 table 100");
            run("ip route add 2001:db8:1::/48 via 2001:db8::2");
            run("ip route add 10.0.0.0/8 dev u0 proto 77");
            let watch = Watch::start().await.unwrap();
            let view = watch.views().borrow().clone();
            let weights: Vec<_> = view
                .route(ip("198.51.100.1"))
                .unwrap()
                .next_hops
                .iter()
                .map(|h| h.weight)
                .collect();
            assert_eq!(weights, [3, 1]);
            assert_eq!(view.route(ip("203.0.113.1")).unwrap().kind, RouteKind::Blackhole);
            let v6 = view.route(ip("2001:db8:1::5")).unwrap();
            assert_eq!(v6.next_hops[0].gateway, Some(ip("2001:db8::2")));
            assert_eq!(view.route(ip("10.1.1.1")), None, "Margay's own routes are left out");

            run("ip rule add pref 1000 lookup 100");
            until(&watch, "table 100 asked first", |v| {
                v.route(ip("203.0.113.1")).is_some_and(|r| r.kind == RouteKind::Unicast)
            })
            .await;
            run("ip rule del pref 1000");
            run("ip rule add pref 1000 fwmark 5 lookup 100");
            until(&watch, "a rule with a condition is not followed", |v| {
                v.route(ip("203.0.113.1")).is_some_and(|r| r.kind == RouteKind::Blackhole)
            })
            .await;
        });
    }

    #[test]
    fn lost_notifications_are_made_good() {
        in_namespace(|| async {
            run("ip link add u0 type veth peer name u1");
            run("ip link set u1 up");
            run("ip link set u0 up");
            let watch = Watch::start_with_buffer(1).await.unwrap();
            let index = watch.views().borrow().link("u0").unwrap().index;
            let mut batch = String::new();
            for i in 0..4000 {
                let (a, b) = (i / 250, i % 250 + 1);
                batch += &format!("neigh add 10.0.{a}.{b} dev u0 lladdr 02:00:00:00:00:01\n");
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), batch).unwrap();
            // Runs to its end while nobody reads the notifications: this thread is the runtime.
            run(&format!("ip -batch {}", file.path().display()));
            let all = |v: &KernelView| {
                let known = |s: &NeighbourState| matches!(s, NeighbourState::Fixed(_));
                let added = |(i, addr): &(u32, IpAddr)| *i == index && addr.is_ipv4();
                v.neighbours.iter().filter(|(key, state)| added(key) && known(state)).count()
                    == 4000
            };
            until(&watch, "all neighbours", all).await;
        });
    }
}
