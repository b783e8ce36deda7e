//! Flows of one interval, aggregated and bounded.

use std::collections::HashMap;

use super::entry::{FlowKey, Stats};

/// What has come since the last flush.
#[derive(Debug)]
pub(super) struct Buffer {
    flows: HashMap<FlowKey, Stats>,
    most: usize,
    dropped: u64,
}

// === impl Buffer ===

impl Buffer {
    /// A buffer for so many keys.
    pub(super) fn new(most: usize) -> Self {
        Self { flows: HashMap::new(), most, dropped: 0 }
    }

    /// Adds to a key; a new one for which there is no room is dropped and counted.
    pub(super) fn add(&mut self, key: FlowKey, stats: Stats) {
        if let Some(sum) = self.flows.get_mut(&key) {
            sum.add(stats);
        } else if self.flows.len() < self.most {
            self.flows.insert(key, stats);
        } else {
            self.dropped += 1;
        }
    }

    /// Everything, in the order of the keys, and how many reports were dropped. Empty afterwards.
    pub(super) fn take(&mut self) -> (Vec<(FlowKey, Stats)>, u64) {
        let mut flows: Vec<_> = std::mem::take(&mut self.flows).into_iter().collect();
        flows.sort_by(|a, b| a.0.cmp(&b.0));
        (flows, std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Party, PartyKind, Reporter, Verdict};
    use super::*;

    fn key(port: u16) -> FlowKey {
        let party =
            || Party { kind: PartyKind::Network, namespace: String::new(), name: "pub".into() };
        FlowKey {
            reporter: Reporter::Src,
            action: Verdict::Deny,
            source: party(),
            dest: party(),
            dest_port: port,
            service: Default::default(),
            proto: "TCP".into(),
            policies: Default::default(),
        }
    }

    #[test]
    fn keys_beyond_the_bound_are_dropped_and_counted_and_known_ones_go_on() {
        let mut buffer = Buffer::new(2);
        let one = Stats { packets_out: 1, ..Stats::default() };
        for port in [1, 2, 3, 1, 4, 2] {
            buffer.add(key(port), one);
        }
        let (flows, dropped) = buffer.take();
        let counts: Vec<_> = flows.iter().map(|(k, s)| (k.dest_port, s.packets_out)).collect();
        assert_eq!((counts, dropped), (vec![(1, 2), (2, 2)], 2));
        assert_eq!(buffer.take(), (vec![], 0));
    }
}
