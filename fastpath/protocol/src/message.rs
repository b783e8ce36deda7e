//! The messages of the agent's connection as typed values.
//!
//! What the daemon's process says about itself ([`proto::Status`], [`proto::Counters`]) has no
//! typed form: it is only ever shown.

use std::sync::Arc;

use margay_model::{EndpointKey, Update};

use crate::bytes::needed;
use crate::error::{At, FieldError};
use crate::proto;
use crate::proto::from_agent::Message as FromAgent;
use crate::proto::from_daemon::Message as FromDaemon;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentMessage {
    /// The first message of a stream.
    Hello(AgentHello),
    /// A full state follows.
    Begin,
    /// One change.
    Update(Update),
    /// The full state is complete.
    InSync {
        /// Number to acknowledge.
        sequence: u64,
    },
    /// The changes since the last `InSync` or `Commit` become one generation.
    Commit {
        /// Number to acknowledge.
        sequence: u64,
    },
}

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentHello {
    /// Version of the protocol.
    pub version: u32,
    /// Name of the node that the agent speaks for.
    pub node: Arc<str>,
    /// The agent's release.
    pub release: String,
}

/// What a daemon says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonMessage {
    /// The answer to the agent's greeting.
    Hello(DaemonHello),
    /// Everything up to this number is in force on all workers.
    Ack {
        /// Number of an `InSync` or `Commit`.
        sequence: u64,
        /// Generation in force.
        generation: u64,
    },
    /// Nothing of this `InSync` or `Commit` is in force.
    Refused {
        /// Its number.
        sequence: u64,
        /// Why, for people.
        reason: String,
    },
    /// Whether an endpoint is attached and policed.
    EndpointStatus(EndpointStatus),
}

/// Who the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaemonHello {
    /// Version of the protocol.
    pub version: u32,
    /// Another number in each process.
    pub instance: u64,
    /// Generation in force.
    pub generation: u64,
}

/// Whether frames of an endpoint's interface come to the dataplane and are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// The endpoint.
    pub key: EndpointKey,
    /// Why they are not; `None` when they are.
    pub down: Option<String>,
}

// === impl AgentMessage ===

impl From<&AgentMessage> for proto::FromAgent {
    fn from(message: &AgentMessage) -> Self {
        let message = match message {
            AgentMessage::Hello(hello) => FromAgent::Hello(hello.into()),
            AgentMessage::Begin => FromAgent::Begin(proto::Begin {}),
            AgentMessage::Update(update) => FromAgent::Update(update.into()),
            AgentMessage::InSync { sequence } => {
                FromAgent::InSync(proto::InSync { sequence: *sequence })
            }
            AgentMessage::Commit { sequence } => {
                FromAgent::Commit(proto::Commit { sequence: *sequence })
            }
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<proto::FromAgent> for AgentMessage {
    type Error = FieldError;

    fn try_from(message: proto::FromAgent) -> Result<Self, FieldError> {
        Ok(match needed(message.message, "message")? {
            FromAgent::Hello(hello) => Self::Hello(hello.into()),
            FromAgent::Begin(proto::Begin {}) => Self::Begin,
            FromAgent::Update(update) => Self::Update(update.try_into().at("update")?),
            FromAgent::InSync(proto::InSync { sequence }) => Self::InSync { sequence },
            FromAgent::Commit(proto::Commit { sequence }) => Self::Commit { sequence },
        })
    }
}

impl From<&AgentHello> for proto::AgentHello {
    fn from(hello: &AgentHello) -> Self {
        Self {
            version: hello.version,
            node: hello.node.to_string(),
            release: hello.release.clone(),
        }
    }
}

impl From<proto::AgentHello> for AgentHello {
    fn from(hello: proto::AgentHello) -> Self {
        Self { version: hello.version, node: hello.node.into(), release: hello.release }
    }
}

// === impl DaemonMessage ===

impl From<&DaemonMessage> for proto::FromDaemon {
    fn from(message: &DaemonMessage) -> Self {
        let message = match message {
            DaemonMessage::Hello(hello) => FromDaemon::Hello(proto::DaemonHello {
                version: hello.version,
                instance: hello.instance,
                generation: hello.generation,
                release: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            DaemonMessage::Ack { sequence, generation } => {
                FromDaemon::Ack(proto::Ack { sequence: *sequence, generation: *generation })
            }
            DaemonMessage::Refused { sequence, reason } => {
                FromDaemon::Refused(proto::Refused { sequence: *sequence, reason: reason.clone() })
            }
            DaemonMessage::EndpointStatus(status) => FromDaemon::EndpointStatus(status.into()),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<proto::FromDaemon> for DaemonMessage {
    type Error = FieldError;

    fn try_from(message: proto::FromDaemon) -> Result<Self, FieldError> {
        Ok(match needed(message.message, "message")? {
            FromDaemon::Hello(hello) => Self::Hello(DaemonHello {
                version: hello.version,
                instance: hello.instance,
                generation: hello.generation,
            }),
            FromDaemon::Ack(ack) => {
                Self::Ack { sequence: ack.sequence, generation: ack.generation }
            }
            FromDaemon::Refused(refused) => {
                Self::Refused { sequence: refused.sequence, reason: refused.reason }
            }
            FromDaemon::EndpointStatus(status) => Self::EndpointStatus(status.into()),
        })
    }
}

impl From<&EndpointStatus> for proto::EndpointStatus {
    fn from(status: &EndpointStatus) -> Self {
        Self {
            key: status.key.to_string(),
            up: status.down.is_none(),
            reason: status.down.clone().unwrap_or_default(),
        }
    }
}

impl From<proto::EndpointStatus> for EndpointStatus {
    fn from(status: proto::EndpointStatus) -> Self {
        Self { key: status.key.into(), down: (!status.up).then_some(status.reason) }
    }
}
