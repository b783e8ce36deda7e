//! Several threads on the same few keys.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;

const KEYS: u16 = 24;
const ROUNDS: u64 = if cfg!(miri) { 300 } else { 60_000 };

/// A connection of key `n`, one of two NAT bindings, that carries its own name.
fn connection(n: u16, binding: u16) -> NewFlow {
    let orig = tuple(n.is_multiple_of(2), n, 500, 1000, 80);
    let reply = Tuple { dst_port: 61_000 + n / 4 * 2 + binding, ..orig.reversed() };
    let mut new = NewFlow::connection(orig, reply, 0);
    new.conntrack = [name(n, binding), name(n, binding) << 32];
    new
}

fn name(n: u16, binding: u16) -> u64 {
    u64::from(n) << 8 | u64::from(binding + 1)
}

/// xorshift64*
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
}

/// A flow that was found is what its key says, in all its words.
fn check(flow: FlowRef<'_>, asked: Tuple) {
    let (orig, reply) =
        if flow.dir() == Dir::Orig { (flow, flow.peer()) } else { (flow.peer(), flow) };
    assert_eq!(flow.tuple(), asked);
    let carried = orig.conntrack();
    let new = connection((carried >> 8) as u16, (carried & 0xff) as u16 - 1);
    assert_eq!((orig.tuple(), reply.tuple()), (new.orig, new.reply.unwrap()));
    assert_eq!(reply.conntrack(), carried << 32);
}

#[test]
fn threads_on_the_same_keys_never_see_one_twice_or_anothers_data() {
    // Each worker keeps up to 64 free records at hand and takes the last first: recycling is
    // constant.
    let table = table(200, 200);
    let inserted = AtomicU64::new(0);
    let removed = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 1..=3u64 {
            let (table, inserted, removed) = (&table, &inserted, &removed);
            scope.spawn(move || {
                let mut worker = worker(table);
                let mut random_state = seed * 0x9e37_79b9;
                for round in 0..ROUNDS {
                    let dice = random(&mut random_state);
                    let n = (dice % u64::from(KEYS)) as u16;
                    let new = connection(n, (dice >> 8 & 1) as u16);
                    let reply = new.reply.unwrap();
                    for key in [new.orig, reply] {
                        if let Some(flow) = table.lookup(&key, table.hash(&key)) {
                            check(flow, key);
                        }
                    }
                    match dice >> 16 & 3 {
                        0 | 1 => match worker.insert(&new) {
                            Insert::New(_) => drop(inserted.fetch_add(1, Ordering::Relaxed)),
                            Insert::Exists(id) => check_exists(table, id, new.orig),
                            _ => {}
                        },
                        2 => {
                            if find(table, new.orig).is_some_and(|id| worker.remove(id)) {
                                removed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        _ => worker.quiesce(),
                    }
                    if round % 64 == 0 {
                        worker.sweep(0, 4, Share { index: 0, of: 1 }, |_| u32::MAX);
                        if dice >> 20 & 15 == 0 {
                            worker.sleep();
                        }
                        worker.quiesce();
                    }
                }
            });
        }
    });
    let (inserted, removed) = (inserted.into_inner(), removed.into_inner());
    // On a busy machine records wait long for a thread that rests to have seen them go.
    assert!(inserted > ROUNDS / 40, "{inserted}");
    assert_eq!(table.counts().connections, inserted - removed);
    assert_index_is_exact(&table);
}

/// `Exists` may have been removed since by another thread; what it shows is still that connection.
fn check_exists(table: &FlowTable, id: FlowId, orig: Tuple) {
    assert_eq!(table.flow(id).unwrap().tuple(), orig);
}

/// Every live record is found under both its keys and nothing else is in the index.
fn assert_index_is_exact(table: &Arc<FlowTable>) {
    let mut live = 0;
    let mut guest = worker(table);
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        cursor = guest.list(from, 1000, |flow| {
            live += 1;
            assert_eq!(find(table, flow.tuple()), Some(flow.id()));
            assert_eq!(find(table, flow.peer().tuple()), Some(flow.peer().id()));
        });
    }
    guest.quiesce();
    let buckets = &table.lines()[2..2 + table.layout.buckets as usize];
    let entries = buckets.iter().flat_map(|b| &b.0[1..]).filter(|w| w.load(Ordering::Relaxed) != 0);
    assert_eq!(entries.count(), 2 * live);
    assert!(buckets.iter().all(|b| b.0[0].load(Ordering::Relaxed) == 0));
}

#[test]
fn a_connection_that_stays_is_found_by_everybody_all_the_time() {
    let table = table(64, 64);
    let mut owner = worker(&table);
    let stays = NewFlow::connection(tuple(false, 1, 2, 3, 4), tuple(false, 2, 1, 4, 3), 0);
    assert!(matches!(owner.insert(&stays), Insert::New(_)));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reader = worker(&table);
            let mut lookups = 0u64;
            while !done.load(Ordering::Relaxed) || lookups < 1000 {
                assert!(find(&table, stays.orig).is_some());
                assert!(find(&table, stays.reply.unwrap()).is_some());
                lookups += 1;
                reader.quiesce();
            }
        });
        for round in 0..ROUNDS {
            let new = connection((round % 40) as u16, 0);
            if let Insert::New(id) = owner.insert(&new) {
                owner.remove(id);
            }
            owner.quiesce();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}
