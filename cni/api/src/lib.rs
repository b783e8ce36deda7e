//! What Margay's CNI plugins and the node's agent say to each other: one JSON object a line, over
//! the agent's Unix socket.
//!
//! In the order of use:
//! - [`identity`]: which attachment and which workload a request is about;
//! - [`request`]: what the plugins ask; [`answer`]: what the agent answers;
//! - [`wire`]: the envelope of both, and its version;
//! - [`error`]: a failure as the CNI specification shapes it, with its code;
//! - [`client`]: the blocking client of the plugins.
//!
//! A connection carries any number of requests, one at a time: the next line is read after the
//! answer to the last was written.

pub mod identity;

pub mod request;

pub mod answer;

pub mod wire;

pub mod error;

pub mod client;

mod mac_text;

pub use answer::{Deleted, Done, EndpointPlan, Lease, Readiness, Swept};
pub use client::Client;
pub use error::{CniError, Code};
pub use identity::{Attachment, AttachmentRef, Orchestrator, Workload};
pub use request::{
    AddEndpoint, AddressStatus, Allocate, Bandwidth, CheckAddress, CheckEndpoint, DelEndpoint,
    Families, GcAddresses, GcEndpoints, HostPort, PlanEndpoint, Release, Status,
};
pub use wire::{Call, Envelope, MAX_LINE, PROTOCOL, Request, Response};

/// Where the agent listens unless the network configuration's `agentSocket` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/margay/agent.sock";
