//! Whom policies speak of.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::{
    ACCOUNTS, APPS, NAMESPACES, PORT_NAMES, PORTS, ROLES, TEAMS, one, perhaps, rarely, some,
};

const V3: &str = "projectcalico.org/v3";

/// Everything but policies.
pub(super) fn documents(rng: &mut Rng) -> Vec<Value> {
    let mut documents = Vec::new();
    for namespace in NAMESPACES {
        if !rarely(rng, 5) {
            documents.push(json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace, "labels": labels(rng, "team", &TEAMS)}}));
        }
        for account in ACCOUNTS {
            if rng.bool() {
                continue;
            }
            documents.push(json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": account, "namespace": namespace,
                    "labels": labels(rng, "role", &ROLES)}}));
        }
    }
    for number in 1..3 {
        documents.push(json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("n{number}"), "labels": labels(rng, "team", &TEAMS)},
            "status": {"addresses": [
                {"type": "InternalIP", "address": format!("172.20.0.{number}")},
                {"type": "InternalIP", "address": format!("fd20::{number}")}]}}));
    }
    documents.extend((1..rng.u8(4..13)).map(|number| pod(rng, number)));
    documents.extend((0..rng.u8(0..5)).map(|number| set(rng, number)));
    for (name, namespace) in ["s", "t"].iter().flat_map(|s| NAMESPACES.map(|n| (*s, n))) {
        if rng.bool() {
            documents.extend(service(rng, name, namespace));
        }
    }
    documents.extend(tiers(rng));
    documents
}

fn labels(rng: &mut Rng, key: &str, values: &[&str]) -> Value {
    let mut labels = Map::new();
    if !rarely(rng, 4) {
        labels.insert(key.to_owned(), json!(one(rng, values)));
    }
    if rarely(rng, 3) {
        labels.insert("env".to_owned(), json!(one(rng, &["prod", "test"])));
    }
    Value::Object(labels)
}

/// What pods and sets are selected by.
fn item_labels(rng: &mut Rng) -> Value {
    let mut labels = labels(rng, "app", &APPS);
    if rng.bool() {
        labels["role"] = json!(one(rng, &ROLES));
    }
    if rarely(rng, 6) {
        labels["example.org/app"] = json!(one(rng, &APPS));
    }
    if rarely(rng, 10) {
        labels[one(rng, &["pcns.team", "pcsa.role"])] = json!(one(rng, &["red", "front"]));
    }
    labels
}

fn pod(rng: &mut Rng, number: u8) -> Value {
    let v4 = format!("10.0.{}.{number}", number % 2);
    let v6 = format!("fd00:0:0:{}::{number}", number % 2);
    let families = match rng.u8(0..6) {
        0 => vec![v4.clone()],
        1 => vec![v6.clone()],
        _ => vec![v4, v6],
    };
    let ips: Vec<_> = families.iter().map(|ip| json!({"ip": ip})).collect();
    let ports = (0..rng.u8(0..4)).map(|_| {
        let mut port = json!({"name": one(rng, &PORT_NAMES), "containerPort": one(rng, &PORTS)});
        perhaps(rng, 2, &mut port, "protocol", |rng| json!(one(rng, &["TCP", "UDP", "SCTP"])));
        port
    });
    let ports: Vec<_> = ports.collect();
    let mut spec = json!({"nodeName": one(rng, &["n1", "n2"]),
        "containers": [{"name": "c", "ports": ports}]});
    perhaps(rng, 2, &mut spec, "serviceAccountName", |rng| json!(one(rng, &ACCOUNTS)));
    perhaps(rng, 15, &mut spec, "hostNetwork", |_| json!(true));
    let mut status = json!({"podIP": families[0], "podIPs": ips});
    perhaps(rng, 15, &mut status, "phase", |rng| json!(one(rng, &["Succeeded", "Failed"])));
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{number}"), "namespace": one(rng, &NAMESPACES),
            "labels": item_labels(rng)},
        "spec": spec, "status": status})
}

/// A set of networks, some of which are pods'.
fn set(rng: &mut Rng, number: u8) -> Value {
    let nets = [
        "9.9.0.0/29",
        "9.9.0.3",
        "10.0.0.0/30",
        "10.0.1.1/32",
        "203.0.113.0/24",
        "fd00::/64",
        "fd00:0:0:1::1",
        "2001:db8::/32",
        "172.20.0.1",
        "0.0.0.0/0",
        "::/0",
    ];
    let mut metadata = json!({"name": format!("set{number}"), "labels": item_labels(rng)});
    let kind = one(rng, &["NetworkSet", "GlobalNetworkSet"]);
    if kind == "NetworkSet" {
        metadata["namespace"] = json!(one(rng, &NAMESPACES));
    }
    json!({"apiVersion": V3, "kind": kind, "metadata": metadata,
        "spec": {"nets": some(rng, 3, |rng| one(rng, &nets))}})
}

/// A service, and perhaps slices of its own.
fn service(rng: &mut Rng, name: &str, namespace: &str) -> Vec<Value> {
    let mut number = 0;
    let ports = some(rng, 2, |rng| {
        number += 1;
        let target = one(rng, &[json!(80), json!("web"), json!("dns"), json!(8080)]);
        json!({"name": format!("p{number}"), "port": 1000 + number, "targetPort": target,
            "protocol": one(rng, &["TCP", "UDP"])})
    });
    let mut spec = json!({"clusterIP": "None", "ipFamilyPolicy": "RequireDualStack",
        "ipFamilies": ["IPv4", "IPv6"], "ports": ports});
    perhaps(rng, 2, &mut spec, "selector", |rng| json!({"app": one(rng, &APPS)}));
    let mut documents = vec![json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec})];
    if rng.bool() {
        let family = one(rng, &["IPv4", "IPv6"]);
        let addresses = match family {
            "IPv4" => ["10.0.0.2", "10.0.1.3", "10.0.0.4", "9.9.0.1"],
            _ => ["fd00::2", "fd00:0:0:1::3", "fd00::4", "2001:db8::9"],
        };
        let endpoints = some(rng, 3, |rng| {
            let mut endpoint = json!({"addresses": [one(rng, &addresses)]});
            perhaps(rng, 3, &mut endpoint, "conditions", |rng| json!({"ready": rng.bool()}));
            endpoint
        });
        let ports = some(rng, 2, |rng| {
            json!({"name": format!("p{}", rng.u16(..)), "port": one(rng, &PORTS),
                "protocol": one(rng, &["TCP", "UDP"])})
        });
        documents.push(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{name}-1"), "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name}},
            "addressType": family, "endpoints": endpoints, "ports": ports}));
    }
    documents
}

fn tiers(rng: &mut Rng) -> Vec<Value> {
    let mut tiers = Vec::new();
    for name in ["early", "twin", "late"] {
        if rarely(rng, 4) {
            continue;
        }
        let mut spec = json!({});
        perhaps(rng, 2, &mut spec, "defaultAction", |rng| json!(one(rng, &["Pass", "Deny"])));
        let orders = [json!(10), json!(10.5), json!(-1), json!(2_000_000), json!(20_000_000)];
        perhaps(rng, 2, &mut spec, "order", |rng| one(rng, &orders));
        tiers.push(json!({"apiVersion": V3, "kind": "Tier", "metadata": {"name": name},
            "spec": spec}));
    }
    tiers
}
