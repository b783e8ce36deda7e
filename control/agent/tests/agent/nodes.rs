//! Several agents on one directory.

use margay_cni_api::{Allocate, Attachment, Families, Orchestrator, Workload};
use margay_model::{Encap, RouteTarget};

use crate::rig::{Directory, POOL};

pub(crate) fn attachment(container: &str) -> Attachment {
    Attachment { network: "margay".into(), container_id: container.into(), ifname: "eth0".into() }
}

pub(crate) fn workload(pod: &str) -> Workload {
    Workload {
        orchestrator: Orchestrator::K8s,
        namespace: "default".into(),
        pod: pod.into(),
        uid: String::new(),
    }
}

pub(crate) fn allocate(container: &str, pod: &str) -> Allocate {
    Allocate {
        attachment: attachment(container),
        workload: workload(pod),
        families: Families { ipv4: true, ipv6: false },
        ipv4_pools: vec![],
        ipv6_pools: vec![],
        ips: vec![],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_see_each_others_blocks_as_routes() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let (plane_a, plane_b) = (directory.dataplane("a"), directory.dataplane("b"));
    let agent_a = directory.agent("a", "192.0.2.1/24");
    let _agent_b = directory.agent("b", "192.0.2.2/24");
    for plane in [&plane_a, &plane_b] {
        let knows_the_other = |told: &crate::dataplane::Told| told.state.remotes.len() == 1;
        plane.until("told of the other node", knows_the_other).await;
    }

    let cni = agent_a.cni().await;
    let lease = tokio::task::spawn_blocking(move || cni.call(allocate("c1", "p1")));
    let lease = lease.await.unwrap().expect("an address");
    let address = lease.addresses[0];

    let to = |target: RouteTarget| {
        move |told: &crate::dataplane::Told| {
            let covers =
                |(net, t): (&ipnet::IpNet, &RouteTarget)| net.contains(&address) && *t == target;
            told.state.routes.iter().any(covers)
        }
    };
    plane_a.until("told of its own block", to(RouteTarget::LocalBlock)).await;
    let remote = RouteTarget::Node { node: "a".into(), encap: Encap::None };
    let told = plane_b.until("told of the other's block", to(remote)).await;
    let peer = told.state.remotes.values().next().expect("the peer");
    assert_eq!((&*peer.name, peer.v4), ("a", Some("192.0.2.1".parse().unwrap())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_with_vxlan_gives_every_node_a_tunnel_address_and_a_vtep() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let (plane_a, plane_b) = (directory.dataplane("a"), directory.dataplane("b"));
    let _agent_a = directory.agent("a", "192.0.2.1/24");
    let _agent_b = directory.agent("b", "192.0.2.2/24");
    let told = plane_a.until("told a state", |told| told.full_states == 1).await;
    assert_eq!(told.state.node.tunnel_addresses, []);

    directory.write("pool.yaml", &POOL.replace("natOutgoing", "vxlanMode: Always, natOutgoing"));
    let has_tunnel = |told: &crate::dataplane::Told| !told.state.node.tunnel_addresses.is_empty();
    let told = plane_a.until("told of the tunnel", has_tunnel).await;
    let tunnel = told.state.node.tunnel_addresses[0];
    assert_eq!(tunnel.encap, Encap::Vxlan);
    let pool: ipnet::IpNet = "10.244.0.0/16".parse().unwrap();
    assert!(pool.contains(&tunnel.address), "{tunnel:?}");
    let own_mac = told.state.node.vtep_mac;
    let told = plane_b
        .until("told of the other's VTEP", |told| {
            told.state.remotes.values().any(|peer| peer.vtep_mac == own_mac)
        })
        .await;
    let way = |told: &crate::dataplane::Told| {
        let mut routes = told.state.routes.values();
        routes.any(|t| *t == RouteTarget::Node { node: "a".into(), encap: Encap::Vxlan })
    };
    assert!(way(&plane_b.until("told of the way to it", way).await), "{told:?}");

    directory.write("pool.yaml", POOL);
    plane_a.until("told that the tunnel is gone", |told| !has_tunnel(told)).await;
}
