//! The language the dataplane accepts: plain values, no behaviour but equality, order and merging.
//!
//! The control plane produces these values, the daemon keeps them, the engine is assembled from
//! them. Nothing here knows a socket, a clock, a thread or Kubernetes.
//!
//! In the order of use:
//! - [`node`]: the node itself, its peers, the address pools and the settings;
//! - [`rule`], [`policy`]: what decides a packet; [`set`]: the address sets that rules name, by
//!   address or, through [`domain`], by the name that is looked up;
//! - [`endpoint`], [`host`]: whom policy applies to; [`limit`]: what of the network they may use; [`route`]: where addresses live; [`service`]: what is
//!   translated;
//! - [`state`]: all of the above at once, and the deltas ([`state::Update`]) between two states;
//! - [`reason`]: why a packet was dropped or punted, one table with name, sentence and counter;
//! - [`flow`]: a connection as it is shown to people.

pub mod node;
pub mod rule;
pub mod domain;
pub mod set;

pub mod policy;

pub mod limit;
pub mod endpoint;
pub mod host;
pub mod route;
pub mod service;

pub mod state;

pub mod flow;
pub mod reason;

/// Size in bytes of the largest IP packet that the dataplane carries: no pod, trunk or tunnel has a larger
/// MTU, whatever an uplink has.
pub const LARGEST_MTU: u16 = 9_216;

pub use domain::{DomainError, DomainName, DomainPattern};
pub use endpoint::{Endpoint, EndpointKey};
pub use host::{Failsafe, HostEndpoint, HostInterface, HostKey};
pub use limit::{Bandwidth, Dscp, Limits, PacketRate, Peak, Usage};
pub use node::{DnsServer, DnsSettings, Encap, LocalNode, Mac, Pool, RemoteNode, Settings};
pub use policy::{DefaultAction, Policy, PolicyKey, TierPolicies};
pub use reason::{DnsReading, DropReason, PuntReason};
pub use route::{Route, RouteTarget};
pub use rule::{Action, EntityMatch, IcmpMatch, IpVersion, PortRange, Rule};
pub use service::{Backend, Selection, Service, ServiceKey, TrafficPolicy};
pub use set::{AddressSet, Member, SetId};
pub use state::{State, Update};
