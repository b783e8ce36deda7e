//! `policy explain`, as an operator uses it.

mod common;

use common::{Store, three_by_three};
use serde_json::{Value, json};

const POLICIES: &str = r#"
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 100}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: block}
spec:
  tier: security
  selector: pod == 'a'
  types: [Ingress]
  ingress: [{action: Deny, source: {nets: [6.6.6.0/24]}}, {action: Pass}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: for-others}
spec: {tier: security, selector: "pod == 'nobody'", ingress: [{action: Deny}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow, namespace: x}
spec:
  podSelector: {matchLabels: {pod: a}}
  ingress:
  - from: [{podSelector: {matchLabels: {pod: c}}}]
    ports: [{port: serve-80}]
  - from: [{podSelector: {matchLabels: {pod: b}}}]
    ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: x}
spec:
  clusterIP: 10.96.0.1
  selector: {pod: a}
  ports: [{name: http, port: 8080, targetPort: 80}]
"#;

fn store(more: &str) -> Store {
    Store::with(&format!("{}{POLICIES}---\n{more}", three_by_three()))
}

fn explain(store: &Store, words: &str) -> Value {
    store.json(&format!("policy explain {words}"))
}

/// What a side says, without its steps.
fn side(side: &Value) -> Value {
    json!([side["verdict"], side["tier"], side["policy"], side["rule"]])
}

#[test]
fn every_step_to_the_deciding_rule_is_told_with_what_did_not_match() {
    let report = explain(&store(""), "x/b x/a 80");
    assert_eq!(report["verdict"], "allow");
    assert_eq!(side(&report["egress"]), json!(["allow", null, "Profile//kns.x", 0]));
    let by = json!(["allow", "default", "KubernetesNetworkPolicy/x/allow", 1]);
    assert_eq!(side(&report["ingress"]), by);
    let tiers = &report["ingress"]["tiers"];
    assert_eq!(tiers[0]["outcome"], "passed");
    let block = &tiers[0]["policies"][0]["rules"];
    let unmet = block[0]["parts"][0]["unmet"].as_str().unwrap();
    assert_eq!(unmet, "the source 10.1.0.2 is not in 6.6.6.0/24");
    assert_eq!(block[1]["matches"], true);
    let other = &tiers[0]["notApplied"][0];
    assert_eq!(other["policy"], "GlobalNetworkPolicy//for-others");
    assert_eq!(other["because"], r#"it wants pod == "nobody"; pod is "a""#);
    let rules = &tiers[1]["policies"][0]["rules"];
    let unmet = rules[0]["parts"][0]["unmet"].as_str().unwrap();
    assert!(unmet.contains(r#"it wants pod == "c"; pod is "b""#), "{unmet}");
    assert_eq!(rules[1]["matches"], true);
    assert_eq!(report["destination"]["labels"]["pod"], "a");
    assert_eq!(report["destination"]["node"], "n");
}

#[test]
fn a_rule_with_http_is_judged_by_what_packets_show_and_the_rest_is_told() {
    let http = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\n\
        metadata: {name: http, namespace: x}\n\
        spec:\n  selector: pod == 'b'\n  ingress:\n  - action: Allow\n    protocol: TCP\n\
        \x20   http: {methods: [GET, HEAD], paths: [{exact: /a}, {prefix: /b}]}\n";
    let report = explain(&store(http), "x/c x/b 80");
    assert_eq!(side(&report["ingress"]), json!(["allow", "default", "NetworkPolicy/x/http", 0]));
    let rule = &report["ingress"]["tiers"][1]["policies"][0]["rules"][0];
    let text = "Allow TCP (where a proxy asks: GET, HEAD /a, /b* only)";
    assert_eq!(
        (rule["matches"].as_bool(), rule["parts"][0]["text"].as_str()),
        (Some(true), Some(text))
    );
}

#[test]
fn the_end_of_a_tier_and_a_deny_rule_are_told_apart() {
    let store = store("");
    let report = explain(&store, "y/a x/a 80");
    assert_eq!(side(&report["ingress"]), json!(["deny", "default", null, null]));
    assert_eq!(report["ingress"]["tiers"][1]["outcome"], "deniedAtEnd");
    let report = explain(&store, "6.6.6.6 pod:x/a 80");
    let by = json!(["deny", "security", "GlobalNetworkPolicy//block", 0]);
    assert_eq!(side(&report["ingress"]), by);
    let last = &report["ingress"]["tiers"][1];
    assert_eq!(last["outcome"], "notReached");
    assert_eq!(last["notReached"][0], "KubernetesNetworkPolicy/x/allow");
    assert_eq!(report["egress"]["verdict"], "none");
    assert_eq!(report["source"]["what"], "outside");
}

#[test]
fn a_service_is_followed_to_its_backend_and_the_others_are_accounted_for() {
    let more = "apiVersion: v1\nkind: Pod\nmetadata: {name: a2, namespace: x, labels: {pod: a}}\n\
        spec: {nodeName: n}\nstatus: {podIP: 10.1.0.9, conditions: [{type: Ready, status: 'False'}]}\n";
    let store = store(more);
    for words in ["x/b svc:x/web", "x/b x/web 8080", "x/b x/web http/tcp", "x/b 10.96.0.1 8080"] {
        let report = explain(&store, words);
        assert_eq!(report["backend"], "10.1.0.1:80", "{words}");
        let backends = report["service"]["backends"].as_array().unwrap();
        assert_eq!(backends.len(), 2);
        assert_eq!((&backends[0]["taken"], &backends[0]["pod"]), (&json!(true), &json!("x/a")));
        assert_eq!(backends[1]["because"], "not ready");
        assert_eq!(report["ingress"]["rule"], 1);
    }
    let report = explain(&store, "x/b 10.96.0.1 81");
    assert_eq!((&report["verdict"], &report["backend"]), (&json!("deny"), &Value::Null));
    assert!(report["service"]["refused"].as_str().unwrap().contains("no service has this"));
}

#[test]
fn ports_have_names_and_protocols_and_icmp_has_types() {
    let store = store("");
    let flow = |words: &str| explain(&store, words)["flow"].clone();
    assert_eq!(flow("x/b x/a serve-80")["dstPort"], 80);
    assert_eq!(flow("x/b x/a serve-80-sctp")["protocol"], "SCTP");
    assert_eq!(flow("x/b x/a 53/udp")["protocol"], "UDP");
    assert_eq!(flow("x/b x/a --protocol 47")["protocol"], "47");
    let ping = flow("x/b x/a --icmp-type 8 --icmp-code 0");
    assert_eq!((&ping["protocol"], &ping["icmpType"]), (&json!("ICMP"), &json!(8)));
    assert_eq!(flow("x/b x/a --src-port 5 80")["srcPort"], 5);
}

#[test]
fn nodes_and_host_endpoints_are_ends_too() {
    let more = "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: eth, labels: \
        {pod: a}}\nspec: {node: m, interfaceName: '*', expectedIPs: [192.168.0.2]}\n";
    let store = store(more);
    let report = explain(&store, "n x/b 80");
    assert_eq!(report["source"]["name"], "n");
    assert!(report["ingress"]["notAsked"].as_str().unwrap().contains("its own pods"));
    for words in ["x/b node:m 80", "x/b hep:eth 80"] {
        let report = explain(&store, words);
        assert_eq!(report["destination"]["hostEndpoint"], "eth");
        assert_eq!(report["ingress"]["tiers"][0]["tier"], "security");
    }
    let report = explain(&store, "x/b m 22");
    assert!(report["ingress"]["notAsked"].as_str().unwrap().contains("failsafe"));
}

#[test]
fn staged_policies_are_shown_apart_and_change_no_verdict() {
    let staged = |action: &str, spec: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\nmetadata: {{name: s, \
             namespace: x}}\nspec: {{stagedAction: {action}{spec}}}\n"
        )
    };
    let spec = ", order: 1, selector: \"pod == 'a'\", ingress: [{action: Deny}]";
    let report = explain(&store(&staged("Set", spec)), "x/b x/a 80");
    assert_eq!(
        (&report["verdict"], &report["staged"]["verdict"]),
        (&json!("allow"), &json!("deny"))
    );
    assert_eq!(report["staged"]["policies"][0]["policy"], "StagedNetworkPolicy/x/s");
    assert_eq!(report["staged"]["ingress"]["policy"], "NetworkPolicy/x/s");
    let elsewhere = explain(&store(&staged("Set", spec)), "x/b x/c 80");
    assert_eq!(elsewhere["staged"], Value::Null);
    let ignored = explain(&store(&staged("Ignore", spec)), "x/b x/a 80");
    assert_eq!(ignored["staged"], Value::Null);
    let removes = "apiVersion: projectcalico.org/v3\nkind: StagedKubernetesNetworkPolicy\n\
        metadata: {name: allow, namespace: x}\nspec: {stagedAction: Delete}\n";
    let report = explain(&store(removes), "y/a x/a 80");
    assert_eq!(
        (&report["verdict"], &report["staged"]["verdict"]),
        (&json!("deny"), &json!("allow"))
    );
}

#[test]
fn what_is_not_found_is_named_with_what_was_perhaps_meant() {
    let store = store("");
    let table = [
        ("x/bb x/a", "no pod, node or host endpoint \"x/bb\"; did you mean pod:x/"),
        ("x/b x/wep", "did you mean svc:x/web"),
        ("x/b web", "did you mean svc:x/web"),
        ("svc:x/web x/a", "there is no"),
        ("x/b x/a http", "no port called \"http\"; it has serve-80 (80/TCP)"),
        ("x/b x/web htp", "no port called \"htp\"; it has http (8080/TCP)"),
        ("x/b x/a 80/udp --protocol tcp", "the port says UDP, --protocol says TCP"),
        ("x/b x/a 80 --protocol icmp", "ICMP has no ports"),
        ("x/b x/a --protocol tcp --icmp-type 8", "--icmp-type is of ICMP, not of TCP"),
        ("x/b ::1", "no addresses of one family"),
        ("x/b x/a --ip-version 6", "no addresses of one family (IPv6)"),
        ("x/b x/a 0", "ports begin with 1"),
        ("x/b x/a -o name", "an explanation has no names"),
    ];
    for (words, expected) in table {
        let errors = store.bad(&format!("policy explain {words}"), "");
        assert!(errors.contains(expected), "{words}: {errors}");
    }
}

#[test]
fn a_name_of_several_things_is_not_guessed() {
    let more = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: x}\n\
        spec: {clusterIP: 10.96.0.2, selector: {pod: a}, ports: [{name: z, port: 80}, {name: b, port: 81}]}\n";
    let store = store(more);
    let errors = store.bad("policy explain x/b x/a 80", "");
    assert!(errors.contains("say pod:x/a or svc:x/a"), "{errors}");
    assert_eq!(explain(&store, "x/b svc:x/a 80")["backend"], "10.1.0.1:80");
    assert_eq!(explain(&store, "x/b pod:x/a 80")["backend"], Value::Null);
    let errors = store.bad("policy explain x/b svc:x/a", "");
    assert!(errors.contains("several ports, name one: z (80/TCP), b (81/TCP)"), "{errors}");
}

#[test]
fn pods_without_an_address_of_their_own_say_why() {
    let pod = |name: &str, spec: &str, status: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x}}\nspec: \
             {{nodeName: n{spec}}}\nstatus: {{{status}}}\n---\n"
        )
    };
    let store = store(
        &(pod("host", ", hostNetwork: true", "podIP: 192.168.0.1")
            + &pod("ended", "", "podIP: 10.1.0.9, phase: Succeeded")
            + &pod("new", "", "")),
    );
    for (name, why) in [("host", "ask about the node"), ("ended", "has ended"), ("new", "podIPs")] {
        let errors = store.bad(&format!("policy explain x/{name} x/a"), "");
        assert!(errors.contains(&format!("pod x/{name} has no address: ")), "{errors}");
        assert!(errors.contains(why), "{errors}");
    }
}

#[test]
fn the_text_for_people_names_verdict_steps_and_rule() {
    let store = store("");
    let text = store.good("policy explain x/b x/a 80", "");
    for part in [
        "Verdict   ALLOW: ",
        "ingress is allowed by rule 1 of KubernetesNetworkPolicy/x/allow",
        "From      pod x/b (10.1.0.2) on node n",
        "Ingress of the destination: ALLOW by KubernetesNetworkPolicy/x/allow rule 1 (tier default)",
        "rule 0: Deny IPv4 from 6.6.6.0/24 - no: the source 10.1.0.2 is not in 6.6.6.0/24",
        "to port 80 - MATCHES",
        "passed on to the next tier",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("Staged"), "{text}");
}

#[test]
fn many_policies_that_do_not_apply_are_counted_and_told_on_request() {
    let one = |i: usize| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: p{i}, \
             namespace: {}}}\nspec: {{selector: \"pod == 'z'\", ingress: [{{action: Deny}}]}}\n---\n",
            ["x", "y"][i % 2]
        )
    };
    let store = store(&(0..60).map(one).collect::<String>());
    let tier = |words: &str| explain(&store, words)["ingress"]["tiers"][1].clone();
    let short = tier("x/b x/a 80");
    assert_eq!(short["notApplied"].as_array().unwrap().len(), 10);
    assert_eq!(short["notAppliedMore"], 50);
    let whole = tier("x/b x/a 80 --all");
    assert_eq!(whole["notApplied"].as_array().unwrap().len(), 60);
}
