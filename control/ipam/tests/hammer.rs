//! Many nodes at once on one directory: no address twice, nothing left behind.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{assert_sound, names, node, pool, request};
use margay_datastore::testing::{Faults, Faulty, open_dir};
use margay_datastore::{self as datastore, Datastore};
use margay_ipam::{AutoAssign, Error, Ipam};
use tempfile::tempdir;

/// Who believes to have which address, across all nodes.
type Ledger = Arc<Mutex<HashMap<IpAddr, String>>>;

/// What one node does: pods come and go by a small generator of its own.
struct Worker {
    name: String,
    node: String,
    root: PathBuf,
    ledger: Ledger,
    steps: usize,
    faults: Option<Faults>,
    seed: u64,
}

/// What a worker has left at its end: handles that may have addresses.
type Left = Vec<String>;

impl Worker {
    /// Runs in a thread with a runtime and a datastore of its own, as a process would.
    fn start(self) -> std::thread::JoinHandle<Left> {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(self.run())
        })
    }

    async fn run(self) -> Left {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let store: Arc<dyn Datastore> = open_dir(&self.root).await;
        let store = match self.faults {
            Some(faults) => Arc::new(Faulty::new(store, faults, self.seed)) as Arc<dyn Datastore>,
            None => store,
        };
        let ipam = Ipam::new(store);
        let mut alive: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let mut doubtful = Vec::new();
        for step in 0..self.steps {
            if random.u8(..10) < 6 || alive.is_empty() {
                let handle = format!("net.{}-{step}", self.name);
                match self.add(&ipam, &handle, random.usize(1..3)).await {
                    Some(ips) => drop(alive.insert(handle, ips)),
                    None => doubtful.push(handle),
                }
            } else {
                let which = random.usize(..alive.len());
                let handle = alive.keys().nth(which).cloned().unwrap();
                let ips = alive.remove(&handle).unwrap_or_default();
                if !self.delete(&ipam, &handle, &ips).await {
                    doubtful.push(handle);
                }
            }
        }
        doubtful.extend(alive.into_keys());
        doubtful
    }

    async fn add(&self, ipam: &Ipam, handle: &str, count: usize) -> Option<Vec<IpAddr>> {
        let wanted = AutoAssign { v4: count, v6: 1, ..request(&self.node, handle) };
        let assigned = match ipam.auto_assign(&wanted).await {
            Ok(assigned) => assigned,
            Err(Error::Exhausted { .. }) => return None,
            Err(error) => return self.forgive(error),
        };
        assert_eq!((assigned.v4.len(), assigned.v6.len()), (count, 1));
        let ips: Vec<IpAddr> = assigned.v4.iter().chain(&assigned.v6).map(|n| n.addr()).collect();
        let mut ledger = self.ledger.lock().unwrap();
        for ip in &ips {
            let other = ledger.insert(*ip, handle.to_owned());
            assert_eq!(other, None, "{ip} was given to {handle}");
        }
        Some(ips)
    }

    /// The ledger forgets first: from then on another node may have the address.
    async fn delete(&self, ipam: &Ipam, handle: &str, ips: &[IpAddr]) -> bool {
        for ip in ips {
            assert_eq!(self.ledger.lock().unwrap().remove(ip).as_deref(), Some(handle));
        }
        match ipam.release_by_handle(handle).await {
            Ok(released) if self.faults.is_none() => assert_eq!(released.len(), ips.len()),
            Ok(_) => {}
            Err(error) => {
                self.forgive::<()>(error);
                return false;
            }
        }
        true
    }

    /// Errors of the datastore are part of the game where they are injected.
    fn forgive<T>(&self, error: Error) -> Option<T> {
        let injected = matches!(error, Error::Store(datastore::Error::Unavailable { .. }));
        assert!(injected && self.faults.is_some(), "{error}");
        None
    }
}

async fn hammer(root: &Path, nodes: u64, steps: usize, faults: Option<Faults>) -> Left {
    let ledger = Ledger::default();
    let workers: Vec<_> = (0..nodes)
        .map(|seed| {
            // Two workers a node: an agent that was started twice by mistake.
            let (name, node) = (format!("w{seed}"), format!("n{}", seed / 2));
            let (root, ledger) = (root.to_owned(), ledger.clone());
            Worker { name, node, root, ledger, steps, faults, seed }.start()
        })
        .collect();
    workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
}

async fn assert_nothing_is_left(root: &Path, handles: Left) {
    let ipam = node(root).await;
    for handle in handles {
        ipam.release_by_handle(&handle).await.unwrap();
    }
    assert_eq!(ipam.allocations().await.unwrap(), []);
    let objects: Arc<dyn Datastore> = open_dir(root).await;
    assert_eq!(names(&objects, "IPAMHandle").await, [""; 0]);
}

#[tokio::test]
async fn nodes_that_assign_at_once_never_share_an_address_and_leave_nothing() {
    let root = tempdir().unwrap();
    pool(root.path(), "p4", "10.0.0.0/24", 28).await;
    pool(root.path(), "p6", "fd00::/112", 122).await;
    let left = hammer(root.path(), 4, 40, None).await;
    assert_sound(&node(root.path()).await).await;
    assert_nothing_is_left(root.path(), left).await;
}

#[tokio::test]
async fn a_pool_that_is_too_small_for_all_is_shared_to_the_last_address() {
    let root = tempdir().unwrap();
    pool(root.path(), "p4", "10.0.0.0/28", 30).await;
    pool(root.path(), "p6", "fd00::/112", 122).await;
    let left = hammer(root.path(), 4, 40, None).await;
    assert_sound(&node(root.path()).await).await;
    assert_nothing_is_left(root.path(), left).await;
}

#[tokio::test]
async fn an_unreliable_datastore_makes_no_address_double_and_loses_none() {
    let root = tempdir().unwrap();
    pool(root.path(), "p4", "10.0.0.0/24", 28).await;
    pool(root.path(), "p6", "fd00::/112", 122).await;
    let faults = Faults {
        conflict: 0.2,
        unavailable: 0.01,
        lost_answer: 0.03,
        delay: Duration::from_millis(1),
        ..Faults::default()
    };
    let left = hammer(root.path(), 4, 40, Some(faults)).await;
    assert!(!left.is_empty());
    assert_nothing_is_left(root.path(), left).await;
}

#[tokio::test]
async fn assigning_and_releasing_under_one_handle_at_once_leaves_nothing() {
    let root = tempdir().unwrap();
    pool(root.path(), "p4", "10.0.0.0/26", 28).await;
    let (one, two) = (Arc::new(node(root.path()).await), node(root.path()).await);
    let adder = one.clone();
    let adding = tokio::spawn(async move {
        for _ in 0..40 {
            adder.auto_assign(&request("n1", "net.same")).await.unwrap();
        }
    });
    while !adding.is_finished() {
        two.release_by_handle("net.same").await.unwrap();
    }
    adding.await.unwrap();
    assert_sound(&one).await;
    assert_nothing_is_left(root.path(), vec!["net.same".into()]).await;
}

#[tokio::test]
async fn blocks_given_up_while_others_assign_leave_the_records_sound() {
    let root = tempdir().unwrap();
    pool(root.path(), "p4", "10.0.0.0/27", 30).await;
    let (one, two) = (Arc::new(node(root.path()).await), node(root.path()).await);
    let owner = margay_ipam::Owner::host("n1");
    let adder = one.clone();
    let adding = tokio::spawn(async move {
        for number in 0..30 {
            let handle = format!("net.{number}");
            let many = AutoAssign { v4: 3, ..request("n1", &handle) };
            adder.auto_assign(&many).await.unwrap();
            adder.release_by_handle(&handle).await.unwrap();
        }
    });
    while !adding.is_finished() {
        for block in two.usage().await.unwrap().pools[0].blocks.clone() {
            match two.release_affinity(&owner, block.cidr, true).await {
                Ok(()) | Err(Error::NotEmpty(_) | Error::Contended(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    adding.await.unwrap();
    assert_eq!(one.allocations().await.unwrap(), []);
    // What was cut off in the middle is mended by the next request that comes across it.
    one.auto_assign(&AutoAssign { v4: 32, ..request("n1", "net.all") }).await.unwrap();
    assert_sound(&one).await;
}
