//! Tunnel addresses, garbage and what the operator asks for.

mod common;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use common::{assert_sound, names, node, pool, remove, request, store};
use jiff::{SignedDuration, Timestamp};
use margay_datastore::Datastore;
use margay_datastore::testing::open_dir;
use margay_ipam::admin::Configuration;
use margay_ipam::check::{Finding, User};
use margay_ipam::query::AddressState;
use margay_ipam::{AutoAssign, Error, Ipam, Owner, TunnelKind};
use serde_json::json;
use tempfile::tempdir;

#[tokio::test]
async fn a_tunnel_address_stays_while_a_pool_needs_it_and_moves_with_the_pools() {
    let root = tempdir().unwrap();
    let ipam = node(root.path()).await;
    assert_eq!(ipam.ensure_tunnel_address("n1", TunnelKind::Ipip).await.unwrap(), None);
    store(root.path(), "IPPool", "a", json!({"cidr": "10.1.0.0/24", "ipipMode": "Always"})).await;
    let first = ipam.ensure_tunnel_address("n1", TunnelKind::Ipip).await.unwrap().unwrap();
    assert!(first.to_string().starts_with("10.1.0."));
    assert_eq!(ipam.ensure_tunnel_address("n1", TunnelKind::Ipip).await.unwrap(), Some(first));
    assert_eq!(ipam.ensure_tunnel_address("n1", TunnelKind::Vxlan).await.unwrap(), None);

    let found = ipam.ips_by_handle("ipip-tunnel-addr-n1").await.unwrap();
    assert_eq!(found[0].attributes["type"], "ipipTunnelAddress");
    assert_eq!(found[0].attributes["node"], "n1");

    remove(root.path(), "IPPool", "a").await;
    store(root.path(), "IPPool", "b", json!({"cidr": "10.2.0.0/24", "ipipMode": "CrossSubnet"}))
        .await;
    let second = ipam.ensure_tunnel_address("n1", TunnelKind::Ipip).await.unwrap().unwrap();
    assert!(second.to_string().starts_with("10.2.0."));
    remove(root.path(), "IPPool", "b").await;
    assert_eq!(ipam.ensure_tunnel_address("n1", TunnelKind::Ipip).await.unwrap(), None);
    assert!(ipam.allocations().await.unwrap().is_empty());
}

#[tokio::test]
async fn tunnels_of_both_families_have_addresses_of_their_own() {
    let root = tempdir().unwrap();
    store(root.path(), "IPPool", "a", json!({"cidr": "10.1.0.0/24", "vxlanMode": "Always"})).await;
    store(root.path(), "IPPool", "b", json!({"cidr": "fd00::/64", "vxlanMode": "Always"})).await;
    let ipam = node(root.path()).await;
    let v4 = ipam.ensure_tunnel_address("n1", TunnelKind::Vxlan).await.unwrap().unwrap();
    let v6 = ipam.ensure_tunnel_address("n1", TunnelKind::VxlanV6).await.unwrap().unwrap();
    assert!(v4.is_ipv4() && v6.is_ipv6());
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn garbage_of_a_network_is_released_and_the_rest_stays() {
    let root = tempdir().unwrap();
    store(root.path(), "IPPool", "a", json!({"cidr": "10.1.0.0/24", "ipipMode": "Always"})).await;
    let ipam = node(root.path()).await;
    for (node, handle) in [("n1", "net.a"), ("n1", "net.b"), ("n1", "other.c"), ("n2", "net.d")] {
        ipam.auto_assign(&request(node, handle)).await.unwrap();
    }
    ipam.ensure_tunnel_address("n1", TunnelKind::Ipip).await.unwrap().unwrap();
    let keep = HashSet::from(["net.a".to_owned()]);
    let released = ipam.release_handles_except("n1", "net", &keep).await.unwrap();
    assert_eq!(released.len(), 1);
    assert_eq!(released[0].handle.as_deref(), Some("net.b"));
    assert_eq!(ipam.allocations().await.unwrap().len(), 4);
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn a_node_that_is_gone_leaves_nothing_but_what_others_borrowed() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/30", 30).await;
    let ipam = node(root.path()).await;
    ipam.auto_assign(&request("n1", "net.a")).await.unwrap();
    ipam.auto_assign(&request("n2", "net.b")).await.unwrap();
    assert_eq!(ipam.release_node("n1").await.unwrap().len(), 1);
    let left = ipam.allocations().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].handle.as_deref(), &left[0].owner), (Some("net.b"), &None));
    assert_sound(&ipam).await;
    ipam.release_by_handle("net.b").await.unwrap();
    let objects: Arc<dyn Datastore> = open_dir(root.path()).await;
    for kind in ["IPAMBlock", "BlockAffinity", "IPAMHandle"] {
        assert!(names(&objects, kind).await.is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn empty_blocks_are_given_up_after_a_minute_but_for_the_last() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/24", 30).await;
    let time = Arc::new(Mutex::new(Timestamp::now()));
    let clock = time.clone();
    let ipam =
        Ipam::with_clock(open_dir(root.path()).await, Arc::new(move || *clock.lock().unwrap()));
    let many = AutoAssign { v4: 12, ..request("n1", "net.a") };
    ipam.auto_assign(&many).await.unwrap();
    ipam.release_by_handle("net.a").await.unwrap();
    let owner = Owner::host("n1");
    assert!(ipam.release_empty_blocks(&owner).await.unwrap().is_empty());
    *time.lock().unwrap() += SignedDuration::from_secs(61);
    assert_eq!(ipam.release_empty_blocks(&owner).await.unwrap().len(), 2);
    assert!(ipam.release_empty_blocks(&owner).await.unwrap().is_empty());
    remove(root.path(), "IPPool", "p").await;
    assert_eq!(ipam.release_empty_blocks(&owner).await.unwrap().len(), 1);
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn a_released_address_rests_for_the_cooldown() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/32", 32).await;
    store(root.path(), "IPAMConfiguration", "default", json!({"ipCooldownSeconds": 30})).await;
    let time = Arc::new(Mutex::new(Timestamp::now()));
    let clock = time.clone();
    let ipam =
        Ipam::with_clock(open_dir(root.path()).await, Arc::new(move || *clock.lock().unwrap()));
    ipam.auto_assign(&request("n1", "net.a")).await.unwrap();
    ipam.release_by_handle("net.a").await.unwrap();
    assert!(ipam.auto_assign(&request("n1", "net.b")).await.is_err());
    *time.lock().unwrap() += SignedDuration::from_secs(31);
    ipam.auto_assign(&request("n1", "net.b")).await.unwrap();
}

#[tokio::test]
async fn usage_adds_up_and_an_address_tells_who_has_it() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/24", 26).await;
    store(root.path(), "IPReservation", "r", json!({"reservedCIDRs": ["10.0.0.200/32"]})).await;
    let ipam = node(root.path()).await;
    let ip = ipam.auto_assign(&request("n1", "net.a")).await.unwrap().v4[0].addr();
    let usage = ipam.usage().await.unwrap();
    assert_eq!((usage.pools[0].size, usage.pools[0].used, usage.pools[0].free), (256, 1, 255));
    assert_eq!(usage.pools[0].blocks[0].owner, Some(Owner::host("n1")));
    assert!(
        matches!(ipam.address(ip).await.unwrap(), AddressState::InUse(a) if a.attributes["pod"] == "net.a")
    );
    let state = async |text: &str| ipam.address(text.parse().unwrap()).await.unwrap();
    assert_eq!(state("10.0.0.200").await, AddressState::Free { reserved: true });
    assert_eq!(state("10.1.0.0").await, AddressState::Outside);
}

#[tokio::test]
async fn a_check_finds_leaks_foreign_use_and_broken_records() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/24", 26).await;
    let ipam = node(root.path()).await;
    let ip = ipam.auto_assign(&request("n1", "net.a")).await.unwrap().v4[0].addr();
    let stranger = User { ip: "10.0.0.250".parse().unwrap(), name: "pod x".into() };
    let findings = ipam.check(Some(std::slice::from_ref(&stranger))).await.unwrap().findings;
    assert!(
        findings.iter().any(|f| matches!(f, Finding::Leaked { allocation } if allocation.ip == ip))
    );
    assert!(findings.contains(&Finding::NotAllocated { user: stranger }));
    let twice = ["a", "b"].map(|name| User { ip, name: name.into() });
    let findings = ipam.check(Some(&twice)).await.unwrap().findings;
    assert!(matches!(&findings[..], [Finding::Shared { users, .. }] if users.len() == 2));

    remove(root.path(), "IPAMHandle", "net.a").await;
    store(
        root.path(),
        "IPAMHandle",
        "net.x",
        json!({"handleID": "net.x", "block": {"10.0.0.0/26": 2}}),
    )
    .await;
    store(
        root.path(),
        "BlockAffinity",
        "n9-x",
        json!({"state": "confirmed", "node": "n9", "cidr": "10.0.0.64/26"}),
    )
    .await;
    store(root.path(), "IPAMBlock", "bad", json!({"cidr": "10.0.0.128/26", "allocations": [0]}))
        .await;
    let findings = ipam.check(None).await.unwrap().findings;
    let has = |wanted: fn(&Finding) -> bool| assert!(findings.iter().any(wanted), "{findings:#?}");
    has(|f| matches!(f, Finding::HandleMissing { .. }));
    has(|f| matches!(f, Finding::HandleCount { noted: 2, found: 0, .. }));
    has(|f| matches!(f, Finding::AffinityStale { .. }));
    has(|f| matches!(f, Finding::Damaged { .. }));
    assert_eq!(ipam.sweep_handles().await.unwrap(), 1);
}

#[tokio::test]
async fn contradicting_settings_are_refused() {
    let root = tempdir().unwrap();
    let ipam = node(root.path()).await;
    let limit = Configuration { max_blocks_per_host: Some(4), ..Configuration::default() };
    assert!(matches!(ipam.configure(limit).await, Err(Error::Configuration(_))));
    let strict = Configuration { strict_affinity: Some(true), ..limit };
    assert_eq!(ipam.configure(strict).await.unwrap().max_blocks_per_host, 4);
    let lax = Configuration { strict_affinity: Some(false), ..Configuration::default() };
    assert!(matches!(ipam.configure(lax).await, Err(Error::Configuration(_))));
}

#[tokio::test]
async fn a_pool_is_split_and_addresses_stay() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/24", 26).await;
    let ipam = node(root.path()).await;
    let ip = ipam.auto_assign(&request("n1", "net.a")).await.unwrap().v4[0].addr();
    assert!(matches!(ipam.split_pool("p", 3).await, Err(Error::Split { .. })));
    assert!(matches!(ipam.split_pool("p", 8).await, Err(Error::Split { .. })));
    let made = ipam.split_pool("p", 4).await.unwrap();
    assert_eq!(made[3], ("split-p-3".to_owned(), "10.0.0.192/26".parse().unwrap()));
    assert_eq!(ipam.usage().await.unwrap().pools.len(), 4);
    assert!(matches!(ipam.address(ip).await.unwrap(), AddressState::InUse(_)));
    assert_sound(&ipam).await;
}
