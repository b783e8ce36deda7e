use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Barrier};

use margay_tables::addr::Tuple;
use margay_tables::flow::{FlowConfig, FlowTable, FlowWorker, Insert, NewFlow, Region};
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// Names of records, made as only a table can.
fn records(count: u16) -> Vec<FlowId> {
    let count = u32::from(count);
    let config = FlowConfig { v4: count, v6: 0, participants: 1, denial_share: 8 };
    let region = Region::heap(FlowTable::required_bytes(&config).unwrap());
    let table = Arc::new(FlowTable::create(region, &config, 7, 1).unwrap());
    let mut worker = FlowWorker::new(table).unwrap();
    let enter = |n: u32| {
        let src = [10, 0, (n >> 8) as u8, n as u8].into();
        let orig = Tuple { src, dst: [10, 1, 0, 1].into(), protocol: 6, ..Tuple::default() };
        match worker.insert(&NewFlow::connection(orig, orig.reversed(), 0)) {
            Insert::New(id) => id,
            other => panic!("{other:?}"),
        }
    };
    (0..count).map(enter).collect()
}

/// The connections that are open, by record, and what became of records.
#[derive(Default)]
struct Open(BTreeMap<FlowId, u64>);

impl Open {
    fn has(&self, member: &Member) -> bool {
        self.0.get(&member.flow) == Some(&member.hash)
    }
}

#[test]
fn so_many_and_no_more_and_who_leaves_makes_room() {
    let (roster, records) = (Roster::default(), records(8));
    let mut open = Open::default();
    let enter = |open: &mut Open, record: FlowId, hash| {
        let there = roster.reserve(3, SECOND, |member| open.has(member));
        if there {
            open.0.insert(record, hash);
            roster.occupy(record, hash);
        }
        there
    };
    for record in &records[..3] {
        assert!(enter(&mut open, *record, 1));
    }
    assert!(!enter(&mut open, records[3], 1));
    open.0.remove(&records[1]);
    assert!(enter(&mut open, records[3], 1));
    assert!(!enter(&mut open, records[4], 1));
    // The record is another connection's, which is not limited.
    open.0.insert(records[0], 2);
    assert!(enter(&mut open, records[4], 1));
    assert!(!enter(&mut open, records[5], 1));
}

#[test]
fn a_place_that_is_given_back_is_free_and_one_that_goes_on_anyway_counts() {
    let roster = Roster::default();
    assert!(roster.reserve(1, SECOND, |_| true) && !roster.reserve(1, SECOND, |_| true));
    roster.give_back();
    roster.reserve_anyway(|_| true);
    roster.reserve_anyway(|_| true);
    assert!(!roster.reserve(2, SECOND, |_| true) && roster.reserve(3, SECOND, |_| true));
}

#[test]
fn one_connection_that_is_on_it_twice_takes_one_place_when_it_matters() {
    for swapped in [false, true] {
        let (roster, records) = (Roster::default(), records(3));
        // The record was given to the same tuple twice; another one stands between them or before.
        let order = if swapped { [1, 0, 0] } else { [0, 1, 0] };
        for nth in order {
            assert!(roster.reserve(3, SECOND, |_| true));
            roster.occupy(records[nth], 9);
        }
        assert!(roster.reserve(3, SECOND, |_| true), "two are there");
        assert!(!roster.reserve(3, SECOND, |_| true));
        roster.give_back();
        assert_eq!(roster.count(|_| true), 2);
    }
}

#[test]
fn what_is_gone_is_forgotten_though_the_limit_is_never_reached() {
    let (roster, records) = (Roster::default(), records(4));
    for nth in 0..10_000 {
        assert!(roster.reserve(u32::MAX, SECOND, |member| member.hash + 100 > nth));
        roster.occupy(records[0], nth);
    }
    assert!(roster.members.len() < 150, "{}", roster.members.len());
}

#[test]
fn refusals_cost_no_more_than_a_share_of_the_time() {
    let (roster, records) = (Roster::default(), records(1000));
    for record in &records {
        assert!(roster.reserve(1000, SECOND, |_| true));
        roster.occupy(*record, 1);
    }
    let looks = AtomicUsize::new(0);
    for _ in 0..1000 {
        assert!(!roster.reserve(1000, SECOND, |_| looks.fetch_add(1, Relaxed) < usize::MAX));
    }
    let at_once = looks.load(Relaxed);
    assert!((LOOK - 1000..=LOOK + 1000 * GLANCE).contains(&at_once), "{at_once}");
    // A second later one that has left is found at once.
    let gone = records[500];
    assert!(roster.reserve(1000, 2 * SECOND, |member| member.flow != gone));
}

#[test]
fn workers_that_race_never_have_more_than_the_limit() {
    const LIMIT: usize = 5;
    let (roster, records) = (Roster::default(), records(64));
    let there: Vec<AtomicBool> = records.iter().map(|_| AtomicBool::new(false)).collect();
    let at = |id: FlowId| records.iter().position(|record| *record == id).unwrap();
    let (inside, most, came) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (roster, records, there) = (&roster, &records, &there);
            let (inside, most, came, barrier) = (&inside, &most, &came, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for turn in 0..20_000u64 {
                    let nth = worker * 16 + turn as usize % 16;
                    if there[nth].load(Acquire) {
                        // Out before it is seen to be, as in the flow table.
                        inside.fetch_sub(1, AcqRel);
                        there[nth].store(false, Release);
                    }
                    let now = SECOND + turn * 1_000_000;
                    if roster.reserve(LIMIT as u32, now, |m| there[at(m.flow)].load(Acquire)) {
                        came.fetch_add(1, Relaxed);
                        most.fetch_max(inside.fetch_add(1, AcqRel) + 1, AcqRel);
                        there[nth].store(true, Release);
                        roster.occupy(records[nth], 1);
                    }
                }
            });
        }
    });
    assert!(most.load(Relaxed) <= LIMIT, "{most:?} at a time");
    assert!(came.load(Relaxed) > 1000, "{came:?}: who left made room");
}

proptest! {
    #[test]
    fn a_roster_admits_whom_a_count_of_the_open_ones_admits(
        steps in proptest::collection::vec((0..24usize, 0..4u8), 1..300),
        limit in 1..12u32,
    ) {
        let (roster, records) = (Roster::default(), records(24));
        let mut open = Open::default();
        let mut listed: BTreeSet<FlowId> = BTreeSet::new();
        for (time, (nth, what)) in (1..).zip(steps) {
            let record = records[nth];
            if what == 0 {
                open.0.remove(&record);
                listed.remove(&record);
                continue;
            }
            if open.0.contains_key(&record) {
                continue;
            }
            // Often the same tuple comes to the same record.
            let hash = u64::from(what == 3);
            let admitted = roster.reserve(limit, time * SECOND, |member| open.has(member));
            prop_assert_eq!(admitted, listed.len() < limit as usize);
            if admitted {
                open.0.insert(record, hash);
                listed.insert(record);
                roster.occupy(record, hash);
            }
        }
        prop_assert_eq!(roster.count(|member| open.has(member)), listed.len() as u64);
    }
}
