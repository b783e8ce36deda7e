//! Maglev hashing: a table from hashes to backends that is nearly even, is the same wherever it is
//! computed from the same backends, and changes little when one backend comes or goes.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4.

/// A lookup table over the numbers of the backends.
#[derive(Clone, Debug)]
pub struct Maglev {
    table: Box<[u16]>,
}

/// Primes near powers of two: sizes of tables.
const SIZES: [u64; 9] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];

/// The table has this many times as many places as there are backends, where the sizes allow:
/// the paper's bound for an imbalance of at most one percent.
const PLACES: u64 = 100;

const EMPTY: u16 = u16::MAX;

// === impl Maglev ===

impl Maglev {
    /// Builds the table. `backends` gives a hash for each backend's name, which must not depend on
    /// its place in the list; those beyond the 65,520th are not used.
    pub fn new(backends: impl IntoIterator<Item = u64>) -> Self {
        let names: Vec<u64> = backends.into_iter().take(usize::from(EMPTY) - 15).collect();
        let wanted = names.len() as u64 * PLACES;
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[8]);
        let mut walks: Vec<_> = names.iter().map(|name| Walk::new(*name, size)).collect();
        let mut table = vec![EMPTY; size as usize];
        let mut left = if names.is_empty() { 0 } else { size };
        // Backends take turns; each takes the next free place of its own permutation.
        while left > 0 {
            for (number, walk) in (0u16..).zip(&mut walks) {
                if left == 0 {
                    break;
                }
                if let Some(place) = walk.find(|place| table.get(*place) == Some(&EMPTY))
                    && let Some(slot) = table.get_mut(place)
                {
                    *slot = number;
                    left -= 1;
                }
            }
        }
        Self { table: table.into() }
    }

    /// The number of the backend for a hash; without backends 65,535.
    #[inline]
    pub fn lookup(&self, hash: u64) -> u16 {
        let place = (u128::from(hash) * self.table.len() as u128) >> 64;
        self.table.get(place as usize).copied().unwrap_or(EMPTY)
    }
}

/// A backend's permutation of the places: start and stride out of its name. The size is prime, so
/// every stride visits every place.
struct Walk {
    next: u64,
    stride: u64,
    size: u64,
}

impl Walk {
    fn new(name: u64, size: u64) -> Self {
        let mixed = name.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { next: (mixed >> 32) % size, stride: (mixed & 0xffff_ffff) % (size - 1) + 1, size }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = self.next;
        self.next = (self.next + self.stride) % self.size;
        Some(place as usize)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::addr::Addr;

    fn names(count: u32) -> Vec<u64> {
        (0..count).map(|n| Addr::from_v4_bits(0x0a00_0000 + n).hash(8080)).collect()
    }

    #[test]
    fn every_backend_gets_its_share_within_two_percent() {
        for count in [1, 2, 3, 10, 100, 650] {
            let maglev = Maglev::new(names(count));
            let mut shares = vec![0u32; count as usize];
            maglev.table.iter().for_each(|number| shares[usize::from(*number)] += 1);
            let even = maglev.table.len() as f64 / f64::from(count);
            for share in shares {
                assert!((f64::from(share) - even).abs() <= even * 0.02 + 1.0, "{share} of {even}");
            }
        }
    }

    #[test]
    fn a_backend_that_leaves_moves_few_of_the_others_hashes() {
        let all = names(50);
        let mut fewer = all.clone();
        fewer.remove(20);
        let (before, after) = (Maglev::new(all), Maglev::new(fewer));
        let moved = before.table.iter().zip(&after.table).filter(|(old, new)| {
            // The numbers behind the one that left are one lower now.
            let expected = if **old > 20 { **old - 1 } else { **old };
            **old != 20 && expected != **new
        });
        let share = moved.count() as f64 / before.table.len() as f64;
        assert!(share < 0.05, "{share}");
    }

    #[test]
    fn the_order_of_the_backends_does_not_matter_much() {
        let all = names(20);
        let mut reversed = all.clone();
        reversed.reverse();
        let (a, b) = (Maglev::new(all), Maglev::new(reversed));
        let same = a.table.iter().zip(&b.table).filter(|(a, b)| **a == 19 - **b).count();
        assert!(same as f64 > 0.9 * a.table.len() as f64, "{same} of {}", a.table.len());
    }

    #[test]
    fn without_backends_nobody_is_chosen() {
        assert_eq!(Maglev::new([]).lookup(7), u16::MAX);
    }
}
