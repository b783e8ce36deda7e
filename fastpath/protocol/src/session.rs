//! The daemon's side of an agent's connection as a pure machine: a message goes in, a step comes
//! out. The order of messages is the one that the description of the protocol fixes.

use margay_model::{State, Update};

use crate::VERSION;
use crate::message::{AgentHello, AgentMessage};

/// One agent's connection.
#[derive(Debug, Default)]
pub struct Session {
    phase: Phase,
    /// Number of the last `InSync` or `Commit`.
    sequence: u64,
}

/// What is expected next.
#[derive(Debug, Default)]
enum Phase {
    /// The greeting.
    #[default]
    Hello,
    /// A full state: nothing was in sync yet, or something was refused.
    Begin,
    /// More of the full state.
    Full(Box<State>),
    /// Deltas.
    Deltas(Vec<Update>),
}

/// What the daemon has to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// Answer the greeting.
    Greet(AgentHello),
    /// Reconcile with this full state, then acknowledge the number.
    Replace {
        /// The number.
        sequence: u64,
        /// The state.
        state: Box<State>,
    },
    /// Put these changes in force as one generation, then acknowledge the number.
    Apply {
        /// The number.
        sequence: u64,
        /// The changes, in order.
        updates: Vec<Update>,
    },
    /// Refuse this number: it was on its way when an earlier one was refused, and builds on it.
    Stale {
        /// The number.
        sequence: u64,
    },
}

/// The agent does not keep to the protocol: the stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Another version.
    #[error(
        "the agent speaks version {agent} of the protocol, this daemon version {VERSION}: \
         install the same release of both"
    )]
    Version {
        /// The agent's version.
        agent: u32,
    },
    /// A message came where another was due.
    #[error("{got} came where {expected} was due")]
    Order {
        /// The message.
        got: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
    /// A number did not grow.
    #[error("sequence {got} does not follow {last}")]
    Sequence {
        /// The number.
        got: u64,
        /// The one before it.
        last: u64,
    },
}

// === impl Session ===

impl Session {
    /// Takes the next message.
    pub fn on(&mut self, message: AgentMessage) -> Result<Step, SessionError> {
        match (&mut self.phase, message) {
            (Phase::Hello, AgentMessage::Hello(hello)) => self.greet(hello),
            (Phase::Hello, other) => Err(order(&other, "Hello")),
            (_, AgentMessage::Hello(hello)) => {
                Err(order(&AgentMessage::Hello(hello), "Begin, Update or Commit"))
            }
            (_, AgentMessage::Begin) => {
                self.phase = Phase::Full(Box::default());
                Ok(Step::Wait)
            }
            (Phase::Begin, AgentMessage::Update(_)) if self.sequence > 0 => Ok(Step::Wait),
            (Phase::Begin, AgentMessage::Commit { sequence }) if self.sequence > 0 => {
                self.advance(sequence)?;
                Ok(Step::Stale { sequence })
            }
            (Phase::Begin, other) => Err(order(&other, "Begin")),
            (Phase::Full(state), AgentMessage::Update(update)) => {
                state.apply(update);
                Ok(Step::Wait)
            }
            (Phase::Full(state), AgentMessage::InSync { sequence }) => {
                let state = std::mem::take(state);
                self.finish(sequence, |sequence| Step::Replace { sequence, state })
            }
            (Phase::Full(_), other) => Err(order(&other, "Update or InSync")),
            (Phase::Deltas(updates), AgentMessage::Update(update)) => {
                updates.push(update);
                Ok(Step::Wait)
            }
            (Phase::Deltas(updates), AgentMessage::Commit { sequence }) => {
                let updates = std::mem::take(updates);
                self.finish(sequence, |sequence| Step::Apply { sequence, updates })
            }
            (Phase::Deltas(_), other) => Err(order(&other, "Update, Commit or Begin")),
        }
    }

    /// The last step could not be taken and was refused: what builds on it is stale, until the
    /// agent begins anew.
    pub fn refused(&mut self) {
        self.phase = Phase::Begin;
    }

    fn greet(&mut self, hello: AgentHello) -> Result<Step, SessionError> {
        if hello.version != VERSION {
            return Err(SessionError::Version { agent: hello.version });
        }
        self.phase = Phase::Begin;
        Ok(Step::Greet(hello))
    }

    fn finish(
        &mut self,
        sequence: u64,
        step: impl FnOnce(u64) -> Step,
    ) -> Result<Step, SessionError> {
        self.advance(sequence)?;
        self.phase = Phase::Deltas(Vec::new());
        Ok(step(sequence))
    }

    fn advance(&mut self, sequence: u64) -> Result<(), SessionError> {
        if sequence <= self.sequence {
            return Err(SessionError::Sequence { got: sequence, last: self.sequence });
        }
        self.sequence = sequence;
        Ok(())
    }
}

fn order(got: &AgentMessage, expected: &'static str) -> SessionError {
    let got = match got {
        AgentMessage::Hello(_) => "Hello",
        AgentMessage::Begin => "Begin",
        AgentMessage::Update(_) => "Update",
        AgentMessage::InSync { .. } => "InSync",
        AgentMessage::Commit { .. } => "Commit",
    };
    SessionError::Order { got, expected }
}

// === impl SessionError ===

impl From<SessionError> for tonic::Status {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Version { .. } => Self::failed_precondition(error.to_string()),
            SessionError::Order { .. } | SessionError::Sequence { .. } => {
                Self::invalid_argument(error.to_string())
            }
        }
    }
}

impl From<crate::FieldError> for tonic::Status {
    fn from(error: crate::FieldError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: u32) -> AgentMessage {
        AgentMessage::Hello(AgentHello { version, node: "n".into(), release: "0".into() })
    }

    fn gone(name: &str) -> Update {
        Update::RemoteGone(name.into())
    }

    fn remote(name: &str) -> Update {
        let remote = margay_model::RemoteNode { name: name.into(), ..Default::default() };
        Update::Remote(remote.into())
    }

    /// A session that a full state of one peer has put in sync with number 1.
    fn in_sync() -> Session {
        let mut session = Session::default();
        for message in [hello(VERSION), AgentMessage::Begin, AgentMessage::Update(remote("a"))] {
            session.on(message).unwrap();
        }
        let step = session.on(AgentMessage::InSync { sequence: 1 }).unwrap();
        let Step::Replace { sequence: 1, state } = step else { panic!("{step:?}") };
        assert_eq!(state.remotes.keys().map(|k| &**k).collect::<Vec<_>>(), ["a"]);
        session
    }

    #[test]
    fn another_version_is_refused_with_both_versions_named() {
        let error = Session::default().on(hello(VERSION + 1)).unwrap_err();
        assert_eq!(error, SessionError::Version { agent: VERSION + 1 });
        let status = tonic::Status::from(error);
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(status.message().contains("version 2"), "{}", status.message());
        assert!(status.message().contains("version 1"), "{}", status.message());
    }

    #[test]
    fn deltas_are_collected_until_their_commit() {
        let mut session = in_sync();
        assert_eq!(session.on(AgentMessage::Update(remote("b"))), Ok(Step::Wait));
        assert_eq!(session.on(AgentMessage::Update(gone("a"))), Ok(Step::Wait));
        let step = session.on(AgentMessage::Commit { sequence: 2 }).unwrap();
        assert_eq!(step, Step::Apply { sequence: 2, updates: vec![remote("b"), gone("a")] });
        let step = session.on(AgentMessage::Commit { sequence: 3 }).unwrap();
        assert_eq!(step, Step::Apply { sequence: 3, updates: vec![] });
    }

    #[test]
    fn begin_forgets_what_was_not_committed() {
        let mut session = in_sync();
        session.on(AgentMessage::Update(gone("a"))).unwrap();
        session.on(AgentMessage::Begin).unwrap();
        let step = session.on(AgentMessage::InSync { sequence: 2 }).unwrap();
        assert_eq!(step, Step::Replace { sequence: 2, state: Box::default() });
    }

    #[test]
    fn what_follows_a_refusal_is_stale_until_a_full_state_comes() {
        let mut session = in_sync();
        session.refused();
        assert_eq!(session.on(AgentMessage::Update(gone("a"))), Ok(Step::Wait));
        let step = session.on(AgentMessage::Commit { sequence: 2 });
        assert_eq!(step, Ok(Step::Stale { sequence: 2 }));
        session.on(AgentMessage::Begin).unwrap();
        let step = session.on(AgentMessage::InSync { sequence: 3 });
        assert_eq!(step, Ok(Step::Replace { sequence: 3, state: Box::default() }));
    }

    #[test]
    fn a_message_out_of_its_order_is_an_error() {
        let order = |expected| move |e| matches!(e, SessionError::Order { expected: x, .. } if x == expected);
        let mut session = Session::default();
        assert!(session.on(AgentMessage::Begin).is_err_and(order("Hello")));
        session.on(hello(VERSION)).unwrap();
        assert!(session.on(AgentMessage::Update(gone("a"))).is_err_and(order("Begin")));
        assert!(session.on(AgentMessage::Commit { sequence: 1 }).is_err_and(order("Begin")));
        session.on(AgentMessage::Begin).unwrap();
        let early = session.on(AgentMessage::Commit { sequence: 1 });
        assert!(early.is_err_and(order("Update or InSync")));
    }

    #[test]
    fn a_number_that_does_not_grow_is_an_error() {
        let mut session = in_sync();
        assert_eq!(
            session.on(AgentMessage::Commit { sequence: 1 }),
            Err(SessionError::Sequence { got: 1, last: 1 })
        );
    }
}
