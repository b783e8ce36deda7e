//! `policy diff`, as an operator and a pipeline use it.

mod common;

use common::{Store, three_by_three};
use serde_json::{Value, json};

const GUARD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: guard, \
    namespace: x}\nspec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: \
    {matchLabels: {pod: b}}}], ports: [{port: 80}]}]}\n";

/// The same, for port 81 too.
const WIDER: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: guard, \
    namespace: x}\nspec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: \
    {matchLabels: {pod: b}}}], ports: [{port: 80}, {port: 81}]}]}\n";

/// Runs the command with a document on standard input: its exit code and what it says.
fn diff(store: &Store, words: &str, document: &str) -> (i32, Value) {
    let output = store.run(&format!("policy diff - --no-flows -o json {words}"), document);
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!(errors));
    (output.status.code().unwrap(), said)
}

/// `VERDICT POLICY` before and after.
fn turns(change: &Value) -> String {
    let side = |said: &Value| {
        let by = said["ingress"]["policy"].as_str().or(said["ingress"]["tier"].as_str());
        format!("{} {}", said["verdict"].as_str().unwrap(), by.unwrap_or("-"))
    };
    format!("{} -> {}", side(&change["old"]), side(&change["new"]))
}

#[test]
fn a_new_policy_closes_what_it_does_not_name() {
    let store = Store::with(&three_by_three());
    let (code, report) = diff(&store, "", GUARD);
    assert_eq!(code, 1);
    let pairs = report["pairs"].as_array().unwrap();
    let to: Vec<_> = pairs.iter().map(|pair| pair["to"].as_str().unwrap()).collect();
    assert!(to.iter().all(|to| *to == "x/a"), "{to:?}");
    let from_b = pairs.iter().find(|pair| pair["from"] == "x/b").unwrap();
    assert_eq!(from_b["what"], "everything else");
    assert_eq!(turns(from_b), "allow Profile//kns.* -> deny default");
    let groups = report["groups"].as_array().unwrap();
    let all = groups.iter().find(|group| group["pods"].as_array().unwrap().len() == 7).unwrap();
    let from_all = pairs.iter().find(|pair| pair["from"] == all["name"]).unwrap();
    assert_eq!(from_all["what"], "everything");
    assert!(pairs.iter().any(|pair| pair["from"] == "(outside)"));
    assert_eq!(store.files(), ["all.yaml"], "nothing is written");
}

#[test]
fn an_edit_names_only_the_traffic_that_it_changes() {
    let store = Store::with(&format!("{}{GUARD}", three_by_three()));
    let (code, report) = diff(&store, "", WIDER);
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!((code, pairs.len()), (1, 1), "{report}");
    let place = json!([pairs[0]["from"], pairs[0]["to"], pairs[0]["what"]]);
    assert_eq!(place, json!(["x/b", "x/a", "TCP 81"]));
    assert_eq!(turns(&pairs[0]), "deny default -> allow KubernetesNetworkPolicy/x/guard");
    let text = String::from_utf8(store.run("policy diff - --no-flows", WIDER).stdout).unwrap();
    let row = text.lines().nth(1).unwrap();
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(words[..4], ["x/b", "x/a", "TCP", "81"]);
    assert!(row.contains("deny: ingress end of default"), "{row}");
    assert!(row.ends_with("allow: ingress KubernetesNetworkPolicy/x/guard#0"), "{row}");
}

#[test]
fn what_changes_nothing_exits_with_0() {
    let store = Store::with(&format!("{}{GUARD}", three_by_three()));
    assert_eq!(diff(&store, "", GUARD), (0, json!({"pairs": [], "groups": [], "flows": null})));
    // Another rule decides, to the same effect.
    let other = GUARD.replace("name: guard", "name: another");
    assert_eq!(diff(&store, "", &other).0, 0);
    let text = store.good("policy diff - --no-flows", GUARD);
    assert!(text.starts_with("no pair of pods is told anything else"), "{text}");
}

#[test]
fn objects_may_be_taken_away_and_choices_narrow_the_view() {
    let store = Store::with(&format!("{}{GUARD}", three_by_three()));
    let (code, report) = diff(&store, "--delete", GUARD);
    assert_eq!(code, 1);
    let pairs = report["pairs"].as_array().unwrap();
    assert!(pairs.iter().all(|pair| turns(pair) == "deny default -> allow Profile//kns.*"));
    assert_eq!(diff(&store, "--delete -n y", GUARD).0, 0);
    assert_eq!(diff(&store, "--delete --port 80 -l pod=='b'", GUARD).0, 0);
    let (code, report) = diff(&store, "--delete --port 80 -n x", GUARD);
    assert_eq!((code, &report["pairs"][0]["what"]), (1, &json!("TCP 80")));
    let gone = GUARD.replace("name: guard", "name: gone");
    let output = store.run("policy diff - --delete --no-flows", &gone);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.contains("x/gone is not there"), "{errors}");
}

#[test]
fn a_label_of_a_pod_or_namespace_is_a_change_too() {
    let store = Store::with(&format!("{}{GUARD}", three_by_three()));
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: c, namespace: x, labels: {pod: b}}\n\
        spec: {nodeName: n}\nstatus: {podIP: 10.1.0.3}\n";
    let (code, report) = diff(&store, "", pod);
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!((code, pairs.len()), (1, 1), "{report}");
    let place = json!([pairs[0]["from"], pairs[0]["to"], pairs[0]["what"]]);
    assert_eq!(place, json!(["x/c", "x/a", "TCP 80"]));
}

#[test]
fn what_cannot_be_told_exits_with_2() {
    let store = Store::with(&three_by_three());
    let table = [
        (
            "",
            "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p}\nspec: 5\n",
            "spec",
        ),
        ("--limit 1", GUARD, "narrow them with --namespace"),
        ("-o name", GUARD, "no names"),
    ];
    for (words, document, expected) in table {
        let output = store.run(&format!("policy diff - --no-flows {words}"), document);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words}: {errors}");
        assert!(errors.contains(expected), "{words}: {errors}");
    }
    assert_eq!(store.run("policy diff /nowhere --no-flows", "").status.code(), Some(2));
    assert_eq!(store.run("policy diff", "").status.code(), Some(2));
}

#[test]
fn a_dataplane_that_is_not_there_is_told_and_does_no_harm() {
    let store = Store::with(&three_by_three());
    let words = "policy diff - --dataplane unix:/nowhere/margayd.sock -o json";
    let output = store.run(words, GUARD);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let why = report["flows"]["notCompared"].as_str().unwrap();
    assert!(why.contains("/nowhere/margayd.sock"), "{why}");
}

#[test]
fn what_changes_for_a_host_endpoint_is_told_too() {
    let host = "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\n\
        metadata: {name: edge, labels: {role: edge}}\n\
        spec: {node: m, interfaceName: eth0, expectedIPs: [192.168.9.1]}\n";
    let store = Store::with(&format!("{}{host}", three_by_three()));
    let policy = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n\
        metadata: {name: edge}\nspec:\n  selector: role == 'edge'\n  ingress:\n\
        \x20 - {action: Allow, protocol: TCP, destination: {ports: [22, 443]}}\n";
    let (code, report) = diff(&store, "", policy);
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!(code, 1);
    let edge = |pair: &&Value| pair["to"] == "host endpoint edge" && pair["from"] != "(outside)";
    let changes: Vec<_> = pairs.iter().filter(edge).collect();
    assert_eq!(changes.len(), 1, "{report}");
    // Port 22 is open in any case: it is one of the failsafe ports.
    assert_eq!(changes[0]["what"], "TCP 443");
    assert_eq!(turns(changes[0]), "deny - -> allow GlobalNetworkPolicy//edge");
}

#[test]
fn a_host_endpoint_that_comes_or_goes_and_what_a_node_does_with_its_pods_are_changes() {
    let guard = |interface: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: guard}}\nspec: \
             {{node: n, interfaceName: '{interface}'}}\n"
        )
    };
    let store = Store::with(&three_by_three());
    let (code, report) = diff(&store, "", &guard("*"));
    assert_eq!((code, report["pairs"].as_array().unwrap().len()), (1, 0), "{report}");
    assert!(report["guards"][0].as_str().unwrap().starts_with("host endpoint guard comes"));
    let drops = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: \
                 node.n}\nspec: {defaultEndpointToHostAction: Drop}\n";
    let (code, report) = diff(&store, "", drops);
    assert_eq!(code, 1);
    assert_eq!(report["guards"], json!(["pods to their own node n: Accept becomes Drop"]));

    let store = Store::with(&format!("{}{}", three_by_three(), guard("*")));
    let (code, report) = diff(&store, "--delete", &guard("*"));
    assert_eq!(code, 1);
    assert!(report["guards"][0].as_str().unwrap().starts_with("host endpoint guard goes"));
    let (_, report) = diff(&store, "", &guard("eth0"));
    assert!(report["guards"][0].as_str().unwrap().ends_with("another interface"), "{report}");
    let (code, report) = diff(&store, "", &guard("*"));
    assert_eq!((code, &report["guards"]), (0, &Value::Null));
}

#[test]
fn what_changes_for_clients_of_a_service_is_told_if_it_is_asked_for() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: x}\n\
        spec: {clusterIP: 10.96.0.1, selector: {pod: a}, ports: [{port: 8080, targetPort: 81}]}\n";
    let store = Store::with(&format!("{}{GUARD}{service}", three_by_three()));
    let (_, without) = diff(&store, "", WIDER);
    assert_eq!(without["pairs"].as_array().unwrap().len(), 1);
    let (code, report) = diff(&store, "--services", WIDER);
    let pairs = report["pairs"].as_array().unwrap();
    let served: Vec<_> = pairs.iter().filter(|pair| pair["to"] == "service x/web").collect();
    assert_eq!((code, served.len()), (1, 1), "{report}");
    assert_eq!(json!([served[0]["from"], served[0]["what"]]), json!(["x/b", "TCP 8080"]));
    assert_eq!(turns(served[0]), "deny default -> allow KubernetesNetworkPolicy/x/guard");
    // A service that loses its last backend refuses everybody.
    let elsewhere = service.replace("pod: a", "pod: nobody").replace("---\n", "");
    let (_, report) = diff(&store, "--services", &elsewhere);
    let pairs = report["pairs"].as_array().unwrap();
    assert!(pairs.iter().all(|pair| pair["to"] == "service x/web"), "{report}");
}
