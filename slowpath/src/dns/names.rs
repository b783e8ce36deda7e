//! What was learned: which addresses names have, for how long, and to which sets that makes them
//! members.
//!
//! Everything follows from the names' addresses and the sets' patterns: an address is a *current*
//! member of a set while a name that the set's patterns match has it, and a *lapsed* one afterwards,
//! for as long as there are connections to it ([`Names::let_go`]). Names that no set wants are
//! remembered too, within bounds of their own: the policy that names them may come a moment later.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use margay_model::{DomainName, DomainPattern, SetId};

use super::message::Fact;

/// Seconds that an address is allowed at least: a program that looked a name up has to get to use
/// what it found, also where records are valid for no time at all.
pub const MIN_TTL: u32 = 10;
/// Seconds that an address is allowed at most, before the grace that the settings add.
pub const MAX_TTL: u32 = 24 * 60 * 60;

/// Bounds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Names that sets want; further ones are refused.
    pub wanted: usize,
    /// Other names; the oldest make room.
    pub others: usize,
    /// Addresses of a wanted name; those that would end first make room.
    pub addresses: usize,
    /// Addresses of another name, likewise.
    pub addresses_of_others: usize,
    /// Addresses of all names together; further ones are refused.
    pub total: usize,
    /// Addresses of one set; further ones are refused.
    pub members: usize,
}

/// What is known of an address as a member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Membership {
    /// It is a member.
    Current,
    /// It is a member for connections that are there.
    Lapsed,
    /// It is none.
    Gone,
}

/// A membership that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The set.
    pub set: SetId,
    /// The address.
    pub addr: IpAddr,
    /// What it is now.
    pub membership: Membership,
}

/// An address of a name, as it is shown and saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameView {
    /// The name.
    pub name: DomainName,
    /// The address.
    pub addr: IpAddr,
    /// Milliseconds of the clock at which it lapses, or did.
    pub until: u64,
    /// The sets that want the name.
    pub sets: Vec<SetId>,
}

/// The memory. Times are milliseconds of one clock, which never goes back.
#[derive(Debug, Default)]
pub struct Names {
    limits: Limits,
    /// Seconds that are added to each lifetime.
    grace: u32,
    names: BTreeMap<DomainName, Known>,
    /// Names that no set wanted when they came, the oldest first.
    others: VecDeque<DomainName>,
    wanted: usize,
    by_addr: HashMap<IpAddr, BTreeSet<DomainName>>,
    /// When which address of which name lapses.
    ends: BTreeSet<(u64, IpAddr, DomainName)>,
    patterns: BTreeMap<SetId, BTreeSet<DomainPattern>>,
    /// What was told, as far as it is not gone.
    told: HashMap<IpAddr, BTreeMap<SetId, Membership>>,
    members: HashMap<SetId, usize>,
    refused: u64,
    /// What an earlier process knew has come, and the sets that want it have not: none of it is too
    /// much, and nothing of it ends.
    restoring: bool,
}

#[derive(Debug, Default)]
struct Known {
    addresses: BTreeMap<IpAddr, u64>,
    sets: Vec<SetId>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wanted: 16_384,
            others: 2_048,
            addresses: 1_024,
            addresses_of_others: 32,
            total: 1 << 17,
            members: 65_536,
        }
    }
}

// === impl Names ===

impl Names {
    /// A memory with other bounds than the usual ones.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Sets how many seconds are added to what records say, from now on.
    pub fn set_grace(&mut self, seconds: u32) {
        self.grace = seconds;
    }

    /// Names and addresses that found no room since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Replaces the patterns of a set; none at all end it.
    pub fn set_patterns(
        &mut self,
        now_ms: u64,
        set: &SetId,
        patterns: &BTreeSet<DomainPattern>,
    ) -> Vec<Change> {
        let same = match self.patterns.get(set) {
            Some(old) => old == patterns,
            None => patterns.is_empty(),
        };
        if same {
            return Vec::new();
        }
        if patterns.is_empty() {
            self.patterns.remove(set);
        } else {
            self.patterns.insert(set.clone(), patterns.clone());
        }
        let mut touched = BTreeSet::new();
        for (name, known) in &mut self.names {
            let (was, is) = (known.sets.contains(set), wants(patterns, name));
            if was == is {
                continue;
            }
            let others = known.sets.len() - usize::from(was);
            known.sets.retain(|other| other != set);
            known.sets.extend(is.then(|| set.clone()));
            match (others, is) {
                (0, true) => self.wanted += 1,
                (0, false) => {
                    self.wanted -= 1;
                    self.others.push_back(name.clone());
                }
                _ => {}
            }
            touched.extend(known.addresses.keys().copied());
        }
        let changes = self.settle(now_ms, touched);
        self.make_room();
        changes
    }

    /// Learns what an answer says.
    pub fn learn(&mut self, now_ms: u64, facts: &[Fact]) -> Vec<Change> {
        let (mut touched, mut replaced) = (BTreeSet::new(), BTreeSet::new());
        for Fact { name, addr, ttl } in facts {
            let seconds = u64::from((*ttl).clamp(MIN_TTL, MAX_TTL)) + u64::from(self.grace);
            replaced.extend(self.note(name, *addr, now_ms + seconds * 1_000));
            touched.insert(*addr);
        }
        // What makes room goes before what takes it.
        let mut changes = self.settle(now_ms, replaced);
        changes.extend(self.settle(now_ms, touched));
        self.make_room();
        changes
    }

    /// Learns again what an earlier process knew; to be called before there are sets. Bounds of what
    /// no set wants hold from [`Names::restored`] on.
    pub fn restore(&mut self, name: &DomainName, addr: IpAddr, until: u64) {
        self.restoring = true;
        self.note(name, addr, until);
    }

    /// The sets are there: what none of them wants is brought within its bounds.
    pub fn restored(&mut self) {
        if !std::mem::take(&mut self.restoring) {
            return;
        }
        self.others.retain(|name| self.names.get(name).is_some_and(|known| known.sets.is_empty()));
        let mut surplus = Vec::new();
        for name in &self.others {
            let Some(known) = self.names.get(name) else { continue };
            let mut by_end: Vec<_> =
                known.addresses.iter().map(|(a, until)| (*until, *a)).collect();
            by_end.sort_unstable();
            let most = self.limits.addresses_of_others;
            by_end.truncate(by_end.len().saturating_sub(most));
            surplus.extend(by_end.into_iter().map(|(_, addr)| (name.clone(), addr)));
        }
        for (name, addr) in surplus {
            self.forget(&name, addr);
        }
        self.make_room();
    }

    /// Memberships that time has changed.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Change> {
        if self.restoring {
            return Vec::new();
        }
        let mut touched = BTreeSet::new();
        while let Some((_, addr, name)) = self.ends.first().filter(|(end, ..)| *end <= now_ms) {
            let (addr, name) = (*addr, name.clone());
            self.ends.pop_first();
            touched.insert(addr);
            // Nobody was allowed by it: there is nothing to wait for.
            if self.names.get(&name).is_some_and(|known| known.sets.is_empty()) {
                self.forget(&name, addr);
            }
        }
        self.settle(now_ms, touched)
    }

    /// Addresses that are no current member of any set and have not been let go.
    pub fn lapsed(&self) -> BTreeSet<IpAddr> {
        let lapsed = |sets: &BTreeMap<SetId, Membership>| {
            sets.values().all(|membership| *membership == Membership::Lapsed)
        };
        self.told.iter().filter(|(_, sets)| lapsed(sets)).map(|(addr, _)| *addr).collect()
    }

    /// Lets go of lapsed addresses that no connection has any more.
    pub fn let_go(&mut self, now_ms: u64, unused: &BTreeSet<IpAddr>) -> Vec<Change> {
        for addr in unused {
            for name in self.by_addr.get(addr).cloned().unwrap_or_default() {
                let until = self.names.get(&name).and_then(|known| known.addresses.get(addr));
                if until.is_some_and(|until| *until <= now_ms) {
                    self.forget(&name, *addr);
                }
            }
        }
        self.settle(now_ms, unused.iter().copied())
    }

    /// Forgets everything.
    pub fn clear(&mut self, now_ms: u64) -> Vec<Change> {
        let touched: Vec<_> = self.told.keys().copied().collect();
        self.names.clear();
        self.others.clear();
        self.by_addr.clear();
        self.ends.clear();
        self.wanted = 0;
        self.settle(now_ms, touched)
    }

    /// Everything that is known, by name.
    pub fn iter(&self) -> impl Iterator<Item = NameView> {
        self.names.iter().flat_map(|(name, known)| {
            known.addresses.iter().map(|(addr, until)| NameView {
                name: name.clone(),
                addr: *addr,
                until: *until,
                sets: known.sets.clone(),
            })
        })
    }

    /// Notes that a name has an address, for as long as the longest that was said of it; the
    /// address that makes room for it, if one has to.
    fn note(&mut self, name: &DomainName, addr: IpAddr, until: u64) -> Option<IpAddr> {
        if !self.names.contains_key(name) && !self.admit(name) {
            self.refused += 1;
            return None;
        }
        let known = self.names.get_mut(name)?;
        let old = known.addresses.get(&addr).copied();
        if old.is_some_and(|old| old >= until) {
            return None;
        }
        if old.is_none() && self.ends.len() >= self.limits.total {
            self.refused += 1;
            if known.addresses.is_empty() {
                self.discard(name);
                self.others.retain(|other| other != name);
            }
            return None;
        }
        known.addresses.insert(addr, until);
        let Limits { addresses, addresses_of_others, .. } = self.limits;
        let unwanted = known.sets.is_empty() && !self.restoring;
        let most = if unwanted { addresses_of_others } else { addresses };
        let soonest = (known.addresses.len() > most)
            .then(|| known.addresses.iter().min_by_key(|(_, until)| **until).map(|(a, _)| *a));
        if let Some(old) = old {
            self.ends.remove(&(old, addr, name.clone()));
        }
        self.ends.insert((until, addr, name.clone()));
        self.by_addr.entry(addr).or_default().insert(name.clone());
        let soonest = soonest.flatten()?;
        self.refused += 1;
        self.forget(name, soonest);
        Some(soonest)
    }

    /// Takes a new name in; `false` where there is no room for it.
    fn admit(&mut self, name: &DomainName) -> bool {
        let wanting = self.patterns.iter().filter(|(_, patterns)| wants(patterns, name));
        let sets: Vec<_> = wanting.map(|(set, _)| set.clone()).collect();
        if sets.is_empty() {
            self.others.push_back(name.clone());
        } else if self.wanted >= self.limits.wanted {
            return false;
        } else {
            self.wanted += 1;
        }
        self.names.insert(name.clone(), Known { addresses: BTreeMap::new(), sets });
        true
    }

    /// Forgets names that nobody wants where there are too many.
    fn make_room(&mut self) {
        while !self.restoring && self.others.len() > self.limits.others {
            let Some(name) = self.others.pop_front() else { return };
            let unwanted = self.names.get(&name).filter(|known| known.sets.is_empty());
            let addresses: Vec<_> =
                unwanted.iter().flat_map(|k| k.addresses.keys()).copied().collect();
            for addr in addresses {
                self.forget(&name, addr);
            }
        }
    }

    /// Forgets an address of a name, and the name with its last one.
    fn forget(&mut self, name: &DomainName, addr: IpAddr) {
        let Some(known) = self.names.get_mut(name) else { return };
        if let Some(until) = known.addresses.remove(&addr) {
            self.ends.remove(&(until, addr, name.clone()));
        }
        if known.addresses.is_empty() {
            self.discard(name);
        }
        if let Some(names) = self.by_addr.get_mut(&addr) {
            names.remove(name);
            if names.is_empty() {
                self.by_addr.remove(&addr);
            }
        }
    }

    /// Forgets a name that has no address.
    fn discard(&mut self, name: &DomainName) {
        if self.names.remove(name).is_some_and(|known| !known.sets.is_empty()) {
            self.wanted -= 1;
        }
    }

    /// What these addresses are members of now, as far as it differs from what was told.
    fn settle(&mut self, now_ms: u64, addrs: impl IntoIterator<Item = IpAddr>) -> Vec<Change> {
        let mut changes = Vec::new();
        for addr in addrs {
            let is = self.memberships(now_ms, addr);
            let was = self.told.remove(&addr).unwrap_or_default();
            for set in was.keys().filter(|set| !is.contains_key(*set)) {
                self.count(set, false);
                changes.push(Change { set: set.clone(), addr, membership: Membership::Gone });
            }
            let mut told = BTreeMap::new();
            for (set, membership) in is {
                let known = was.get(&set).copied();
                if known.is_none() && !self.count(&set, true) {
                    self.refused += 1;
                    continue;
                }
                if known != Some(membership) {
                    changes.push(Change { set: set.clone(), addr, membership });
                }
                told.insert(set, membership);
            }
            if !told.is_empty() {
                self.told.insert(addr, told);
            }
        }
        changes
    }

    /// The sets that an address is a member of by the names that have it.
    fn memberships(&self, now_ms: u64, addr: IpAddr) -> BTreeMap<SetId, Membership> {
        let mut is = BTreeMap::new();
        for name in self.by_addr.get(&addr).into_iter().flatten() {
            let Some(known) = self.names.get(name) else { continue };
            let current = known.addresses.get(&addr).is_some_and(|until| *until > now_ms);
            let membership = if current { Membership::Current } else { Membership::Lapsed };
            for set in &known.sets {
                // What is current by one name has not lapsed by another.
                let of_set = is.entry(set.clone()).or_insert(membership);
                *of_set = membership.min(*of_set);
            }
        }
        is
    }

    /// Counts a member of a set in or out; `false` where a set has no room.
    fn count(&mut self, set: &SetId, join: bool) -> bool {
        let count = self.members.entry(set.clone()).or_insert(0);
        if join && *count >= self.limits.members {
            return false;
        }
        *count = if join { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.members.remove(set);
        }
        true
    }
}

fn wants(patterns: &BTreeSet<DomainPattern>, name: &DomainName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}
