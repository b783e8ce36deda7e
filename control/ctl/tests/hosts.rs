//! Host endpoints in the answers of `policy simulate` and `policy explain`: every row of the table
//! of what is asked where a connection comes into a node and leaves it.

mod common;

use common::{Store, expect, expect_with, line, simulate, three_by_three};
use serde_json::Value;

/// A Calico object; the specification is one line of YAML.
fn calico(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: \
         {{{spec}}}\n"
    )
}

/// A host endpoint that lets its node's own connections through, with a label `hep: NAME`.
fn host(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: {name}, \
         labels: {{hep: {name}}}}}\nspec: {{{spec}, profiles: [projectcalico-default-allow]}}\n"
    )
}

/// A policy for the host endpoint `hep`.
fn policy(name: &str, hep: &str, spec: &str) -> String {
    calico("GlobalNetworkPolicy", name, &format!("selector: \"hep == '{hep}'\", {spec}"))
}

fn cluster(documents: &[String]) -> String {
    three_by_three() + &documents.concat()
}

/// A node port to y/a (10.2.0.1 on n) and one to z/a (10.3.0.1 on m).
const NODE_PORTS: &str = "---
apiVersion: v1
kind: Service
metadata: {name: near, namespace: y}
spec: {type: NodePort, clusterIP: 10.96.0.1, selector: {pod: a}, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: z}
spec: {type: NodePort, clusterIP: 10.96.0.2, selector: {pod: a}, ports: [{port: 80, nodePort: 30081}]}
";

const NAMED: &str = "node: n, interfaceName: eth0";
const RAW: &str = "doNotTrack: true, applyOnForward: true, ";
const PRE: &str = "preDNAT: true, applyOnForward: true, types: [Ingress], ";
const FWD: &str = "applyOnForward: true, ";

#[test]
fn untracked_comes_before_pre_dnat_and_that_before_the_nodes_own_policy() {
    let documents = cluster(&[
        host("h", NAMED),
        policy(
            "raw",
            "h",
            &format!(
                "{RAW}ingress: [{{action: Allow, protocol: TCP, destination: {{ports: [1]}}}}, \
                {{action: Deny, protocol: TCP, destination: {{ports: [2, 22]}}}}]"
            ),
        ),
        policy(
            "pre",
            "h",
            &format!(
                "{PRE}ingress: [{{action: Allow, protocol: TCP, destination: {{ports: [3]}}}}, \
                {{action: Deny, protocol: TCP, destination: {{ports: [1, 4]}}}}]"
            ),
        ),
        policy("own", "h", "ingress: [{action: Allow, protocol: TCP, destination: {ports: [5]}}]"),
    ]);
    expect(
        &documents,
        &[
            ("9.9.9.9 > 192.168.0.1 TCP 1", "allow out none in allow GlobalNetworkPolicy//raw#0"),
            ("9.9.9.9 > 192.168.0.1 TCP 2", "deny out none in deny GlobalNetworkPolicy//raw#1"),
            ("9.9.9.9 > 192.168.0.1 TCP 3", "allow out none in allow GlobalNetworkPolicy//pre#0"),
            ("9.9.9.9 > 192.168.0.1 TCP 4", "deny out none in deny GlobalNetworkPolicy//pre#1"),
            ("9.9.9.9 > 192.168.0.1 TCP 5", "allow out none in allow GlobalNetworkPolicy//own#0"),
            ("9.9.9.9 > 192.168.0.1 TCP 6", "deny out none in deny end of default"),
            // Failsafe: untracked policy does not close it either.
            ("9.9.9.9 > 192.168.0.1 TCP 22", "allow out none in allow"),
            // From another node's pod and from another node as from outside.
            (
                "10.3.0.1 > 192.168.0.1 TCP 4",
                "deny out allow Profile//kns.z#0 in deny GlobalNetworkPolicy//pre#1",
            ),
            ("192.168.0.2 > 192.168.0.1 TCP 4", "deny out none in deny GlobalNetworkPolicy//pre#1"),
            // The node's own pods do not come in by its interface.
            ("10.1.0.1 > 192.168.0.1 TCP 4", "allow out allow Profile//kns.x#0 in none"),
        ],
    );
}

#[test]
fn what_a_node_sends_is_asked_of_untracked_and_own_policy_for_egress() {
    let documents = cluster(&[
        host("h", NAMED),
        policy(
            "raw",
            "h",
            &format!("{RAW}egress: [{{action: Deny, destination: {{nets: [7.0.0.0/8]}}}}]"),
        ),
        policy(
            "fwd",
            "h",
            &format!(
                "{FWD}order: 9, types: [Egress], egress: [{{action: Deny, destination: {{nets: [6.0.0.0/8]}}}}]"
            ),
        ),
        policy(
            "own",
            "h",
            "order: 1, types: [Egress], egress: [{action: Deny, destination: {nets: [8.0.0.0/8]}}, {action: Allow, destination: {nets: [9.0.0.0/8]}}]",
        ),
    ]);
    expect_with(
        &["--forwarded"],
        &documents,
        &[
            ("192.168.0.1 > 7.7.7.7 TCP 1", "deny out deny GlobalNetworkPolicy//raw#0 in none"),
            // A failsafe port goes out whatever they say.
            ("192.168.0.1 > 7.7.7.7 TCP 6443", "allow out allow in none"),
            ("192.168.0.1 > 8.8.8.8 TCP 1", "deny out deny GlobalNetworkPolicy//own#0 in none"),
            ("192.168.0.1 > 9.9.9.9 TCP 1", "allow out allow GlobalNetworkPolicy//own#1 in none"),
            // Policy for forwarded traffic is for the node's own as well.
            ("192.168.0.1 > 6.6.6.6 TCP 1", "deny out deny GlobalNetworkPolicy//fwd#0 in none"),
            ("192.168.0.1 > 10.1.0.1 TCP 1", "allow out none in none"),
        ],
    );
}

#[test]
fn what_passes_through_a_node_is_asked_of_policy_for_forwarded_traffic_alone() {
    let forward = format!(
        "{FWD}types: [Ingress, Egress], ingress: [{{action: Deny, source: {{nets: [6.0.0.0/8]}}}}, \
         {{action: Allow}}], egress: [{{action: Deny, destination: {{nets: [7.0.0.0/8]}}}}, \
         {{action: Allow}}]"
    );
    let documents = cluster(&[
        host("h", NAMED),
        policy("own", "h", "types: [Ingress, Egress]"),
        policy("fwd", "h", &forward),
    ]);
    let allowed = "GlobalNetworkPolicy//fwd#1";
    expect_with(
        &["--forwarded"],
        &documents,
        &[
            (
                "9.9.9.9 > 10.1.0.1 TCP 22",
                &format!("allow out none in allow Profile//kns.x#0; into n at h allow {allowed}"),
            ),
            (
                "6.6.6.6 > 10.1.0.1 TCP 22",
                "deny out none in allow Profile//kns.x#0; into n at h deny GlobalNetworkPolicy//fwd#0",
            ),
            (
                "10.1.0.1 > 7.7.7.7 TCP 53",
                "deny out allow Profile//kns.x#0 in none; from n at h deny GlobalNetworkPolicy//fwd#0",
            ),
            // Between nodes, in both directions; what stays on a node meets nobody.
            (
                "10.1.0.1 > 10.3.0.1 TCP 80",
                &format!(
                    "allow out allow Profile//kns.x#0 in allow Profile//kns.z#0; from n at h allow \
                     {allowed}"
                ),
            ),
            (
                "192.168.0.2 > 10.1.0.1 TCP 80",
                &format!("allow out none in allow Profile//kns.x#0; into n at h allow {allowed}"),
            ),
            (
                "10.1.0.1 > 10.2.0.1 TCP 80",
                "allow out allow Profile//kns.x#0 in allow Profile//kns.y#0",
            ),
        ],
    );
}

#[test]
fn without_the_option_forwarded_traffic_is_answered_by_the_ends_and_that_is_said() {
    let documents = cluster(&[
        host("h", NAMED),
        policy("fwd", "h", &format!("{FWD}ingress: [{{action: Deny}}]")),
    ]);
    let flows = ["9.9.9.9 > 10.1.0.1 TCP 1", "10.1.0.1 > 9.9.9.9 TCP 1"].map(line).join("\n");
    let (answers, errors) = simulate(&documents, &flows);
    assert_eq!(answers[0]["verdict"], "allow");
    assert_eq!(answers[0].get("passages"), None);
    assert!(errors.contains("--forwarded") && errors.contains("flows=1"), "{errors}");
}

#[test]
fn pre_dnat_policy_sees_the_node_port_and_the_pods_policy_the_pods() {
    let pre = format!(
        "{PRE}ingress: [{{action: Deny, protocol: TCP, destination: {{ports: [30081]}}}}, {{action: \
         Allow, protocol: TCP, destination: {{ports: [30080]}}}}, {{action: Deny, protocol: TCP, \
         destination: {{ports: [80]}}}}]"
    );
    let documents = cluster(&[
        NODE_PORTS.into(),
        host("h", NAMED),
        policy("pre", "h", &pre),
        policy("fwd", "h", &format!("{FWD}ingress: [{{action: Deny}}]")),
        calico(
            "GlobalNetworkPolicy",
            "pod",
            "selector: \"pod == 'a'\", ingress: [{action: Deny, source: {nets: [6.0.0.0/8]}}, \
             {action: Allow, protocol: TCP, destination: {ports: [80]}}]",
        ),
    ]);
    let pod = "GlobalNetworkPolicy//pod";
    expect_with(
        &["--forwarded"],
        &documents,
        &[
            // What it allows is not shown to policy for forwarded traffic, but to the pod's.
            (
                "9.9.9.9 > 192.168.0.1 TCP 30080",
                &format!(
                    "allow out none in allow {pod}#1 to 10.2.0.1:80; into n at h allow \
                     GlobalNetworkPolicy//pre#1"
                ),
            ),
            (
                "6.6.6.6 > 192.168.0.1 TCP 30080",
                &format!(
                    "deny out none in deny {pod}#0 to 10.2.0.1:80; into n at h allow \
                     GlobalNetworkPolicy//pre#1"
                ),
            ),
            (
                "9.9.9.9 > 192.168.0.1 TCP 30081",
                &format!(
                    "deny out none in allow {pod}#1 to 10.3.0.1:80; into n at h deny \
                     GlobalNetworkPolicy//pre#0"
                ),
            ),
            (
                "9.9.9.9 > 10.2.0.1 TCP 80",
                &format!(
                    "deny out none in allow {pod}#1; into n at h deny GlobalNetworkPolicy//pre#2"
                ),
            ),
            // By the other node's port, from which it goes on to this one with that one's address.
            (
                "9.9.9.9 > 192.168.0.2 TCP 30080",
                &format!(
                    "deny out none in allow {pod}#1 to 10.2.0.1:80; into n at h deny \
                     GlobalNetworkPolicy//pre#2"
                ),
            ),
        ],
    );
}

#[test]
fn tunnels_are_seen_by_a_host_endpoint_for_all_interfaces_alone() {
    let forward = |name: &str, hep: &str| {
        policy(
            name,
            hep,
            &format!(
                "{FWD}types: [Ingress, Egress], ingress: [{{action: Allow}}], egress: [{{action: Allow}}]"
            ),
        )
    };
    let documents = |mode: &str| {
        cluster(&[
            host("h", NAMED),
            host("all", "node: n, interfaceName: '*'"),
            forward("by-name", "h"),
            forward("everywhere", "all"),
            calico("IPPool", "pods", &format!("cidr: 10.0.0.0/8, vxlanMode: {mode}")),
        ])
    };
    let out = "allow out allow Profile//kns.x#0 in";
    let flows = |at: &str| {
        [
            ("10.1.0.1 > 10.3.0.1 TCP 80", format!("{out} allow Profile//kns.z#0; from n at {at}")),
            (
                "10.3.0.1 > 10.1.0.1 TCP 80",
                format!(
                    "allow out allow Profile//kns.z#0 in allow Profile//kns.x#0; into n at {at}"
                ),
            ),
            (
                "10.1.0.1 > 9.9.9.9 TCP 80",
                format!("{out} none; from n at h allow GlobalNetworkPolicy//by-name#0"),
            ),
        ]
    };
    for (mode, at) in [
        ("Always", "all allow GlobalNetworkPolicy//everywhere#0"),
        ("Never", "h allow GlobalNetworkPolicy//by-name#0"),
    ] {
        let flows = flows(at);
        let table = flows.each_ref().map(|(flow, expected)| (*flow, &**expected));
        expect_with(&["--forwarded"], &documents(mode), &table);
    }
    // The node's own, too.
    let own = "192.168.0.1 > 10.3.0.1 TCP 80";
    let named = cluster(&[
        host("h", NAMED),
        calico("IPPool", "pods", "cidr: 10.0.0.0/8, vxlanMode: Always"),
    ]);
    expect(&named, &[(own, "allow out none in allow Profile//kns.z#0")]);
}

#[test]
fn a_host_endpoint_has_the_addresses_that_nothing_else_of_its_node_has() {
    let addresses = "---\napiVersion: v1\nkind: Node\nmetadata: {name: k}\nstatus: {addresses: [{type: \
        InternalIP, address: 192.168.0.3}, {type: ExternalIP, address: 192.168.9.3}, {type: \
        InternalIP, address: 'fd20::3'}]}\n";
    let documents = cluster(&[
        addresses.into(),
        host("a", "node: k, interfaceName: '*'"),
        host("b", "node: k, expectedIPs: [192.168.9.3]"),
        host("c", "node: k, interfaceName: eth0"),
        host("d", "node: k, interfaceName: eth1"),
        policy("a", "a", "ingress: [{action: Allow}]"),
        policy("b", "b", "ingress: [{action: Allow}]"),
        policy("c", "c", "ingress: [{action: Allow}]"),
    ]);
    expect(
        &documents,
        &[
            ("9.9.9.9 > 192.168.9.3 TCP 1", "allow out none in allow GlobalNetworkPolicy//b#0"),
            ("9.9.9.9 > 192.168.0.3 TCP 1", "allow out none in allow GlobalNetworkPolicy//c#0"),
            // The first that expects nothing of its family.
            ("2001:db8::9 > fd20::3 TCP 1", "allow out none in allow GlobalNetworkPolicy//b#0"),
        ],
    );
}

fn explain(store: &Store, words: &str) -> Value {
    store.json(&format!("policy explain {words}"))
}

#[test]
fn explain_shows_the_way_through_host_endpoints_and_what_it_assumes() {
    let store = Store::with(&cluster(&[
        NODE_PORTS.into(),
        host("h", NAMED),
        policy(
            "raw",
            "h",
            &format!("{RAW}ingress: [{{action: Deny, source: {{nets: [6.0.0.0/8]}}}}]"),
        ),
        policy(
            "pre",
            "h",
            &format!(
                "{PRE}ingress: [{{action: Deny, protocol: TCP, destination: {{ports: [30080]}}}}]"
            ),
        ),
        policy(
            "fwd",
            "h",
            &format!("{FWD}ingress: [{{action: Allow, source: {{nets: [192.168.0.2/32]}}}}]"),
        ),
    ]));
    let report = explain(&store, "9.9.9.9 192.168.0.1 30080");
    assert_eq!(report["verdict"], "deny");
    let because = report["because"].as_str().unwrap();
    assert!(because.contains("host endpoint h by rule 0 of GlobalNetworkPolicy//pre"), "{because}");
    let passage = &report["passages"][0];
    assert_eq!((&passage["node"], &passage["direction"]), (&"n".into(), &"ingress".into()));
    assert_eq!(passage["by"], "eth0, the interface that has 192.168.0.1");
    let lists: Vec<_> = passage["lists"].as_array().unwrap().iter().map(|l| &l["list"]).collect();
    assert_eq!(lists, ["untracked", "preDNAT"], "the third is not reached");
    let assumed = report["assumed"][0].as_str().unwrap();
    assert!(assumed.contains("host endpoint h has 192.168.0.1"), "{assumed}");

    // The first node masquerades.
    let report = explain(&store, "9.9.9.9 192.168.0.2 30080");
    assert_eq!(report["passages"][0]["flow"]["src"], "192.168.0.2");
    assert_eq!(report["verdict"], "allow");
    let text = store.good("policy explain 9.9.9.9 192.168.0.2 30080", "");
    for part in [
        "Into node n, host endpoint h: ALLOW by GlobalNetworkPolicy//fwd rule 0",
        "untracked policies: nothing decides",
        "policies for forwarded traffic",
        "as TCP 192.168.0.2 -> 10.2.0.1:80",
        "Assumed   the interface of host endpoint h",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let report = explain(&store, "9.9.9.9 z/far 80");
    let assumed = report["assumed"].to_string();
    assert!(assumed.contains("by node m, where its backend is"), "{assumed}");
    let report = explain(&store, "6.6.6.6 hep:h 80");
    assert_eq!(report["ingress"]["policy"], "GlobalNetworkPolicy//raw");
    assert_eq!(report["ingress"]["lists"][0]["list"], "untracked");
}
