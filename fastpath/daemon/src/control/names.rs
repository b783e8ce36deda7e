//! What name servers said comes into force.

use margay_slowpath::dns::Fact;

use super::Control;
use crate::slow::{Ask, Tell};

/// Answers of name servers that are put in force together at most.
const TOGETHER: usize = 256;

// === impl Control ===

impl Control {
    /// Learns what a name server said, and what others said meanwhile: they are put in force
    /// together.
    pub(super) async fn learn(&mut self, ticket: u64, facts: &[Fact]) {
        let mut changed = self.names.learn(facts, &mut self.assembler);
        let (mut tickets, mut other) = (vec![ticket], None);
        while tickets.len() < TOGETHER
            && let Ok(next) = self.parts.ask.try_recv()
        {
            match next {
                Ask::Learn { ticket, facts } => {
                    changed |= self.names.learn(&facts, &mut self.assembler);
                    tickets.push(ticket);
                }
                // It keeps its place.
                next => {
                    other = Some(next);
                    break;
                }
            }
        }
        if changed {
            self.put_names_in_force().await;
        }
        for ticket in tickets {
            let _ = self.parts.tell.send(Tell::Learned(ticket));
        }
        if let Some(other) = other {
            Box::pin(self.asked(other)).await;
        }
    }

    /// What was learned of domain names is in force when this returns. No decision that allows
    /// becomes wrong by it: flows and the shortcut keep theirs.
    pub(super) async fn put_names_in_force(&mut self) {
        let next = self.assembler.refresh_names(&self.snapshot);
        self.hand_out(next).await;
        self.parts.shared.update(|view| view.snapshot = Some(self.snapshot.clone()));
    }
}
