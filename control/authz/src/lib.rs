//! Answers proxies that ask whether a request may pass, by the policy that decides packets.
//!
//! Envoy, and what else speaks its `ext_authz` interface, asks before it hands a request on. The
//! answer is that of the destination's ingress policy: the very compiler and classifier that
//! decide live packets, asked with what only a proxy knows as well, the HTTP request and the
//! service account that the client has proven to run under. As with Calico's Dikastes a proxy only
//! narrows what the packets of the connection may do: they have been judged without it before.
//!
//! In the order of use:
//! - [`proto`]: what is compiled from `proto/envoy/service/auth/v3/external_auth.proto`;
//! - [`question`]: what a proxy asks; [`http`]: which requests a rule means;
//! - [`law`]: the policies of a node at one moment; [`scribe`]: who writes them down;
//! - [`ruling`]: what a question comes to; [`answer`]: how a proxy is told;
//! - [`server`]: the gRPC service, its health and its counters.

/// The generated messages, client and server.
#[allow(missing_docs, clippy::all, reason = "generated; the .proto file documents it")]
pub mod proto {
    tonic::include_proto!("envoy.service.auth.v3");
}

pub mod question;
mod http;

pub mod law;
pub mod scribe;

pub mod ruling;
mod answer;

pub mod server;

pub use law::Law;
pub use question::{Question, QuestionError};
pub use ruling::Ruling;
pub use scribe::Scribe;
pub use server::{Authorizer, Count, serve};
