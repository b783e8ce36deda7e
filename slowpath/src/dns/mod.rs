//! Conversations of pods with trusted name servers, read along so that policies can name domains.
//!
//! Arrives: [`Request::Dns`](crate::Request::Dns), every packet of such a conversation, over UDP or
//! TCP. Leaves: the packet, as it came; an answer that gives addresses only after these were put in
//! force ([`Action::Learn`], [`SlowPath::learned`](crate::SlowPath::learned)), so that the first
//! connection to them passes, or after the time that the settings allow for it.
//!
//! An answer is believed if the pod asked that very question in that conversation; addresses and
//! ports are connection tracking's business. What is malformed or was not asked goes on unread: a
//! policy is not there to judge DNS.
//!
//! - [`message`]: questions and answers; [`questions`]: what pods asked; [`stream`]: messages in TCP;
//! - [`names`]: what was learned, for whom, and for how long.

mod message;
mod questions;
mod stream;
pub mod names;

use std::collections::VecDeque;

use margay_model::flow::FlowTuple;
use margay_model::reason::{DnsReading as Reading, PuntReason};

use crate::action::{Action, Injection};
use crate::packet::{IpView, TCP, UDP};
use crate::punt::{Past, Punt, Request};
use questions::Questions;
use stream::Streams;

pub use message::Fact;

/// Answers that are held back at once; more go on at once.
const MAX_HELD: usize = 1_024;
/// Answers whose addresses are on their way into force at once; further ones go on unread.
const MAX_UNDER_WAY: usize = 4_096;
/// Length of a UDP header.
const UDP_LEN: usize = 8;

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct Dns {
    questions: Questions,
    streams: Streams,
    /// The oldest first.
    held: VecDeque<Held>,
    next_ticket: u64,
    under_way: usize,
    max_hold: u64,
}

#[derive(Debug)]
struct Held {
    ticket: u64,
    since: u64,
    punt: Punt,
}

/// What a packet says.
enum Said {
    /// Nothing that policy needs.
    Nothing(Reading),
    /// These addresses.
    Facts(Vec<Fact>),
}

// === impl Dns ===

impl Dns {
    /// A machine that knows nothing yet and holds answers back for at most so many milliseconds.
    pub(crate) fn new(max_hold: u32) -> Self {
        Self { max_hold: max_hold.into(), ..Self::default() }
    }

    /// Sets for how many milliseconds an answer may be held back.
    pub(crate) fn set_max_hold(&mut self, millis: u32) {
        self.max_hold = millis.into();
    }

    /// Number of answers that are held back.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Reads a packet of a conversation, which goes on at once or later.
    pub(crate) fn read(&mut self, now_ms: u64, punt: Punt, out: &mut Vec<Action>) {
        let facts = match self.said(now_ms, &punt) {
            Said::Facts(facts) => facts,
            Said::Nothing(reading) => {
                out.push(Action::Read(reading));
                return go_on(punt, out);
            }
        };
        if self.under_way >= MAX_UNDER_WAY {
            out.push(Action::Read(Reading::Crowded));
            return go_on(punt, out);
        }
        self.under_way += 1;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        out.push(Action::Read(Reading::Answer));
        out.push(Action::Learn { ticket, facts });
        if self.held.len() >= MAX_HELD || self.max_hold == 0 {
            out.push(Action::Read(Reading::Unheld));
            return go_on(punt, out);
        }
        self.held.push_back(Held { ticket, since: now_ms, punt });
    }

    /// What an answer said is in force: the answer goes on, if it has not yet.
    pub(crate) fn learned(&mut self, ticket: u64) -> Vec<Action> {
        self.under_way = self.under_way.saturating_sub(1);
        let mut out = Vec::new();
        let place = self.held.iter().position(|held| held.ticket == ticket);
        if let Some(held) = place.and_then(|place| self.held.remove(place)) {
            go_on(held.punt, &mut out);
        }
        out
    }

    /// Answers that have waited long enough go on; what is over is forgotten.
    pub(crate) fn expire(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        self.questions.expire(now_ms);
        self.streams.expire(now_ms);
        let waited = |held: &Held| now_ms.saturating_sub(held.since) >= self.max_hold;
        while let Some(late) = self.held.pop_front_if(|held| waited(held)) {
            out.push(Action::Read(Reading::Late));
            go_on(late.punt, out);
        }
    }

    fn said(&mut self, now_ms: u64, punt: &Punt) -> Said {
        let Request::Dns { conversation, from_client, .. } = &punt.request else {
            return Said::Nothing(Reading::Malformed);
        };
        let Some(view) = IpView::parse(punt.packet()).filter(|view| view.part.is_none()) else {
            return Said::Nothing(Reading::Malformed);
        };
        match view.protocol {
            UDP => {
                let message = view.payload().get(UDP_LEN..).unwrap_or_default();
                self.message(now_ms, message, conversation, *from_client)
            }
            TCP => {
                let (streams, segment) = (&mut self.streams, view.payload());
                match streams.take(now_ms, conversation, *from_client, segment) {
                    Some(messages) => self.messages(now_ms, &messages, conversation, *from_client),
                    None => Said::Nothing(Reading::Malformed),
                }
            }
            _ => Said::Nothing(Reading::Malformed),
        }
    }

    /// The messages that a segment completes; most complete none, or one.
    fn messages(
        &mut self,
        now_ms: u64,
        messages: &[Vec<u8>],
        conversation: &FlowTuple,
        from_client: bool,
    ) -> Said {
        let mut all = Vec::new();
        let mut reading = Reading::Other;
        for message in messages {
            match self.message(now_ms, message, conversation, from_client) {
                Said::Facts(facts) => all.extend(facts),
                Said::Nothing(what) => reading = what,
            }
        }
        if all.is_empty() { Said::Nothing(reading) } else { Said::Facts(all) }
    }

    fn message(
        &mut self,
        now_ms: u64,
        message: &[u8],
        conversation: &FlowTuple,
        from_client: bool,
    ) -> Said {
        if from_client {
            let Some(question) = message::question(message) else {
                return Said::Nothing(Reading::Other);
            };
            self.questions.note(now_ms, *conversation, question);
            return Said::Nothing(Reading::Question);
        }
        match message::answer(message) {
            None => Said::Nothing(Reading::Malformed),
            Some((question, _)) if !self.questions.has(conversation, &question) => {
                Said::Nothing(Reading::Unasked)
            }
            Some((_, facts)) if facts.is_empty() => Said::Nothing(Reading::Other),
            Some((_, facts)) => Said::Facts(facts),
        }
    }
}

/// The packet goes on as it came; it is not to come back for being read.
fn go_on(punt: Punt, out: &mut Vec<Action>) {
    let Punt { ingress, frame, past, .. } = punt;
    let again = Injection::Again { ingress, frame, past: Past { read: true, ..past } };
    out.push(Action::Inject(PuntReason::Dns, again));
    out.push(Action::Consumed(PuntReason::Dns));
}
