//! Endpoints of the CNI plugins, as far as the dataplane is concerned.

use std::time::{Duration, Instant};

use margay_cni_api::{AddEndpoint, Bandwidth, Client, CniError, Code, DelEndpoint, Done};

use crate::dataplane::FakeDataplane;
use crate::nodes::{attachment, workload};
use crate::rig::{Agent, Directory, POOL};

const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: default}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
---
apiVersion: v1
kind: Pod
metadata: {name: p1, namespace: default, labels: {app: web}}
spec: {nodeName: a, containers: []}
";

pub(crate) fn add(timeout_s: u32) -> AddEndpoint {
    AddEndpoint {
        attachment: attachment("c1"),
        workload: workload("p1"),
        netns: "/var/run/netns/x".into(),
        host_interface: "cali0123456789a".into(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        addresses: vec!["10.244.0.1".parse().unwrap()],
        mtu: 1450,
        host_ports: Vec::new(),
        bandwidth: Bandwidth::default(),
        timeout_s,
    }
}

/// An agent that has told its dataplane a state, and a client of it. All live as long as they are
/// held.
async fn started() -> (Directory, FakeDataplane, Agent, Client) {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let dataplane = directory.dataplane("a");
    let agent = directory.agent("a", "192.0.2.1/24");
    dataplane.until("told a state", |told| told.full_states == 1).await;
    let client = agent.cni().await;
    (directory, dataplane, agent, client)
}

pub(crate) async fn call(client: &Client, request: AddEndpoint) -> Result<Done, CniError> {
    let client = client.clone();
    tokio::task::spawn_blocking(move || client.call(request)).await.expect("the call ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_endpoint_has_the_policy_of_documents_that_were_there_when_add_was_called() {
    let (directory, dataplane, _agent, client) = started().await;

    // The files are in place, and nobody has had the time to notice.
    directory.write("policy.yaml", POLICY);
    call(&client, add(10)).await.expect("added");
    let told = dataplane.told();
    let endpoint = told.state.endpoints.get("default/p1/eth0").expect("the endpoint is in force");
    assert_eq!(&*endpoint.interface, "cali0123456789a");
    assert_eq!(endpoint.addresses, ["10.244.0.1".parse::<std::net::IpAddr>().unwrap()]);
    let policies: Vec<_> = endpoint.tiers.iter().flat_map(|tier| &tier.ingress).collect();
    assert_eq!(policies.len(), 1);
    assert!(told.state.policies.contains_key(policies[0]), "{policies:?}");

    let delete = DelEndpoint { attachment: attachment("c1"), workload: workload("p1") };
    let deleted = tokio::task::spawn_blocking(move || client.call(delete)).await.unwrap();
    assert!(deleted.expect("deleted").existed);
    assert!(dataplane.told().state.endpoints.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn add_waits_for_the_acknowledgement_and_says_what_is_missing() {
    let (_directory, dataplane, _agent, client) = started().await;

    dataplane.manner.send_modify(|manner| manner.mute = true);
    let begin = Instant::now();
    let error = call(&client, add(1)).await.expect_err("nothing was acknowledged");
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(error.code, Code::TRY_AGAIN_LATER);
    assert!(error.msg.contains("has not put the change in force"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn add_says_why_an_interface_was_not_attached() {
    let (_directory, dataplane, _agent, client) = started().await;

    dataplane.manner.send_modify(|manner| manner.down = Some("no such interface".into()));
    let error = call(&client, add(1)).await.expect_err("the interface is down");
    assert!(error.msg.contains("default/p1/eth0: no such interface"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dataplane_add_says_so() {
    let directory = Directory::new();
    directory.write("pool.yaml", POOL);
    let agent = directory.agent("a", "192.0.2.1/24");
    let client = agent.cni().await;
    let error = call(&client, add(1)).await.expect_err("nobody is there");
    assert_eq!(error.code, Code::TRY_AGAIN_LATER);
    assert!(error.msg.contains("margayd is not connected"), "{error}");
}
