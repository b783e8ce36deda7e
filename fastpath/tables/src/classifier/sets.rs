//! All address sets, both ways: what a set contains, and which sets an address is in.

use hashbrown::HashMap;
use margay_model::{AddressSet, Member, SetId};
use smallvec::SmallVec;

use super::facts::Standing;
use crate::addr::Addr;
use crate::cow::{CowMap, CowVec};
use crate::ipset::{AddrPort, Element, IpSet};
use crate::lpm::Lpm;

/// Numbers of sets.
pub(super) type SetNumbers = SmallVec<[u32; 6]>;

/// The sets by number. Cloning shares.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    sets: CowVec<IpSet>,
    by_addr: CowMap<Addr, SetNumbers>,
    by_net: Lpm<SetNumbers>,
    by_port: CowMap<AddrPort, SetNumbers>,
    /// The sets that an address was learned for.
    learned: CowMap<Addr, SmallVec<[(u32, Standing); 2]>>,
}

/// Gives sets their numbers.
#[derive(Debug, Default)]
pub(super) struct SetBook {
    numbers: HashMap<SetId, u32>,
}

// === impl Sets ===

impl Sets {
    #[inline]
    pub(super) fn contains_addr(&self, set: u32, addr: Addr) -> bool {
        self.sets.get(set as usize).is_some_and(|set| set.contains_addr(addr))
    }

    /// The same where learned addresses count; `established` where those count too that have
    /// lapsed.
    #[inline]
    pub(super) fn has_or_learned(&self, set: u32, addr: Addr, established: bool) -> bool {
        self.contains_addr(set, addr)
            || self
                .learned_by(addr)
                .iter()
                .any(|(by, standing)| *by == set && (*standing == Standing::Current || established))
    }

    #[inline]
    pub(super) fn contains_addr_port(&self, set: u32, (addr, protocol, port): AddrPort) -> bool {
        let set = self.sets.get(set as usize);
        set.is_some_and(|set| set.contains_addr_port(addr, protocol, port))
    }

    /// The sets that have the address as a member of its own; those with a network around it are
    /// given by [`Sets::around`].
    #[inline]
    pub(super) fn of_addr(&self, addr: Addr) -> &[u32] {
        self.by_addr.get(&addr).map_or(&[], |sets| sets)
    }

    /// The sets with a network that the address lies in; a set may come more than once.
    #[inline]
    pub(super) fn around(&self, addr: Addr) -> impl Iterator<Item = &[u32]> {
        self.by_net.matches(addr).map(|(sets, _)| &sets[..])
    }

    /// The sets that the address was learned for, be it current or lapsed.
    #[inline]
    pub(super) fn learned_by(&self, addr: Addr) -> &[(u32, Standing)] {
        if self.learned.is_empty() {
            return &[];
        }
        self.learned.get(&addr).map_or(&[], |sets| sets)
    }

    /// The sets that have the triple.
    #[inline]
    pub(super) fn of_port(&self, port: AddrPort) -> &[u32] {
        self.by_port.get(&port).map_or(&[], |sets| sets)
    }

    /// Notes what is known of a learned address now.
    fn learn(&mut self, set: u32, addr: Addr, standing: Standing) {
        let Some(list) = self.learned.entry(addr, SmallVec::new) else { return };
        list.retain(|(other, _)| *other != set);
        if standing != Standing::Unknown {
            list.push((set, standing));
        }
        if list.is_empty() {
            self.learned.remove(&addr);
        }
    }

    fn change(&mut self, set: u32, element: Element, join: bool) {
        let Some(members) = self.sets.get_mut(set as usize) else { return };
        if join && members.insert(element) {
            if let Some(list) = self.list(element) {
                list.push(set);
            }
        } else if !join && members.remove(element) {
            self.leave(set, element);
        }
    }

    fn list(&mut self, element: Element) -> Option<&mut SetNumbers> {
        match element {
            Element::Addr(addr) => self.by_addr.entry(addr, SetNumbers::new),
            Element::Net(net) => self.by_net.entry(net, SetNumbers::new),
            Element::Port(port) => self.by_port.entry(port, SetNumbers::new),
        }
    }

    fn leave(&mut self, set: u32, element: Element) {
        let Some(list) = self.list(element) else { return };
        if let Some(at) = list.iter().position(|other| *other == set) {
            list.swap_remove(at);
        }
        if list.is_empty() {
            match element {
                Element::Addr(addr) => drop(self.by_addr.remove(&addr)),
                Element::Net(net) => drop(self.by_net.remove(net)),
                Element::Port(port) => drop(self.by_port.remove(&port)),
            }
        }
    }
}

// === impl SetBook ===

impl SetBook {
    /// A set's number. A set that nobody has described yet is empty; a name keeps its number for
    /// good, so that rules need no change when a set comes and goes.
    pub(super) fn number(&mut self, sets: &mut Sets, id: &SetId) -> u32 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = sets.sets.len() as u32;
        sets.sets.push(IpSet::default());
        self.numbers.insert(id.clone(), number);
        number
    }

    /// Replaces a set's members; costs as much as differs, besides one look at each member.
    pub(super) fn replace(&mut self, sets: &mut Sets, id: &SetId, new: &AddressSet) {
        let number = self.number(sets, id);
        let new_set = IpSet::from(new);
        let Some(old) = sets.sets.get(number as usize).cloned() else { return };
        for element in old.iter().filter(|element| !new_set.has(*element)) {
            sets.change(number, element, false);
        }
        for element in new_set.iter() {
            sets.change(number, element, true);
        }
    }

    /// Changes members. A member that leaves and joins is in.
    pub(super) fn change(
        &mut self,
        sets: &mut Sets,
        id: &SetId,
        add: &[Member],
        remove: &[Member],
    ) {
        let number = self.number(sets, id);
        for member in remove {
            sets.change(number, (*member).into(), false);
        }
        for member in add {
            sets.change(number, (*member).into(), true);
        }
    }

    /// Notes what is known of an address that was learned for a name of the set.
    pub(super) fn learn(&mut self, sets: &mut Sets, id: &SetId, addr: Addr, standing: Standing) {
        let number = self.number(sets, id);
        sets.learn(number, addr, standing);
    }

    /// Empties a set; what was learned for its names is taken back by who learned it.
    pub(super) fn remove(&mut self, sets: &mut Sets, id: &SetId) {
        self.replace(sets, id, &AddressSet::default());
        // What it took when it was large is given back.
        if let Some(set) = self.numbers.get(id).and_then(|n| sets.sets.get_mut(*n as usize)) {
            *set = IpSet::default();
        }
    }
}
