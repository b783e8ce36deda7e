//! The shortcut's bookkeeping: approves what workers mention, and keeps its connections in the flow
//! table alive and counted.
//!
//! An approval is for one generation. When another is put in force, which happens before the workers
//! hear of it, all approvals are void at once; the connections come back to the workers, which judge
//! them anew and mention them again if they are still allowed and busy.
//!
//! While the daemon is dead its approvals hold on: what was allowed by the last state stays allowed,
//! and nothing new can be. The successor puts its own program and empty maps in the place of the old
//! ones on every pod's interface before it has anything in force, and so begins without any.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use margay_engine::shortcut::{self, Leg, Legs};
use margay_engine::snapshot::Adjacency;
use margay_engine::{PortId, Snapshot};
use margay_model::flow::FlowTuple;
use margay_tables::addr::Tuple;
use margay_tables::flow::{FlowTable, FlowWorker};
use margay_worker::{Mentions, clock};
use margay_xsk::program::{Approval, Cover, Moved, Passage, ProgramError, Shortcut as Maps};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::bell::Bell;
use crate::ports::Traffic;

/// A mention waits so long for others: connections are that much longer with the workers.
const LISTEN: Duration = Duration::from_millis(20);
/// How often what was moved is brought into the flow table.
const COLLECT: Duration = Duration::from_millis(60);
/// Mentions of one direction within one [`LISTEN`] that make a connection a busy one: there were as many
/// packets between two of them as the engine leaves, whereas those of a question and its answer may
/// meet however slow they follow each other.
const BUSY: u32 = 2;
/// A connection that moved fewer packets than [`STAYS`] within so many milliseconds goes back to the
/// workers: there is room for few, and it is for those that need it.
const WINDOW_MS: u32 = 1000;
/// See [`WINDOW_MS`].
const STAYS: u64 = 64;
/// Connections that are approved after one [`LISTEN`]: whoever opens and leaves many busy ones keeps
/// nobody busy here.
const AT_ONCE: usize = 128;
/// Connections at one time; each has at most two passages.
const MOST: usize = Maps::PASSAGES / 2;
/// Of these, so many that have one: whoever sends what nobody answers leaves room for others.
const MOST_ALONE: usize = MOST / 2;

/// What others may see of the shortcut.
pub(crate) struct Shortcut {
    maps: Maps,
    force: Mutex<Force>,
    /// The connections in it, by the tuple of their first packet.
    open: Mutex<HashMap<Tuple, Connection>>,
}

/// Which approvals hold. Three parties have a say, each at any time.
#[derive(Clone, Copy, Debug, Default)]
struct Force {
    /// The generation that is in force.
    generation: u32,
    /// Whether somebody wants the workers to see everything.
    held: bool,
    /// Whether there are any: without, the kernel need not look for a packet's.
    used: bool,
}

/// The task.
pub(crate) struct Bookkeeper {
    pub(crate) shared: Arc<Shortcut>,
    pub(crate) mentions: Arc<Mentions>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// A guest at the table, so that what is looked at is not used again meanwhile.
    pub(crate) guest: FlowWorker,
}

/// A connection in the shortcut.
struct Connection {
    generation: u32,
    /// The snapshot whose next hops its ways were last seen to fit.
    seen: Weak<[Adjacency]>,
    /// The directions that were approved.
    legs: Vec<Open>,
    /// When the present window began, and the packets moved in it.
    since: u32,
    moved: u64,
}

/// A direction, and what of it is in the flow table already.
struct Open {
    leg: Leg,
    passage: Passage,
    packets: u64,
    bytes: u64,
}

// === impl Shortcut ===

impl Shortcut {
    /// Nothing is approved yet.
    pub(crate) fn new(maps: Maps) -> Self {
        Self { maps, force: Mutex::default(), open: Mutex::default() }
    }

    /// Makes all approvals for other generations void.
    pub(crate) fn put_in_force(&self, generation: u32) -> Result<(), ProgramError> {
        self.change(|force| force.generation = generation)
    }

    /// Sends everything to the workers for as long as it is held.
    pub(crate) fn hold(&self, held: bool) -> Result<(), ProgramError> {
        self.change(|force| force.held = held)
    }

    /// Has the kernel look for passages, if there are any.
    fn use_if(&self, used: bool) -> Result<(), ProgramError> {
        if self.force.lock().unwrap_or_else(PoisonError::into_inner).used == used {
            return Ok(());
        }
        self.change(|force| force.used = used)
    }

    /// Under the lock, so that the kernel hears last what holds last: an older generation that came
    /// back would allow what a newer one forbids.
    fn change(&self, change: impl FnOnce(&mut Force)) -> Result<(), ProgramError> {
        let mut force = self.force.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut force);
        self.maps.set_generation(force.approvals())
    }

    fn is_held(&self) -> bool {
        self.force.lock().unwrap_or_else(PoisonError::into_inner).held
    }

    /// What has been moved in and out at a port.
    pub(crate) fn traffic(&self, port: PortId) -> Traffic {
        // An array's values can always be read.
        self.maps.port(port.0).unwrap_or_default()
    }

    /// Segments that were dropped on their way into it.
    pub(crate) fn lost(&self) -> u64 {
        // The same.
        self.maps.lost().unwrap_or_default()
    }

    /// How many connections are in it.
    pub(crate) fn connections(&self) -> usize {
        self.lock().len()
    }

    /// The connections in it, by the tuple of their first packet.
    pub(crate) fn tuples(&self) -> HashSet<FlowTuple> {
        self.lock().keys().map(|tuple| FlowTuple::from(*tuple)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Tuple, Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Force ===

impl Force {
    /// The generation that approvals are good for; 0, which none is made for, while it is held or
    /// there are none.
    fn approvals(self) -> u32 {
        if self.held || !self.used { 0 } else { self.generation }
    }
}

// === impl Bookkeeper ===

impl Bookkeeper {
    /// Runs until the control task is gone. Where nothing is mentioned and nothing open, it sleeps.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let bell = Bell::new(&self.mentions)?;
        let [mut listen, mut collect] = [LISTEN, COLLECT].map(interval);
        for ticks in [&mut listen, &mut collect] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        self.guest.sleep();
        let mut more = false;
        loop {
            tokio::select! {
                rung = bell.rung(), if !more => {
                    rung?;
                    listen.reset();
                    more = true;
                }
                _ = listen.tick(), if more => {
                    self.guest.quiesce();
                    more = self.listen().unwrap_or_else(|error| {
                        warn!(error = &error as &dyn Error, "cannot approve a connection");
                        true
                    });
                }
                _ = collect.tick(), if self.shared.connections() > 0 => {
                    self.guest.quiesce();
                    self.collect();
                }
                changed = self.snapshots.changed() => if changed.is_err() {
                    return Ok(());
                }
            }
            self.guest.sleep();
        }
    }

    /// Approves the busy ones among the connections that were mentioned; whether there may be more
    /// of them.
    fn listen(&self) -> Result<bool, ProgramError> {
        let snapshot = self.snapshots.borrow().clone();
        let (heard, more) = self.hear(&snapshot);
        if self.shared.is_held() {
            return Ok(more);
        }
        let mut open = self.shared.lock();
        let mut alone = open.values().filter(|connection| connection.legs.len() == 1).count();
        let mut room = AT_ONCE;
        for (legs, busy) in heard {
            if let Some(old) = open.get_mut(&legs.tuple) {
                if old.generation == snapshot.generation && old.is_within(&legs) {
                    // Datagrams that are answered by now.
                    let more = legs.legs.iter().filter(|leg| !old.has(leg));
                    old.legs.extend(self.approve(more, snapshot.generation)?);
                    continue;
                }
                if let Some(old) = open.remove(&legs.tuple) {
                    self.close(&legs.tuple, old);
                }
            }
            let full = open.len() >= MOST || legs.legs.len() == 1 && alone >= MOST_ALONE;
            // From now on the workers see a part of its segments.
            if !busy || room == 0 || full || !shortcut::take(self.guest.table(), &legs.tuple) {
                continue;
            }
            room -= 1;
            let opened = self.approve(&legs.legs, snapshot.generation)?;
            if !opened.is_empty() {
                debug!(tuple = ?legs.tuple, "a connection takes the shortcut");
                alone += usize::from(opened.len() == 1);
                open.insert(legs.tuple, Connection::new(opened, &snapshot));
            }
        }
        self.shared.use_if(!open.is_empty()).map(|()| more)
    }

    /// What of the connections that were mentioned may take the shortcut, those that are answered first, and
    /// whether they are busy; and whether more may have been mentioned.
    fn hear(&self, snapshot: &Snapshot) -> (Vec<(Legs, bool)>, bool) {
        let mut heard: HashMap<Tuple, ([u32; 2], Legs)> = HashMap::new();
        let mut more = true;
        // Bounded, lest more come than are taken.
        for _ in 0..self.mentions.capacity() {
            let Some(tuple) = self.mentions.pop() else {
                more = false;
                break;
            };
            if let Some(legs) = shortcut::legs(snapshot, self.guest.table(), &tuple) {
                let (times, legs) = heard.entry(legs.tuple).or_insert(([0; 2], legs));
                times[usize::from(tuple != legs.tuple)] += 1;
            }
        }
        let is_busy = |times: [u32; 2]| times.iter().any(|times| *times >= BUSY);
        let mut heard: Vec<_> =
            heard.into_values().map(|(times, legs)| (legs, is_busy(times))).collect();
        heard.sort_by_key(|(legs, _)| legs.legs.len() == 1);
        (heard, more)
    }

    /// Opens the passages of all legs, or none: one may still be there of an earlier connection.
    fn approve<'l>(
        &self,
        legs: impl IntoIterator<Item = &'l Leg>,
        generation: u32,
    ) -> Result<Vec<Open>, ProgramError> {
        let mut opened: Vec<Open> = Vec::new();
        for leg in legs {
            let (source, destination) = leg.ends();
            let (protocol, ifindex) = (leg.tuple.protocol, leg.from_index);
            let passage = Passage { source, destination, protocol, ifindex };
            let approved = match approval(leg, generation) {
                Some(approval) => self.shared.maps.approve(passage, approval),
                None => Ok(false),
            };
            if !matches!(approved, Ok(true)) {
                for Open { passage, .. } in opened {
                    self.shared.maps.close(passage)?;
                }
                return approved.map(|_| Vec::new());
            }
            opened.push(Open { leg: *leg, passage, packets: 0, bytes: 0 });
        }
        Ok(opened)
    }

    /// Brings what was moved into the flow table, and gives back to the workers what is quiet, ends,
    /// or was approved for a generation that is over, and all of it while the shortcut is held.
    fn collect(&self) {
        let snapshot = self.snapshots.borrow().clone();
        let (now, held) = (clock::now(), self.shared.is_held());
        let mut over = Vec::new();
        let mut open = self.shared.lock();
        for (tuple, connection) in open.iter_mut() {
            let table = self.guest.table();
            let mut good = !held
                && connection.generation == snapshot.generation
                && connection.fits(&snapshot, table, tuple);
            for leg in &mut connection.legs {
                good &= shortcut::holds(table, tuple, &leg.leg);
                let moved = self.shared.maps.moved(leg.passage).ok().flatten().unwrap_or_default();
                // The program itself has closed it when it saw an end.
                good &= moved.generation == connection.generation;
                connection.moved += leg.note(table, moved, now);
            }
            if now.wrapping_sub(connection.since) > WINDOW_MS {
                good &= connection.moved >= STAYS;
                (connection.since, connection.moved) = (now, 0);
            }
            if !good {
                over.push(*tuple);
            }
        }
        for tuple in over {
            if let Some(connection) = open.remove(&tuple) {
                self.close(&tuple, connection);
            }
        }
        if let Err(error) = self.shared.use_if(!open.is_empty()) {
            warn!(%error, "the kernel looks for passages where there are none");
        }
    }

    fn close(&self, tuple: &Tuple, mut connection: Connection) {
        let now = clock::now();
        for leg in &mut connection.legs {
            match self.shared.maps.close(leg.passage) {
                Ok(moved) => {
                    leg.note(self.guest.table(), moved.unwrap_or_default(), now);
                }
                // Nothing moves through it when its generation is over.
                Err(error) => warn!(%error, "cannot close a passage of the shortcut"),
            }
        }
        debug!(?tuple, "a connection is back with the workers");
    }
}

/// What the program is to do with a direction; `None` for headers that it does not know.
fn approval(leg: &Leg, generation: u32) -> Option<Approval> {
    let expected = match &leg.expected {
        Some(expected) => Some(Cover::new(expected.as_bytes())?),
        None => None,
    };
    Some(Approval {
        generation,
        ifindex: leg.to_index,
        to_uplink: leg.to_uplink,
        cover: Cover::new(leg.cover.as_bytes())?,
        expected,
        identification: leg.identification,
        mtu: leg.mtu,
        from: leg.from.0,
        to: leg.to.0,
        translated: leg.translated_ends(),
    })
}

// === impl Connection ===

impl Connection {
    fn new(legs: Vec<Open>, snapshot: &Snapshot) -> Self {
        let seen = Arc::downgrade(&snapshot.adjacencies);
        Self { generation: snapshot.generation, seen, legs, since: clock::now(), moved: 0 }
    }

    /// Whether the ways that were approved are still those of the next hops: neighbours and paths
    /// change without another generation.
    fn fits(&mut self, snapshot: &Snapshot, table: &FlowTable, tuple: &Tuple) -> bool {
        let now = Arc::downgrade(&snapshot.adjacencies);
        if self.seen.ptr_eq(&now) {
            return true;
        }
        self.seen = now;
        shortcut::legs(snapshot, table, tuple).is_some_and(|legs| self.is_within(&legs))
    }

    /// Whether what was approved is approved of still.
    fn is_within(&self, legs: &Legs) -> bool {
        self.legs.iter().all(|open| legs.legs.contains(&open.leg))
    }

    fn has(&self, leg: &Leg) -> bool {
        self.legs.iter().any(|open| open.leg == *leg)
    }
}

// === impl Open ===

impl Open {
    /// Counts in the flow table what was moved since the last time; how many packets.
    fn note(&mut self, table: &FlowTable, moved: Moved, now: u32) -> u64 {
        let packets = moved.packets.saturating_sub(self.packets);
        let bytes = moved.bytes.saturating_sub(self.bytes);
        if packets == 0 {
            return 0;
        }
        (self.packets, self.bytes) = (moved.packets, moved.bytes);
        if let Some(flow) = table.lookup(&self.leg.tuple, table.hash(&self.leg.tuple)) {
            flow.touch_many(now, packets, bytes);
        }
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_let_go_with_the_generation_that_came_meanwhile() {
        let mut force = Force { generation: 7, held: false, used: true };
        assert_eq!(force.approvals(), 7);
        force.held = true;
        assert_eq!(force.approvals(), 0);
        force.generation = 8;
        assert_eq!(force.approvals(), 0, "a new generation does not end the hold");
        force.held = false;
        assert_eq!(force.approvals(), 8);
        force.used = false;
        assert_eq!(force.approvals(), 0, "nothing is looked for where nothing is");
    }
}
