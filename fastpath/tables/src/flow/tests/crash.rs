//! A new process takes the table over, wherever the old one died.

use std::ptr::NonNull;

use super::*;
use crate::flow::index::Linked;
use crate::flow::key::Key;
use crate::flow::record::State;

const CONFIG: FlowConfig = FlowConfig { v4: 64, v6: 64, participants: 2, denial_share: 2 };

/// Memory that outlives the tables in it, as a file does.
struct Shared(Arc<Region>);

impl Shared {
    fn new() -> Self {
        Self(Arc::new(Region::heap(FlowTable::required_bytes(&CONFIG).unwrap())))
    }

    #[allow(unsafe_code)]
    fn map(&self) -> Region {
        let lines = self.0.lines();
        let start = NonNull::from(lines).cast();
        // SAFETY: the owner keeps the lines alive, they are aligned, and only one table uses them.
        unsafe { Region::from_raw(start, size_of_val(lines), Box::new(self.0.clone())) }
    }

    fn create(&self) -> Arc<FlowTable> {
        Arc::new(FlowTable::create(self.map(), &CONFIG, 7, 1).unwrap())
    }

    fn open(&self) -> Arc<FlowTable> {
        Arc::new(FlowTable::open(self.map(), &CONFIG, 1).unwrap())
    }
}

#[test]
fn clients_stay_with_their_backends_over_a_crash_and_a_new_table_knows_nobody() {
    let shared = Shared::new();
    let client = tuple(true, 1, 0, 0, 0).src;
    let backend = BackendId::new(7, client, 80);
    let find = |table: &FlowTable| {
        let all = table.affinities();
        all.find(all.key(client, 7), 0, 1_000)
    };
    let table = shared.create();
    table.affinities().note(table.affinities().key(client, 7), backend, 0);
    assert_eq!(find(&shared.open()), Some(backend));
    assert_eq!(find(&shared.create()), None);
}

fn connection(n: u16) -> NewFlow {
    let orig = tuple(n.is_multiple_of(2), n, 500, 1000, 80);
    let reply = Tuple { dst_port: 61_000, ..orig.reversed() };
    let mut new = NewFlow::connection(orig, reply, u32::from(n));
    new.decisions[1] = Stamped { generation: 3, action: u32::from(n) };
    new.conntrack = [u64::from(n), 1];
    new.rules = [u32::from(n), 2];
    new.marks = 0b10101;
    new
}

fn assert_there(table: &FlowTable, n: u16) {
    let new = connection(n);
    let reply = new.reply.unwrap();
    let flow = table.lookup(&reply, table.hash(&reply)).expect("the connection survived");
    assert_eq!(flow.decision(), new.decisions[1]);
    assert_eq!((flow.conntrack(), flow.peer().conntrack()), (1, u64::from(n)));
    assert_eq!((flow.rule(), flow.peer().rule()), (2, u32::from(n)));
    assert_eq!((flow.marks(), flow.peer().last_seen()), (0b10101, u32::from(n)));
    assert_eq!(find(table, new.orig), Some(flow.peer().id()));
}

/// As a kill does: nothing is dropped.
fn die(worker: FlowWorker) {
    std::mem::forget(worker);
}

#[test]
fn connections_survive_and_new_ones_find_room() {
    let memory = Shared::new();
    let mut worker = worker(&memory.create());
    for n in 0..64 {
        assert!(matches!(worker.insert(&connection(n)), Insert::New(_)));
    }
    worker.remove(find(worker.table(), connection(9).orig).unwrap());
    worker.table().set_generation(42);
    die(worker);

    let table = memory.open();
    assert_eq!(table.counts().connections, 63);
    assert_eq!(table.generation(), 42);
    (0..64).filter(|n| *n != 9).for_each(|n| assert_there(&table, n));
    let mut worker = super::worker(&table);
    for n in 64..128 {
        assert!(matches!(worker.insert(&connection(n)), Insert::New(_)), "{n}");
    }
    assert_eq!(
        worker.insert(&connection(127)),
        Insert::Exists(find(&table, connection(127).orig).unwrap())
    );
    assert_eq!(worker.insert(&connection(128)), Insert::Full);
    (0..128).filter(|n| *n != 9).for_each(|n| assert_there(&table, n));
}

#[test]
fn a_death_in_the_middle_of_an_insertion_leaves_nothing() {
    for steps in 0..4 {
        let memory = Shared::new();
        let table = memory.create();
        let mut first = worker(&table);
        first.insert(&connection(1));
        let (new, mut taken) = (connection(2), Vec::new());
        table.pool(true).take(1, &mut taken);
        let id = taken[0];
        let flow = table.flow(id).unwrap();
        let hash = |t: &Tuple| table.hash(t);
        let reply = new.reply.unwrap();
        if steps > 0 {
            flow.fill(&new);
        }
        if steps > 1 {
            let id = id.with_dir(Dir::Reply);
            assert_eq!(table.index().link(&Key::new(&reply), hash(&reply), id), Linked::Placed);
        }
        if steps > 2 {
            assert_eq!(
                table.index().link(&Key::new(&new.orig), hash(&new.orig), id),
                Linked::Placed
            );
        }
        // The claim of a bucket that the dead held.
        for line in &table.lines()[2..8] {
            line.0[0].store(1, crate::sync::Ordering::Relaxed);
        }
        die(first);

        let table = memory.open();
        assert_eq!(table.counts().connections, 1, "after {steps} steps");
        assert_there(&table, 1);
        assert_eq!(find(&table, new.orig), None);
        let mut worker = worker(&table);
        assert!(matches!(worker.insert(&new), Insert::New(_)), "after {steps} steps");
        assert_there(&table, 2);
    }
}

#[test]
fn a_death_between_the_two_states_of_a_record_frees_it() {
    let memory = Shared::new();
    let mut worker = worker(&memory.create());
    worker.insert(&connection(1));
    let id = find(worker.table(), connection(1).orig).unwrap();
    let flow = worker.table().flow(id).unwrap();
    assert!(flow.kill());
    assert_eq!(flow.state(), State::Dying);
    die(worker);
    let table = memory.open();
    assert_eq!(
        table.counts(),
        FlowCounts { v4_capacity: 64, v6_capacity: 64, ..Default::default() }
    );
    assert_eq!(find(&table, connection(1).orig), None);
}

#[test]
fn what_is_no_table_of_ours_is_refused() {
    let memory = Shared::new();
    let open = |config, boot| FlowTable::open(memory.map(), config, boot).map(|_| ());
    assert_eq!(open(&CONFIG, 1), Err(LayoutError::NoTable));
    memory.create();
    assert_eq!(open(&CONFIG, 1), Ok(()));
    assert_eq!(open(&CONFIG, 2), Err(LayoutError::Incarnation));
    let other = FlowConfig { v4: 65, v6: 63, ..CONFIG };
    assert_eq!(open(&other, 1), Err(LayoutError::Capacity { v4: 64, v6: 64 }));
    let larger = FlowConfig { v4: 6400, ..CONFIG };
    assert!(matches!(open(&larger, 1), Err(LayoutError::TooSmall { .. })));
    memory.0.lines()[0].0[1].store(9, crate::sync::Ordering::Relaxed);
    assert_eq!(open(&CONFIG, 1), Err(LayoutError::Version { found: 9 }));
}
