//! Which connections use up a limit: a list of them that is looked through when it is full, as the
//! kernel's `nf_conncount` keeps one.
//!
//! Nobody tells a roster that a connection has ended, so no packet of one costs anything. Who wants a
//! place looks at a few members anyway, which keeps those in bounds that are gone, and at all of them
//! before it is refused. A place is taken before its connection is made: workers that race for the
//! last one cannot both have it.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use crossbeam::queue::SegQueue;
use hashbrown::HashMap;
use margay_tables::flow::FlowId;

use crate::bucket::Bucket;

/// Members that everybody looks at who wants a place: of `n` that are there a quarter more are listed.
const GLANCE: usize = 4;
/// Members that one look at all of them goes through, at most: a millisecond's work.
const LOOK: usize = 1 << 14;
/// Members that are looked at in a second, those of glances aside. Floods of connections that are
/// refused take a tenth of a core with that.
const LOOKS: u64 = 1 << 20;
/// Looks that are paid for together, before they are made.
const STRIDE: usize = 64;

/// The connections of one limit.
#[derive(Debug)]
pub(crate) struct Roster {
    members: SegQueue<Member>,
    /// Places of members, and of those that are about to be.
    taken: AtomicU64,
    /// The number of the next member.
    next: AtomicU64,
    looks: Bucket,
    counted: AtomicBool,
}

/// A connection on a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its record, which may have become another's.
    pub(crate) flow: FlowId,
    /// The hash of its first packet's tuple.
    pub(crate) hash: u64,
    /// Grows from one member to the next.
    number: u64,
}

/// What was seen of members: of several with one record the newest stays. A record that was given to the
/// same tuple again is on the list twice.
#[derive(Default)]
struct Seen {
    newest: HashMap<FlowId, u64>,
    /// Whether an older one was put back before the newer one was seen.
    double: bool,
}

// === impl Roster ===

impl Default for Roster {
    fn default() -> Self {
        Self {
            members: SegQueue::new(),
            taken: AtomicU64::new(0),
            next: AtomicU64::new(0),
            looks: Bucket::policing(LOOKS, LOOK as u64),
            counted: AtomicBool::new(false),
        }
    }
}

impl Roster {
    /// Takes a place, unless `limit` connections have one; `now` in nanoseconds. `is_there` says
    /// whether a member is the connection that it was, and not yet closed.
    pub(crate) fn reserve(&self, limit: u32, now: u64, is_there: impl Fn(&Member) -> bool) -> bool {
        self.glance(&is_there);
        self.take(limit) || self.look(limit, now, &is_there)
    }

    /// Takes a place for a connection that goes on anyway.
    pub(crate) fn reserve_anyway(&self, is_there: impl Fn(&Member) -> bool) {
        self.glance(&is_there);
        self.taken.fetch_add(1, Relaxed);
    }

    /// Gives a place back.
    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Relaxed);
    }

    /// Puts a connection on the place that was taken for it.
    pub(crate) fn occupy(&self, flow: FlowId, hash: u64) {
        let number = self.next.fetch_add(1, Relaxed);
        self.members.push(Member { flow, hash, number });
    }

    /// Looks at all members, however many; how many are there.
    pub(crate) fn count(&self, is_there: impl Fn(&Member) -> bool) -> u64 {
        self.go_through(usize::MAX, &is_there, |_, _| false);
        self.taken.load(Relaxed)
    }

    /// Whether the connections are on it that were there before it.
    pub(crate) fn is_counted(&self) -> bool {
        self.counted.load(Acquire)
    }

    /// Says that they are.
    pub(crate) fn set_counted(&self) {
        self.counted.store(true, Release);
    }

    fn take(&self, limit: u32) -> bool {
        let room = |taken| (taken < u64::from(limit)).then_some(taken + 1);
        self.taken.fetch_update(AcqRel, Relaxed, room).is_ok()
    }

    fn glance(&self, is_there: &impl Fn(&Member) -> bool) {
        for _ in 0..GLANCE {
            let _ = self.sift(is_there, None);
        }
    }

    /// Goes through the members until there is a place, as far as the looks last.
    #[cold]
    fn look(&self, limit: u32, now: u64, is_there: &impl Fn(&Member) -> bool) -> bool {
        let stride = self.members.len().clamp(1, STRIDE);
        let may_go_on = || self.looks.take(now, stride as u64).is_some();
        if !may_go_on() {
            return false;
        }
        let mut found = false;
        self.go_through(LOOK, is_there, |nth, stays| {
            found = !stays && self.take(limit);
            found || nth % stride == 0 && !may_go_on()
        });
        // Somebody else may have found one.
        found || self.take(limit)
    }

    /// Looks at all members, `most` at most, until `enough` says so of the number of looks and whether
    /// the last member stays.
    fn go_through(
        &self,
        most: usize,
        is_there: &impl Fn(&Member) -> bool,
        mut enough: impl FnMut(usize, bool) -> bool,
    ) {
        let mut seen = Seen::default();
        // The second round is for doubles of which the first one met the older first.
        for _ in 0..2 {
            for nth in 1..=self.members.len().min(most) {
                let Some(stays) = self.sift(is_there, Some(&mut seen)) else { return };
                if enough(nth, stays) {
                    return;
                }
            }
            if !seen.double {
                return;
            }
        }
    }

    /// Looks at the member that was not looked at for longest; whether it stays.
    fn sift(&self, is_there: &impl Fn(&Member) -> bool, seen: Option<&mut Seen>) -> Option<bool> {
        let member = self.members.pop()?;
        let stays = seen.is_none_or(|seen| seen.is_newest(&member)) && is_there(&member);
        if stays {
            self.members.push(member);
        } else {
            self.give_back();
        }
        Some(stays)
    }
}

// === impl Seen ===

impl Seen {
    /// Notes a member; whether none with its record is newer.
    fn is_newest(&mut self, member: &Member) -> bool {
        let newest = self.newest.entry(member.flow).or_insert(member.number);
        self.double |= *newest < member.number;
        *newest = member.number.max(*newest);
        *newest == member.number
    }
}

#[cfg(test)]
mod tests;
