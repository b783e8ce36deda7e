//! Ageing, eviction and listing.

use std::collections::HashSet;

use super::*;

fn connect(worker: &mut FlowWorker, n: u16, now: u32) -> FlowId {
    let orig = tuple(n.is_multiple_of(2), n, 7, 1, 2);
    match worker.insert(&NewFlow::connection(orig, orig.reversed(), now)) {
        Insert::New(id) => id,
        other => panic!("{other:?}"),
    }
}

fn deny(worker: &mut FlowWorker, n: u16, now: u32) -> Insert {
    worker.insert(&NewFlow::denial(tuple(false, n, 8, 1, 2), now, Stamped::default()))
}

#[test]
fn only_what_is_idle_for_longer_than_its_timeout_is_aged() {
    let table = table(100, 100);
    let mut worker = worker(&table);
    // Around the wrap of the clock.
    let start = u32::MAX - 50;
    let ids: Vec<_> = (0..100).map(|n| connect(&mut worker, n, start)).collect();
    for id in &ids[..10] {
        // An answer keeps a connection as well.
        table.flow(id.with_dir(Dir::Reply)).unwrap().touch(start.wrapping_add(80), 1);
    }
    let one = Share { index: 0, of: 1 };
    let now = start.wrapping_add(100);
    assert_eq!(worker.sweep(now, 1000, one, |_| 100), 0);
    assert_eq!(worker.sweep(now, 1000, one, |_| 99), 90);
    assert_eq!(table.counts().connections, 10);
    assert_eq!(worker.sweep(start, 1000, one, |_| 0), 0, "a time ahead of now is not idle");
}

#[test]
fn shares_of_a_sweep_cover_every_record_once() {
    let table = table(1000, 0);
    let mut worker = worker(&table);
    for n in 0..500 {
        connect(&mut worker, n * 2 + 1, 0);
    }
    let mut seen = Vec::new();
    for index in 0..3 {
        let mut sweeper = super::worker(&table);
        // Bounded steps; the share of one is at most 192 records of 500.
        let mut mine = HashSet::new();
        for _ in 0..12 {
            sweeper.sweep(0, 20, Share { index, of: 3 }, |flow| {
                mine.insert(flow.id());
                1000
            });
        }
        seen.extend(mine);
    }
    assert_eq!(seen.len(), 500);
    assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), 500);
}

#[test]
fn eviction_takes_denials_then_half_open_then_the_longest_idle() {
    let table = table(60, 0);
    let mut worker = worker(&table);
    let ids: Vec<_> = (0..50).map(|n| connect(&mut worker, n * 2 + 1, u32::from(n))).collect();
    for n in 0..4 {
        assert!(matches!(deny(&mut worker, n, 90), Insert::New(_)));
    }
    let half_open: HashSet<_> = ids[40..45].iter().copied().collect();
    let worth = |flow: &FlowRef<'_>| {
        if half_open.contains(&flow.id()) { Worth::HalfOpen } else { Worth::Established }
    };
    let first = worker.evict(100, false, 6, worth);
    assert_eq!(first, Evicted { denials: 4, half_open: 2, established: 0 });
    let second = worker.evict(100, false, 5, worth);
    assert_eq!(second, Evicted { denials: 0, half_open: 3, established: 0 });
    // Nothing cheaper is left in the whole table.
    let third = worker.evict(100, false, 2, worth);
    assert_eq!(third, Evicted { denials: 0, half_open: 0, established: 2 });
    let alive = |id: FlowId| find(&table, table.flow(id).unwrap().tuple()).is_some();
    assert!(!alive(ids[0]) && !alive(ids[1]) && alive(ids[2]) && !alive(ids[44]));
}

#[test]
fn an_eviction_takes_many_of_the_cheap_and_few_of_the_established() {
    let table = table(128, 0);
    let mut worker = worker(&table);
    for n in 0..128 {
        connect(&mut worker, n * 2 + 1, 0);
    }
    let mut evict = |worth| worker.evict(1, false, 64, |_| worth);
    assert_eq!(evict(Worth::HalfOpen), Evicted { half_open: 64, ..Evicted::default() });
    assert_eq!(evict(Worth::Established), Evicted { established: 16, ..Evicted::default() });
}

#[test]
fn what_was_evicted_makes_room_after_a_quiescent_point() {
    let table = table(0, 40);
    let mut worker = worker(&table);
    for n in 0..40 {
        connect(&mut worker, n * 2, 0);
    }
    let orig = tuple(true, 1000, 7, 1, 2);
    let new = NewFlow::connection(orig, orig.reversed(), 0);
    assert_eq!(worker.insert(&new), Insert::Full);
    assert_eq!(worker.evict(1, true, 1, |_| Worth::Established).total(), 1);
    assert_eq!(worker.insert(&new), Insert::Full, "somebody may still look at the victim");
    worker.quiesce();
    assert!(matches!(worker.insert(&new), Insert::New(_)));
}

#[test]
fn a_worker_that_is_awake_keeps_removed_records_and_a_sleeping_one_does_not() {
    let table = table(1, 0);
    let (mut one, mut other) = (worker(&table), worker(&table));
    let id = connect(&mut one, 1, 0);
    one.remove(id);
    one.quiesce();
    one.quiesce();
    let again = |w: &mut FlowWorker| {
        let orig = tuple(false, 3, 7, 1, 2);
        w.insert(&NewFlow::connection(orig, orig.reversed(), 0))
    };
    assert_eq!(again(&mut one), Insert::Full);
    other.sleep();
    one.quiesce();
    assert!(matches!(again(&mut one), Insert::New(_)));
}

#[test]
fn what_a_dropped_or_sleeping_worker_removed_comes_back_to_the_others() {
    let table = table(2, 0);
    let mut rest = worker(&table);
    let mut guest = worker(&table);
    let ids = [connect(&mut guest, 1, 0), connect(&mut guest, 3, 0)];
    guest.remove(ids[0]);
    guest.sleep();
    guest.quiesce();
    guest.remove(ids[1]);
    drop(guest);
    for n in [5, 7] {
        rest.sweep(0, 10, Share { index: 0, of: 1 }, |_| 1000);
        rest.quiesce();
        connect(&mut rest, n, 0);
    }
    assert_eq!(table.counts().v4, 2);
}

#[test]
fn denials_take_no_more_than_their_share() {
    let table = table(100, 0);
    let mut worker = worker(&table);
    let admitted = (0..100).filter(|n| matches!(deny(&mut worker, *n, 0), Insert::New(_))).count();
    assert_eq!(admitted, 50);
    assert_eq!(deny(&mut worker, 200, 0), Insert::DenialsFull);
    assert!(matches!(deny(&mut worker, 0, 0), Insert::DenialsFull | Insert::Exists(_)));
    assert_eq!((table.counts().denials, table.counts().connections), (50, 0));
    worker.remove(find(&table, tuple(false, 3, 8, 1, 2)).unwrap());
    assert!(matches!(deny(&mut worker, 200, 0), Insert::New(_)));
}

#[test]
fn all_flows_of_an_address_go_and_no_others() {
    let table = table(2000, 2000);
    let mut worker = worker(&table);
    for n in 0..3000 {
        connect(&mut worker, n, 0);
    }
    // Behind a translation the address appears in one of the two keys only.
    let orig = tuple(false, 9000, 9001, 1, 80);
    let reply = Tuple { src: tuple(false, 17, 0, 0, 0).src, ..orig.reversed() };
    assert!(matches!(worker.insert(&NewFlow::connection(orig, reply, 0)), Insert::New(_)));
    let gone = worker.remove_touching(tuple(false, 17, 0, 0, 0).src);
    assert_eq!((gone, table.counts().connections), (2, 2999));
    assert_eq!(find(&table, orig), None);
    assert_eq!(find(&table, tuple(false, 17, 7, 1, 2)), None);
    assert!(find(&table, tuple(false, 19, 7, 1, 2)).is_some());
}

#[test]
fn a_listing_shows_each_flow_once() {
    let table = table(300, 300);
    let mut worker = worker(&table);
    let ids: HashSet<_> = (0..500).map(|n| connect(&mut worker, n, 0)).collect();
    let (mut shown, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = cursor {
        cursor = worker.list(from, 37, |flow| shown.push(flow.id()));
    }
    assert_eq!(shown.len(), 500);
    assert_eq!(shown.into_iter().collect::<HashSet<_>>(), ids);
}

#[test]
fn marks_are_added_for_both_directions_and_die_with_the_record() {
    let table = table(4, 4);
    let mut worker = worker(&table);
    for v6 in [false, true] {
        let orig = tuple(v6, 1, 2, 3, 4);
        let new = NewFlow { marks: 0b100, ..NewFlow::connection(orig, orig.reversed(), 0) };
        let Insert::New(id) = worker.insert(&new) else { panic!("there is room") };
        let reply = table.flow(id.with_dir(Dir::Reply)).unwrap();
        reply.add_marks(0b1);
        let found = table.lookup(&orig, table.hash(&orig)).unwrap();
        assert_eq!((found.marks(), found.peer().marks()), (0b101, 0b101));
        assert!(worker.remove(id));
        assert!(find(&table, orig).is_none());
        assert!(matches!(worker.insert(&new), Insert::New(_)));
        assert_eq!(table.lookup(&orig, table.hash(&orig)).unwrap().marks(), 0b100);
    }
}
