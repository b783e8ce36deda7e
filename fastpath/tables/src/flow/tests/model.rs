//! One thread against a `HashMap`.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Connect { v6: bool, client: u16, server: u16, nat: u16 },
    Deny { v6: bool, client: u16, server: u16 },
    Remove { which: usize },
    Touch { which: usize, reply: bool, bytes: u32 },
    Quiesce,
}

fn op() -> impl Strategy<Value = Op> {
    let v6 = any::<bool>;
    prop_oneof![
        6 => (v6(), 0u16..12, 0u16..12, 0u16..3)
            .prop_map(|(v6, client, server, nat)| Op::Connect { v6, client, server, nat }),
        2 => (v6(), 0u16..12, 0u16..12).prop_map(|(v6, client, server)| Op::Deny { v6, client, server }),
        3 => any::<usize>().prop_map(|which| Op::Remove { which }),
        3 => (any::<usize>(), any::<bool>(), 0u32..2000)
            .prop_map(|(which, reply, bytes)| Op::Touch { which, reply, bytes }),
        2 => Just(Op::Quiesce),
    ]
}

struct Entry {
    orig: Tuple,
    reply: Option<Tuple>,
    id: FlowId,
    counts: [(u64, u64); 2],
}

#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    keys: HashMap<Tuple, (FlowId, Dir)>,
}

impl Model {
    fn insert(&mut self, worker: &mut FlowWorker, new: NewFlow) {
        let taken = |t: &Tuple| self.keys.get(t).copied();
        let denials = self.entries.iter().filter(|e| e.reply.is_none()).count();
        match worker.insert(&new) {
            Insert::New(id) => {
                assert!(
                    taken(&new.orig).is_none() && new.reply.is_none_or(|r| taken(&r).is_none())
                );
                self.keys.insert(new.orig, (id, Dir::Orig));
                if let Some(reply) = new.reply {
                    self.keys.insert(reply, (id.with_dir(Dir::Reply), Dir::Reply));
                }
                let (orig, reply) = (new.orig, new.reply);
                self.entries.push(Entry { orig, reply, id, counts: [(0, 0); 2] });
            }
            Insert::Exists(id) => assert_eq!(taken(&new.orig), Some((id, id.dir()))),
            Insert::ReplyTaken => assert!(taken(&new.reply.unwrap()).is_some()),
            Insert::DenialsFull => assert!(denials >= 64 && new.reply.is_none()),
            Insert::Full => assert!(self.entries.len() >= 24),
            other => panic!("{other:?}"),
        }
    }

    fn remove(&mut self, worker: &mut FlowWorker, which: usize) {
        if self.entries.is_empty() {
            return;
        }
        let entry = self.entries.swap_remove(which % self.entries.len());
        assert!(worker.remove(entry.id));
        assert!(!worker.remove(entry.id), "a second removal does nothing");
        self.keys.remove(&entry.orig);
        if let Some(reply) = entry.reply {
            self.keys.remove(&reply);
        }
    }

    fn touch(&mut self, table: &FlowTable, which: usize, reply: bool, bytes: u32) {
        if self.entries.is_empty() {
            return;
        }
        let at = which % self.entries.len();
        let entry = &mut self.entries[at];
        let dir = if reply && entry.reply.is_some() { Dir::Reply } else { Dir::Orig };
        table.flow(entry.id.with_dir(dir)).unwrap().touch(5, bytes);
        entry.counts[dir as usize].0 += 1;
        entry.counts[dir as usize].1 += u64::from(bytes);
    }

    fn check(&self, table: &FlowTable) {
        for (key, (id, dir)) in &self.keys {
            let flow = table.lookup(key, table.hash(key)).expect("a key that was entered is found");
            assert_eq!((flow.id(), flow.dir(), flow.tuple()), (*id, *dir, *key));
        }
        for entry in &self.entries {
            let flow = table.flow(entry.id).unwrap();
            assert_eq!((flow.packets(), flow.bytes()), entry.counts[0]);
            assert_eq!(flow.is_denial(), entry.reply.is_none());
            assert_eq!(flow.marks(), 9);
            if let Some(reply) = entry.reply {
                let peer = flow.peer();
                assert_eq!((peer.packets(), peer.bytes()), entry.counts[1]);
                assert_rewrite(flow.rewrite(), reply.reversed());
                assert_rewrite(peer.rewrite(), entry.orig.reversed());
            }
        }
        let counts = table.counts();
        let denials = self.entries.iter().filter(|e| e.reply.is_none()).count() as u64;
        assert_eq!(counts.denials, denials);
        assert_eq!(counts.connections + counts.denials, self.entries.len() as u64);
    }
}

fn assert_rewrite(rewrite: Rewrite, leaves_as: Tuple) {
    assert_eq!((rewrite.src, rewrite.dst), (leaves_as.src, leaves_as.dst));
    assert_eq!((rewrite.src_port, rewrite.dst_port), (leaves_as.src_port, leaves_as.dst_port));
}

proptest! {
    #[test]
    fn it_behaves_as_a_hash_map_with_two_keys(ops in prop::collection::vec(op(), 0..400)) {
        let table = table(64, 64);
        let mut worker = worker(&table);
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Connect { v6, client, server, nat } => {
                    let orig = tuple(v6, client, server, 1000, 80);
                    let mut reply = orig.reversed();
                    if nat > 0 {
                        (reply.src_port, reply.dst_port) = (8080, nat);
                    }
                    let new = NewFlow { marks: 9, ..NewFlow::connection(orig, reply, 1) };
                    model.insert(&mut worker, new);
                }
                Op::Deny { v6, client, server } => {
                    let denial = NewFlow::denial(tuple(v6, client, server, 1000, 80), 1, Stamped::default());
                    model.insert(&mut worker, NewFlow { marks: 9, ..denial });
                }
                Op::Remove { which } => model.remove(&mut worker, which),
                Op::Touch { which, reply, bytes } => model.touch(&table, which, reply, bytes),
                Op::Quiesce => worker.quiesce(),
            }
            model.check(&table);
        }
    }
}

#[test]
fn a_mixed_pair_of_families_is_kept_as_it_is() {
    let table = table(4, 4);
    let mut worker = worker(&table);
    let (orig, reply) = (tuple(true, 1, 2, 3, 4), tuple(false, 5, 6, 7, 8));
    assert!(matches!(worker.insert(&NewFlow::connection(orig, reply, 0)), Insert::New(_)));
    let found = table.lookup(&reply, table.hash(&reply)).unwrap();
    assert_eq!((found.tuple(), found.peer().tuple()), (reply, orig));
    assert_rewrite(found.rewrite(), orig.reversed());
}

#[test]
fn a_table_can_be_filled_to_its_last_record() {
    let table = table(100_000, 0);
    let mut worker = worker(&table);
    let mut crowded = 0;
    for n in 0..100_000u32 {
        // Neighbouring addresses and ports, as they come in a cluster.
        let orig =
            tuple(false, n as u16 & 0xff, (n >> 8) as u16 & 0xf, 1000 + (n >> 12) as u16, 80);
        match worker.insert(&NewFlow::connection(orig, orig.reversed(), 0)) {
            Insert::New(_) => {}
            Insert::Crowded => crowded += 1,
            other => panic!("{other:?} at {n}"),
        }
    }
    assert!(crowded <= 3, "{crowded}");
    assert!(worker.under_pressure(false));
    let last = tuple(false, 999, 0, 0, 0);
    let result = worker.insert(&NewFlow::connection(last, last.reversed(), 0));
    assert!(crowded > 0 || result == Insert::Full);
}
