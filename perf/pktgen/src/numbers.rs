//! What the packets' numbers tell: which came late, which never.

use crate::probe::Probe;

/// Flows that are told apart at most.
const FLOWS: usize = 1 << 24;

/// The numbers seen, by flow.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// Packets.
    pub(crate) received: u64,
    /// Packets that came after one with a higher number of the same flow.
    pub(crate) late: u64,
    /// The number after the highest seen.
    expected: Vec<u32>,
}

// === impl Numbers ===

impl Numbers {
    /// Notes a packet; false if its flow is beyond those that are told apart.
    pub(crate) fn note(&mut self, probe: &Probe) -> bool {
        let flow = probe.flow as usize;
        if flow >= FLOWS {
            return false;
        }
        if self.expected.len() <= flow {
            self.expected.resize(flow + 1, 0);
        }
        self.received += 1;
        if let Some(expected) = self.expected.get_mut(flow) {
            // Numbers wrap: the half of them before the expected one is the past.
            if probe.number.wrapping_sub(*expected) < 1 << 31 {
                *expected = probe.number.wrapping_add(1);
            } else {
                self.late += 1;
            }
        }
        true
    }

    /// Flows of which something came.
    pub(crate) fn flows(&self) -> usize {
        self.expected.iter().filter(|expected| **expected != 0).count()
    }

    /// Packets whose number was passed by and that never came. Those behind the last one that came
    /// are not known here.
    pub(crate) fn missing(&self) -> u64 {
        let all: u64 = self.expected.iter().map(|expected| u64::from(*expected)).sum();
        all.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(numbers: &[(u32, u32)]) -> Numbers {
        let mut seen = Numbers::default();
        for (flow, number) in numbers {
            assert!(seen.note(&Probe { flow: *flow, number: *number, left: 0 }));
        }
        seen
    }

    #[test]
    fn a_gap_is_a_loss_in_its_own_flow_only() {
        let seen = seen(&[(0, 0), (9, 0), (0, 3), (9, 1)]);
        assert_eq!((seen.received, seen.flows(), seen.missing(), seen.late), (4, 2, 2, 0));
    }

    #[test]
    fn a_packet_that_comes_after_all_is_late_and_not_lost() {
        let seen = seen(&[(0, 0), (0, 2), (0, 1), (0, 3)]);
        assert_eq!((seen.missing(), seen.late), (0, 1));
    }

    #[test]
    fn a_flow_beyond_all_bounds_takes_no_memory() {
        let mut seen = Numbers::default();
        assert!(!seen.note(&Probe { flow: u32::MAX, number: 0, left: 0 }));
        assert_eq!((seen.received, seen.flows()), (0, 0));
    }
}
