//! What reaches the dataplane, and when.

use std::time::{Duration, Instant};

use crate::dataplane::Told;
use crate::rig::{Directory, POOL};

/// The contract: from the renaming of a file to the dataplane.
const IN_FORCE_WITHIN: Duration = Duration::from_millis(200);

fn pool(name: &str, cidr: &str) -> String {
    POOL.replace("pods", name).replace("10.244.0.0/16", cidr)
}

fn has_pool(cidr: &str) -> impl Fn(&Told) -> bool {
    let cidr = cidr.parse().expect("a network");
    move |told| told.state.pools.contains_key(&cidr)
}

fn assert_quick(changed: Instant, told: &Told) {
    let took = told.at.expect("something was told") - changed;
    assert!(took < IN_FORCE_WITHIN, "in force only after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_thing_told_is_the_complete_state() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let dataplane = directory.dataplane("a");
    let _agent = directory.agent("a", "192.0.2.1/24,2001:db8::1/64");
    let told = dataplane.until("told a state", |told| told.full_states == 1).await;
    assert_eq!(told.commits, 0);
    let node = &told.state.node;
    assert_eq!(&*node.name, "a");
    assert_eq!(node.v4, Some(("192.0.2.1".parse().unwrap(), 24)));
    assert_eq!(node.v6, Some(("2001:db8::1".parse().unwrap(), 64)));
    let pool = told.state.pools.values().next().expect("the pool");
    assert!(pool.nat_outgoing);
    assert_eq!(told.state.pools.len(), 1, "no default pool beside the operator's");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_pool_the_default_pool_is_made() {
    let directory = Directory::new();
    let dataplane = directory.dataplane("a");
    let _agent = directory.agent("a", "192.0.2.1/24");
    dataplane.until("told the default pool", has_pool("192.168.0.0/16")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn additions_changes_and_removals_are_in_force_within_200_ms() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let dataplane = directory.dataplane("a");
    let _agent = directory.agent("a", "192.0.2.1/24");
    dataplane.until("told a state", |told| told.full_states == 1).await;

    let changed = directory.write("more.yaml", &pool("more", "10.245.0.0/16"));
    let told = dataplane.until("told of a new file", has_pool("10.245.0.0/16")).await;
    assert_quick(changed, &told);

    let natted = pool("more", "10.245.0.0/16").replace("natOutgoing: true", "natOutgoing: false");
    let changed = directory.write("more.yaml", &natted);
    let told = dataplane
        .until("told of a changed file", |told| told.state.pools.values().any(|p| !p.nat_outgoing))
        .await;
    assert_quick(changed, &told);

    let changed = directory.remove("more.yaml");
    let told = dataplane.until("told of a removed file", |told| told.state.pools.len() == 1).await;
    assert_quick(changed, &told);
    assert_eq!(told.full_states, 1, "all of these were deltas");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataplane_that_restarts_gets_the_full_state() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let dataplane = directory.dataplane("a");
    let _agent = directory.agent("a", "192.0.2.1/24");
    let before = dataplane.until("told a state", |told| told.full_states == 1).await;

    drop(dataplane);
    directory.write("more.yaml", &pool("more", "10.245.0.0/16"));
    let dataplane = directory.dataplane("a");
    let told = dataplane.until("told of both pools", has_pool("10.245.0.0/16")).await;
    assert_eq!(told.full_states, 1);
    assert_eq!(told.state.node, before.state.node);
    assert_eq!(told.state.pools.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_was_refused_is_followed_by_the_full_state() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let dataplane = directory.dataplane("a");
    let _agent = directory.agent("a", "192.0.2.1/24");
    dataplane.until("told a state", |told| told.full_states == 1).await;

    dataplane.manner.send_modify(|manner| manner.refusals = 1);
    directory.write("more.yaml", &pool("more", "10.245.0.0/16"));
    let told = dataplane.until("told it again", has_pool("10.245.0.0/16")).await;
    assert_eq!((told.full_states, told.commits), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_while_a_commit_is_under_way_come_together_once_it_is_answered() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let dataplane = directory.dataplane("a");
    let _agent = directory.agent("a", "192.0.2.1/24");
    dataplane.until("told a state", |told| told.full_states == 1).await;

    dataplane.manner.send_modify(|manner| manner.mute = true);
    directory.write("b.yaml", &pool("b", "10.245.0.0/16"));
    dataplane.until("told of the first", has_pool("10.245.0.0/16")).await;
    directory.write("c.yaml", &pool("c", "10.246.0.0/16"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!has_pool("10.246.0.0/16")(&dataplane.told()), "sent before the first was answered");
}
