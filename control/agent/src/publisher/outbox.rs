//! What is to be sent next, as a pure machine: changes and answers go in, messages come out.

use std::collections::BTreeMap;

use margay_model::{EndpointKey, State, Update};
use margay_protocol::AgentMessage;

use super::{Change, Revision};

/// The wanted state and what the dataplane has not been told of it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    wanted: State,
    revision: Revision,
    /// Changes after what was sent last; unused while a full state is due.
    pending: Vec<Update>,
    /// Whether the next thing to send is the full state.
    full_due: bool,
    /// The full state or delta that is not answered yet.
    under_way: Option<UnderWay>,
    /// Number of the last `InSync` or `Commit`. It grows over all streams.
    sequence: u64,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    sequence: u64,
    revision: Revision,
}

/// Messages to send together.
#[derive(Debug, PartialEq)]
pub(super) struct Parcel {
    /// Whether they are a full state.
    pub(super) full: bool,
    /// The messages, in order.
    pub(super) messages: Vec<AgentMessage>,
}

// === impl Outbox ===

impl Outbox {
    /// The compiler wants this.
    pub(super) fn change(&mut self, change: Change) {
        for update in &change.updates {
            self.wanted.apply(update.clone());
        }
        self.revision = change.revision;
        if !self.full_due {
            self.pending.extend(change.updates);
        }
    }

    /// A dataplane is there that has to be told everything; also after it refused something.
    pub(super) fn start_over(&mut self) {
        self.under_way = None;
        self.full_due = true;
        self.pending = Vec::new();
    }

    /// What can be sent now: nothing while an answer is awaited, nothing is new, or no complete
    /// state has come from the compiler yet.
    pub(super) fn next(&mut self) -> Option<Parcel> {
        let nothing_new = !self.full_due && self.pending.is_empty();
        if self.under_way.is_some() || nothing_new || self.revision == Revision::default() {
            return None;
        }
        self.sequence += 1;
        let sequence = self.sequence;
        self.under_way = Some(UnderWay { sequence, revision: self.revision });
        let full = std::mem::take(&mut self.full_due);
        let updates = if full {
            State::default().diff(&self.wanted)
        } else {
            std::mem::take(&mut self.pending)
        };
        let mut messages = Vec::with_capacity(updates.len() + 2);
        messages.extend(full.then_some(AgentMessage::Begin));
        messages.extend(updates.into_iter().map(AgentMessage::Update));
        messages.push(match full {
            true => AgentMessage::InSync { sequence },
            false => AgentMessage::Commit { sequence },
        });
        Some(Parcel { full, messages })
    }

    /// The dataplane acknowledged a number: the revision that is now in force, if it is news.
    pub(super) fn acknowledged(&mut self, sequence: u64) -> Option<Revision> {
        let done = self.under_way.take_if(|under_way| under_way.sequence <= sequence)?;
        Some(done.revision)
    }

    /// Whether a refusal of this number concerns what is under way.
    pub(super) fn is_under_way(&self, sequence: u64) -> bool {
        self.under_way.is_some_and(|under_way| under_way.sequence == sequence)
    }

    /// Removes what is said about endpoints that are no longer wanted.
    pub(super) fn forget_gone<T>(&self, endpoints: &mut BTreeMap<EndpointKey, T>) {
        endpoints.retain(|key, _| self.wanted.endpoints.contains_key(key));
    }
}

#[cfg(test)]
mod tests {
    use margay_model::RemoteNode;

    use super::*;

    fn remote(name: &str) -> Update {
        Update::Remote(RemoteNode { name: name.into(), ..Default::default() }.into())
    }

    fn change(revision: u64, updates: Vec<Update>) -> Change {
        Change { revision: Revision(revision), updates }
    }

    fn update(name: &str) -> AgentMessage {
        AgentMessage::Update(remote(name))
    }

    /// An outbox whose full state of one peer is in force with number 1 and revision 1.
    fn in_sync() -> Outbox {
        let mut outbox = Outbox::default();
        outbox.start_over();
        outbox.change(change(1, vec![remote("a")]));
        let messages = vec![AgentMessage::Begin, update("a"), AgentMessage::InSync { sequence: 1 }];
        assert_eq!(outbox.next(), Some(Parcel { full: true, messages }));
        assert_eq!(outbox.acknowledged(1), Some(Revision(1)));
        outbox
    }

    #[test]
    fn nothing_is_sent_before_the_first_complete_state() {
        let mut outbox = Outbox::default();
        outbox.start_over();
        assert_eq!(outbox.next(), None);
        outbox.change(change(1, vec![]));
        let messages = vec![AgentMessage::Begin, AgentMessage::InSync { sequence: 1 }];
        assert_eq!(outbox.next(), Some(Parcel { full: true, messages }));
    }

    #[test]
    fn changes_while_a_commit_is_under_way_travel_together_in_the_next() {
        let mut outbox = in_sync();
        outbox.change(change(2, vec![remote("b")]));
        let messages = vec![update("b"), AgentMessage::Commit { sequence: 2 }];
        assert_eq!(outbox.next(), Some(Parcel { full: false, messages }));
        outbox.change(change(3, vec![remote("c")]));
        outbox.change(change(4, vec![remote("d")]));
        assert_eq!(outbox.next(), None);
        assert_eq!(outbox.acknowledged(2), Some(Revision(2)));
        let messages = vec![update("c"), update("d"), AgentMessage::Commit { sequence: 3 }];
        assert_eq!(outbox.next(), Some(Parcel { full: false, messages }));
        assert_eq!(outbox.acknowledged(3), Some(Revision(4)));
        assert_eq!(outbox.next(), None);
    }

    #[test]
    fn a_new_dataplane_gets_everything_also_what_was_pending() {
        let mut outbox = in_sync();
        outbox.change(change(2, vec![remote("b")]));
        outbox.next();
        outbox.change(change(3, vec![remote("c"), Update::RemoteGone("a".into())]));
        outbox.start_over();
        let messages = vec![
            AgentMessage::Begin,
            update("b"),
            update("c"),
            AgentMessage::InSync { sequence: 3 },
        ];
        assert_eq!(outbox.next(), Some(Parcel { full: true, messages }));
        assert_eq!(outbox.acknowledged(3), Some(Revision(3)));
    }

    #[test]
    fn an_acknowledgement_of_an_earlier_number_is_no_news() {
        let mut outbox = in_sync();
        outbox.change(change(2, vec![remote("b")]));
        outbox.next();
        assert_eq!(outbox.acknowledged(1), None);
        assert!(outbox.is_under_way(2));
        assert_eq!(outbox.acknowledged(7), Some(Revision(2)));
    }
}
