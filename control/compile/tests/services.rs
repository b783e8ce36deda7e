//! Services as one node sees them: which endpoints it may use, and what it tells load balancers.

mod common;

use std::sync::Arc;

use common::{Objects, compiled, objects, service};
use margay_compile::{Compiler, NodeConfig, Scope};
use margay_model::{Selection, Service, TrafficPolicy};
use serde_json::{Value, json};

fn on(node: &str, values: impl IntoIterator<Item = Value>) -> Compiler {
    let scope = Scope::Node(NodeConfig { name: node.into(), ..NodeConfig::default() });
    compiled(&scope, &objects(values))
}

fn only(compiler: &Compiler) -> Arc<Service> {
    let mut services = compiler.state().services.values();
    let service = services.next().expect("a service").clone();
    assert_eq!(services.next(), None, "only one");
    service
}

fn web(more: Value) -> Value {
    let mut spec = json!({
        "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    });
    merge(&mut spec, more);
    service("web", spec)
}

fn balanced(more: Value) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
    });
    merge(&mut spec, more);
    web(spec)
}

fn merge(to: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("no object: {more}") };
    to.as_object_mut().unwrap().extend(more);
}

/// A slice of the service `web`; an endpoint is its address, its node and what more there is.
fn slice(name: &str, endpoints: &[(&str, &str, Value)]) -> Value {
    let endpoints: Vec<_> = (endpoints.iter())
        .map(|(address, node, more)| {
            let mut endpoint = json!({"addresses": [address], "nodeName": node});
            merge(&mut endpoint, more.clone());
            endpoint
        })
        .collect();
    let v6 = endpoints.iter().any(|e| e["addresses"][0].as_str().unwrap().contains(':'));
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default", "name": name,
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

fn node(name: &str, zone: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
    })
}

fn pod(name: &str, node: &str, ip: &str) -> Value {
    let mut pod = common::pod("default", name, ip, json!({"app": "web"}));
    pod["spec"]["nodeName"] = node.into();
    pod
}

fn words(backends: &[margay_model::Backend]) -> Vec<String> {
    backends.iter().map(|b| b.addr.to_string()).collect()
}

#[test]
fn an_endpoint_that_drains_keeps_its_connections_and_takes_no_new_ones() {
    let draining = json!({"conditions": {"ready": false, "serving": true, "terminating": true}});
    let gone = json!({"conditions": {"ready": false, "serving": false, "terminating": true}});
    let endpoints =
        [("10.0.0.1", "n1", json!({})), ("10.0.0.2", "n2", draining), ("10.0.0.3", "n2", gone)];
    let service = only(&on("n1", [web(json!({})), slice("s", &endpoints)]));
    assert_eq!(words(&service.cluster_backends), ["10.0.0.1"]);
    assert_eq!(words(&service.kept_backends), ["10.0.0.2"]);
}

#[test]
fn hints_of_slices_are_followed_from_the_node_that_they_name() {
    let hint = |node: &str, zone: &str| json!({"hints": {"forNodes": [{"name": node}], "forZones": [{"name": zone}]}});
    let endpoints =
        [("10.0.0.1", "n1", hint("n1", "east")), ("10.0.0.2", "n2", hint("n2", "west"))];
    let all = || [web(json!({})), slice("s", &endpoints), node("n3", "west"), node("n4", "north")];
    let seen = |from: &str| {
        let service = only(&on(from, all()));
        (words(&service.cluster_backends).join(" "), words(&service.kept_backends).join(" "))
    };
    assert_eq!(seen("n1"), ("10.0.0.1".into(), "10.0.0.2".into()), "the node's own");
    assert_eq!(seen("n3"), ("10.0.0.2".into(), "10.0.0.1".into()), "the zone's");
    assert_eq!(seen("n4"), ("10.0.0.1 10.0.0.2".into(), String::new()), "nobody's");
}

#[test]
fn where_there_are_no_slices_the_preferred_distribution_gives_the_hints() {
    let seen = |distribution: &str, from: &str| {
        let service = web(json!({
            "selector": {"app": "web"}, "trafficDistribution": distribution,
            "ports": [{"port": 80, "targetPort": 8080}],
        }));
        let compiler = on(
            from,
            [
                service,
                pod("a", "n1", "10.0.0.1"),
                pod("b", "n2", "10.0.0.2"),
                pod("c", "n3", "10.0.0.3"),
                node("n1", "east"),
                node("n2", "east"),
                node("n3", "west"),
                node("n4", "west"),
                node("n5", "north"),
            ],
        );
        words(&only(&compiler).cluster_backends).join(" ")
    };
    for close in ["PreferClose", "PreferSameZone"] {
        assert_eq!(seen(close, "n1"), "10.0.0.1 10.0.0.2");
        assert_eq!(seen(close, "n4"), "10.0.0.3");
        assert_eq!(seen(close, "n5"), "10.0.0.1 10.0.0.2 10.0.0.3");
    }
    assert_eq!(seen("PreferSameNode", "n1"), "10.0.0.1");
    assert_eq!(seen("PreferSameNode", "n4"), "10.0.0.3", "else the zone's");
    assert_eq!(seen("PreferSameNode", "n5"), "10.0.0.1 10.0.0.2 10.0.0.3");
}

#[test]
fn a_node_that_changes_its_zone_is_served_by_its_new_one() {
    let spec = json!({
        "selector": {"app": "web"}, "trafficDistribution": "PreferClose",
        "ports": [{"port": 80, "targetPort": 8080}],
    });
    let pods = [pod("a", "n1", "10.0.0.1"), pod("b", "n2", "10.0.0.2")];
    let state = |zone: &str| -> Objects {
        let nodes = [node("n1", "east"), node("n2", "west"), node("n3", zone)];
        objects([web(spec.clone())].into_iter().chain(pods.clone()).chain(nodes))
    };
    let scope = Scope::Node(NodeConfig { name: "n3".into(), ..NodeConfig::default() });
    let mut compiler = compiled(&scope, &state("east"));
    assert_eq!(words(&only(&compiler).cluster_backends), ["10.0.0.1"]);
    for change in common::changes(&state("east"), &state("west")) {
        compiler.apply(change).unwrap();
    }
    compiler.flush();
    assert_eq!(words(&only(&compiler).cluster_backends), ["10.0.0.2"]);
}

#[test]
fn unready_addresses_are_used_where_they_are_to_be_published() {
    let unready = json!({"conditions": {"ready": false, "serving": false}});
    let all = |publish: bool| {
        let service = web(json!({"publishNotReadyAddresses": publish}));
        on("n1", [service, slice("s", &[("10.0.0.1", "n1", unready.clone())])])
    };
    assert_eq!(words(&only(&all(true)).cluster_backends), ["10.0.0.1"]);
    assert_eq!(words(&only(&all(false)).cluster_backends), <[&str; 0]>::default());
}

#[test]
fn services_of_other_proxies_headless_ones_and_names_are_left_alone() {
    let labelled = |label: &str| {
        let mut object = balanced(json!({"externalIPs": ["192.0.2.9"]}));
        object["metadata"]["labels"] = json!({label: "x"});
        object
    };
    for object in [
        labelled("service.kubernetes.io/service-proxy-name"),
        labelled("service.kubernetes.io/headless"),
        web(json!({"clusterIP": "None", "clusterIPs": ["None"]})),
        web(json!({"type": "ExternalName", "externalName": "example.org"})),
    ] {
        let compiler = on("n1", [object.clone(), slice("s", &[("10.0.0.1", "n1", json!({}))])]);
        assert_eq!(compiler.state().services.len(), 0, "{object}");
        assert_eq!(compiler.health_checks().ports().len(), 0, "{object}");
    }
}

#[test]
fn a_service_of_two_families_and_protocols_is_one_for_each() {
    let spec = json!({
        "clusterIPs": ["10.96.0.1", "fd96::1"], "ipFamilies": ["IPv4", "IPv6"],
        "ports": [
            {"name": "http", "port": 80, "protocol": "TCP"},
            {"name": "quic", "port": 80, "protocol": "UDP"},
        ],
    });
    let (four, six) = (
        slice("four", &[("10.0.0.1", "n1", json!({}))]),
        slice("six", &[("fd00::1", "n1", json!({}))]),
    );
    let compiler = on("n1", [web(spec), four, six]);
    let keys: Vec<_> = compiler.state().services.keys().map(|k| &**k).collect();
    let of = |rest: &str| format!("default/web:80/{rest}");
    assert_eq!(keys, [of("TCP/IPv4"), of("TCP/IPv6"), of("UDP/IPv4"), of("UDP/IPv6")]);
    let backends = |rest: &str| words(&compiler.state().services[&*of(rest)].cluster_backends);
    assert_eq!(
        (backends("TCP/IPv4"), backends("TCP/IPv6")),
        (vec!["10.0.0.1".into()], vec!["fd00::1".into()])
    );
    assert_eq!(backends("UDP/IPv4").len(), 0, "no slice has a port for it");
}

#[test]
fn nodes_choose_alike_where_calicos_annotation_says_maglev() {
    let mut object = web(json!({"trafficDistribution": "PreferSameNode"}));
    object["metadata"]["annotations"] =
        json!({"lb.projectcalico.org/external-traffic-strategy": "maglev"});
    let hint = |node: &str| json!({"hints": {"forNodes": [{"name": node}]}});
    let endpoints = [("10.0.0.1", "n1", hint("n1")), ("10.0.0.2", "n2", hint("n2"))];
    for from in ["n1", "n2"] {
        let service = only(&on(from, [object.clone(), slice("s", &endpoints)]));
        assert_eq!(service.selection, Selection::Maglev);
        assert_eq!(words(&service.cluster_backends), ["10.0.0.1", "10.0.0.2"]);
    }
}

#[test]
fn affinity_has_kubernetes_default_timeout_and_takes_another() {
    let affinity = |more: Value| only(&on("n1", [web(more)])).affinity;
    assert_eq!(affinity(json!({})), None);
    assert_eq!(affinity(json!({"sessionAffinity": "ClientIP"})), Some(10_800));
    let config = json!({
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}},
    });
    assert_eq!(affinity(config), Some(7));
}

#[test]
fn source_ranges_may_have_spaces_and_close_the_family_that_they_do_not_name() {
    let ranges = |list: Value| {
        let service = only(&on("n1", [balanced(json!({"loadBalancerSourceRanges": list}))]));
        assert_eq!(service.external, TrafficPolicy::Local);
        service.load_balancer_sources.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(ranges(json!([" 10.0.0.0/8", "192.0.2.0/24 "])), ["10.0.0.0/8", "192.0.2.0/24"]);
    assert_eq!(ranges(json!(["2001:db8::/32"])), ["2001:db8::/32"]);
}

#[test]
fn load_balancers_are_told_how_many_ready_endpoints_a_node_has() {
    let unready = json!({"conditions": {"ready": false}});
    let endpoints = [
        ("10.0.0.1", "n1", json!({})),
        ("10.0.0.2", "n1", unready),
        ("10.0.0.3", "n2", json!({})),
        ("10.0.0.4", "n1", json!({})),
    ];
    let told = |from: &str| {
        let compiler = on(from, [balanced(json!({})), slice("s", &endpoints)]);
        let check = compiler.health_checks().at(32_000).expect("a check").clone();
        assert_eq!((&*check.namespace, &*check.name), ("default", "web"));
        check.local_endpoints
    };
    assert_eq!((told("n1"), told("n2"), told("n3")), (2, 1, 0));
}

#[test]
fn only_balanced_services_that_are_served_locally_have_health_checks() {
    for more in [
        json!({"externalTrafficPolicy": "Cluster"}),
        json!({"type": "NodePort"}),
        json!({"healthCheckNodePort": 0}),
    ] {
        let compiler = on("n1", [balanced(more.clone())]);
        assert_eq!(compiler.health_checks().ports().len(), 0, "{more}");
    }
}

#[test]
fn health_checks_come_and_go_with_their_services_and_the_first_name_has_a_port() {
    let scope = Scope::Node(NodeConfig { name: "n1".into(), ..NodeConfig::default() });
    let mut other = balanced(json!({}));
    other["metadata"]["name"] = "also".into();
    let states = [
        objects([balanced(json!({}))]),
        objects([balanced(json!({})), other.clone()]),
        objects([other]),
        Objects::new(),
    ];
    let mut compiler = compiled(&scope, &states[0]);
    let mut names = Vec::new();
    let mut old = &states[0];
    for new in &states {
        for change in common::changes(old, new) {
            compiler.apply(change).unwrap();
        }
        compiler.flush();
        names.push(compiler.health_checks().at(32_000).map(|check| check.name.to_string()));
        old = new;
    }
    assert_eq!(names, [Some("web".into()), Some("also".into()), Some("also".into()), None]);
}

#[test]
fn one_changed_endpoint_among_thousands_of_services_compiles_its_service_alone() {
    const SERVICES: u32 = 2_000;
    let named = |n: u32, name: &str| format!("{name}-{n}");
    let one = |n: u32, last: u32| {
        let mut service = web(json!({
            "clusterIP": format!("10.96.{}.{}", n / 256, n % 256),
            "clusterIPs": [format!("10.96.{}.{}", n / 256, n % 256)],
        }));
        service["metadata"]["name"] = named(n, "web").into();
        let addresses: Vec<_> = (0..10)
            .map(|e| format!("10.{}.{}.{}", 128 + e, n / 256, if e == 9 { last } else { n % 256 }))
            .collect();
        let endpoints: Vec<_> = addresses.iter().map(|a| (&**a, "n1", json!({}))).collect();
        let mut slice = slice(&named(n, "slice"), &endpoints);
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = named(n, "web").into();
        [service, slice]
    };
    let scope = Scope::Node(NodeConfig { name: "n1".into(), ..NodeConfig::default() });
    let mut compiler = compiled(&scope, &objects((0..SERVICES).flat_map(|n| one(n, n % 256))));
    assert_eq!(compiler.state().services.len(), SERVICES as usize);
    let before = compiler.work().services_compiled;
    let [_, changed] = one(77, 255);
    let change = margay_compile::ResourceChange::Upsert(Box::new(common::resource(&changed)));
    compiler.apply(change).unwrap();
    assert_eq!(compiler.flush().len(), 1);
    assert_eq!(compiler.work().services_compiled - before, 1);
}
