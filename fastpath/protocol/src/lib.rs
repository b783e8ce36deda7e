//! The protocol between the Margay dataplane and those who drive it: gRPC over a Unix socket.
//!
//! In the order of use:
//! - [`proto`]: what is compiled from `proto/margay/dataplane/v1/dataplane.proto`, the description
//!   of the protocol; read that file first;
//! - [`error`]: the field of a message that is bad, and why;
//! - [`convert`]: messages from and to the values of [`margay_model`];
//! - [`message`]: the messages of the agent's connection as typed values, both ways;
//! - [`session`]: the daemon's side of that connection as a pure machine, messages in, steps out;
//! - [`socket`]: serving on a Unix socket and connecting to it;
//! - [`saved`]: a state as bytes, for a daemon that starts without an agent.

pub mod error;

mod bytes;
pub mod convert;

pub mod message;
pub mod session;

pub mod saved;
pub mod socket;

/// The generated messages, client and server.
#[allow(missing_docs, clippy::all, reason = "generated; the .proto file documents it")]
pub mod proto {
    tonic::include_proto!("margay.dataplane.v1");
}

pub use bytes::from_address;
pub use convert::FlowFilter;
pub use error::{FieldError, Problem};
pub use message::{AgentMessage, DaemonMessage};
pub use proto::dataplane_client::DataplaneClient;
pub use proto::dataplane_server::{Dataplane, DataplaneServer};
pub use saved::{decode_state, encode_state};
pub use session::{Session, SessionError, Step};

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;

/// The daemon's socket unless it is told another.
pub const DEFAULT_SOCKET: &str = "/run/margay/margayd.sock";

/// Largest message that either side takes, in bytes: room for a set of a million members.
pub const MAX_MESSAGE: usize = 64 << 20;
