//! Named states, each a collection of objects and what is expected of it. They are walked in many
//! orders: what comes out depends on the state, not on the path to it.

mod common;

use common::{
    Objects, calico, calico_node, changes, compiled, kubernetes_policy, namespace, objects, pod,
    replay, service, words, workload,
};
use margay_compile::{Compiler, Scope};
use margay_model::State;
use serde_json::{Value, json};

struct Named {
    name: &'static str,
    objects: Objects,
    expected: &'static [&'static str],
}

fn named(name: &'static str, values: Vec<Value>, expected: &'static [&'static str]) -> Named {
    Named { name, objects: objects(values), expected }
}

fn web() -> Value {
    pod("default", "web", "10.0.0.1", json!({"app": "web"}))
}

fn db() -> Value {
    pod("default", "db", "10.0.0.2", json!({"app": "db", "tier": "back"}))
}

fn other() -> Value {
    pod("other", "web", "10.0.0.3", json!({"app": "web"}))
}

const WEB: &str =
    "endpoint default/web/eth0 10.0.0.1 | Profile//kns.default Profile//ksa.default.default";
const DB: &str =
    "endpoint default/db/eth0 10.0.0.2 | Profile//kns.default Profile//ksa.default.default";
const OTHER: &str =
    "endpoint other/web/eth0 10.0.0.3 | Profile//kns.other Profile//ksa.other.default";

fn states() -> Vec<Named> {
    let mut states = vec![
        named("nothing", vec![], &[]),
        named("pods without policy", vec![web(), db(), other()], &[DB, WEB, OTHER]),
    ];
    states.extend(kubernetes_states());
    states.extend(calico_states());
    states.extend(domain_states());
    states.extend(cluster_policy_states());
    states.extend(service_states());
    states
}

/// Domain names count in egress rules that allow, and nowhere else.
fn domain_states() -> Vec<Named> {
    let set = |name: &str, domains: Value| {
        let spec = json!({"nets": ["192.0.2.0/24"], "allowedEgressDomains": domains});
        let mut value = calico("NetworkSet", "default", name, spec);
        value["metadata"]["labels"] = json!({"role": "out"});
        value
    };
    let selected = json!({"selector": "role == 'out'"});
    let policy = calico(
        "NetworkPolicy",
        "default",
        "p",
        json!({
            "selector": "app == 'web'",
            "types": ["Ingress", "Egress"],
            "ingress": [{"action": "Allow", "source": selected}],
            "egress": [
                {"action": "Deny", "destination": selected},
                {"action": "Allow", "destination": selected},
                {"action": "Allow", "protocol": "TCP",
                    "destination": {"domains": ["B.example", "*.a.example."], "ports": [443]}},
            ],
        }),
    );
    let one = set("one", json!(["example.com", "*.Example.org"]));
    let two = set("two", json!(["example.com"]));
    vec![
        named(
            "domains of a rule and of two sets",
            vec![web(), policy.clone(), one, two.clone()],
            &[
                "endpoint default/web/eth0 10.0.0.1 | default in[NetworkPolicy/default/p] out[NetworkPolicy/default/p] | Profile//kns.default Profile//ksa.default.default",
                "policy NetworkPolicy/default/p",
                "  in allow from {192.0.2.0/24 *.example.org example.com}",
                "  out deny to {192.0.2.0/24 *.example.org example.com}",
                "  out allow to learned {192.0.2.0/24 *.example.org example.com}",
                "  out allow proto 6 to learned {*.a.example b.example} to port 443-443",
            ],
        ),
        named(
            "domains of a rule and of one set",
            vec![web(), policy, two],
            &[
                "endpoint default/web/eth0 10.0.0.1 | default in[NetworkPolicy/default/p] out[NetworkPolicy/default/p] | Profile//kns.default Profile//ksa.default.default",
                "policy NetworkPolicy/default/p",
                "  in allow from {192.0.2.0/24 example.com}",
                "  out deny to {192.0.2.0/24 example.com}",
                "  out allow to learned {192.0.2.0/24 example.com}",
                "  out allow proto 6 to learned {*.a.example b.example} to port 443-443",
            ],
        ),
    ]
}

fn kubernetes_states() -> Vec<Named> {
    let to_db = |spec: Value| {
        let mut whole = json!({"podSelector": {"matchLabels": {"app": "db"}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        kubernetes_policy("db", whole)
    };
    vec![
        named(
            "default deny ingress",
            vec![web(), other(), kubernetes_policy("deny", json!({"podSelector": {}}))],
            &[
                "endpoint default/web/eth0 10.0.0.1 | default in[KubernetesNetworkPolicy/default/deny] out[] | Profile//kns.default Profile//ksa.default.default",
                OTHER,
                "policy KubernetesNetworkPolicy/default/deny",
            ],
        ),
        named(
            "pods and namespaces, by label and by expression",
            vec![
                web(),
                db(),
                other(),
                namespace("other", json!({"team": "x"})),
                to_db(json!({"ingress": [{
                    "from": [
                        {"podSelector": {"matchLabels": {"app": "web"}}},
                        {"namespaceSelector": {"matchExpressions": [
                            {"key": "team", "operator": "In", "values": ["x", "y"]},
                            {"key": "gone", "operator": "DoesNotExist"},
                        ]}},
                        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}},
                    ],
                }]})),
            ],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[KubernetesNetworkPolicy/default/db] out[] | Profile//kns.default Profile//ksa.default.default",
                WEB,
                OTHER,
                "policy KubernetesNetworkPolicy/default/db",
                "  in allow from {10.0.0.1/32}",
                "  in allow from {10.0.0.3/32}",
                "  in allow from {10.0.0.2/32}",
            ],
        ),
        named(
            "ipBlock with except, and ports of several kinds",
            vec![
                db(),
                to_db(json!({
                    "policyTypes": ["Egress"],
                    "egress": [{
                        "to": [{"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.9.0/24"]}}],
                        "ports": [
                            {"port": 80},
                            {"port": 8000, "endPort": 8080},
                            {"port": "web"},
                            {"protocol": "SCTP"},
                            {"protocol": "UDP", "port": "dns"},
                        ],
                    }],
                })),
            ],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[] out[KubernetesNetworkPolicy/default/db] | Profile//kns.default Profile//ksa.default.default",
                "policy KubernetesNetworkPolicy/default/db",
                "  out allow V4 proto 6 to 192.168.0.0/16 to not 192.168.9.0/24 to port 80-80,8000-8080 to port {10.0.0.2:8080/6}",
                "  out allow V4 proto 17 to 192.168.0.0/16 to not 192.168.9.0/24 to port {10.0.0.2:53/17}",
                "  out allow V4 proto 132 to 192.168.0.0/16 to not 192.168.9.0/24",
            ],
        ),
    ]
}

fn calico_states() -> Vec<Named> {
    vec![
        named(
            "tiers in order, a missing one last",
            vec![
                web(),
                calico("Tier", "", "early", json!({"order": 1, "defaultAction": "Pass"})),
                calico(
                    "NetworkPolicy",
                    "default",
                    "b",
                    json!({
                        "tier": "early", "order": 2, "types": ["Ingress", "Egress"],
                        "ingress": [{"action": "Pass"}], "egress": [{"action": "Allow"}],
                    }),
                ),
                calico(
                    "GlobalNetworkPolicy",
                    "",
                    "a",
                    json!({
                        "tier": "early", "order": 2, "selector": "app == 'web'",
                    }),
                ),
                calico(
                    "GlobalNetworkPolicy",
                    "",
                    "first",
                    json!({
                        "tier": "early", "order": 1, "namespaceSelector": "all()",
                        "egress": [{"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8}}],
                    }),
                ),
                calico("GlobalNetworkPolicy", "", "lost", json!({"tier": "nowhere"})),
                calico("NetworkPolicy", "default", "last", json!({"selector": "has(app)"})),
                calico("StagedNetworkPolicy", "default", "staged", json!({"selector": "all()"})),
                calico(
                    "GlobalNetworkPolicy",
                    "",
                    "untracked",
                    json!({
                        "doNotTrack": true, "applyOnForward": true,
                    }),
                ),
            ],
            &[
                "endpoint default/web/eth0 10.0.0.1 | early in[GlobalNetworkPolicy//a NetworkPolicy/default/b] out[GlobalNetworkPolicy//first NetworkPolicy/default/b] | default in[NetworkPolicy/default/last] out[] | nowhere in[GlobalNetworkPolicy//lost] out[] | Profile//kns.default Profile//ksa.default.default",
                "  pending | early in[GlobalNetworkPolicy//a NetworkPolicy/default/b] out[GlobalNetworkPolicy//first NetworkPolicy/default/b] | default in[NetworkPolicy/default/last StagedNetworkPolicy/default/staged] out[] | nowhere in[GlobalNetworkPolicy//lost] out[]",
                "policy GlobalNetworkPolicy//a",
                "policy GlobalNetworkPolicy//first",
                "  out deny V4 proto 1 icmp 8/None",
                "policy GlobalNetworkPolicy//lost",
                "policy NetworkPolicy/default/b",
                "  in pass",
                "  out allow",
                "policy NetworkPolicy/default/last",
                "policy StagedNetworkPolicy/default/staged",
            ],
        ),
        named(
            "staged policies are seen in prospect only: made, replaced, removed, learned",
            vec![
                web(),
                db(),
                calico("NetworkPolicy", "default", "old", json!({"selector": "app == 'web'"})),
                calico("NetworkPolicy", "default", "gone", json!({"selector": "app == 'web'"})),
                calico(
                    "StagedNetworkPolicy",
                    "default",
                    "old",
                    json!({"selector": "app == 'db'", "ingress": [{"action": "Allow"}]}),
                ),
                calico("StagedNetworkPolicy", "default", "gone", json!({"stagedAction": "Delete"})),
                calico(
                    "StagedGlobalNetworkPolicy",
                    "",
                    "learned",
                    json!({"stagedAction": "Learn", "selector": "all()"}),
                ),
            ],
            &[
                "endpoint default/db/eth0 10.0.0.2 | Profile//kns.default Profile//ksa.default.default",
                "  pending | default in[StagedNetworkPolicy/default/old] out[]",
                "endpoint default/web/eth0 10.0.0.1 | default in[NetworkPolicy/default/gone NetworkPolicy/default/old] out[] | Profile//kns.default Profile//ksa.default.default",
                "  pending",
                "policy NetworkPolicy/default/gone",
                "policy NetworkPolicy/default/old",
                "policy StagedNetworkPolicy/default/old",
                "  in allow",
            ],
        ),
        named(
            "selectors of entities",
            vec![
                web(),
                db(),
                other(),
                calico(
                    "GlobalNetworkSet",
                    "",
                    "set",
                    json!({"nets": ["192.168.0.0/16", "fd00::/8"]}),
                ),
                calico(
                    "NetworkPolicy",
                    "default",
                    "p",
                    json!({
                        "selector": "app == 'web'",
                        "ingress": [
                            {"action": "Allow", "source": {"selector": "has(app)"}},
                            {"action": "Allow", "source": {"selector": "has(app)", "notSelector": "tier == 'back'"}},
                            {"action": "Allow", "source": {"notSelector": "tier == 'back'"}},
                            {"action": "Allow", "source": {"selector": "app == 'web'", "namespaceSelector": "all()"}},
                            {"action": "Allow", "source": {"namespaceSelector": "global()"}},
                            {"action": "Allow", "source": {"serviceAccounts": {"names": ["default"]}}},
                            {"action": "Allow", "protocol": "TCP", "http": {"methods": ["GET"]}},
                        ],
                    }),
                ),
                calico(
                    "GlobalNetworkPolicy",
                    "",
                    "g",
                    json!({
                        "selector": "app == 'web'",
                        "ingress": [{"action": "Deny", "source": {"notSelector": "has(app)"}}],
                    }),
                ),
            ],
            &[
                DB,
                "endpoint default/web/eth0 10.0.0.1 | default in[GlobalNetworkPolicy//g NetworkPolicy/default/p] out[] | Profile//kns.default Profile//ksa.default.default",
                "endpoint other/web/eth0 10.0.0.3 | default in[GlobalNetworkPolicy//g] out[] | Profile//kns.other Profile//ksa.other.default",
                "policy GlobalNetworkPolicy//g",
                "  in deny from not {10.0.0.1/32 10.0.0.2/32 10.0.0.3/32}",
                "policy NetworkPolicy/default/p",
                "  in allow from {10.0.0.1/32 10.0.0.2/32}",
                "  in allow from {10.0.0.1/32}",
                "  in allow from {10.0.0.1/32}",
                "  in allow from {10.0.0.1/32 10.0.0.3/32}",
                "  in allow from {192.168.0.0/16 fd00::/8}",
                "  in allow from {10.0.0.1/32 10.0.0.2/32}",
                "  in allow proto 6",
            ],
        ),
    ]
}

fn cluster_policy_states() -> Vec<Named> {
    vec![
        cluster_policy_of_names(),
        cluster_policy_of_the_future(),
        cluster_policy_of_nodes(),
        named(
            "cluster policies around the default tier, closed where they cannot be converted",
            vec![
                web(),
                kubernetes_policy("deny", json!({"podSelector": {}})),
                json!({
                    "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                    "metadata": {"name": "admin"},
                    "spec": {
                        "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
                        "ingress": [
                            {"action": "Accept", "from": [{"nodes": {}}]},
                            {"action": "Deny", "from": [{"unheard": {}}]},
                            {"action": "Pass", "from": [{"namespaces": {}}], "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]},
                        ],
                    },
                }),
                json!({
                    "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                    "metadata": {"name": "base"},
                    "spec": {
                        "tier": "Baseline", "priority": 5,
                        "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}},
                        "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}]}],
                    },
                }),
            ],
            &[
                "endpoint default/web/eth0 10.0.0.1 | kube-admin in[KubernetesClusterNetworkPolicy//admin] out[] | default in[KubernetesNetworkPolicy/default/deny] out[] | kube-baseline in[] out[KubernetesClusterNetworkPolicy//base] | Profile//kns.default Profile//ksa.default.default",
                "policy KubernetesClusterNetworkPolicy//admin",
                "  in deny",
                "  in pass proto 6 from {10.0.0.1/32} to port 80-80",
                "policy KubernetesClusterNetworkPolicy//base",
                "  out deny V4 to 10.0.0.0/8",
                "  out deny V6 to fd00::/8",
                "policy KubernetesNetworkPolicy/default/deny",
            ],
        ),
    ]
}

/// A field that is not known may mean that a rule is about less than the others say.
fn cluster_policy_of_the_future() -> Named {
    let pods = json!([{"namespaces": {}}]);
    let port = json!({"destinationPort": {"number": 80}, "flags": ["SYN"]});
    let policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "future"},
        "spec": {
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}}, "since": "tomorrow",
            "egress": [
                {"action": "Accept", "to": pods, "ports": [{"portNumber": {"port": 80}}]},
                {"action": "Accept", "to": pods, "protocols": [{"tcp": port}]},
                {"action": "Accept", "to": [{"namespaces": {}, "except": {}}]},
                {"action": "Accept", "to": pods, "protocols": [{"tcp": {}}]},
                {"action": "Deny", "to": pods, "when": "night"},
            ],
        },
    });
    named(
        "a cluster policy with fields that are not known",
        vec![web(), policy],
        &[
            "endpoint default/web/eth0 10.0.0.1 | kube-admin in[] out[KubernetesClusterNetworkPolicy//future] | Profile//kns.default Profile//ksa.default.default",
            "policy KubernetesClusterNetworkPolicy//future",
            "  out allow proto 6 to learned {10.0.0.1/32}",
            "  out deny",
        ],
    )
}

/// Nodes are found by their labels, and by nothing else: they are no endpoints. Of two views of one
/// node Kubernetes' labels count. As a peer of ingress they are closed.
fn cluster_policy_of_nodes() -> Named {
    let node = |name: &str, labels: Value, addresses: &[&str]| {
        let addresses = addresses.iter().map(|a| json!({"type": "InternalIP", "address": a}));
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "status": {"addresses": addresses.collect::<Vec<_>>()}})
    };
    let nodes = |labels: Value| json!([{"nodes": {"matchLabels": labels}}]);
    let policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "nodes"},
        "spec": {
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
            "egress": [
                {"action": "Accept", "to": nodes(json!({"role": "cp"})),
                    "protocols": [{"tcp": {"destinationPort": {"number": 6443}}}]},
                {"action": "Pass", "to": nodes(json!({"role": "none"}))},
                {"action": "Deny", "to": nodes(json!({}))},
            ],
            "ingress": [{"action": "Deny", "from": nodes(json!({"role": "cp"}))}],
        },
    });
    let everybody = calico(
        "GlobalNetworkPolicy",
        "",
        "all",
        json!({"selector": "all()", "types": ["Egress"],
            "egress": [{"action": "Allow", "destination": {"selector": "!has(other)"}}]}),
    );
    named(
        "nodes in a cluster policy",
        vec![
            web(),
            node("m", json!({"role": "cp"}), &["192.0.2.1", "2001:db8::1"]),
            node("n", json!({"role": "worker"}), &["192.0.2.2"]),
            calico_node("m", "192.0.2.9/24"),
            policy,
            everybody,
        ],
        &[
            "endpoint default/web/eth0 10.0.0.1 | kube-admin in[KubernetesClusterNetworkPolicy//nodes] out[KubernetesClusterNetworkPolicy//nodes] | default in[] out[GlobalNetworkPolicy//all] | Profile//kns.default Profile//ksa.default.default",
            "policy GlobalNetworkPolicy//all",
            "  out allow to learned {10.0.0.1/32}",
            "policy KubernetesClusterNetworkPolicy//nodes",
            "  in deny",
            "  out allow proto 6 to learned {192.0.2.1/32 192.0.2.9/32 2001:db8::1/128} to port 6443-6443",
            "  out pass to {}",
            "  out deny to {192.0.2.1/32 192.0.2.2/32 192.0.2.9/32 2001:db8::1/128}",
        ],
    )
}

/// Names are accepted; what is none of the API's names, beside named ports or denied, is closed.
fn cluster_policy_of_names() -> Named {
    let names = |names: &[&str]| json!([{"domainNames": names}]);
    let port = json!([{"tcp": {"destinationPort": {"number": 443}}}]);
    let mut egress: Vec<_> = ["example", "a.*.example", "*", "x.-y.example", "*.example"]
        .into_iter()
        .map(|wrong| json!({"action": "Accept", "to": names(&["good.example", wrong])}))
        .collect();
    egress.extend([
        json!({"action": "Accept", "to": names(&["Www.example.", "*.a.example"]), "protocols": port}),
        json!({"action": "Accept", "to": names(&["b.example"]), "protocols": [{"destinationNamedPort": "web"}]}),
        json!({"action": "Accept", "to": [{"domainNames": ["b.example"], "networks": ["10.0.0.0/8"]}]}),
        json!({"action": "Pass", "to": names(&["b.example"])}),
    ]);
    let ingress = json!([{"action": "Accept", "from": names(&["b.example"])}]);
    let policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "names"},
        "spec": {
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
            "egress": egress, "ingress": ingress,
        },
    });
    named(
        "names in a cluster policy",
        vec![web(), policy],
        &[
            "endpoint default/web/eth0 10.0.0.1 | kube-admin in[KubernetesClusterNetworkPolicy//names] out[KubernetesClusterNetworkPolicy//names] | Profile//kns.default Profile//ksa.default.default",
            "policy KubernetesClusterNetworkPolicy//names",
            "  out allow proto 6 to learned {*.a.example www.example} to port 443-443",
            "  out deny",
        ],
    )
}

fn service_states() -> Vec<Named> {
    let spec = json!({
        "clusterIP": "10.96.0.1", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "web"}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"port": 9090}],
        "endpoints": [
            {"addresses": ["10.9.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.9.0.2"], "conditions": {"ready": false}},
        ],
    });
    let egress = calico(
        "NetworkPolicy",
        "default",
        "to-service",
        json!({
            "types": ["Egress"], "selector": "app == 'db'",
            "egress": [{"action": "Allow", "destination": {"services": {"name": "s"}}}],
        }),
    );
    let no_port = json!({
        "clusterIP": "None", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "nowhere"}],
    });
    let ingress = calico(
        "NetworkPolicy",
        "default",
        "from-service",
        json!({
            "types": ["Ingress"], "selector": "app == 'db'",
            "ingress": [{"action": "Allow", "source": {"services": {"name": "s"}}}],
        }),
    );
    vec![
        named(
            "a service of pods",
            vec![web(), db(), other(), service("s", spec.clone()), egress.clone()],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[] out[NetworkPolicy/default/to-service] | Profile//kns.default Profile//ksa.default.default",
                WEB,
                OTHER,
                "policy NetworkPolicy/default/to-service",
                "  out allow to service {10.0.0.1:8080/6}",
                "service default/s:80/TCP/IPv4 [10.96.0.1] cluster[10.0.0.1:8080] local[]",
            ],
        ),
        named(
            "a service of slices",
            vec![web(), db(), service("s", spec), slice, egress],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[] out[NetworkPolicy/default/to-service] | Profile//kns.default Profile//ksa.default.default",
                WEB,
                "policy NetworkPolicy/default/to-service",
                "  out allow to service {10.9.0.1:9090/6 10.9.0.2:9090/6}",
                "service default/s:80/TCP/IPv4 [10.96.0.1] cluster[10.9.0.1:9090] local[]",
            ],
        ),
        named(
            "endpoints that lack the service's port are sources all the same",
            vec![web(), db(), other(), service("s", no_port), ingress],
            &[
                "endpoint default/db/eth0 10.0.0.2 | default in[NetworkPolicy/default/from-service] out[] | Profile//kns.default Profile//ksa.default.default",
                WEB,
                OTHER,
                "policy NetworkPolicy/default/from-service",
                "  in allow from {10.0.0.1/32}",
            ],
        ),
    ]
}

/// Walks the states in an order and compares each with what is expected, with what a compiler
/// that never saw another state gives, and with the updates applied one by one.
fn walk(states: &[&Named], flush_each: bool) {
    let mut compiler = Compiler::new(Scope::Cluster);
    let mut replayed = State::default();
    let mut last = Objects::new();
    for state in states {
        for change in changes(&last, &state.objects) {
            compiler.apply(change).unwrap();
            if flush_each {
                replay(&mut replayed, compiler.flush());
            }
        }
        replay(&mut replayed, compiler.flush());
        assert_eq!(words(compiler.state()), state.expected, "{}", state.name);
        let fresh = compiled(&Scope::Cluster, &state.objects);
        assert_eq!(compiler.state(), fresh.state(), "{}", state.name);
        assert_eq!(&replayed, fresh.state(), "{}", state.name);
        assert!(compiler.flush().is_empty(), "{}: nothing is left to say", state.name);
        last = state.objects.clone();
    }
}

#[test]
fn every_state_is_as_expected_from_nothing() {
    for state in &states() {
        walk(&[state], false);
    }
}

#[test]
fn states_are_the_same_forward_and_backward() {
    let states = states();
    let forward: Vec<_> = states.iter().collect();
    let backward: Vec<_> = states.iter().rev().collect();
    for flush_each in [false, true] {
        walk(&forward, flush_each);
        walk(&backward, flush_each);
    }
}

#[test]
fn states_are_the_same_in_any_order() {
    let states = states();
    // A fixed sequence of orders that visits every state after every other one.
    for stride in 1..states.len() {
        let order: Vec<_> =
            (0..states.len() * 2).map(|i| &states[(i * stride) % states.len()]).collect();
        walk(&order, stride % 2 == 0);
    }
}

#[test]
fn a_node_sees_its_own_endpoints_only() {
    let scope = Scope::Node(margay_compile::NodeConfig {
        name: "n1".into(),
        mtu: 1450,
        ..Default::default()
    });
    let objects = objects([
        web(),
        db(),
        workload("default", "web", "n1", "10.0.0.1"),
        workload("default", "db", "n2", "10.0.0.2"),
        kubernetes_policy(
            "p",
            json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
            }),
        ),
        kubernetes_policy("q", json!({"podSelector": {"matchLabels": {"app": "db"}}})),
    ]);
    let compiler = compiled(&scope, &objects);
    assert_eq!(
        words(compiler.state()),
        [
            "endpoint default/web/eth0 10.0.0.1 | default in[KubernetesNetworkPolicy/default/p] out[] | Profile//kns.default Profile//ksa.default.default",
            "policy KubernetesNetworkPolicy/default/p",
            "  in allow from {10.0.0.2/32}",
        ]
    );
    let endpoint = &compiler.state().endpoints["default/web/eth0"];
    assert_eq!((&*endpoint.interface, endpoint.mtu), ("caliweb", 1450));
}
