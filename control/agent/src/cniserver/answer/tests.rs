//! The whole socket: the plugins' own client against the server, on a directory datastore, with a
//! dataplane that says what the test wants.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use margay_cni_api::{
    AddEndpoint, AddressStatus, Allocate, Attachment, AttachmentRef, Bandwidth, Call, CheckAddress,
    CheckEndpoint, Client, CniError, Code, DelEndpoint, Families, GcAddresses, GcEndpoints,
    Orchestrator, PlanEndpoint, Readiness, Release, Status, Workload,
};
use margay_datastore::{Datastore, Url};
use margay_ipam::Ipam;
use margay_model::EndpointKey;
use margay_resources::Kind;
use margay_resources::documents::DocumentReader;
use serde_json::Value;

use super::{Backend, InForce};
use crate::cniserver::serve;
use crate::cniserver::socket::Socket;
use crate::config::NodeAddresses;
use crate::pipeline::WaitError;
use crate::publisher::NotInForce;

/// A dataplane that is connected or not, and remembers for which endpoints it was waited.
#[derive(Default)]
struct Dataplane {
    away: AtomicBool,
}

impl InForce for Arc<Dataplane> {
    async fn in_force(&self, _: Option<&EndpointKey>, _: Duration) -> Result<(), WaitError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(NotInForce::NotConnected { trouble: None }.into());
        }
        Ok(())
    }
}

/// An agent's CNI side, and everything around it.
struct Rig {
    folder: tempfile::TempDir,
    store: Arc<dyn Datastore>,
    ipam: Arc<Ipam>,
    dataplane: Arc<Dataplane>,
}

const POOLS: &str = "
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: a-blue}
spec: {cidr: 10.1.0.0/24, blockSize: 26, vxlanMode: Always}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: b-red}
spec: {cidr: 10.2.0.0/24, blockSize: 26}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: c-six}
spec: {cidr: 'fd00:1::/112', blockSize: 122}
";

impl Rig {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let documents = folder.path().join("documents");
        fs::create_dir(&documents).expect("a folder");
        fs::write(documents.join("pools.yaml"), POOLS).expect("a document");
        let url = Url::Dir(documents);
        let store = margay_datastore::open(&url, Arc::new(DocumentReader)).await;
        let store = store.expect("a datastore");
        let ipam = Arc::new(Ipam::new(store.clone()));
        let rig = Self { folder, store, ipam, dataplane: Arc::default() };
        rig.serve("node-1");
        rig
    }

    /// Starts the CNI side of a node of this datastore.
    fn serve(&self, node: &str) {
        let backend = Backend {
            node: node.into(),
            own: NodeAddresses::default(),
            store: self.store.clone(),
            ipam: self.ipam.clone(),
            dataplane: self.dataplane.clone(),
        };
        let socket = Socket::listen(&self.socket(node)).expect("a free name");
        tokio::spawn(async move { serve(&socket, Arc::new(backend)).await });
    }

    fn socket(&self, node: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("{node}.sock"))
    }

    fn documents(&self) -> std::path::PathBuf {
        self.folder.path().join("documents")
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.documents().join(file), text).expect("a document");
    }

    async fn ask<C>(&self, call: C) -> Result<C::Answer, CniError>
    where
        C: Call + Send + 'static,
        C::Answer: Send + 'static,
    {
        self.ask_node("node-1", call).await
    }

    async fn ask_node<C>(&self, node: &str, call: C) -> Result<C::Answer, CniError>
    where
        C: Call + Send + 'static,
        C::Answer: Send + 'static,
    {
        let client = Client::new(self.socket(node));
        tokio::task::spawn_blocking(move || client.call(call)).await.expect("the client ends")
    }

    /// An ADD of both plugins; the addresses.
    async fn add(&self, container: &str, pod: &str) -> Result<Vec<String>, CniError> {
        let lease = self.ask(allocate(container, pod)).await?;
        let add = AddEndpoint { addresses: lease.addresses.clone(), ..endpoint(container, pod) };
        self.ask(add).await?;
        Ok(lease.addresses.iter().map(ToString::to_string).collect())
    }

    /// The specifications of the endpoints that are stored.
    async fn endpoints(&self) -> Vec<Value> {
        let listing = self.store.list(&Kind::WorkloadEndpoint.stored()).await.expect("a list");
        listing.objects.iter().map(|object| object.value["spec"].clone()).collect()
    }

    async fn handles(&self) -> Vec<String> {
        let used = self.ipam.allocations().await.expect("the blocks");
        let mut handles: Vec<_> = used.into_iter().filter_map(|used| used.handle).collect();
        handles.sort();
        handles
    }
}

fn attachment(container: &str) -> Attachment {
    Attachment { network: "margay".into(), container_id: container.into(), ifname: "eth0".into() }
}

fn pod(name: &str) -> Workload {
    Workload {
        orchestrator: Orchestrator::K8s,
        namespace: "prod".into(),
        pod: name.into(),
        uid: String::new(),
    }
}

fn allocate(container: &str, name: &str) -> Allocate {
    Allocate {
        attachment: attachment(container),
        workload: pod(name),
        families: Families { ipv4: true, ipv6: false },
        ipv4_pools: Vec::new(),
        ipv6_pools: Vec::new(),
        ips: Vec::new(),
    }
}

fn endpoint(container: &str, name: &str) -> AddEndpoint {
    AddEndpoint {
        attachment: attachment(container),
        workload: pod(name),
        netns: "/run/netns/x".into(),
        host_interface: "cali0123456789a".into(),
        mac: "02:00:00:00:00:01".parse().expect("an address"),
        addresses: Vec::new(),
        mtu: 1450,
        host_ports: Vec::new(),
        bandwidth: Bandwidth::default(),
        timeout_s: 0,
    }
}

fn plan(name: &str) -> PlanEndpoint {
    PlanEndpoint {
        attachment: attachment("c1"),
        workload: pod(name),
        mtu: 0,
        allow_ip_addrs_no_ipam: false,
    }
}

fn annotated(name: &str, annotations: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: prod\n  annotations:\n"
    );
    for (key, value) in annotations {
        text.push_str(&format!("    cni.projectcalico.org/{key}: '{value}'\n"));
    }
    text + "spec: {serviceAccountName: builder, containers: [{name: a, image: a}]}\n"
}

#[tokio::test]
async fn an_address_is_reserved_once_and_freed_any_number_of_times() {
    let rig = Rig::new().await;
    let first = rig.ask(allocate("c1", "web")).await.expect("an address");
    assert_eq!(first.addresses.len(), 1);
    let again = rig.ask(allocate("c1", "web")).await.expect("the same address");
    assert_eq!(again, first);
    assert_eq!(rig.handles().await, ["margay.c1"]);
    let check = |addresses| CheckAddress { attachment: attachment("c1"), addresses };
    rig.ask(check(first.addresses.clone())).await.expect("it is reserved");
    let release = || Release { attachment: attachment("c1"), workload: pod("web") };
    assert!(rig.ask(release()).await.expect("freed").existed);
    assert!(!rig.ask(release()).await.expect("free already").existed);
    let error = rig.ask(check(first.addresses)).await.expect_err("it is free");
    assert_eq!(error.code, Code::CHECK_FAILED);
}

#[tokio::test]
async fn both_families_are_reserved_or_none() {
    let rig = Rig::new().await;
    let both = Families { ipv4: true, ipv6: true };
    let lease = rig.ask(Allocate { families: both, ..allocate("c1", "web") }).await;
    let lease = lease.expect("one of each");
    assert!(lease.addresses[0].is_ipv4() && lease.addresses[1].is_ipv6());
    let half =
        Allocate { families: both, ipv6_pools: vec!["nowhere".into()], ..allocate("c2", "x") };
    let error = rig.ask(half).await.expect_err("no such pool");
    assert_eq!(error.code, Code::NO_ADDRESS);
    assert!(error.msg.contains("nowhere"), "{error}");
    assert_eq!(rig.handles().await, ["margay.c1", "margay.c1"]);
}

#[tokio::test]
async fn pods_annotations_go_before_namespaces_and_those_before_the_configuration() {
    let rig = Rig::new().await;
    let of_conf = |container: &str, name: &str| Allocate {
        ipv4_pools: vec!["a-blue".into()],
        ..allocate(container, name)
    };
    let first = async |container: &str, name: &str| {
        let lease = rig.ask(of_conf(container, name)).await.expect("an address");
        lease.addresses[0].to_string()
    };
    assert!(first("c1", "plain").await.starts_with("10.1.0."));
    rig.write(
        "ns.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: prod\n  annotations: \
         {cni.projectcalico.org/ipv4pools: '[\"b-red\"]'}\n",
    );
    rig.write("pod.yaml", &annotated("picky", &[("ipv4pools", r#"["10.1.0.0/24"]"#)]));
    rig.write("six.yaml", &annotated("six", &[("ipFamilies", r#"["ipv6"]"#)]));
    rig.write("given.yaml", &annotated("given", &[("ipAddrs", r#"["10.2.0.77"]"#)]));
    // What a plan has seen, the answers that follow see too.
    rig.ask(plan("plain")).await.expect("a plan");
    assert!(first("c2", "plain").await.starts_with("10.2.0."));
    assert!(first("c3", "picky").await.starts_with("10.1.0."));
    assert!(first("c4", "six").await.starts_with("fd00:1::"));
    assert_eq!(first("c5", "given").await, "10.2.0.77");
    let error = rig.ask(of_conf("c6", "given")).await.expect_err("it is taken");
    assert_eq!(error.code, Code::NO_ADDRESS);
    assert!(error.msg.contains("10.2.0.77"), "{error}");
}

#[tokio::test]
async fn the_runtimes_own_wish_for_an_address_is_met() {
    let rig = Rig::new().await;
    let ips = vec!["10.2.0.9".parse().expect("an address")];
    let lease = rig.ask(Allocate { ips: ips.clone(), ..allocate("c1", "web") }).await;
    assert_eq!(lease.expect("that address").addresses, ips);
    let outside = vec!["192.0.2.1".parse().expect("an address")];
    let error = rig.ask(Allocate { ips: outside, ..allocate("c2", "x") }).await;
    assert!(error.expect_err("in no pool").msg.contains("192.0.2.1"));
    let two = ["10.2.0.10", "10.2.0.11"].map(|ip| ip.parse().expect("an address"));
    let error = rig.ask(Allocate { ips: two.into(), ..allocate("c3", "y") }).await;
    assert_eq!(error.expect_err("two of a family").code, Code::INVALID_CONFIG);
    assert_eq!(rig.handles().await, ["margay.c1"]);
}

#[tokio::test]
async fn an_endpoint_is_stored_in_calicos_shape() {
    let rig = Rig::new().await;
    rig.write("pod.yaml", &annotated("web-0", &[("allowedSourcePrefixes", r#"["10.9.0.0/16"]"#)]));
    rig.ask(plan("web-0")).await.expect("a plan");
    let addresses = rig.add("c1", "web-0").await.expect("an endpoint");
    let key = Kind::WorkloadEndpoint.key("prod", "node--1-k8s-web--0-eth0");
    let object = rig.store.get(&key).await.expect("by Calico's name");
    let spec = &object.value["spec"];
    assert_eq!(spec["orchestrator"], "k8s");
    assert_eq!((&spec["node"], &spec["pod"]), (&"node-1".into(), &"web-0".into()));
    assert_eq!((&spec["containerID"], &spec["endpoint"]), (&"c1".into(), &"eth0".into()));
    assert_eq!(spec["ipNetworks"][0], format!("{}/32", addresses[0]));
    assert_eq!(spec["interfaceName"], "cali0123456789a");
    assert_eq!(spec["mac"], "02:00:00:00:00:01");
    assert_eq!(spec["profiles"], serde_json::json!(["kns.prod", "ksa.prod.builder"]));
    assert_eq!(spec["allowSpoofedSourcePrefixes"][0], "10.9.0.0/16");
    let check = CheckEndpoint {
        attachment: attachment("c1"),
        workload: pod("web-0"),
        host_interface: "cali0123456789a".into(),
        addresses: vec![addresses[0].parse().expect("an address")],
    };
    rig.ask(check.clone()).await.expect("as it was added");
    let other = CheckEndpoint { host_interface: "cali0".into(), ..check };
    assert_eq!(rig.ask(other).await.expect_err("another one").code, Code::CHECK_FAILED);
}

#[tokio::test]
async fn a_pod_whose_document_is_refused_is_not_attached_until_it_is_mended() {
    let rig = Rig::new().await;
    let good = annotated("web", &[]).replace("  annotations:\n", "  labels: {app: web}\n");
    let bad = good.replace("app: web", "app: web, note: 'a b'");
    rig.write("pod.yaml", &bad);
    let refused = |error: CniError| {
        assert_eq!(error.code, Code::TRY_AGAIN_LATER);
        assert!(error.msg.contains("Pod prod/web is refused"), "{error}");
        assert!(error.details.contains("pod.yaml:6: metadata.labels.note"), "{error}");
    };
    refused(rig.ask(plan("web")).await.expect_err("before anything is made"));
    refused(rig.add("c1", "web").await.expect_err("nor without a plan"));
    assert!(rig.endpoints().await.is_empty() && rig.handles().await.is_empty());

    rig.write("pod.yaml", &good);
    rig.ask(plan("web")).await.expect("a plan");
    rig.add("c1", "web").await.expect("an endpoint");
    // From here on there is a last good version.
    rig.write("pod.yaml", &bad);
    rig.ask(plan("web")).await.expect("a plan");
    rig.add("c2", "web").await.expect("the pod's next sandbox");
}

#[tokio::test]
async fn a_pod_whose_namespaces_document_is_refused_is_not_attached() {
    let rig = Rig::new().await;
    rig.write(
        "ns.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {owner: 'a b'}}\n",
    );
    let error = rig.ask(plan("web")).await.expect_err("its labels are not known");
    assert_eq!(error.code, Code::TRY_AGAIN_LATER);
    assert!(error.details.contains("ns.yaml:3: metadata.labels"), "{error}");
}

#[tokio::test]
async fn only_the_container_that_has_the_endpoint_deletes_it() {
    let rig = Rig::new().await;
    rig.add("old", "web").await.expect("an endpoint");
    rig.add("new", "web").await.expect("the pod's next sandbox");
    let del =
        |container: &str| DelEndpoint { attachment: attachment(container), workload: pod("web") };
    assert!(!rig.ask(del("old")).await.expect("not its own any more").existed);
    assert_eq!(rig.endpoints().await[0]["containerID"], "new");
    assert!(rig.ask(del("new")).await.expect("deleted").existed);
    assert!(!rig.ask(del("new")).await.expect("gone already").existed);
    assert!(rig.endpoints().await.is_empty());
}

#[tokio::test]
async fn a_pod_that_comes_from_a_node_that_died_is_no_longer_there() {
    let rig = Rig::new().await;
    rig.serve("node-2");
    rig.add("old", "web").await.expect("an endpoint");
    rig.add("other", "web-1").await.expect("another pod's");
    rig.ask_node("node-2", endpoint("new", "web")).await.expect("an endpoint");
    let endpoints = rig.endpoints().await;
    let node_of = |pod: &str| -> Vec<_> {
        let its = endpoints.iter().filter(|spec| spec["pod"] == pod);
        its.map(|spec| spec["node"].clone()).collect()
    };
    assert_eq!((node_of("web"), node_of("web-1")), (vec!["node-2".into()], vec!["node-1".into()]));
    // Its own node is back, and its runtime clears up.
    let del = DelEndpoint { attachment: attachment("old"), workload: pod("web") };
    assert!(!rig.ask(del).await.expect("gone already").existed);
    assert_eq!(rig.endpoints().await.len(), 2);
}

#[tokio::test]
async fn a_del_without_the_pods_name_finds_the_endpoint_by_its_container() {
    let rig = Rig::new().await;
    rig.add("c1", "web").await.expect("an endpoint");
    let nameless = Workload {
        orchestrator: Orchestrator::Cni,
        namespace: "default".into(),
        pod: "c1".into(),
        uid: String::new(),
    };
    let del = DelEndpoint { attachment: attachment("c1"), workload: nameless };
    assert!(rig.ask(del).await.expect("deleted").existed);
}

#[tokio::test]
async fn a_container_without_kubernetes_has_an_endpoint_too() {
    let rig = Rig::new().await;
    let workload = Workload {
        orchestrator: Orchestrator::Cni,
        namespace: "default".into(),
        pod: "Box_1.x".into(),
        uid: String::new(),
    };
    let add = AddEndpoint { workload: workload.clone(), ..endpoint("Box_1.x", "") };
    rig.ask(add).await.expect("an endpoint");
    let [spec] = &rig.endpoints().await[..] else { panic!("one endpoint") };
    assert_eq!((&spec["workload"], &spec["orchestrator"]), (&"Box_1.x".into(), &"cni".into()));
    let del = DelEndpoint { attachment: attachment("Box_1.x"), workload };
    assert!(rig.ask(del).await.expect("deleted").existed);
}

#[tokio::test]
async fn an_add_waits_for_the_dataplane_and_a_del_does_not() {
    let rig = Rig::new().await;
    rig.dataplane.away.store(true, Ordering::Relaxed);
    let error = rig.add("c1", "web").await.expect_err("nobody puts it in force");
    assert_eq!(error.code, Code::TRY_AGAIN_LATER);
    assert!(error.msg.contains("margayd is not connected"), "{error}");
    assert!(error.details.contains("start margayd"), "{error}");
    let del = DelEndpoint { attachment: attachment("c1"), workload: pod("web") };
    assert!(rig.ask(del).await.expect("deleted all the same").existed);
}

#[tokio::test]
async fn a_plan_has_the_mtu_less_the_largest_overhead_and_the_annotated_mac() {
    let rig = Rig::new().await;
    rig.write("pod.yaml", &annotated("web", &[("hwAddr", "02:aa:bb:cc:dd:ee")]));
    rig.write("foreign.yaml", &annotated("foreign", &[("ipAddrsNoIpam", r#"["10.9.8.7"]"#)]));
    rig.write("bad.yaml", &annotated("bad", &[("hwAddr", "not one")]));
    rig.write(
        "node.yaml",
        "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\nspec: {podCIDRs: [10.3.0.0/24]}\n",
    );
    let made = rig.ask(plan("web")).await.expect("a plan");
    assert_eq!(made.mtu, 1450, "the usual uplink, VXLAN");
    assert_eq!(made.mac.map(|mac| mac.to_string()).as_deref(), Some("02:aa:bb:cc:dd:ee"));
    let configured = PlanEndpoint { mtu: 9000, ..plan("other") };
    assert_eq!(rig.ask(configured).await.expect("a plan").mtu, 9000);
    let error = rig.ask(plan("bad")).await.expect_err("no address");
    assert_eq!(error.code, Code::INVALID_CONFIG);
    assert!(error.msg.contains("hwAddr of Pod prod/bad"), "{error}");
    let error = rig.ask(plan("foreign")).await.expect_err("not allowed");
    assert!(error.details.contains("ip_addrs_no_ipam"), "{error}");
    let allowed = PlanEndpoint { allow_ip_addrs_no_ipam: true, ..plan("foreign") };
    let made = rig.ask(allowed).await.expect("a plan");
    assert_eq!(made.addresses[0].to_string(), "10.9.8.7");
}

#[tokio::test]
async fn collection_spares_what_is_valid_other_networks_and_other_nodes() {
    let rig = Rig::new().await;
    rig.serve("node-2");
    for container in ["c1", "c2"] {
        rig.add(container, container).await.expect("an endpoint");
    }
    let elsewhere = Attachment { network: "margay.c2".into(), ..attachment("x") };
    let other = Allocate { attachment: elsewhere, ..allocate("x", "x") };
    rig.ask(other).await.expect("an address of a network whose name looks like a handle");
    rig.ask_node("node-2", allocate("far", "far")).await.expect("an address");
    let network = || "margay".to_owned();
    let valid = || vec![AttachmentRef { container_id: "c1".into(), ifname: "eth0".into() }];
    let swept = rig.ask(GcEndpoints { network: network(), valid: valid() }).await.expect("swept");
    assert_eq!((swept.removed, swept.errors), (vec!["c2".to_owned()], vec![]));
    let swept = rig.ask(GcAddresses { network: network(), valid: valid() }).await.expect("swept");
    assert_eq!((swept.removed, swept.errors), (vec!["c2".to_owned()], vec![]));
    assert_eq!(rig.handles().await, ["margay.c1", "margay.c2.x", "margay.far"]);
    assert_eq!(rig.endpoints().await.len(), 1);
}

#[tokio::test]
async fn status_tells_apart_a_missing_dataplane_and_used_up_addresses() {
    let rig = Rig::new().await;
    assert_eq!(rig.ask(Status {}).await, Ok(Readiness::Ready));
    rig.dataplane.away.store(true, Ordering::Relaxed);
    let degraded = rig.ask(Status {}).await.expect("an answer");
    assert!(matches!(degraded, Readiness::Degraded { reason } if reason.contains("margayd")));
    rig.write(
        "tiny.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: tiny}\n\
         spec: {cidr: 10.8.0.0/31, blockSize: 31}\n",
    );
    rig.ask(plan("x")).await.expect("a plan");
    let tiny = || vec!["tiny".to_owned()];
    let status = || AddressStatus {
        families: Families { ipv4: true, ipv6: false },
        ipv4_pools: tiny(),
        ipv6_pools: Vec::new(),
    };
    assert_eq!(rig.ask(status()).await, Ok(Readiness::Ready));
    for container in ["c1", "c2"] {
        let lease = Allocate { ipv4_pools: tiny(), ..allocate(container, container) };
        rig.ask(lease).await.expect("an address");
    }
    let full = rig.ask(status()).await.expect("an answer");
    assert!(matches!(full, Readiness::NotReady { reason } if reason.contains("add a pool")));
    let error = rig.ask(Allocate { ipv4_pools: tiny(), ..allocate("c3", "c3") }).await;
    assert_eq!(error.expect_err("no more").code, Code::NO_ADDRESS);
}

#[tokio::test]
async fn status_counts_pools_that_are_for_some_namespaces_or_for_who_names_them() {
    let rig = Rig::new().await;
    let status = || AddressStatus {
        families: Families { ipv4: true, ipv6: false },
        ipv4_pools: Vec::new(),
        ipv6_pools: Vec::new(),
    };
    for limit in ["namespaceSelector: env == 'prod'", "assignmentMode: Manual"] {
        let spec = format!("{{cidr: 10.1.0.0/24, blockSize: 26, {limit}}}");
        let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: ";
        rig.write("pools.yaml", &format!("{pool}{spec}\n"));
        assert_eq!(rig.ask(status()).await, Ok(Readiness::Ready), "{limit}");
        rig.write("pools.yaml", &format!("{pool}{}\n", spec.replace("{", "{disabled: true, ")));
        let none = rig.ask(status()).await.expect("an answer");
        assert!(matches!(none, Readiness::NotReady { .. }), "{limit}");
    }
}

#[tokio::test]
async fn requests_that_are_none_are_told_so_and_the_next_one_is_served() {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    fn converse(socket: &Path) -> Vec<String> {
        let mut stream = UnixStream::connect(socket).expect("the agent");
        let mut answers = BufReader::new(stream.try_clone().expect("a handle")).lines();
        let lines = [
            "nonsense",
            r#"{"version":99,"request":"brew"}"#,
            r#"{"version":1,"request":"brew"}"#,
            r#"{"version":1,"request":"status"}"#,
        ];
        let ask = |line: &str| {
            writeln!(stream, "{line}").expect("a request");
            answers.next().expect("an answer").expect("a line")
        };
        lines.map(ask).into()
    }

    let rig = Rig::new().await;
    let socket = rig.socket("node-1");
    let answers = tokio::task::spawn_blocking(move || converse(&socket)).await.expect("a client");
    assert!(answers[0].contains(r#""code":6"#), "{}", answers[0]);
    assert!(answers[1].contains(r#""code":103"#), "{}", answers[1]);
    assert!(answers[2].contains("brew"), "{}", answers[2]);
    assert_eq!(answers[3], r#"{"ok":{"state":"ready"}}"#);
}
