//! What is rare in the dataplane, as pure machines: a punted packet comes in, actions go out.
//!
//! There is no socket, clock or thread here; time is an argument, flows are looked up through a
//! closure. Every function takes packets as hostile: nothing that a pod or the wire sends can make
//! it panic or keep more than the configured memory.
//!
//! In the order of use:
//! - [`punt`]: what comes in, one [`Request`] for each reason;
//! - [`action`]: what goes out, and how it is counted;
//! - [`slowpath`](SlowPath): hands each request to its machine;
//! - [`arp`], [`ndisc`]: answers to pods that look for their gateway;
//! - [`icmp_error`], [`reject`]: errors about packets that cannot go on;
//! - [`fragment`], [`reassembly`]: datagrams in pieces;
//! - [`neighbours`]: packets that wait for a next hop's Ethernet address;
//! - [`icmp_related`]: errors of others about connections of ours;
//! - [`dns`]: what name servers tell pods, so that policies can name domains;
//! - [`bucket`]: the limit of what each port may cause; [`packet`]: views and headers they share.

mod punt;
mod action;
mod slowpath;
pub mod arp;
pub mod ndisc;
pub mod icmp_error;
pub mod reject;
pub mod fragment;
pub mod reassembly;
pub mod neighbours;
pub mod icmp_related;
pub mod dns;
pub mod bucket;
pub mod packet;

pub use action::{Action, Injection};
pub use punt::{Ingress, Past, PortId, Punt, Request, Unreachable};
pub use slowpath::{Config, Limits, SlowPath};
