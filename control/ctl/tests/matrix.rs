//! `policy matrix`, as an operator uses it.

mod common;

use common::{Store, three_by_three};
use serde_json::{Value, json};

const POLICIES: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guard, namespace: x}
spec:
  podSelector: {matchLabels: {pod: a}}
  ingress:
  - from: [{podSelector: {matchLabels: {pod: b}}}]
    ports: [{port: 80}, {port: 53, protocol: UDP}]
  - from: [{namespaceSelector: {matchLabels: {ns: y}}}]
"#;

fn store() -> Store {
    Store::with(&format!("{}{POLICIES}", three_by_three()))
}

/// The cell between the groups that have these pods, or of what is outside (`-`).
fn cell(report: &Value, from: &str, to: &str) -> Value {
    let groups = report["groups"].as_array().unwrap();
    let place = |pod: &str| {
        let has = |group: &Value| match pod {
            "-" => group["outside"] == true,
            pod => group["pods"].as_array().unwrap().contains(&json!(pod)),
        };
        groups.iter().position(has).unwrap()
    };
    let outcome = report["matrix"][place(from)][place(to)].as_u64().unwrap();
    report["outcomes"][outcome as usize].clone()
}

#[test]
fn pods_that_policies_treat_alike_are_one_group() {
    let report = store().json("policy matrix");
    let groups = report["groups"].as_array().unwrap();
    let pods: Vec<_> = groups.iter().map(|group| group["pods"].clone()).collect();
    // To x/a its two friends differ, all others are alike; nobody guards any of them.
    assert_eq!(pods.len(), 5, "{pods:?}");
    assert!(pods.contains(&json!(["x/a"])));
    assert!(pods.contains(&json!(["x/b"])));
    assert!(pods.contains(&json!(["x/c", "z/a", "z/b", "z/c"])));
    assert!(pods.contains(&json!(["y/a", "y/b", "y/c"])));
    assert_eq!(groups[4]["name"], "(outside)");
}

#[test]
fn a_cell_tells_which_ports_are_open_and_who_decided() {
    let report = store().json("policy matrix");
    let partly = cell(&report, "x/b", "x/a");
    assert_eq!(partly["verdict"], "partly");
    let parts = partly["parts"].as_array().unwrap();
    let allowed: Vec<_> = parts.iter().filter(|part| part["verdict"] == "allow").collect();
    assert_eq!(allowed.len(), 1);
    assert_eq!(allowed[0]["what"], "TCP 80, UDP 53");
    assert_eq!(allowed[0]["ingress"]["policy"], "KubernetesNetworkPolicy/x/guard");
    let denied = parts.iter().find(|part| part["verdict"] == "deny").unwrap();
    assert_eq!(
        (&denied["what"], &denied["ingress"]["tier"]),
        (&json!("everything else"), &json!("default"))
    );
    assert_eq!(cell(&report, "y/a", "x/a")["verdict"], "allowed");
    assert_eq!(cell(&report, "y/a", "x/a")["parts"][0]["ingress"]["rule"], 1);
    assert_eq!(cell(&report, "z/a", "x/a")["verdict"], "denied");
    assert_eq!(cell(&report, "-", "x/a")["verdict"], "denied");
    assert_eq!(cell(&report, "x/a", "-")["verdict"], "allowed");
}

#[test]
fn one_port_pods_of_a_namespace_and_pods_by_label_may_be_chosen() {
    let store = store();
    let verdict = |words: &str, from: &str, to: &str| {
        cell(&store.json(&format!("policy matrix {words}")), from, to)["verdict"].clone()
    };
    assert_eq!(verdict("--port 80/tcp", "x/b", "x/a"), "allowed");
    assert_eq!(verdict("--port 80", "x/b", "x/a"), "allowed");
    assert_eq!(verdict("--port 81", "x/b", "x/a"), "denied");
    assert_eq!(verdict("--port 53/udp", "x/b", "x/a"), "allowed");
    assert_eq!(verdict("--port icmp", "x/b", "x/a"), "denied");
    let pods = |words: &[&str]| -> usize {
        let url = format!("--datastore=dir:{}", store.dir.path().display());
        let all = [&[&*url, "-o", "json", "policy", "matrix"], words].concat();
        let report: Value = serde_json::from_slice(&common::margayctl(&all, "").stdout).unwrap();
        let groups = report["groups"].as_array().unwrap();
        groups.iter().map(|group| group["pods"].as_array().unwrap().len()).sum()
    };
    assert_eq!(pods(&["-n", "x"]), 3);
    assert_eq!(pods(&["-n", "x", "--namespace", "z"]), 6);
    assert_eq!(pods(&["-l", "pod in {'a', 'b'} && ns != 'z'"]), 6);
    assert!(store.bad("policy matrix -n nowhere", "").contains("no pod with an address"));
    assert!(store.bad("policy matrix --limit 2", "").contains("narrow them with --namespace"));
    assert!(store.bad("policy matrix --port http", "").contains("differs from pod to pod"));
    assert!(store.bad("policy matrix -o name", "").contains("no names"));
}

#[test]
fn the_text_has_a_row_and_a_column_for_each_group() {
    let text = store().good("policy matrix", "");
    let rows: Vec<_> = text.lines().collect();
    assert_eq!(rows[0], "9 pods in 4 groups that policies treat alike; any port");
    let row = |pod: &str| *rows.iter().find(|row| row.contains(pod)).unwrap();
    assert!(row("x/b").ends_with("+ ~ + + +"), "{text}");
    assert!(row("(outside)").ends_with("+ . + + +"), "{text}");
    assert!(row("y/*").ends_with("3  + + + + +"), "{text}");
    assert!(row("some of x,z").ends_with("4  + . + + +"), "{text}");
}

#[test]
fn the_page_holds_everything_and_loads_nothing() {
    let hostile = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: h, namespace: x, labels: {a: b}}\n\
        status: {podIP: 10.1.0.9}\n---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n\
        metadata: {name: g}\nspec: {selector: \"has(a)\", ingress: [{action: Deny}]}\n";
    let store = Store::with(&format!("{}{POLICIES}{hostile}", three_by_three()));
    let file = store.dir.path().join("matrix.html");
    let said = store.good(&format!("policy matrix --html {}", file.display()), "");
    assert_eq!(said, "");
    let page = std::fs::read_to_string(file).unwrap();
    for outside in ["http://", "https://", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(cell(&data, "x/b", "x/a")["verdict"], "partly");
    assert_eq!(
        cell(&data, "x/b", "x/h")["parts"][0]["ingress"]["policy"],
        "GlobalNetworkPolicy//g"
    );
}

#[test]
fn pods_of_two_families_meet_in_the_one_they_share() {
    let pod = |name: &str, ips: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x, labels: {{app: \
             {name}}}}}\nstatus: {{podIPs: [{ips}]}}\n"
        )
    };
    let policy = "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, \
        namespace: x}\nspec: {selector: \"app == 'both'\", ingress: [{action: Allow, source: {nets: \
        ['10.0.0.0/8']}}]}\n";
    let documents = pod("both", "{ip: 10.0.0.1}, {ip: 'fd00::1'}")
        + &pod("other", "{ip: 10.0.0.2}, {ip: 'fd00::2'}")
        + &pod("four", "{ip: 10.0.0.3}")
        + &pod("six", "{ip: 'fd00::4'}")
        + policy;
    let report = Store::with(&documents).json("policy matrix");
    assert_eq!(cell(&report, "x/four", "x/both")["verdict"], "allowed");
    assert_eq!(cell(&report, "x/six", "x/both")["verdict"], "denied");
    assert_eq!(cell(&report, "x/four", "x/six")["verdict"], "unreachable");
    let mixed = cell(&report, "x/other", "x/both");
    assert_eq!(mixed["verdict"], "partly");
    assert_eq!(mixed["parts"][0]["what"], "IPv4 everything");
}

const HOSTS: &str = r#"
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: m, interfaceName: eth0, expectedIPs: [192.168.9.1]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: open}
spec: {node: m, interfaceName: eth1, expectedIPs: [192.168.9.2], profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: nowhere}
spec: {node: elsewhere, interfaceName: eth2}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge}
spec:
  selector: role == 'edge'
  ingress: [{action: Allow, protocol: TCP, source: {selector: pod == 'a'}, destination: {ports: [443]}}]
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec:
  failsafeInboundHostPorts: [{protocol: tcp, port: 22}, {protocol: tcp, port: 179, net: 10.9.0.0/16}]
  failsafeOutboundHostPorts: [{protocol: udp, port: 53}]
"#;

#[test]
fn host_endpoints_have_rows_and_columns_with_their_failsafe_ports() {
    let store = Store::with(&format!("{}{POLICIES}---{HOSTS}", three_by_three()));
    let report = store.json("policy matrix");
    let groups = report["groups"].as_array().unwrap();
    let place = |host: &str| {
        groups.iter().position(|g| g["hostEndpoints"].as_array().unwrap().contains(&json!(host)))
    };
    let (edge, open) = (place("edge").unwrap(), place("open").unwrap());
    assert_eq!(groups[edge]["name"], "host endpoint edge");
    assert_eq!(place("nowhere"), None, "an endpoint without addresses has no traffic of its own");
    let parts = |from: usize, to: usize| -> Vec<String> {
        let outcome = &report["outcomes"][report["matrix"][from][to].as_u64().unwrap() as usize];
        let parts = outcome["parts"].as_array().unwrap().iter();
        parts
            .map(|p| format!("{} {}", p["verdict"].as_str().unwrap(), p["what"].as_str().unwrap()))
            .collect()
    };
    let pod = |pod: &str| {
        groups.iter().position(|g| g["pods"].as_array().unwrap().contains(&json!(pod))).unwrap()
    };
    let allowed = |from, to| {
        parts(from, to).into_iter().filter(|p| p.starts_with("allow")).collect::<Vec<_>>()
    };
    assert_eq!(allowed(pod("x/b"), edge), ["allow TCP 22"]);
    assert_eq!(allowed(pod("z/a"), edge), ["allow TCP 22", "allow TCP 443"]);
    assert_eq!(allowed(pod("x/b"), open), ["allow TCP 22", "allow everything else"]);
    // Without policy for egress and without profile a host sends what is failsafe and no more.
    assert_eq!(allowed(edge, pod("z/a")), ["allow UDP 53"]);
    assert_eq!(allowed(open, pod("z/a")), ["allow UDP 53", "allow everything else"]);
    let text = store.good("policy matrix", "");
    assert!(text.starts_with("9 pods and 2 host endpoints in "), "{text}");
    let only = store.json("policy matrix -n x");
    let hosts = |group: &Value| group["hostEndpoints"].as_array().unwrap().len();
    assert_eq!(only["groups"].as_array().unwrap().iter().map(hosts).sum::<usize>(), 0);
}

const WEB: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: x}
spec:
  clusterIP: 10.96.0.1
  selector: {pod: a}
  ports: [{name: http, port: 8080, targetPort: 80}, {name: admin, port: 9090, targetPort: 81}]
---
apiVersion: v1
kind: Service
metadata: {name: all, namespace: y}
spec: {clusterIP: 10.96.0.2, selector: {ns: y}, ports: [{port: 80}]}
"#;

#[test]
fn services_are_columns_that_tell_what_their_backends_say() {
    let store = Store::with(&format!("{}{POLICIES}---{WEB}", three_by_three()));
    let report = store.json("policy matrix --services");
    assert_eq!(report["services"], json!(["x/web", "y/all"]));
    let groups = report["groups"].as_array().unwrap();
    let cell = |pod: &str| {
        let has = |g: &Value| g["pods"].as_array().unwrap().contains(&json!(pod));
        let from = groups.iter().position(has).unwrap();
        let outcome = report["serviceMatrix"][from][0].as_u64().unwrap() as usize;
        report["outcomes"][outcome].clone()
    };
    let partly = cell("x/b");
    assert_eq!(partly["verdict"], "partly");
    let parts = partly["parts"].as_array().unwrap().iter();
    let words: Vec<_> = parts.map(|p| json!([p["verdict"], p["what"]])).collect();
    assert_eq!(words, [json!(["allow", "TCP 8080"]), json!(["deny", "TCP 9090"])]);
    assert_eq!(cell("z/a")["verdict"], "denied");
    assert_eq!(cell("y/a")["verdict"], "allowed");
    let text = store.good("policy matrix --services", "");
    assert!(text.ends_with("6  service x/web\n7  service y/all\n"), "{text}");
    let only = store.json("policy matrix --services -n x --port 9090");
    assert_eq!(only["services"], json!(["x/web"]));
    assert_eq!(store.json("policy matrix")["services"], json!([]));
}
