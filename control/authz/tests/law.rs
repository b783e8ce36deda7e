//! Which requests the policy of a workload lets pass.

mod common;

use common::{Asking, Node, TILL, WEB, YARD, global, labelled, policy, workload};
use serde_json::json;

const OUTSIDE: &str = "192.0.2.9";

fn reads() -> serde_json::Value {
    json!({"methods": ["GET"], "paths": [{"exact": "/projects/calico"}, {"prefix": "/users"}]})
}

#[test]
fn a_rule_with_http_means_its_requests_and_no_others() {
    let node = Node::with([policy("web", json!([{"action": "Allow", "http": reads()}]))]);
    let ask = |method, path| node.allows(Asking::from(TILL).http(method, path));
    assert!(ask("GET", "/projects/calico"));
    assert!(ask("GET", "/users/7?name=x"));
    assert!(!ask("POST", "/users/7"));
    assert!(!ask("get", "/users/7"));
    assert!(!ask("GET", "/projects/calico/secret"));
    assert!(!ask("GET", "/users/../projects"));
}

#[test]
fn a_connection_without_http_matches_rules_without_http_only() {
    let rules = json!([
        {"action": "Allow", "http": {"methods": ["*"]}},
        {"action": "Allow", "source": {"nets": ["192.0.2.0/24"]}},
    ]);
    let node = Node::with([policy("web", rules)]);
    assert!(!node.allows(Asking::from(TILL)));
    assert!(node.allows(Asking::from(TILL).http("GET", "/")));
    assert!(node.allows(Asking::from(OUTSIDE)));
    assert!(node.allows(Asking::from(OUTSIDE).http("GET", "/")));
}

#[test]
fn what_packets_show_still_counts() {
    let rules = json!([
        {"action": "Deny", "protocol": "TCP", "destination": {"ports": [81]}},
        {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'till'"}, "http": reads()},
    ]);
    let node = Node::with([policy("web", rules)]);
    let get = |asking: Asking| node.allows(asking.http("GET", "/users"));
    assert!(get(Asking::from(TILL)));
    assert!(!get(Asking::from(TILL).to(WEB, 81)));
    assert!(!get(Asking::from(OUTSIDE)));
    assert!(!get(Asking::from(YARD)), "the selector is limited to the policy's namespace");
}

#[test]
fn a_proven_service_account_has_to_be_the_one_that_the_rule_names() {
    let rules = json!([{"action": "Allow", "source": {"serviceAccounts": {"names": ["till"]}}}]);
    let node = Node::with([policy("web", rules)]);
    // By address alone, as packets are judged.
    assert!(node.allows(Asking::from(TILL)));
    assert!(!node.allows(Asking::from(YARD)));
    // By address and by what was proven.
    assert!(node.allows(Asking::from(TILL).account("shop", "till")));
    assert!(!node.allows(Asking::from(TILL).account("shop", "web")));
    assert!(!node.allows(Asking::from(TILL).account("yard", "till")));
    assert!(!node.allows(Asking::from(OUTSIDE).account("shop", "till")));
    // Somebody, but no service account.
    assert!(!node.allows(Asking::from(TILL).proven("spiffe://cluster.local/till")));
    assert!(!node.allows(Asking::from(TILL).proven("CN=till")));
}

#[test]
fn labels_of_the_account_and_of_its_namespace_count_as_they_are_now() {
    let rules = json!([{
        "action": "Allow",
        "source": {
            "namespaceSelector": "team == 'front'",
            "serviceAccounts": {"selector": "role == 'cash'"},
        },
    }]);
    let mut node = Node::with([global(rules)]);
    let asking = || Asking::from(YARD).account("yard", "till");
    assert!(!node.allows(asking()));
    node.change(&labelled("Namespace", None, "yard", json!({"team": "front"})));
    assert!(!node.allows(asking()));
    node.change(&labelled("ServiceAccount", Some("yard"), "till", json!({"role": "cash"})));
    assert!(node.allows(asking()));
    assert!(!node.allows(Asking::from(YARD).account("shop", "till")), "of another namespace");
    node.change(&labelled("Namespace", None, "yard", json!({"team": "back"})));
    assert!(!node.allows(asking()));
}

#[test]
fn labels_that_the_proxy_tells_stand_behind_those_of_the_account() {
    let rules = json!([{"action": "Deny", "source": {"serviceAccounts": {"selector": "role == 'x'"}}},
        {"action": "Allow"}]);
    let account = |role| labelled("ServiceAccount", Some("shop"), "till", json!({"role": role}));
    let mut node = Node::with([policy("web", rules), account("x")]);
    let asking = || Asking::from(TILL).account("shop", "till");
    assert!(!node.allows(asking()));
    assert!(!node.allows(asking().label("role", "y")), "a label that is there cannot be retold");
    node.change(&account("y"));
    assert!(node.allows(asking().label("role", "x")));
}

#[test]
fn the_servers_own_identity_is_looked_at_too() {
    let rules = json!([{
        "action": "Allow", "destination": {"serviceAccounts": {"names": ["web"]}},
    }]);
    let node = Node::with([policy("web", rules)]);
    assert!(node.allows(Asking::from(TILL)));
    assert!(node.allows(Asking::from(TILL).server("shop", "web")));
    assert!(!node.allows(Asking::from(TILL).server("shop", "till")));
}

#[test]
fn a_kubernetes_peer_is_limited_to_its_namespace_by_identity_too() {
    let peer = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]},
    });
    let node = Node::with([peer]);
    assert!(node.allows(Asking::from(TILL)));
    assert!(node.allows(Asking::from(TILL).account("shop", "anybody")));
    assert!(!node.allows(Asking::from(TILL).account("yard", "till")));
}

#[test]
fn a_change_that_packets_do_not_show_is_in_force_at_once() {
    let web = |method| policy("web", json!([{"action": "Allow", "http": {"methods": [method]}}]));
    let mut node = Node::with([web("GET")]);
    assert!(node.allows(Asking::from(TILL).http("GET", "/")));
    assert_eq!(node.change(&web("PUT")), 0, "the dataplane need not know");
    assert!(!node.allows(Asking::from(TILL).http("GET", "/")));
    assert!(node.allows(Asking::from(TILL).http("PUT", "/")));
    node.delete(&web("PUT"));
    assert!(node.allows(Asking::from(TILL).http("GET", "/")), "by the namespace's profile");
}

#[test]
fn a_destination_that_is_no_workload_of_this_node_is_denied() {
    let mut node = Node::with([]);
    assert!(node.allows(Asking::from(OUTSIDE)));
    for elsewhere in [TILL, OUTSIDE, "127.0.0.1"] {
        let ruling = node.ask(Asking::from(WEB).to(elsewhere, 80));
        assert_eq!((ruling.allowed(), ruling.reason()), (false, "unknown-destination"));
    }
    node.change(&workload("shop", "new", "10.0.0.9", "n1"));
    assert!(node.allows(Asking::from(WEB).to("10.0.0.9", 80)));
    node.delete(&workload("shop", "new", "10.0.0.9", "n1"));
    assert!(!node.allows(Asking::from(WEB).to("10.0.0.9", 80)));
}

#[test]
fn a_ruling_names_the_policy_and_the_rule_as_its_document_counts() {
    let rules = json!([
        // One rule of the document, two of the dataplane.
        {"action": "Deny", "source": {"nets": ["198.51.100.0/24"]}, "protocol": "UDP"},
        {"action": "Allow", "http": reads()},
        {"action": "Deny", "source": {"nets": ["192.0.2.0/24"]}},
    ]);
    let node = Node::with([policy("web", rules)]);
    let said = |asking: Asking| node.ask(asking).to_string();
    let get = |asking: Asking| said(asking.http("GET", "/users"));
    assert_eq!(
        get(Asking::from(TILL)),
        "allowed by rule 1 of NetworkPolicy/shop/web (tier default)"
    );
    assert_eq!(
        said(Asking::from(OUTSIDE)),
        "denied by rule 2 of NetworkPolicy/shop/web (tier default)"
    );
    assert_eq!(said(Asking::from(TILL)), "denied: no rule matches (tier default)");
    let node = Node::with([]);
    assert_eq!(node.ask(Asking::from(TILL)).to_string(), "allowed by rule 0 of Profile//kns.shop");
}
