//! A connection's record: which word means what, and how a key is compared with it.
//!
//! Each direction has a line of its own, so that two workers that carry the two directions do not
//! write to one line. The words have the same place in both families:
//!
//! ```text
//! word  IPv4 line                        IPv6 line
//! 0     source | destination             unused
//! 1     sport | dport | zone | protocol | marks and state
//! 2     new source | new destination     unused
//! 3     new sport | new dport | last seen (32 bits)
//! 4     decision: generation | action
//! 5     conntrack
//! 6     packets (40 bits) | rule (24 bits)
//! 7     bytes; link of a list while the record is in none of the states a reader accepts
//! ```
//!
//! Between an IPv6 record's two lines lies a third with both directions' addresses, which nobody
//! writes after publication: source and destination of Orig, then of Reply (two words each). The
//! rewrite of one direction is the reverse of the other's key, so it needs no place of its own.
//!
//! Words 0 to 2 and the new ports are constant while the record is LIVE, but for the marks, to which
//! some may be added. The others are written
//! by whoever carries a packet of that direction, with plain loads and stores: two workers that
//! carry packets of one direction at the same instant may lose one of two counts, nothing else.

use super::key::{Key, Words, pack_v4, unpack, unpack_v4};
use super::layout::{LINES_V4, LINES_V6};
use super::region::Line;
use crate::addr::{Addr, Tuple};
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Dir {
    /// That of its first packet.
    Orig = 0,
    /// That of the answers.
    Reply = 1,
}

/// Names a record and one of its directions. Stays good until the holder's next quiescent point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u64);

/// One direction of a connection, readable and writable.
#[derive(Clone, Copy)]
pub struct FlowRef<'t> {
    own: &'t Line,
    other: &'t Line,
    /// The line with an IPv6 record's addresses; `own` for IPv4.
    addresses: &'t Line,
    id: FlowId,
}

/// What was decided about a direction: an action (the engine's word for it) and the generation of
/// the snapshot it was decided by. Read and written as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamped {
    /// Generation of the snapshot; 0 is never valid.
    pub generation: u32,
    /// The action.
    pub action: u32,
}

/// Addresses and ports that a packet of a direction leaves with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port or ICMP query identifier.
    pub src_port: u16,
    /// Destination port or ICMP answer identifier.
    pub dst_port: u16,
}

/// A record's life: FREE → PENDING → LIVE → DYING → FREE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum State {
    /// In a free list or never used.
    Free = 0,
    /// Its keys are being entered: readers ignore it, inserters of the same keys respect it.
    Pending = 1,
    /// A connection.
    Live = 2,
    /// Taken out; waits until nobody can hold it.
    Dying = 3,
}

/// Marks that an inserter may give a record: five bits of the engine's own.
pub const MARKS: u8 = 0b1_1111;

pub(super) const META: usize = 1;
const PORTS_SEEN: usize = 3;
const DECISION: usize = 4;
const CONNTRACK: usize = 5;
const COUNT: usize = 6;
/// Bytes; link of a list in a dead record's Orig line, stamp of its death in the Reply line.
pub(super) const LINK: usize = 7;

const STATE_MASK: u64 = 0b11;
const ONE_WAY: u64 = 0b100;
const MARKS_SHIFT: u32 = 3;
/// The bits of word 1 that a key decides.
const KEY_MASK: u64 = !0xff;
/// Both ports, in the words that have them.
const PORTS_MASK: u64 = !0xffff_ffff;
const RULE_MASK: u64 = (1 << 24) - 1;

const ID_DIR: u64 = 1 << 32;
const ID_V6: u64 = 1 << 33;

// === impl FlowId ===

impl FlowId {
    /// Bits that an id occupies.
    pub(super) const MASK: u64 = (1 << 34) - 1;

    pub(super) fn new(line: u32, v6: bool) -> Self {
        Self(u64::from(line) | if v6 { ID_V6 } else { 0 })
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits & Self::MASK)
    }

    /// A number that is unique among the live flows; good as a name in a listing.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The direction.
    pub fn dir(self) -> Dir {
        if self.0 & ID_DIR == 0 { Dir::Orig } else { Dir::Reply }
    }

    /// The same record, in direction `dir`.
    #[must_use]
    pub fn with_dir(self, dir: Dir) -> Self {
        Self(self.0 & !ID_DIR | if dir == Dir::Reply { ID_DIR } else { 0 })
    }

    pub(super) fn is_v6(self) -> bool {
        self.0 & ID_V6 != 0
    }

    /// Numbers of the lines that a packet of the direction is compared with: its own, and that with the
    /// addresses, which IPv4 has in its own.
    #[inline]
    pub(super) fn lines(self) -> [u32; 2] {
        let span = if self.is_v6() { LINES_V6 } else { LINES_V4 };
        let own = if self.dir() == Dir::Orig { self.line() } else { self.line() + span - 1 };
        let addresses = if self.is_v6() { self.line() + 1 } else { own };
        [own, addresses]
    }

    /// Line number of the Orig line.
    pub(super) fn line(self) -> u32 {
        self.0 as u32
    }
}

impl std::fmt::Debug for FlowId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.is_v6() { 6 } else { 4 };
        write!(f, "flow{family}#{}.{:?}", self.line(), self.dir())
    }
}

// === impl FlowRef ===

impl<'t> FlowRef<'t> {
    /// `None` only if the id is of another table.
    #[inline]
    pub(super) fn new(lines: &'t [Line], id: FlowId) -> Option<Self> {
        let span = if id.is_v6() { LINES_V6 } else { LINES_V4 };
        let record = lines.get(id.line() as usize..)?.get(..span as usize)?;
        let (orig, reply) = (record.first()?, record.last()?);
        let (own, other) = if id.dir() == Dir::Orig { (orig, reply) } else { (reply, orig) };
        let addresses = if id.is_v6() { record.get(1)? } else { own };
        Some(Self { own, other, addresses, id })
    }

    /// Its name.
    pub fn id(&self) -> FlowId {
        self.id
    }

    /// The direction.
    pub fn dir(&self) -> Dir {
        self.id.dir()
    }

    /// The other direction. Of a cached denial nothing but its tuple and its rule has a meaning,
    /// and the tuple is no key.
    #[must_use]
    pub fn peer(&self) -> Self {
        let dir = if self.dir() == Dir::Orig { Dir::Reply } else { Dir::Orig };
        let addresses = if self.id.is_v6() { self.addresses } else { self.other };
        Self { own: self.other, other: self.own, addresses, id: self.id.with_dir(dir) }
    }

    /// Whether this is a cached denial: one direction, no connection.
    pub fn is_denial(&self) -> bool {
        self.meta() & ONE_WAY != 0
    }

    /// The marks it was inserted with or has been given since.
    pub fn marks(&self) -> u8 {
        (self.meta() as u8) >> MARKS_SHIFT
    }

    /// Gives the connection further marks, within [`MARKS`]. Both directions have them for whatever
    /// the caller does next; a record that is being taken out may be without.
    pub fn add_marks(&self, marks: u8) {
        let bits = u64::from(marks & MARKS) << MARKS_SHIFT;
        for line in [self.own, self.other] {
            line.0[META].fetch_or(bits, AcqRel);
        }
    }

    /// The key: what packets of this direction carry when they arrive.
    pub fn tuple(&self) -> Tuple {
        let (src, dst) = self.addresses(self.dir());
        unpack(src, dst, self.meta())
    }

    /// What packets of this direction carry when they leave: the reverse of the peer's key. Of a
    /// cached denial it has no meaning.
    #[inline(always)] // Measured: called, both `self` and the result go through memory.
    pub fn rewrite(&self) -> Rewrite {
        let ports = self.word(PORTS_SEEN);
        let (src, dst) = if self.id.is_v6() {
            let (answer_src, answer_dst) = self.addresses(self.peer().dir());
            (answer_dst, answer_src)
        } else {
            unpack_v4(self.word(2))
        };
        Rewrite { src, dst, src_port: (ports >> 48) as u16, dst_port: (ports >> 32) as u16 }
    }

    /// What was decided.
    #[inline]
    pub fn decision(&self) -> Stamped {
        Stamped::from_bits(self.word(DECISION))
    }

    /// Caches a decision.
    #[inline]
    pub fn set_decision(&self, decision: Stamped) {
        self.own.0[DECISION].store(decision.bits(), Relaxed);
    }

    /// The conntrack code's word for this direction.
    #[inline]
    pub fn conntrack(&self) -> u64 {
        self.word(CONNTRACK)
    }

    /// Writes the conntrack code's word for this direction.
    #[inline]
    pub fn set_conntrack(&self, word: u64) {
        self.own.0[CONNTRACK].store(word, Relaxed);
    }

    /// The number of the rule that decided this direction's first packet at its endpoint; the
    /// engine keeps the source's (egress) in Orig, the destination's (ingress) in Reply.
    pub fn rule(&self) -> u32 {
        (self.word(COUNT) & RULE_MASK) as u32
    }

    /// Sets the rule's number, of which 24 bits are kept.
    pub fn set_rule(&self, rule: u32) {
        let count = self.word(COUNT) & !RULE_MASK;
        self.own.0[COUNT].store(count | u64::from(rule) & RULE_MASK, Relaxed);
    }

    /// Counts a packet of `bytes` bytes at time `now`.
    #[inline]
    pub fn touch(&self, now: u32, bytes: u32) {
        let seen = self.word(PORTS_SEEN) >> 32 << 32;
        self.own.0[PORTS_SEEN].store(seen | u64::from(now), Relaxed);
        let count = self.word(COUNT).wrapping_add(1 << 24);
        self.own.0[COUNT].store(count, Relaxed);
        let total = self.word(LINK).wrapping_add(u64::from(bytes));
        self.own.0[LINK].store(total, Relaxed);
    }

    /// Counts packets that somebody else carried (the shortcut), last at time `now`.
    pub fn touch_many(&self, now: u32, packets: u64, bytes: u64) {
        let seen = self.word(PORTS_SEEN) >> 32 << 32;
        self.own.0[PORTS_SEEN].store(seen | u64::from(now), Relaxed);
        self.own.0[COUNT].store(self.word(COUNT).wrapping_add(packets << 24), Relaxed);
        self.own.0[LINK].store(self.word(LINK).wrapping_add(bytes), Relaxed);
    }

    /// Packets of this direction (40 bits, wrapping).
    #[inline]
    pub fn packets(&self) -> u64 {
        self.word(COUNT) >> 24
    }

    /// Bytes of this direction.
    pub fn bytes(&self) -> u64 {
        self.word(LINK)
    }

    /// When the last packet of this direction came, or when the record was made.
    pub fn last_seen(&self) -> u32 {
        self.word(PORTS_SEEN) as u32
    }

    /// Ticks since the last packet of either direction. A time slightly ahead of `now` (another
    /// worker's) counts as 0.
    pub fn idle(&self, now: u32) -> u32 {
        let since = |seen: u32| (now.wrapping_sub(seen) as i32).max(0) as u32;
        since(self.last_seen()).min(since(self.peer().last_seen()))
    }

    /// Whether either direction's key names the address: that of a client, of a service, of a
    /// backend.
    pub fn touches(&self, addr: Addr) -> bool {
        let names = |tuple: Tuple| tuple.src == addr || tuple.dst == addr;
        names(self.tuple()) || (!self.is_denial() && names(self.peer().tuple()))
    }

    fn meta(&self) -> u64 {
        self.word(META)
    }

    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.own.0[index].load(Relaxed)
    }

    fn addresses(&self, dir: Dir) -> (Addr, Addr) {
        if !self.id.is_v6() {
            return unpack_v4(self.word(0));
        }
        self.words_v6(dir).addresses()
    }

    /// Source and destination of a direction of IPv6.
    #[inline]
    pub(super) fn words_v6(&self, dir: Dir) -> [u64; 4] {
        let at = if dir == Dir::Orig { 0 } else { 4 };
        [0, 1, 2, 3].map(|i| self.addresses.0[at + i].load(Relaxed))
    }

    // --- the table's own side

    #[inline]
    pub(super) fn state(&self) -> State {
        state_of(self.own.0[META].load(Acquire))
    }

    /// Whether this direction's key is `key` and its state at least `lowest` and alive.
    #[inline]
    pub(super) fn matches(&self, key: &Key, accept: State) -> bool {
        let meta = self.own.0[META].load(Acquire);
        if (meta ^ key.meta) & KEY_MASK != 0 || !accepted(state_of(meta), accept) {
            return false;
        }
        if !self.id.is_v6() {
            return key.v4 && self.word(0) == key.words_v4;
        }
        self.words_v6(self.dir()) == key.words
    }

    /// Whether it is live and has these ports, zone and protocol.
    #[inline]
    pub(super) fn is_live_with(&self, meta: u64) -> bool {
        let own = self.own.0[META].load(Acquire);
        (own ^ meta) & KEY_MASK == 0 && state_of(own) == State::Live
    }

    /// Addresses of an IPv4 flow's packets as they arrive, and as they leave.
    #[inline]
    pub(super) fn arriving_v4(&self) -> u64 {
        self.word(0)
    }

    #[inline]
    pub(super) fn leaving_v4(&self) -> u64 {
        self.word(2)
    }

    /// A key's word 1 with the ports that packets of this direction leave with.
    #[inline]
    pub(super) fn rewritten_meta(&self, meta: u64) -> u64 {
        self.word(PORTS_SEEN) & PORTS_MASK | meta & !PORTS_MASK
    }

    /// Fills a record that nobody else can see; both lines end PENDING. `self` is its Orig.
    pub(super) fn fill(&self, new: &NewFlow) {
        let reply = new.reply.or(new.answers).unwrap_or(new.orig.reversed());
        let one_way = if new.reply.is_none() { ONE_WAY } else { 0 };
        let flags = one_way | u64::from(new.marks & MARKS) << MARKS_SHIFT | State::Pending as u64;
        self.fill_line(&new.orig, &reply, new, Dir::Orig, flags);
        self.peer().fill_line(&reply, &new.orig, new, Dir::Reply, flags);
    }

    fn fill_line(&self, key: &Tuple, answer: &Tuple, new: &NewFlow, dir: Dir, flags: u64) {
        let set = |line: &Line, i: usize, word: u64| line.0[i].store(word, Relaxed);
        let packed = Key::new(key);
        if self.id.is_v6() {
            let at = if dir == Dir::Orig { 0 } else { 4 };
            for (i, word) in packed.words.iter().enumerate() {
                set(self.addresses, at + i, *word);
            }
        } else {
            set(self.own, 0, packed.words_v4);
            set(self.own, 2, pack_v4(answer.dst, answer.src));
        }
        let ports = u64::from(answer.dst_port) << 48 | u64::from(answer.src_port) << 32;
        set(self.own, PORTS_SEEN, ports | u64::from(new.now));
        set(self.own, DECISION, new.decisions[dir as usize].bits());
        set(self.own, CONNTRACK, new.conntrack[dir as usize]);
        set(self.own, COUNT, u64::from(new.rules[dir as usize]) & RULE_MASK);
        set(self.own, LINK, 0);
        // Release: whoever finds the state here also finds the words above.
        self.own.0[META].store(packed.meta | flags, Release);
    }

    /// Makes a PENDING record LIVE. The Orig line comes last, because its state is the one that
    /// [`FlowRef::kill`] takes: a record is never taken out before it is wholly in.
    pub(super) fn publish(&self) {
        let (orig, reply) = self.both();
        reply.set_state(State::Live);
        orig.set_state(State::Live);
    }

    /// LIVE → DYING, for one caller only; false for all others.
    pub(super) fn kill(&self) -> bool {
        let (orig, reply) = self.both();
        // A LIVE line's word 1 is written by killers and by who gives marks: where another killer
        // won, it is LIVE no more.
        let dying = |meta| match state_of(meta) {
            State::Live => Some(meta & !STATE_MASK | State::Dying as u64),
            _ => None,
        };
        if orig.own.0[META].fetch_update(Release, Acquire, dying).is_err() {
            return false;
        }
        reply.set_state(State::Dying);
        true
    }

    /// Changes the state of both lines of a record that only the caller may change.
    pub(super) fn set_states(&self, state: State) {
        let (orig, reply) = self.both();
        orig.set_state(state);
        reply.set_state(state);
    }

    fn set_state(&self, state: State) {
        let meta = self.own.0[META].load(Relaxed) & !STATE_MASK | state as u64;
        self.own.0[META].store(meta, Release);
    }

    fn both(&self) -> (Self, Self) {
        if self.dir() == Dir::Orig { (*self, self.peer()) } else { (self.peer(), *self) }
    }

    pub(super) fn orig(&self) -> Self {
        self.both().0
    }

    pub(super) fn reply(&self) -> Self {
        self.both().1
    }

    /// Word 7 of this direction's line, while the record is dead.
    pub(super) fn link(&self) -> u64 {
        self.own.0[LINK].load(Relaxed)
    }

    /// Writes word 7 of this direction's line, while the record is dead.
    pub(super) fn set_link(&self, word: u64) {
        self.own.0[LINK].store(word, Relaxed);
    }
}

fn accepted(state: State, accept: State) -> bool {
    state == State::Live || (accept == State::Pending && state == State::Pending)
}

fn state_of(meta: u64) -> State {
    match meta & STATE_MASK {
        0 => State::Free,
        1 => State::Pending,
        2 => State::Live,
        _ => State::Dying,
    }
}

// === impl Stamped ===

impl Stamped {
    fn bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.action)
    }

    fn from_bits(bits: u64) -> Self {
        Self { generation: (bits >> 32) as u32, action: bits as u32 }
    }
}

/// What to insert.
#[derive(Clone, Copy, Debug)]
pub struct NewFlow {
    /// Key of the first packet's direction.
    pub orig: Tuple,
    /// Key of the answers' direction; `None` makes a cached denial, which has one direction.
    pub reply: Option<Tuple>,
    /// Of a cached denial: what answers would have carried, for those who list it. It is no key,
    /// and of the family of `orig`.
    pub answers: Option<Tuple>,
    /// Now.
    pub now: u32,
    /// Decisions for Orig and Reply.
    pub decisions: [Stamped; 2],
    /// Conntrack words of Orig and Reply.
    pub conntrack: [u64; 2],
    /// Rule numbers of Orig and Reply.
    pub rules: [u32; 2],
    /// Marks, within [`MARKS`], for the connection's life.
    pub marks: u8,
}

impl NewFlow {
    /// A connection without decisions, marks and rules.
    pub fn connection(orig: Tuple, reply: Tuple, now: u32) -> Self {
        let none = Stamped::default();
        let decisions = [none; 2];
        Self {
            orig,
            reply: Some(reply),
            answers: None,
            now,
            decisions,
            conntrack: [0; 2],
            rules: [0; 2],
            marks: 0,
        }
    }

    /// A cached denial, without rules.
    pub fn denial(orig: Tuple, now: u32, decision: Stamped) -> Self {
        let decisions = [decision, Stamped::default()];
        Self { reply: None, decisions, ..Self::connection(orig, orig, now) }
    }

    /// Whether the record has to be of the IPv6 kind.
    pub(super) fn is_v6(&self) -> bool {
        !(self.orig.is_v4() && self.reply.is_none_or(|reply| reply.is_v4()))
    }
}
