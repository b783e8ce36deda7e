//! The node's kernel as the dataplane sees and uses it, through rtnetlink.
//!
//! Links, addresses, routes and neighbours stay the kernel's: they are watched, never copied by
//! guess. What Margay puts into the kernel is the trunk with its routes and addresses, the rules
//! for the node's own node ports, and one sysctl; all of it can be found again after a crash and is
//! taken back at a clean stop.
//!
//! In the order of use:
//! - [`view`]: what the kernel says, as one value;
//! - [`decode`]: netlink messages to parts of that value;
//! - [`watch`]: keeps the value current;
//! - [`ports`]: the pods' interfaces among the links;
//! - [`neigh`]: keeps the Ethernet addresses of next hops known;
//! - [`hostport`]: reconciles what Margay puts into the kernel, out of
//!   [`trunk`] (the veth pair), [`features`] (its offloads), [`routes`], [`rules`] and [`sysctl`].

pub mod view;
mod decode;
pub mod watch;
pub mod ports;
pub mod neigh;
pub mod hostport;
mod trunk;
mod features;
mod routes;
mod rules;
mod sysctl;
#[cfg(test)]
mod testing;

use std::io;
use std::path::PathBuf;

use netlink_packet_route::route::RouteProtocol;

pub use hostport::{Change, Desired, HostPort, HostRoute, KERNEL_END, NodePortAccess};
pub use neigh::Keeper;
pub use trunk::Trunk;
pub use view::{KernelView, Link, NeighbourState, NextHop, Route, RouteKind};
pub use watch::Watch;

/// Whether the kernel has an interface with this index; also where it cannot be asked.
pub fn is_there(index: u32) -> bool {
    use rustix::net::{AddressFamily, SocketType, netdevice::index_to_name, socket};
    let Ok(any) = socket(AddressFamily::INET, SocketType::DGRAM, None) else { return true };
    index_to_name(any, index) != Err(rustix::io::Errno::NODEV)
}

/// Marks routes and rules as Margay's, so that they are found again (`/etc/iproute2/rt_protos` of
/// iproute2 gives the number to nobody).
pub const PROTOCOL: u8 = 77;

/// What can go wrong between Margay and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused a request.
    #[error("the kernel refused to {operation} {object}")]
    Request {
        /// The verb.
        operation: &'static str,
        /// What it was for: an interface, a route.
        object: String,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// An interface has the name that the trunk needs, but is none.
    #[error("interface {name} exists and is not Margay's: rename or delete it")]
    Foreign {
        /// The name.
        name: &'static str,
    },
    /// An interface is not there.
    #[error("there is no interface {name}")]
    NoInterface {
        /// The name.
        name: String,
    },
    /// A sysctl or the file that remembers it cannot be read or written.
    #[error("cannot access {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Offloads cannot be set.
    #[error("cannot set the offloads of interface {index}")]
    Features {
        /// The interface's index.
        index: u32,
        /// Why not.
        #[source]
        source: features::FeaturesError,
    },
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, KernelError>;

fn own_protocol() -> RouteProtocol {
    RouteProtocol::from(PROTOCOL)
}

/// Gives a request's error its context.
fn refused(
    operation: &'static str,
    object: impl ToString,
) -> impl FnOnce(rtnetlink::Error) -> KernelError {
    move |source| KernelError::Request { operation, object: object.to_string(), source }
}

/// The errno of a refusal, positive; `None` for other errors.
fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

/// Opens a connection for requests; its task ends with the last handle.
fn connect() -> Result<rtnetlink::Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(KernelError::Socket)?;
    tokio::spawn(connection);
    Ok(handle)
}
