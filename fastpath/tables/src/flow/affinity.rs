//! Which backend a client was sent to: session affinity, beside the flows.
//!
//! ```text
//! entry:  word 0   key ^ mix(backend)
//!         word 1   backend (39 bits) │ last used (25 bits, units of 128 ms)
//! line:   four entries, one bucket: a key lives in one line only
//! ```
//!
//! Nobody waits here, and nothing needs to be repaired after a crash: an entry counts only if its
//! first word fits its second, so one that two writers have torn, or that a death left half
//! written, is no entry at all. The time is in the second word alone, so that a refresh is one
//! compare-and-swap and never tears.
//!
//! Memory is bounded: a full bucket gives up the entry that was used longest ago, and its client
//! is sent anywhere next time. Idle times are right up to 49 days.

use super::region::{LINE_WORDS, Line};
use crate::addr::Addr;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// All affinities of a table.
#[derive(Clone, Copy, Debug)]
pub struct Affinities<'t> {
    lines: &'t [Line],
    seed: u64,
}

/// A client and what it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityKey(u64);

/// The name of a backend of one service: 39 bits of hash, never zero. Two backends of a service of
/// a thousand share one once in a million services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(u64);

const TIME_BITS: u32 = 25;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// Milliseconds to the units of time: a shift.
const UNIT: u32 = 7;

// === impl BackendId ===

impl BackendId {
    /// The name of the backend of the service with this hash that has an address and port.
    pub const fn new(service: u64, addr: Addr, port: u16) -> Self {
        let id = addr.hash(service ^ (port as u64) << 48) >> TIME_BITS;
        Self(if id == 0 { 1 } else { id })
    }

    fn check(self) -> u64 {
        Addr::from_halves(0, self.0).hash(0)
    }
}

// === impl Affinities ===

impl<'t> Affinities<'t> {
    pub(super) fn new(lines: &'t [Line], seed: u64) -> Self {
        Self { lines, seed }
    }

    /// The key for a client of the service, or part of a service, with this hash. Without the
    /// table's seed nobody can choose addresses whose keys meet in one bucket.
    pub fn key(&self, client: Addr, service: u64) -> AffinityKey {
        AffinityKey(client.hash(self.seed ^ service))
    }

    /// The backend that the client was last sent to, unless that was more than `max_idle`
    /// milliseconds ago.
    pub fn find(&self, key: AffinityKey, now: u32, max_idle: u32) -> Option<BackendId> {
        self.bucket(key).find_map(|entry| {
            let word = entry.holds(key)?;
            let idle = idle(word, now) << UNIT;
            (idle <= u64::from(max_idle)).then_some(BackendId(word >> TIME_BITS))
        })
    }

    /// Notes that the client was sent to a backend now.
    pub fn note(&self, key: AffinityKey, backend: BackendId, now: u32) {
        let word = backend.0 << TIME_BITS | u64::from(now >> UNIT);
        let mut victim: Option<(Entry<'_>, u64)> = None;
        for entry in self.bucket(key) {
            let old = entry.word.load(Relaxed);
            let worth = match entry.holds(key) {
                Some(old) if old >> TIME_BITS == backend.0 => {
                    // Who loses this was not the last to be sent there.
                    let _ = entry.word.compare_exchange(old, word, Relaxed, Relaxed);
                    return;
                }
                // Its other backend is forgotten before anything else.
                Some(_) => u64::MAX,
                None if old == 0 => u64::MAX - 1,
                None => idle(old, now),
            };
            if victim.as_ref().is_none_or(|(_, best)| worth > *best) {
                victim = Some((entry, worth));
            }
        }
        if let Some((entry, _)) = victim {
            entry.word.store(word, Relaxed);
            entry.key.store(key.0 ^ backend.check(), Relaxed);
        }
    }

    /// Forgets everybody who was sent to one of these backends, which are in ascending order; how
    /// many there were. It looks at the whole table: for the control side, after a change.
    pub fn forget(&self, backends: &[BackendId]) -> usize {
        let entries = self.lines.iter().flat_map(entries);
        entries
            .filter(|entry| {
                let word = entry.word.load(Relaxed);
                let known = backends.binary_search(&BackendId(word >> TIME_BITS)).is_ok();
                known && entry.word.compare_exchange(word, 0, Relaxed, Relaxed).is_ok()
            })
            .count()
    }

    pub(super) fn clear(&self) {
        self.lines.iter().flat_map(|line| &line.0).for_each(|word| word.store(0, Relaxed));
    }

    fn bucket(&self, key: AffinityKey) -> impl Iterator<Item = Entry<'t>> {
        let at = (u128::from(key.0) * self.lines.len() as u128) >> 64;
        self.lines.get(at as usize).into_iter().flat_map(entries)
    }
}

/// One entry's words.
#[derive(Clone, Copy)]
struct Entry<'t> {
    key: &'t AtomicU64,
    word: &'t AtomicU64,
}

fn entries(line: &Line) -> impl Iterator<Item = Entry<'_>> {
    let words: &[AtomicU64; LINE_WORDS] = &line.0;
    words.as_chunks::<2>().0.iter().map(|[key, word]| Entry { key, word })
}

impl Entry<'_> {
    /// The second word, if the entry is the key's.
    fn holds(&self, key: AffinityKey) -> Option<u64> {
        let word = self.word.load(Relaxed);
        let backend = BackendId(word >> TIME_BITS);
        (word != 0 && self.key.load(Relaxed) == key.0 ^ backend.check()).then_some(word)
    }
}

/// Units of time since an entry was used.
fn idle(word: u64, now: u32) -> u64 {
    (u64::from(now >> UNIT)).wrapping_sub(word) & TIME
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::flow::Region;

    const HOUR: u32 = 3_600_000;

    fn client(n: u32) -> Addr {
        Addr::from_v4_bits(0x0a00_0000 + n)
    }

    fn backend(n: u32) -> BackendId {
        BackendId::new(7, client(n), 80)
    }

    fn with<T>(lines: usize, test: impl FnOnce(&Affinities<'_>) -> T) -> T {
        let region = Region::heap(lines * 64);
        test(&Affinities::new(region.lines(), 0x5eed))
    }

    #[test]
    fn a_client_is_remembered_until_it_was_idle_for_too_long() {
        with(64, |all| {
            let key = all.key(client(1), 7);
            assert_eq!(all.find(key, 0, HOUR), None);
            all.note(key, backend(1), 1_000);
            assert_eq!(all.find(key, HOUR, HOUR), Some(backend(1)));
            assert_eq!(all.find(key, 2 * HOUR, HOUR), None);
            // Used again, it stays for another hour.
            all.note(key, backend(1), HOUR);
            assert_eq!(all.find(key, 2 * HOUR - 1_000, HOUR), Some(backend(1)));
            assert_eq!(all.find(all.key(client(1), 8), HOUR, HOUR), None, "another service");
        });
    }

    #[test]
    fn the_clock_may_wrap() {
        with(4, |all| {
            let key = all.key(client(1), 7);
            all.note(key, backend(1), u32::MAX - 500);
            assert_eq!(all.find(key, 500, 2_000), Some(backend(1)));
            assert_eq!(all.find(key, 5_000, 2_000), None);
        });
    }

    #[test]
    fn a_clients_new_backend_takes_the_place_of_the_old_one() {
        with(1, |all| {
            for n in 0..20 {
                all.note(all.key(client(1), 7), backend(n), n);
                assert_eq!(all.find(all.key(client(1), 7), n, HOUR), Some(backend(n)));
            }
            (2..5).for_each(|n| all.note(all.key(client(n), 7), backend(n), 1_000));
            assert_eq!(all.find(all.key(client(1), 7), 1_000, HOUR), Some(backend(19)));
        });
    }

    #[test]
    fn a_full_bucket_gives_up_the_one_that_was_idle_longest() {
        with(1, |all| {
            for n in 0..4 {
                all.note(all.key(client(n), 7), backend(n), 1_000 * n);
            }
            all.note(all.key(client(0), 7), backend(0), 4_000);
            all.note(all.key(client(9), 7), backend(9), 5_000);
            let known: BTreeSet<_> = (0..10)
                .filter(|n| all.find(all.key(client(*n), 7), 5_000, HOUR) == Some(backend(*n)))
                .collect();
            assert_eq!(known, BTreeSet::from([0, 2, 3, 9]));
        });
    }

    #[test]
    fn the_clients_of_a_backend_that_is_gone_are_forgotten_and_the_others_are_not() {
        with(256, |all| {
            for n in 0..100 {
                all.note(all.key(client(n), 7), backend(n % 10), 0);
            }
            let mut gone = [backend(3), backend(4)];
            gone.sort_unstable();
            assert_eq!(all.forget(&gone), 20);
            for n in 0..100 {
                let known = all.find(all.key(client(n), 7), 0, HOUR);
                let expected = (!matches!(n % 10, 3 | 4)).then_some(backend(n % 10));
                assert_eq!(known, expected, "{n}");
            }
        });
    }

    #[test]
    fn a_torn_entry_is_none() {
        with(1, |all| {
            let (one, other) = (all.key(client(1), 7), all.key(client(2), 7));
            all.note(one, backend(1), 0);
            // As though another writer had come between the two stores.
            let first = entries(&all.lines[0]).next().unwrap();
            first.word.store(backend(2).0 << TIME_BITS, Relaxed);
            assert_eq!((all.find(one, 0, HOUR), all.find(other, 0, HOUR)), (None, None));
        });
    }

    #[test]
    fn whatever_threads_do_nobody_is_sent_where_nobody_sent_him() {
        with(2, |all| {
            std::thread::scope(|scope| {
                for thread in 0..4u32 {
                    scope.spawn(move || {
                        for turn in 0..20_000u32 {
                            let n = (turn * 7 + thread * 13) % 24;
                            let key = all.key(client(n), 7);
                            // Each client has two backends of its own.
                            if let Some(found) = all.find(key, turn, HOUR) {
                                assert!(found == backend(n) || found == backend(n + 100), "{n}");
                            }
                            all.note(key, backend(n + 100 * (turn & 1)), turn);
                        }
                    });
                }
            });
        });
    }
}
