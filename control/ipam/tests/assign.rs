//! Who gets which address, on a directory.

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use common::{assert_sound, attributes, names, node, pool, remove, request, store};
use margay_datastore::Datastore;
use margay_datastore::testing::open_dir;
use margay_ipam::admin::Configuration;
use margay_ipam::{AssignIp, AutoAssign, Error, Ipam, Owner, Shortage};
use margay_resources::v3::AllowedUse;
use serde_json::json;
use tempfile::tempdir;

#[tokio::test]
async fn the_first_address_claims_a_block_with_a_confirmed_affinity() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/24", 26).await;
    let ipam = node(root.path()).await;
    let assigned = ipam.auto_assign(&request("n1", "net.a")).await.unwrap();
    assert_eq!(assigned.v4.len(), 1);
    assert_eq!(assigned.v4[0].prefix_len(), 26);

    let objects: Arc<dyn Datastore> = open_dir(root.path()).await;
    let block = assigned.v4[0].trunc().to_string().replace(['.', '/'], "-");
    assert_eq!(names(&objects, "IPAMBlock").await, std::slice::from_ref(&block));
    assert_eq!(names(&objects, "BlockAffinity").await, [format!("n1-{block}")]);
    assert_eq!(names(&objects, "IPAMHandle").await, ["net.a"]);
    let file = root.path().join(format!("state/IPAMBlock/{block}.json"));
    let text: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(text["spec"]["affinity"], "host:n1");
    assert_eq!(text["spec"]["attributes"][0]["handle_id"], "net.a");
    assert_eq!(text["spec"]["attributes"][0]["secondary"]["pod"], "net.a");
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn two_nodes_have_blocks_of_their_own() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/24", 26).await;
    let (one, two) = (node(root.path()).await, node(root.path()).await);
    let a = one.auto_assign(&request("n1", "net.a")).await.unwrap();
    let b = two.auto_assign(&request("n2", "net.b")).await.unwrap();
    assert_ne!(a.v4[0].trunc(), b.v4[0].trunc());
    let again = one.auto_assign(&request("n1", "net.c")).await.unwrap();
    assert_eq!(again.v4[0].trunc(), a.v4[0].trunc());
}

#[tokio::test]
async fn both_families_are_assigned_or_none() {
    let root = tempdir().unwrap();
    pool(root.path(), "p4", "10.0.0.0/24", 26).await;
    let ipam = node(root.path()).await;
    let both = AutoAssign { v6: 1, ..request("n1", "net.a") };
    let error = ipam.auto_assign(&both).await.unwrap_err();
    assert!(matches!(error, Error::NoPool { .. }), "{error}");
    assert!(ipam.allocations().await.unwrap().is_empty());
    assert!(ipam.ips_by_handle("net.a").await.unwrap().is_empty());

    pool(root.path(), "p6", "fd00::/64", 122).await;
    let assigned = ipam.auto_assign(&both).await.unwrap();
    assert_eq!((assigned.v4.len(), assigned.v6.len()), (1, 1));
    assert_eq!(ipam.ips_by_handle("net.a").await.unwrap().len(), 2);
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn a_full_pool_lends_from_other_nodes_unless_affinity_is_strict() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/29", 30).await;
    let ipam = node(root.path()).await;
    ipam.auto_assign(&request("n1", "net.a")).await.unwrap();
    ipam.auto_assign(&request("n2", "net.b")).await.unwrap();
    let change = Configuration { strict_affinity: Some(true), ..Configuration::default() };
    ipam.configure(change).await.unwrap();
    for number in 0..3 {
        ipam.auto_assign(&request("n1", &format!("net.{number}"))).await.unwrap();
    }
    let error = ipam.auto_assign(&request("n1", "net.over")).await.unwrap_err();
    assert!(matches!(error, Error::Exhausted { shortage: Shortage::Strict, .. }), "{error}");

    let change = Configuration { strict_affinity: Some(false), ..Configuration::default() };
    ipam.configure(change).await.unwrap();
    for number in 3..6 {
        ipam.auto_assign(&request("n1", &format!("net.{number}"))).await.unwrap();
    }
    assert_eq!(ipam.borrowed().await.unwrap().len(), 3);
    let error = ipam.auto_assign(&request("n1", "net.over")).await.unwrap_err();
    assert!(matches!(error, Error::Exhausted { shortage: Shortage::Full, .. }), "{error}");
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn a_node_at_its_limit_of_blocks_gets_no_more_and_borrows_nothing() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/24", 32).await;
    let ipam = node(root.path()).await;
    for number in 0..20 {
        ipam.auto_assign(&request("n1", &format!("net.{number}"))).await.unwrap();
    }
    let error = ipam.auto_assign(&request("n1", "net.over")).await.unwrap_err();
    assert!(matches!(error, Error::Exhausted { shortage: Shortage::BlockLimit, .. }), "{error}");
}

#[tokio::test]
async fn reserved_addresses_are_given_only_when_asked_for() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/30", 30).await;
    store(root.path(), "IPReservation", "r", json!({"reservedCIDRs": ["10.0.0.0/31", "10.0.0.3"]}))
        .await;
    let ipam = node(root.path()).await;
    let assigned = ipam.auto_assign(&request("n1", "net.a")).await.unwrap();
    assert_eq!(assigned.v4[0].addr(), "10.0.0.2".parse::<IpAddr>().unwrap());
    assert!(ipam.auto_assign(&request("n1", "net.b")).await.is_err());
    let given = AssignIp {
        ip: "10.0.0.1".parse().unwrap(),
        owner: Owner::host("n1"),
        handle: Some("net.b".into()),
        attributes: attributes("n1", "b"),
        wanted: Some(AllowedUse::Workload),
    };
    ipam.assign_ip(&given).await.unwrap();
    assert!(matches!(ipam.assign_ip(&given).await, Err(Error::Taken(_))));
    let outside = AssignIp { ip: "10.9.0.1".parse().unwrap(), ..given.clone() };
    assert!(matches!(ipam.assign_ip(&outside).await, Err(Error::NotInPool(_))));
    let tunnel = AssignIp { wanted: Some(AllowedUse::LoadBalancer), ..given };
    assert!(matches!(ipam.assign_ip(&tunnel).await, Err(Error::UseNotAllowed { .. })));
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn a_given_address_is_nobody_elses_also_when_blocks_have_another_size_now() {
    for (before, after) in [(26, 28), (28, 26)] {
        let root = tempdir().unwrap();
        pool(root.path(), "p", "10.0.0.0/24", before).await;
        let ipam = node(root.path()).await;
        let given = |ip: &str, handle: &str| AssignIp {
            ip: ip.parse().unwrap(),
            owner: Owner::host("n1"),
            handle: Some(handle.into()),
            attributes: attributes("n1", handle),
            wanted: None,
        };
        ipam.assign_ip(&given("10.0.0.5", "net.a")).await.unwrap();
        remove(root.path(), "IPPool", "p").await;
        pool(root.path(), "p", "10.0.0.0/24", after).await;
        let again = ipam.assign_ip(&given("10.0.0.5", "net.b")).await;
        assert!(matches!(again, Err(Error::Taken(_))), "{again:?}");
        // Beside the block of the earlier size.
        for ip in ["10.0.0.20", "10.0.0.70"] {
            ipam.assign_ip(&given(ip, "net.c")).await.unwrap();
        }
        assert_sound(&ipam).await;
    }
}

#[tokio::test]
async fn a_given_address_of_another_nodes_block_is_refused_when_affinity_is_strict() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/26", 26).await;
    let ipam = node(root.path()).await;
    ipam.auto_assign(&request("n1", "net.a")).await.unwrap();
    let given = AssignIp {
        ip: "10.0.0.50".parse().unwrap(),
        owner: Owner::host("n2"),
        handle: Some("net.b".into()),
        attributes: attributes("n2", "b"),
        wanted: None,
    };
    let strict = |on| Configuration { strict_affinity: Some(on), ..Configuration::default() };
    ipam.configure(strict(true)).await.unwrap();
    assert!(matches!(ipam.assign_ip(&given).await, Err(Error::ForeignBlock { .. })));
    ipam.configure(strict(false)).await.unwrap();
    ipam.assign_ip(&given).await.unwrap();
}

#[tokio::test]
async fn releasing_by_handle_twice_is_no_error_and_leaves_nothing() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/24", 26).await;
    let ipam = node(root.path()).await;
    let many = AutoAssign { v4: 70, ..request("n1", "net.a") };
    assert_eq!(ipam.auto_assign(&many).await.unwrap().v4.len(), 70);
    assert_eq!(ipam.release_by_handle("net.a").await.unwrap().len(), 70);
    assert!(ipam.release_by_handle("net.a").await.unwrap().is_empty());
    let objects: Arc<dyn Datastore> = open_dir(root.path()).await;
    assert!(names(&objects, "IPAMHandle").await.is_empty());
    assert_eq!(names(&objects, "IPAMBlock").await.len(), 2);
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn pools_asked_for_and_selectors_decide_where_an_address_comes_from() {
    let root = tempdir().unwrap();
    pool(root.path(), "a", "10.1.0.0/24", 26).await;
    let spec =
        json!({"cidr": "10.2.0.0/24", "namespaceSelector": "kubernetes.io/metadata.name == 'x'"});
    store(root.path(), "IPPool", "0-x", spec).await;
    let ipam = node(root.path()).await;
    let in_pool = |assigned: margay_ipam::Assigned, third: u8| {
        let IpAddr::V4(ip) = assigned.v4[0].addr() else { panic!("IPv4") };
        assert_eq!(ip.octets()[1], third);
    };
    let of_x = AutoAssign { namespace: Some("x".into()), ..request("n", "net.1") };
    in_pool(ipam.auto_assign(&of_x).await.unwrap(), 2);
    in_pool(ipam.auto_assign(&request("n", "net.2")).await.unwrap(), 1);
    let asked = AutoAssign { v4_pools: vec!["10.2.0.0/24".into()], ..request("n", "net.3") };
    in_pool(ipam.auto_assign(&asked).await.unwrap(), 2);
    let wrong = AutoAssign { v4_pools: vec!["nothing".into()], ..request("n", "net.4") };
    assert!(matches!(ipam.auto_assign(&wrong).await, Err(Error::PoolUnusable(_))));
}

#[tokio::test]
async fn an_address_is_given_back_even_when_its_pool_is_gone() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/24", 26).await;
    let ipam = node(root.path()).await;
    let ip = ipam.auto_assign(&request("n1", "net.a")).await.unwrap().v4[0].addr();
    remove(root.path(), "IPPool", "p").await;
    let report = ipam.check(None).await.unwrap();
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    let release = margay_ipam::release::Release { ip, handle: None, sequence: None };
    assert_eq!(ipam.release_ips(&[release]).await.unwrap().released.len(), 1);
    assert_eq!(ipam.release_ips(&[release]).await.unwrap().were_free, [ip]);
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn an_affinity_left_pending_by_a_dead_process_is_taken_up_again() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/26", 26).await;
    let affinity = json!({"state": "pending", "node": "n1", "type": "host", "cidr": "10.0.0.0/26", "deleted": "false"});
    store(root.path(), "BlockAffinity", "n1-10-0-0-0-26", affinity).await;
    let ipam: Ipam = node(root.path()).await;
    ipam.auto_assign(&request("n1", "net.a")).await.unwrap();
    assert_sound(&ipam).await;
}

#[tokio::test]
async fn a_stale_affinity_to_a_block_of_another_node_is_removed() {
    let root = tempdir().unwrap();
    pool(root.path(), "p", "10.0.0.0/25", 26).await;
    let ipam = node(root.path()).await;
    let block = ipam.auto_assign(&request("n1", "net.a")).await.unwrap().v4[0].trunc();
    let name = format!("n2-{}", block.to_string().replace(['.', '/'], "-"));
    let affinity =
        json!({"state": "confirmed", "node": "n2", "cidr": block.to_string(), "deleted": "false"});
    store(root.path(), "BlockAffinity", &name, affinity).await;
    let other = ipam.auto_assign(&request("n2", "net.b")).await.unwrap().v4[0].trunc();
    assert_ne!(other, block);
    assert_sound(&ipam).await;
}
