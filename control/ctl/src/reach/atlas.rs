//! Which sets and networks of rules an address is in.

use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;
use margay_model::{EntityMatch, Member, Rule, SetId, State};
use margay_tables::{Addr, Lpm, Prefix};

/// A set with address, protocol and port, or a network that rules name.
pub(super) type Mark = u32;

/// A port of an address that is in a set.
pub(super) type PortMark = (Mark, u8, u16);

/// The sets and networks of a cluster's rules, by number.
pub(super) struct Atlas {
    sets: HashMap<SetId, Mark>,
    nets: HashMap<IpNet, Mark>,
    by_addr: HashMap<IpAddr, Vec<Mark>>,
    by_net: Lpm<Vec<Mark>>,
    by_port: HashMap<IpAddr, Vec<PortMark>>,
}

/// A set of marks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Marks(Box<[u64]>);

// === impl Atlas ===

impl Atlas {
    /// Numbers everything that rules of a state name, and more networks that matter.
    pub(super) fn new(state: &State, more: impl Iterator<Item = IpNet>) -> Self {
        let mut atlas = Self {
            sets: HashMap::new(),
            nets: HashMap::new(),
            by_addr: HashMap::new(),
            by_net: Lpm::default(),
            by_port: HashMap::new(),
        };
        for (mark, (id, set)) in (0..).zip(&state.sets) {
            atlas.sets.insert(id.clone(), mark);
            set.members.iter().for_each(|member| atlas.enter(mark, member));
        }
        let rules = state.policies.values().flat_map(|p| p.ingress.iter().chain(&p.egress));
        let nets = rules.flat_map(|rule: &Rule| {
            let ends = [&rule.src, &rule.dst].into_iter();
            ends.flat_map(|end: &EntityMatch| end.nets.iter().chain(&end.not_nets).copied())
        });
        for net in nets.chain(more) {
            let (net, next) = (net.trunc(), (atlas.sets.len() + atlas.nets.len()) as Mark);
            if !atlas.nets.contains_key(&net) {
                atlas.nets.insert(net, next);
                atlas.enter(next, &Member::Net(net));
            }
        }
        atlas
    }

    fn enter(&mut self, mark: Mark, member: &Member) {
        match member {
            Member::AddrPort { addr, protocol, port } => {
                self.by_port.entry(*addr).or_default().push((mark, *protocol, *port));
            }
            Member::Net(net) if net.prefix_len() == net.max_prefix_len() => {
                self.by_addr.entry(net.addr()).or_default().push(mark);
            }
            Member::Net(net) => {
                if let Some(marks) = self.by_net.entry(Prefix::from(*net), Vec::new) {
                    marks.push(mark);
                }
            }
        }
    }

    /// The sets and networks that an address is in.
    pub(super) fn marks(&self, addr: IpAddr) -> Marks {
        let mut words = vec![0; (self.sets.len() + self.nets.len()).div_ceil(64)];
        let around = self.by_net.matches(Addr::from(addr)).flat_map(|(marks, _)| marks);
        for mark in self.by_addr.get(&addr).into_iter().flatten().chain(around) {
            if let Some(word) = words.get_mut(*mark as usize / 64) {
                *word |= 1 << (mark % 64);
            }
        }
        Marks(words.into())
    }

    /// The sets that have a port of an address, ordered.
    pub(super) fn ports(&self, addr: IpAddr) -> Vec<PortMark> {
        let mut ports = self.by_port.get(&addr).cloned().unwrap_or_default();
        ports.sort_unstable();
        ports
    }

    /// The number of a set.
    pub(super) fn set(&self, id: &SetId) -> Option<Mark> {
        self.sets.get(id).copied()
    }

    /// The number of a network.
    pub(super) fn net(&self, net: &IpNet) -> Option<Mark> {
        self.nets.get(&net.trunc()).copied()
    }
}

// === impl Marks ===

impl Marks {
    /// Whether the address is in it.
    pub(super) fn has(&self, mark: Mark) -> bool {
        self.0.get(mark as usize / 64).is_some_and(|word| word >> (mark % 64) & 1 == 1)
    }

    /// How many it is in.
    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}
