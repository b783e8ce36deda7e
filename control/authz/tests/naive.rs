//! Random policies and requests against an evaluation written apart: from the documents' own words,
//! rule by rule, as Calico's Dikastes describes it.

mod common;

use common::{Asking, Node, TILL, WEB, YARD, labelled, policy};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

const OUTSIDE: &str = "192.0.2.9";

/// Address, namespace and service account (which is also its label `app`) of the pods.
const PODS: [(&str, &str, &str); 3] =
    [(WEB, "shop", "web"), (TILL, "shop", "till"), (YARD, "yard", "till")];

/// What a proxy asks.
#[derive(Clone, Debug)]
struct Request {
    src: &'static str,
    port: u32,
    /// `NAMESPACE/NAME`, or something that is no service account.
    proven: Option<&'static str>,
    http: Option<(&'static str, &'static str)>,
}

fn request() -> impl Strategy<Value = Request> {
    let proven =
        select(vec![None, Some("shop/till"), Some("yard/till"), Some("shop/web"), Some("?")]);
    let http =
        (select(vec!["GET", "PUT", "get"]), select(vec!["/a", "/a/b", "/b", "/a?x=/b", "/"]));
    let parts = (select(vec![WEB, TILL, YARD, OUTSIDE]), select(vec![80, 81]), proven);
    (parts, proptest::option::weighted(0.8, http)).prop_map(|((src, port, proven), http)| Request {
        src,
        port,
        proven,
        http,
    })
}

fn entity() -> impl Strategy<Value = Value> {
    let selector = select(vec!["", "app == 'till'", "has(app)", "app != 'till'"]);
    let negative = select(vec!["", "", "app == 'web'"]);
    let namespaces = select(vec!["", "", "all()", "team == 'yard'", "global()"]);
    let names = select(vec![json!([]), json!([]), json!(["till"]), json!(["web", "till"])]);
    (selector, negative, namespaces, names).prop_map(|(selector, negative, namespaces, names)| {
        let mut entity = json!({
            "selector": selector, "notSelector": negative, "namespaceSelector": namespaces,
        });
        if names != json!([]) {
            entity["serviceAccounts"] = json!({"names": names});
        }
        entity
    })
}

fn rule() -> impl Strategy<Value = Value> {
    let methods = select(vec![json!([]), json!(["GET"]), json!(["*"]), json!(["PUT", "GET"])]);
    let paths = select(vec![
        json!([]),
        json!([{"exact": "/a"}]),
        json!([{"prefix": "/a"}, {"exact": "/b"}]),
    ]);
    let http = proptest::option::of((methods, paths));
    let ports = select(vec![json!([]), json!([80])]);
    (select(vec!["Allow", "Allow", "Deny", "Pass"]), entity(), ports, http).prop_map(
        |(action, source, ports, http)| {
            let mut rule = json!({"action": action, "protocol": "TCP", "source": source,
                "destination": {"ports": ports}});
            if let (Some((methods, paths)), "Allow") = (http, action) {
                rule["http"] = json!({"methods": methods, "paths": paths});
            }
            rule
        },
    )
}

/// Whether the request passes: the first rule that matches decides; Pass leads to the namespace's
/// profile, which allows, and the tier's end denies.
fn passes(rules: &[Value], request: &Request) -> bool {
    let decides = rules.iter().find(|rule| matches(rule, request));
    decides.is_some_and(|rule| rule["action"] != "Deny")
}

fn matches(rule: &Value, request: &Request) -> bool {
    let ports = rule["destination"]["ports"].as_array().unwrap();
    (ports.is_empty() || ports.contains(&json!(request.port)))
        && by_address(&rule["source"], request.src)
        && by_identity(&rule["source"], request.proven)
        && by_http(&rule["http"], request.http)
}

fn text<'v>(entity: &'v Value, key: &str) -> &'v str {
    entity[key].as_str().unwrap()
}

/// In a policy of a namespace any selector limits the entity to that namespace, unless it selects
/// namespaces itself.
fn is_limited(entity: &Value) -> bool {
    let given = |key| !text(entity, key).is_empty();
    !given("namespaceSelector")
        && (given("selector") || given("notSelector") || entity["serviceAccounts"].is_object())
}

fn by_address(entity: &Value, address: &str) -> bool {
    let asks = is_limited(entity) || !text(entity, "namespaceSelector").is_empty();
    let Some((_, namespace, app)) = PODS.iter().find(|(known, ..)| *known == address) else {
        return !asks;
    };
    let selects = |selector: &str| match selector {
        "app == 'till'" => *app == "till",
        "app == 'web'" => *app == "web",
        "app != 'till'" => *app != "till",
        _ => true,
    };
    let negative = text(entity, "notSelector");
    in_namespaces(entity, namespace)
        && selects(text(entity, "selector"))
        && (negative.is_empty() || !selects(negative))
        && is_named(entity, app)
}

fn by_identity(entity: &Value, proven: Option<&str>) -> bool {
    match proven.map(|proven| proven.split_once('/')) {
        None => true,
        Some(Some((namespace, name))) => in_namespaces(entity, namespace) && is_named(entity, name),
        Some(None) => {
            !is_limited(entity)
                && text(entity, "namespaceSelector").is_empty()
                && !entity["serviceAccounts"].is_object()
        }
    }
}

fn in_namespaces(entity: &Value, namespace: &str) -> bool {
    match text(entity, "namespaceSelector") {
        "" => !is_limited(entity) || namespace == "shop",
        "team == 'yard'" => namespace == "yard",
        selector => selector == "all()",
    }
}

fn is_named(entity: &Value, account: &str) -> bool {
    let names = entity["serviceAccounts"]["names"].as_array();
    names.is_none_or(|names| names.contains(&json!(account)))
}

fn by_http(http: &Value, request: Option<(&str, &str)>) -> bool {
    if http.is_null() {
        return true;
    }
    let Some((method, target)) = request else { return false };
    let path = target.split('?').next().unwrap();
    let methods = http["methods"].as_array().unwrap();
    let paths = http["paths"].as_array().unwrap();
    let is = |rule: &Value| match rule["exact"].as_str() {
        Some(exact) => path == exact,
        None => path.starts_with(rule["prefix"].as_str().unwrap()),
    };
    (methods.is_empty() || methods.contains(&json!("*")) || methods.contains(&json!(method)))
        && (paths.is_empty() || paths.iter().any(is))
}

fn asking(request: &Request) -> Asking {
    let mut asking = Asking::from(request.src).to(WEB, request.port);
    if let Some((method, path)) = request.http {
        asking = asking.http(method, path);
    }
    match request.proven.map(|proven| proven.split_once('/')) {
        Some(Some((namespace, name))) => asking.account(namespace, name),
        Some(None) => asking.proven("spiffe://cluster.local/somebody"),
        None => asking,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_request_is_judged_as_the_documents_say(
        rules in prop::collection::vec(rule(), 0..6),
        requests in prop::collection::vec(request(), 40),
    ) {
        let yard = labelled("Namespace", None, "yard", json!({"team": "yard"}));
        let node = Node::with([policy("web", json!(rules)), yard]);
        for request in requests {
            let expected = passes(&rules, &request);
            prop_assert_eq!(node.allows(asking(&request)), expected, "{:?} {:?}", request, rules);
        }
    }
}
