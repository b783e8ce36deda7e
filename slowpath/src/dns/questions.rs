//! What pods asked lately: an answer is believed only to a question.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use margay_model::flow::FlowTuple;

use super::message::Question;

/// Questions of one pod that are remembered; the oldest make room.
const MAX_OPEN: usize = 512;
/// Milliseconds for which they are.
const LIFETIME: u64 = 30_000;

/// The questions, by who asked.
#[derive(Debug, Default)]
pub(super) struct Questions {
    clients: HashMap<IpAddr, VecDeque<Asked>>,
}

#[derive(Debug)]
struct Asked {
    conversation: FlowTuple,
    question: Question,
    at: u64,
}

// === impl Questions ===

impl Questions {
    /// Remembers a question of a conversation.
    pub(super) fn note(&mut self, now_ms: u64, conversation: FlowTuple, question: Question) {
        let asked = self.clients.entry(conversation.src).or_default();
        asked.retain(|old| (&old.conversation, &old.question) != (&conversation, &question));
        if asked.len() >= MAX_OPEN {
            asked.pop_front();
        }
        asked.push_back(Asked { conversation, question, at: now_ms });
    }

    /// Whether the question was asked in the conversation. It stays asked: an answer that has to
    /// wait on its way comes by again.
    pub(super) fn has(&self, conversation: &FlowTuple, question: &Question) -> bool {
        let mut asked = self.clients.get(&conversation.src).into_iter().flatten();
        asked.any(|each| each.conversation == *conversation && each.question == *question)
    }

    /// Forgets what was asked too long ago.
    pub(super) fn expire(&mut self, now_ms: u64) {
        self.clients.retain(|_, asked| {
            while asked.front().is_some_and(|old| now_ms.saturating_sub(old.at) > LIFETIME) {
                asked.pop_front();
            }
            !asked.is_empty()
        });
    }
}
