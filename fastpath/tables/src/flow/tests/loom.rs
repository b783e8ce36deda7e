//! The insertion protocol and the recycling of records under the model checker.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p margay-tables --release loom`

use ::loom::thread;

use super::*;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = ::loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

fn connection(n: u16, binding: u16) -> NewFlow {
    let orig = tuple(false, n, 500, 1, 2);
    let reply = Tuple { dst_port: binding, ..tuple(false, 500, 0, 2, 0) };
    NewFlow { conntrack: [u64::from(n); 2], ..NewFlow::connection(orig, reply, 0) }
}

fn insert(table: &Arc<FlowTable>, new: NewFlow) -> Insert {
    worker(table).insert(&new)
}

#[test]
fn loom_of_two_insertions_of_one_connection_one_succeeds() {
    check(|| {
        let table = table(2, 0);
        let other = {
            let table = table.clone();
            thread::spawn(move || insert(&table, connection(1, 61_001)))
        };
        // Another binding: only the orig keys collide.
        let mine = insert(&table, connection(1, 61_000));
        let results = [mine, other.join().unwrap()];
        let new = results.iter().filter(|r| matches!(r, Insert::New(_))).count();
        assert!(new <= 1, "{results:?}");
        for result in results {
            match result {
                Insert::New(id) | Insert::Exists(id) => {
                    assert_eq!(find(&table, connection(1, 0).orig), Some(id));
                }
                other => assert_eq!(other, Insert::Contended),
            }
        }
        assert_eq!(table.counts().connections, new as u64);
    });
}

#[test]
fn loom_one_nat_binding_is_never_given_twice() {
    check(|| {
        let table = table(2, 0);
        let other = {
            let table = table.clone();
            thread::spawn(move || insert(&table, connection(1, 61_000)))
        };
        let mine = insert(&table, connection(2, 61_000));
        let results = [mine, other.join().unwrap()];
        let new = results.iter().filter(|r| matches!(r, Insert::New(_))).count();
        assert!(new <= 1, "{results:?}");
        let reply = connection(1, 61_000).reply.unwrap();
        assert_eq!(find(&table, reply).is_some(), new == 1);
    });
}

#[test]
fn loom_a_reader_never_sees_a_recycled_record() {
    check(|| {
        let table = table(1, 0);
        let mut owner = worker(&table);
        let Insert::New(old) = owner.insert(&connection(1, 61_000)) else { panic!() };
        let reader = {
            let table = table.clone();
            thread::spawn(move || {
                let mut reader = worker(&table);
                let orig = connection(1, 0).orig;
                if let Some(flow) = table.lookup(&orig, table.hash(&orig)) {
                    assert_eq!(flow.conntrack(), 1);
                    assert_eq!(flow.tuple(), orig);
                }
                reader.quiesce();
            })
        };
        assert!(owner.remove(old));
        owner.quiesce();
        if let Insert::New(id) = owner.insert(&connection(2, 61_000)) {
            assert_eq!(find(&table, connection(2, 0).orig), Some(id));
        }
        assert_eq!(find(&table, connection(1, 0).orig), None);
        reader.join().unwrap();
    });
}

#[test]
fn loom_of_two_removals_of_one_connection_one_succeeds() {
    check(|| {
        let table = table(1, 0);
        let mut owner = worker(&table);
        let Insert::New(id) = owner.insert(&connection(1, 61_000)) else { panic!() };
        let other = {
            let table = table.clone();
            thread::spawn(move || worker(&table).remove(id))
        };
        assert!(owner.remove(id) != other.join().unwrap());
        assert_eq!(find(&table, connection(1, 0).orig), None);
        assert_eq!(table.counts().connections, 0);
    });
}

#[test]
fn loom_a_client_is_only_sent_where_it_was_sent_whoever_writes_beside() {
    check(|| {
        // One bucket: both clients look for a place in it at once.
        let table = table(2, 0);
        let client = |n: u16| tuple(false, n, 0, 0, 0).src;
        let backend = move |n: u16| BackendId::new(u64::from(n), client(n), 80);
        let note = move |table: &FlowTable, n: u16| {
            let all = table.affinities();
            all.note(all.key(client(n), 7), backend(n), 0);
        };
        let find = move |table: &FlowTable, n: u16| {
            let all = table.affinities();
            all.find(all.key(client(n), 7), 0, 1_000)
        };
        let other = {
            let table = table.clone();
            thread::spawn(move || note(&table, 2))
        };
        note(&table, 1);
        for n in [1, 2] {
            assert!(find(&table, n).is_none_or(|found| found == backend(n)));
        }
        other.join().unwrap();
        for n in [1, 2] {
            assert!(find(&table, n).is_none_or(|found| found == backend(n)));
        }
    });
}
