//! Calico's policies.

use fastrand::Rng;
use serde_json::{Value, json};

use super::selector::{What, selector};
use super::{
    ACCOUNTS, NAMESPACES, PORT_NAMES, PORTS, kubernetes, name, one, perhaps, rarely, some,
};

const V3: &str = "projectcalico.org/v3";
const TIERS: [&str; 8] =
    ["early", "twin", "late", "default", "default", "kube-baseline", "nowhere", "never"];
const V4: [&str; 6] =
    ["10.0.0.0/24", "10.0.1.0/30", "9.9.0.0/16", "9.9.0.3/32", "172.20.0.0/24", "128.0.0.0/1"];
const V6: [&str; 5] = ["fd00::/64", "fd00:0:0:1::/126", "2001:db8::/32", "fd20::1/128", "8000::/1"];

/// A NetworkPolicy, or a GlobalNetworkPolicy.
pub(super) fn policy(rng: &mut Rng, number: usize, global: bool) -> Value {
    let mut metadata = json!({"name": name(rng, number)});
    let kind = if global { "GlobalNetworkPolicy" } else { "NetworkPolicy" };
    if !global {
        metadata["namespace"] = json!(one(rng, &NAMESPACES));
    }
    let mut spec = json!({});
    perhaps(rng, 2, &mut spec, "tier", |rng| json!(one(rng, &TIERS)));
    let orders = [json!(0), json!(1000), json!(1.5), json!(-3), json!(10), json!(1000)];
    perhaps(rng, 2, &mut spec, "order", |rng| one(rng, &orders));
    perhaps(rng, 2, &mut spec, "selector", |rng| json!(selector(rng, What::Items)));
    let account = "serviceAccountSelector";
    perhaps(rng, 6, &mut spec, account, |rng| json!(selector(rng, What::Accounts)));
    for direction in ["ingress", "egress"] {
        let ingress = direction == "ingress";
        perhaps(rng, 2, &mut spec, direction, |rng| {
            json!(some(rng, 5, |rng| rule(rng, ingress, global)))
        });
    }
    let types = [json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"]), json!([])];
    perhaps(rng, 2, &mut spec, "types", |rng| one(rng, &types));
    perhaps(rng, 10, &mut spec, "performanceHints", |_| json!(["AssumeNeededOnEveryNode"]));
    if global {
        perhaps(rng, 3, &mut spec, "namespaceSelector", |rng| {
            json!(selector(rng, What::Namespaces))
        });
        for_hosts(rng, &mut spec);
    }
    json!({"apiVersion": V3, "kind": kind, "metadata": metadata, "spec": spec})
}

/// What only host endpoints look at, or what makes a policy theirs alone.
fn for_hosts(rng: &mut Rng, spec: &mut Value) {
    match rng.u8(0..20) {
        0 => spec["doNotTrack"] = json!(true),
        1 => {
            spec["preDNAT"] = json!(true);
            spec["types"] = json!(["Ingress"]);
            spec["egress"] = json!([]);
        }
        2 => {}
        _ => return,
    }
    spec["applyOnForward"] = json!(true);
}

/// A policy that nobody enforces.
pub(super) fn staged(rng: &mut Rng, number: usize) -> Value {
    let action = one(rng, &["Set", "Delete", "Learn", "Ignore"]);
    let mut staged = match rng.u8(0..3) {
        0 => kubernetes::network_policy(rng, number),
        kind => policy(rng, number, kind == 1),
    };
    staged["kind"] = json!(match (&staged["kind"], &staged["apiVersion"]) {
        (kind, _) if kind == "GlobalNetworkPolicy" => "StagedGlobalNetworkPolicy",
        (_, version) if version == V3 => "StagedNetworkPolicy",
        _ => "StagedKubernetesNetworkPolicy",
    });
    staged["apiVersion"] = json!(V3);
    if action == "Delete" {
        staged["spec"] = json!({});
    }
    staged["spec"]["stagedAction"] = json!(action);
    staged
}

fn rule(rng: &mut Rng, ingress: bool, global: bool) -> Value {
    let action = one(rng, &["Allow", "Allow", "Deny", "Deny", "Pass", "Log"]);
    let mut rule = json!({"action": action});
    let is_v4 = rng.bool();
    let of_icmp = json!(if is_v4 { "ICMP" } else { "ICMPv6" });
    let protocols: &[Value] = &[
        json!("TCP"),
        json!("TCP"),
        json!("UDP"),
        json!("SCTP"),
        json!("UDPLite"),
        json!(6),
        json!("17"),
        json!(132),
        json!(47),
        of_icmp.clone(),
        of_icmp,
    ];
    perhaps(rng, 2, &mut rule, "protocol", |rng| one(rng, protocols));
    perhaps(rng, 6, &mut rule, "notProtocol", |rng| one(rng, protocols));
    let is_icmp = [json!("ICMP"), json!("ICMPv6")].contains(&rule["protocol"]);
    if is_icmp {
        perhaps(rng, 2, &mut rule, "icmp", icmp);
    }
    perhaps(rng, if is_icmp { 3 } else { 20 }, &mut rule, "notICMP", icmp);
    perhaps(rng, 8, &mut rule, "ipVersion", |_| json!(if is_v4 { 4 } else { 6 }));
    if rarely(rng, 10) {
        rule["metadata"] = json!({"annotations": {"note": "none"}});
    }
    let ports = [
        json!("TCP"),
        json!("UDP"),
        json!("SCTP"),
        json!("UDPLite"),
        json!(6),
        json!("17"),
        json!(132),
    ];
    let has_ports = ports.contains(&rule["protocol"]);
    if ingress && action == "Allow" && [json!(null), json!("TCP")].contains(&rule["protocol"]) {
        perhaps(rng, 6, &mut rule, "http", |_| json!({"methods": ["GET"]}));
    }
    for end in ["source", "destination"] {
        if end == "destination" && !ingress && action == "Allow" && rarely(rng, 10) {
            rule[end] = json!({"domains": ["*.example.org"]});
        } else if rng.bool() {
            let services = ingress == (end == "source");
            rule[end] = self::end(rng, is_v4, has_ports, services, global);
        }
    }
    rule
}

fn icmp(rng: &mut Rng) -> Value {
    let mut icmp = json!({"type": one(rng, &[0, 3, 8, 128, 135])});
    perhaps(rng, 2, &mut icmp, "code", |rng| json!(rng.u8(0..3)));
    icmp
}

fn end(rng: &mut Rng, is_v4: bool, has_ports: bool, services: bool, global: bool) -> Value {
    let mut end = json!({});
    if services && rarely(rng, 4) {
        end["services"] = json!({"name": one(rng, &["s", "t"])});
        if global || rng.bool() {
            end["services"]["namespace"] = json!(one(rng, &NAMESPACES));
        }
        return end;
    }
    let nets = if is_v4 { &V4[..] } else { &V6[..] };
    let net = |rng: &mut Rng| json!(some(rng, 3, |rng| one(rng, nets)));
    perhaps(rng, 6, &mut end, "nets", net);
    perhaps(rng, 10, &mut end, "notNets", net);
    perhaps(rng, 3, &mut end, "selector", |rng| json!(selector(rng, What::Items)));
    perhaps(rng, 8, &mut end, "notSelector", |rng| json!(selector(rng, What::Items)));
    perhaps(rng, 5, &mut end, "namespaceSelector", |rng| {
        let any = selector(rng, What::Namespaces);
        json!(one(rng, &["all()".to_owned(), "global()".to_owned(), any.clone(), any]))
    });
    perhaps(rng, 8, &mut end, "serviceAccounts", accounts);
    perhaps(rng, 4, &mut end, "ports", |rng| ports(rng, has_ports));
    perhaps(rng, 8, &mut end, "notPorts", |rng| ports(rng, has_ports));
    end
}

fn accounts(rng: &mut Rng) -> Value {
    let mut accounts = json!({});
    perhaps(rng, 2, &mut accounts, "names", |rng| json!(some(rng, 2, |rng| one(rng, &ACCOUNTS))));
    perhaps(rng, 2, &mut accounts, "selector", |rng| json!(selector(rng, What::Accounts)));
    accounts
}

/// Ports by name, and where the rule has a protocol with ports, by number.
fn ports(rng: &mut Rng, numbers: bool) -> Value {
    let each = |rng: &mut Rng| match rng.u8(0..4) {
        0 | 1 if numbers => json!(one(rng, &PORTS)),
        2 if numbers => json!(one(rng, &["80:90", "1:79", "443:65535", "80:80"])),
        _ => json!(one(rng, &PORT_NAMES)),
    };
    json!(some(rng, 3, each))
}
