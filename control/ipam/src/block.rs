//! One block: who has which of its addresses. Pure; the record is written by others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use margay_resources::v3::{AllocationAttribute, IpamBlockSpec};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::names::{self, Owner};

/// What is noted about an address: pod, namespace, node, type, timestamp.
pub type Attributes = BTreeMap<String, String>;

/// A block whose record was found sound.
///
/// Invariants: `allocations` has one entry an address; an entry is the index of an attribute or
/// nothing; an address without entry, and no other, is in `unallocated`, once.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    cidr: IpNet,
    spec: IpamBlockSpec,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allocation {
    /// The address.
    pub ip: IpAddr,
    /// The block it lies in.
    pub block: IpNet,
    /// Who the block belongs to.
    pub owner: Option<Owner>,
    /// The handle it was assigned under.
    pub handle: Option<String>,
    /// What is noted about it.
    pub attributes: Attributes,
    /// Distinguishes this assignment of the address from an earlier or later one.
    pub sequence: u64,
}

/// What the one who gives an address back believes about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected<'a> {
    /// The handle, if it is known.
    pub handle: Option<&'a str>,
    /// The sequence number, if it is known.
    pub sequence: Option<u64>,
}

// === impl Block: making and reading ===

impl Block {
    /// A block with nothing in use.
    pub fn new(cidr: IpNet, owner: &Owner, now: Timestamp) -> Self {
        let size = usize::try_from(names::size(cidr)).unwrap_or(usize::MAX);
        let nanoseconds = u64::try_from(now.as_nanosecond()).unwrap_or_default();
        let spec = IpamBlockSpec {
            cidr: cidr.to_string(),
            affinity: Some(owner.to_string()),
            affinity_claim_time: Some(now.to_string()),
            allocations: vec![None; size],
            unallocated: (0_i64..).take(size).collect(),
            // Not 0: the block may have existed before, and numbers must not return.
            sequence_number: nanoseconds,
            ..IpamBlockSpec::default()
        };
        Self { cidr, spec }
    }

    /// Takes a record as it was read.
    ///
    /// # Errors
    /// `Damaged` when it breaks the invariants of a block.
    pub fn from_spec(spec: IpamBlockSpec) -> Result<Self, Error> {
        let damaged = |reason: &str| Error::Damaged {
            kind: "IPAMBlock",
            name: spec.cidr.clone(),
            reason: reason.to_owned(),
        };
        let cidr: IpNet = spec.cidr.parse().map_err(|_| damaged("spec.cidr is no network"))?;
        let size = u128::try_from(spec.allocations.len()).unwrap_or(u128::MAX);
        if size != names::size(cidr) || cidr.trunc() != cidr {
            return Err(damaged("spec.allocations has not one entry for each address"));
        }
        let attributes = spec.attributes.len();
        let is_known = |index: &i64| usize::try_from(*index).is_ok_and(|i| i < attributes);
        if !spec.allocations.iter().flatten().all(is_known) {
            return Err(damaged("spec.allocations names an attribute that is not there"));
        }
        let free: BTreeSet<i64> = spec.unallocated.iter().copied().collect();
        let unused = (0_i64..).zip(&spec.allocations).filter(|(_, entry)| entry.is_none());
        let is_unique = free.len() == spec.unallocated.len();
        if !is_unique || !unused.map(|(ordinal, _)| ordinal).eq(free) {
            return Err(damaged("spec.unallocated is not the list of free addresses"));
        }
        Ok(Self { cidr, spec })
    }

    /// The record, with the next sequence number.
    pub fn to_spec(&self) -> IpamBlockSpec {
        let mut spec = self.spec.clone();
        spec.sequence_number = spec.sequence_number.saturating_add(1);
        spec
    }

    /// The addresses.
    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// Who it belongs to.
    pub fn owner(&self) -> Option<Owner> {
        Owner::of_affinity(self.spec.affinity.as_deref()?)
    }

    /// Takes the block away from its owner, or gives it to one.
    pub fn set_owner(&mut self, owner: Option<&Owner>, now: Timestamp) {
        self.spec.affinity = owner.map(ToString::to_string);
        self.spec.affinity_claim_time = owner.map(|_| now.to_string());
    }

    /// When the owner came by it, as far as that is known.
    pub fn claimed_at(&self) -> Option<Timestamp> {
        self.spec.affinity_claim_time.as_deref()?.parse().ok()
    }

    /// Somebody is about to delete the record.
    pub fn is_being_deleted(&self) -> bool {
        self.spec.deleted
    }

    /// Number of addresses.
    pub fn size(&self) -> usize {
        self.spec.allocations.len()
    }

    /// Number of free addresses.
    pub fn free(&self) -> usize {
        self.spec.unallocated.len()
    }

    /// Whether no address is in use.
    pub fn is_empty(&self) -> bool {
        self.free() == self.size()
    }

    /// The addresses in use, in order.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation> + '_ {
        let used = (0_u128..).zip(&self.spec.allocations);
        used.filter_map(|(ordinal, entry)| {
            let attribute = self.attribute((*entry)?)?;
            Some(Allocation {
                ip: names::address_at(self.cidr, ordinal),
                block: self.cidr,
                owner: self.owner(),
                handle: attribute.handle_id.clone(),
                attributes: attribute.active_owner.clone().unwrap_or_default(),
                sequence: self.sequence_of(ordinal),
            })
        })
    }

    /// How an address of the block is used, nothing if it is free or not in the block.
    pub fn allocation(&self, ip: IpAddr) -> Option<Allocation> {
        self.allocations().find(|allocation| allocation.ip == ip)
    }

    fn attribute(&self, index: i64) -> Option<&AllocationAttribute> {
        self.spec.attributes.get(usize::try_from(index).ok()?)
    }

    fn sequence_of(&self, ordinal: u128) -> u64 {
        let numbers = &self.spec.sequence_number_for_allocation;
        numbers.get(&ordinal.to_string()).copied().unwrap_or_default()
    }
}

// === impl Block: taking ===

impl Block {
    /// Takes up to `count` free addresses, the one that was freed first first, but none that
    /// `is_reserved`, and none that was freed less than `cooldown` ago.
    pub fn take_next(
        &mut self,
        count: usize,
        handle: Option<&str>,
        attributes: &Attributes,
        is_reserved: impl Fn(IpAddr) -> bool,
        cooldown: (Duration, Timestamp),
    ) -> Vec<IpAddr> {
        let mut taken = Vec::new();
        let mut left = Vec::with_capacity(self.spec.unallocated.len());
        for ordinal in std::mem::take(&mut self.spec.unallocated) {
            let address = self.address(ordinal);
            let fits = taken.len() < count
                && !address.is_none_or(&is_reserved)
                && !self.is_cooling(ordinal, cooldown);
            match address {
                Some(address) if fits => taken.push((ordinal, address)),
                _ => left.push(ordinal),
            }
        }
        self.spec.unallocated = left;
        for (ordinal, _) in &taken {
            self.enter(*ordinal, handle, attributes);
        }
        taken.into_iter().map(|(_, address)| address).collect()
    }

    /// Takes a given address.
    ///
    /// # Errors
    /// `Taken`; `NotInPool` if it is not in the block.
    pub fn take(
        &mut self,
        ip: IpAddr,
        handle: Option<&str>,
        attributes: &Attributes,
    ) -> Result<(), Error> {
        let ordinal = self.ordinal(ip).ok_or(Error::NotInPool(ip))?;
        let free = &mut self.spec.unallocated;
        let at = free.iter().position(|o| *o == ordinal).ok_or(Error::Taken(ip))?;
        free.remove(at);
        self.enter(ordinal, handle, attributes);
        Ok(())
    }

    fn enter(&mut self, ordinal: i64, handle: Option<&str>, attributes: &Attributes) {
        let attribute = AllocationAttribute {
            handle_id: handle.map(str::to_owned),
            active_owner: Some(attributes.clone()),
            alternate_owner: None,
        };
        let known = self.spec.attributes.iter().position(|a| *a == attribute);
        let index = known.unwrap_or_else(|| {
            self.spec.attributes.push(attribute);
            self.spec.attributes.len() - 1
        });
        let entry = usize::try_from(ordinal).ok().and_then(|o| self.spec.allocations.get_mut(o));
        if let Some(entry) = entry {
            *entry = i64::try_from(index).ok();
        }
        let numbers = &mut self.spec.sequence_number_for_allocation;
        numbers.insert(ordinal.to_string(), self.spec.sequence_number);
        self.set_released_at(ordinal, None);
    }

    fn address(&self, ordinal: i64) -> Option<IpAddr> {
        Some(names::address_at(self.cidr, u128::try_from(ordinal).ok()?))
    }

    fn ordinal(&self, ip: IpAddr) -> Option<i64> {
        i64::try_from(names::offset_of(self.cidr, ip)?).ok()
    }

    fn is_cooling(&self, ordinal: i64, (cooldown, now): (Duration, Timestamp)) -> bool {
        let released = self.spec.released_at.as_ref().and_then(|at| at.get(ordinal.to_string()));
        let released = released.and_then(Value::as_str).and_then(|text| text.parse().ok());
        released.is_some_and(|at: Timestamp| now.duration_since(at).unsigned_abs() < cooldown)
    }

    fn set_released_at(&mut self, ordinal: i64, at: Option<Timestamp>) {
        let mut times = match self.spec.released_at.take() {
            Some(Value::Object(times)) => times,
            _ => Map::new(),
        };
        match at {
            Some(at) => times.insert(ordinal.to_string(), at.to_string().into()),
            None => times.remove(&ordinal.to_string()),
        };
        self.spec.released_at = (!times.is_empty()).then_some(Value::Object(times));
    }
}

// === impl Block: giving back ===

impl Block {
    /// Gives an address back. Nothing happens if it is free already. `cooling` is the time of the
    /// release where a cooldown is configured.
    ///
    /// # Errors
    /// `WrongHandle`, `WrongSequence`: it belongs to somebody else now.
    pub fn release(
        &mut self,
        ip: IpAddr,
        expected: Expected<'_>,
        cooling: Option<Timestamp>,
    ) -> Result<Option<Allocation>, Error> {
        let Some(found) = self.allocation(ip) else { return Ok(None) };
        let handle = found.handle.as_deref().unwrap_or_default();
        if let Some(expected) = expected.handle.filter(|expected| *expected != handle) {
            let (expected, found) = (expected.to_owned(), handle.to_owned());
            return Err(Error::WrongHandle { ip, expected, found });
        }
        if expected.sequence.is_some_and(|expected| expected != found.sequence) {
            return Err(Error::WrongSequence(ip));
        }
        self.leave(ip, cooling);
        Ok(Some(found))
    }

    /// Gives back all addresses of a handle, and returns them.
    pub fn release_handle(&mut self, handle: &str, cooling: Option<Timestamp>) -> Vec<Allocation> {
        let is_its = |a: &Allocation| a.handle.as_deref() == Some(handle);
        let found: Vec<Allocation> = self.allocations().filter(is_its).collect();
        for allocation in &found {
            self.leave(allocation.ip, cooling);
        }
        found
    }

    fn leave(&mut self, ip: IpAddr, cooling: Option<Timestamp>) {
        let Some(ordinal) = self.ordinal(ip) else { return };
        let entry = usize::try_from(ordinal).ok().and_then(|o| self.spec.allocations.get_mut(o));
        let Some(index) = entry.and_then(Option::take) else { return };
        self.spec.unallocated.push(ordinal);
        self.spec.sequence_number_for_allocation.remove(&ordinal.to_string());
        self.set_released_at(ordinal, cooling);
        if !self.spec.allocations.contains(&Some(index)) {
            self.drop_attribute(index);
        }
    }

    /// Removes an attribute that no address has any more; those behind it move up.
    fn drop_attribute(&mut self, index: i64) {
        let Ok(at) = usize::try_from(index) else { return };
        if at < self.spec.attributes.len() {
            self.spec.attributes.remove(at);
        }
        for entry in self.spec.allocations.iter_mut().flatten() {
            if *entry > index {
                *entry -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const NO_COOLDOWN: (Duration, Timestamp) = (Duration::ZERO, NOW);

    fn block(cidr: &str) -> Block {
        Block::new(cidr.parse().unwrap(), &Owner::host("n"), NOW)
    }

    fn next(block: &mut Block, count: usize, handle: &str) -> Vec<String> {
        let taken =
            block.take_next(count, Some(handle), &Attributes::new(), |_| false, NO_COOLDOWN);
        taken.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_come_in_order_and_the_one_freed_first_returns_first() {
        let mut block = block("10.0.0.0/30");
        assert_eq!(next(&mut block, 3, "a"), ["10.0.0.0", "10.0.0.1", "10.0.0.2"]);
        for ip in ["10.0.0.2", "10.0.0.0"] {
            block.release(ip.parse().unwrap(), Expected::default(), None).unwrap();
        }
        assert_eq!(next(&mut block, 9, "b"), ["10.0.0.3", "10.0.0.2", "10.0.0.0"]);
        assert_eq!(block.free(), 0);
    }

    #[test]
    fn a_reserved_or_cooling_address_stays_free() {
        let mut block = block("fd00::/126");
        let ip: IpAddr = "fd00::1".parse().unwrap();
        block.take(ip, Some("a"), &Attributes::new()).unwrap();
        let later = Timestamp::from_second(100).unwrap();
        block.release(ip, Expected::default(), Some(later)).unwrap();
        let reserved: IpAddr = "fd00::".parse().unwrap();
        let cooldown = (Duration::from_secs(60), Timestamp::from_second(130).unwrap());
        let attributes = Attributes::new();
        let taken = block.take_next(9, None, &attributes, |ip| ip == reserved, cooldown);
        assert_eq!(taken, ["fd00::2".parse::<IpAddr>().unwrap(), "fd00::3".parse().unwrap()]);
        let cooldown = (Duration::from_secs(60), Timestamp::from_second(170).unwrap());
        assert_eq!(block.take_next(9, None, &attributes, |ip| ip == reserved, cooldown), [ip]);
    }

    #[test]
    fn an_address_in_use_is_not_taken_again() {
        let mut block = block("10.0.0.0/30");
        let ip = "10.0.0.2".parse().unwrap();
        block.take(ip, Some("a"), &Attributes::new()).unwrap();
        let again = block.take(ip, Some("b"), &Attributes::new());
        assert!(matches!(again, Err(Error::Taken(_))));
        let outside = block.take("10.0.0.4".parse().unwrap(), None, &Attributes::new());
        assert!(matches!(outside, Err(Error::NotInPool(_))));
    }

    #[test]
    fn only_who_has_an_address_gives_it_back() {
        let mut block = block("10.0.0.0/30");
        let ip = "10.0.0.1".parse().unwrap();
        block.take(ip, Some("a"), &Attributes::new()).unwrap();
        let sequence = block.allocation(ip).unwrap().sequence;
        let other = Expected { handle: Some("b"), sequence: None };
        assert!(matches!(block.release(ip, other, None), Err(Error::WrongHandle { .. })));
        let old = Expected { handle: Some("a"), sequence: Some(sequence + 1) };
        assert!(matches!(block.release(ip, old, None), Err(Error::WrongSequence(_))));
        let right = Expected { handle: Some("a"), sequence: Some(sequence) };
        assert!(block.release(ip, right, None).unwrap().is_some());
        assert!(block.release(ip, right, None).unwrap().is_none());
        assert!(block.is_empty());
    }

    #[test]
    fn a_sequence_number_tells_two_assignments_of_an_address_apart() {
        let mut first = block("10.0.0.0/32");
        next(&mut first, 1, "a");
        let ip = "10.0.0.0".parse().unwrap();
        let old = first.allocation(ip).unwrap().sequence;
        let mut second = Block::from_spec(first.to_spec()).unwrap();
        second.release_handle("a", None);
        let mut third = Block::from_spec(second.to_spec()).unwrap();
        next(&mut third, 1, "a");
        assert_ne!(third.allocation(ip).unwrap().sequence, old);
    }

    #[test]
    fn damaged_records_are_refused() {
        let good = block("10.0.0.0/30").to_spec();
        assert!(Block::from_spec(good.clone()).is_ok());
        let damage: [fn(&mut IpamBlockSpec); 6] = [
            |s| s.cidr = "10.0.0.1/30".into(),
            |s| s.cidr = "x".into(),
            |s| s.allocations.truncate(3),
            |s| s.allocations[0] = Some(0),
            |s| s.unallocated = vec![0, 0, 1, 2],
            |s| s.unallocated[0] = -1,
        ];
        for (number, damage) in damage.into_iter().enumerate() {
            let mut spec = good.clone();
            damage(&mut spec);
            assert!(Block::from_spec(spec).is_err(), "damage {number}");
        }
    }

    proptest! {
        /// Against a map from address to handle, whatever happens in whatever order.
        #[test]
        fn a_block_agrees_with_a_plain_map(steps in prop::collection::vec((0_u8..4, 0_u8..20, 0_u8..5), 0..80)) {
            let mut block = block("10.0.0.0/28");
            let mut model: BTreeMap<IpAddr, String> = BTreeMap::new();
            for (kind, number, who) in steps {
                let handle = format!("h{who}");
                let ip: IpAddr = format!("10.0.0.{number}").parse().unwrap();
                let attributes = Attributes::from([("pod".to_owned(), format!("p{}", who / 2))]);
                match kind {
                    0 => for ip in block.take_next(who.into(), Some(&handle), &attributes, |_| false, NO_COOLDOWN) {
                        prop_assert!(model.insert(ip, handle.clone()).is_none());
                    },
                    1 => if block.take(ip, Some(&handle), &attributes).is_ok() {
                        prop_assert!(model.insert(ip, handle).is_none());
                    },
                    2 => if block.release(ip, Expected { handle: Some(&handle), sequence: None }, None).is_ok_and(|a| a.is_some()) {
                        prop_assert_eq!(model.remove(&ip), Some(handle));
                    },
                    _ => {
                        let released = block.release_handle(&handle, None).len();
                        let before = model.len();
                        model.retain(|_, h| *h != handle);
                        prop_assert_eq!(before - model.len(), released);
                    }
                }
                block = Block::from_spec(block.to_spec()).expect("stays sound");
                let found: BTreeMap<IpAddr, String> = block.allocations().map(|a| (a.ip, a.handle.unwrap())).collect();
                prop_assert_eq!(&found, &model);
                let distinct: BTreeSet<_> = block.spec.allocations.iter().flatten().collect();
                prop_assert_eq!(distinct.len(), block.spec.attributes.len());
            }
        }
    }
}
