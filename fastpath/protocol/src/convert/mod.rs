//! Messages from and to the values of the model.
//!
//! Into a message every value converts (`From<&Value>`); out of a message only what the model
//! accepts does (`TryFrom<Message, Error = FieldError>`). No bytes whatsoever make it panic.

mod net;
mod node;
mod set;
mod dns;

mod policy;
mod rule;

mod limit;
mod endpoint;
mod host;
mod route;
mod service;

mod update;

mod flow;

pub use flow::FlowFilter;
