//! The requests that a plugin makes to the kernel, on blocking sockets of the rust-netlink crates.
//!
//! A socket belongs to the namespace of the thread that opened it; so each value here is opened
//! and used within one closure of [`crate::netns::Netns::enter`].
//!
//! - [`socket`]: request, acknowledgement, dump;
//! - [`link`], [`address`], [`route`], [`neighbour`]: rtnetlink;
//! - [`ethtool`]: an interface's offload features.

mod socket;

mod link;

mod address;

mod route;

mod neighbour;

mod ethtool;

pub(crate) use ethtool::{Feature, set_features};
pub(crate) use link::{Link, VethPair};
pub(crate) use route::DefaultRoute;
pub(crate) use socket::RouteSocket;
