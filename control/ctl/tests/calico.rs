//! Calico's policies and cluster policies, asked of `policy simulate`.

mod common;

use common::{expect, expect_verdicts, three_by_three};

/// A Calico object; the specification is one line of YAML.
fn calico(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let namespace =
        if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\nspec: {{{spec}}}\n"
    )
}

/// A ClusterNetworkPolicy; the specification is one line of YAML.
fn cluster(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn with(documents: &[String]) -> String {
    three_by_three() + &documents.concat()
}

#[test]
fn tiers_are_asked_in_order_and_pass_goes_to_the_next() {
    let documents = with(&[
        calico("Tier", "security", "order: 10"),
        calico("Tier", "platform", "order: 20, defaultAction: Pass"),
        calico(
            "GlobalNetworkPolicy",
            "security.block",
            "tier: security, order: 1, selector: \"pod == 'a'\", types: [Ingress], ingress: [{action: Deny, source: {nets: [6.6.6.0/24]}}, {action: Pass, source: {nets: [7.7.7.0/24]}}, {action: Allow, source: {nets: [8.8.8.0/24]}}]",
        ),
        calico(
            "NetworkPolicy",
            "x/later",
            "tier: platform, selector: all(), ingress: [{action: Deny, protocol: UDP}]",
        ),
        calico(
            "NetworkPolicy",
            "x/last",
            "selector: all(), ingress: [{action: Log}, {action: Allow, protocol: TCP}]",
        ),
    ]);
    expect(
        &documents,
        &[
            (
                "6.6.6.6 > 10.1.0.1 TCP 1",
                "deny out none in deny GlobalNetworkPolicy//security.block#0",
            ),
            ("7.7.7.7 > 10.1.0.1 TCP 1", "allow out none in allow NetworkPolicy/x/last#1"),
            ("7.7.7.7 > 10.1.0.1 UDP 1", "deny out none in deny NetworkPolicy/x/later#0"),
            ("7.7.7.7 > 10.1.0.1 SCTP 1", "deny out none in deny end of default"),
            (
                "8.8.8.8 > 10.1.0.1 TCP 1",
                "allow out none in allow GlobalNetworkPolicy//security.block#2",
            ),
            ("9.9.9.9 > 10.1.0.1 TCP 1", "deny out none in deny end of security"),
            ("9.9.9.9 > 10.1.0.2 TCP 1", "allow out none in allow NetworkPolicy/x/last#1"),
            ("9.9.9.9 > 10.2.0.2 TCP 1", "allow out none in allow Profile//kns.y#0"),
        ],
    );
}

#[test]
fn order_decides_in_a_tier_and_names_between_equals() {
    let allow = "ingress: [{action: Allow}]";
    let deny = "ingress: [{action: Deny}]";
    let documents = with(&[
        calico("GlobalNetworkPolicy", "none", &format!("selector: \"pod == 'a'\", {allow}")),
        calico(
            "GlobalNetworkPolicy",
            "first",
            &format!("order: -1.5, selector: \"pod == 'a'\", {deny}"),
        ),
        calico("GlobalNetworkPolicy", "b", &format!("order: 5, selector: \"pod == 'b'\", {deny}")),
        calico("NetworkPolicy", "x/a", &format!("order: 5, selector: \"pod == 'b'\", {allow}")),
    ]);
    expect(
        &documents,
        &[
            ("9.9.9.9 > 10.1.0.1 TCP 1", "deny out none in deny GlobalNetworkPolicy//first#0"),
            ("9.9.9.9 > 10.1.0.2 TCP 1", "allow out none in allow NetworkPolicy/x/a#0"),
        ],
    );
}

#[test]
fn a_policy_of_a_missing_tier_comes_last_and_denies() {
    let documents = with(&[calico(
        "NetworkPolicy",
        "x/p",
        "tier: nowhere, ingress: [{action: Allow, protocol: TCP}]",
    )]);
    expect(
        &documents,
        &[
            ("9.9.9.9 > 10.1.0.1 TCP 1", "allow out none in allow NetworkPolicy/x/p#0"),
            ("9.9.9.9 > 10.1.0.1 UDP 1", "deny out none in deny end of nowhere"),
        ],
    );
}

#[test]
fn staged_policies_do_nothing() {
    let documents = with(&[
        calico("StagedNetworkPolicy", "x/p", "ingress: [{action: Deny}]"),
        calico("StagedGlobalNetworkPolicy", "g", "ingress: [{action: Deny}]"),
        calico("StagedKubernetesNetworkPolicy", "x/k", "podSelector: {}"),
    ]);
    expect(&documents, &[("9.9.9.9 > 10.1.0.1 TCP 1", "allow out none in allow Profile//kns.x#0")]);
}

#[test]
fn a_positive_selector_knows_only_endpoints_and_sets_a_negative_one_everybody() {
    let documents = with(&[
        calico(
            "GlobalNetworkPolicy",
            "g",
            "selector: \"pod == 'a'\", ingress: [{action: Allow, source: {notSelector: has(pod)}}, {action: Deny, source: {selector: \"!has(colour)\"}}]",
        ),
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: s, labels: {pod: z, colour: red}}\nspec: {nets: [5.5.0.0/16]}\n".into(),
    ]);
    expect(
        &documents,
        &[
            ("9.9.9.9 > 10.1.0.1 TCP 1", "allow out none in allow GlobalNetworkPolicy//g#0"),
            ("5.5.5.5 > 10.1.0.1 TCP 1", "deny out none in deny end of default"),
            (
                "10.2.0.1 > 10.1.0.1 TCP 1",
                "deny out allow Profile//kns.y#0 in deny GlobalNetworkPolicy//g#1",
            ),
        ],
    );
}

#[test]
fn service_accounts_and_namespaces_are_selected_by_name_and_label() {
    let account = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot, namespace: y, labels: {kind: machine}}\n";
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: r, namespace: y}\nspec: {serviceAccountName: robot}\nstatus: {podIP: 10.2.0.9}\n";
    let documents = with(&[
        account.into(),
        pod.into(),
        calico(
            "GlobalNetworkPolicy",
            "g",
            "namespaceSelector: \"ns == 'x'\", ingress: [{action: Allow, protocol: TCP, source: {serviceAccounts: {names: [robot]}}}, {action: Allow, protocol: UDP, source: {serviceAccounts: {selector: \"kind == 'machine'\"}, namespaceSelector: \"ns in {'y'}\"}}]",
        ),
        calico(
            "GlobalNetworkPolicy",
            "of-robots",
            "serviceAccountSelector: \"kind == 'machine'\", types: [Ingress]",
        ),
    ]);
    expect_verdicts(
        &documents,
        &[
            "+10.2.0.9 > 10.1.0.1 TCP 1",
            "+10.2.0.9 > 10.1.0.1 UDP 1",
            "-10.2.0.1 > 10.1.0.1 TCP 1",
            "-10.2.0.1 > 10.1.0.1 UDP 1",
            "-10.1.0.1 > 10.2.0.9 TCP 1",
        ],
    );
}

#[test]
fn icmp_protocol_and_port_conditions_are_negated_as_written() {
    let documents = with(&[calico(
        "NetworkPolicy",
        "x/p",
        "ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}, {action: Allow, protocol: ICMP, notICMP: {type: 3}}, {action: Allow, protocol: TCP, destination: {notPorts: [80, \"8000:8010\"]}}, {action: Allow, notProtocol: TCP, ipVersion: 4, source: {nets: [4.0.0.0/8], notNets: [4.4.0.0/16]}}]",
    )]);
    expect(
        &documents,
        &[
            ("9.9.9.9 > 10.1.0.1 ICMP 8/0", "allow out none in allow NetworkPolicy/x/p#0"),
            ("9.9.9.9 > 10.1.0.1 ICMP 8/1", "allow out none in allow NetworkPolicy/x/p#1"),
            ("9.9.9.9 > 10.1.0.1 ICMP 3/1", "deny out none in deny end of default"),
            ("9.9.9.9 > 10.1.0.1 ICMP", "deny out none in deny end of default"),
            ("9.9.9.9 > 10.1.0.1 TCP 81", "allow out none in allow NetworkPolicy/x/p#2"),
            ("9.9.9.9 > 10.1.0.1 TCP 8005", "deny out none in deny end of default"),
            ("9.9.9.9 > 10.1.0.1 TCP", "deny out none in deny end of default"),
            ("4.1.1.1 > 10.1.0.1 UDP 80", "allow out none in allow NetworkPolicy/x/p#3"),
            ("4.1.1.1 > 10.1.0.1 47", "allow out none in allow NetworkPolicy/x/p#3"),
            ("4.4.1.1 > 10.1.0.1 UDP 80", "deny out none in deny end of default"),
        ],
    );
}

#[test]
fn admin_policies_come_before_and_baseline_after_the_default_tier() {
    let documents = with(&[
        cluster(
            "admin",
            "tier: Admin, priority: 10, subject: {namespaces: {matchLabels: {ns: x}}}, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {ns: z}}}]}, {action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, {action: Accept, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}}], protocols: [{udp: {destinationPort: {range: {start: 50, end: 60}}}}]}]",
        ),
        cluster(
            "baseline",
            "tier: Baseline, priority: 10, subject: {pods: {namespaceSelector: {}, podSelector: {}}}, egress: [{action: Deny, to: [{networks: [9.9.0.0/16]}]}], ingress: [{action: Deny, from: [{namespaces: {}}]}]",
        ),
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: k, namespace: x}\nspec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {}}]}]}\n".into(),
    ]);
    let admin = "KubernetesClusterNetworkPolicy//admin";
    let baseline = "KubernetesClusterNetworkPolicy//baseline";
    let from = |ns: &str, rest: String| {
        format!(
            "{} out allow Profile//kns.{ns}#0 in {rest}",
            if rest.starts_with("allow") { "allow" } else { "deny" }
        )
    };
    expect(
        &documents,
        &[
            ("10.3.0.1 > 10.1.0.1 TCP 80", &from("z", format!("deny {admin}#0"))),
            ("10.2.0.1 > 10.1.0.1 UDP 55", &from("y", format!("allow {admin}#2"))),
            ("10.2.0.2 > 10.1.0.1 TCP 80", &from("y", "deny end of default".into())),
            (
                "10.1.0.2 > 10.1.0.1 TCP 80",
                &from("x", "allow KubernetesNetworkPolicy/x/k#0".into()),
            ),
            ("10.1.0.1 > 10.1.0.2 TCP 80", &from("x", format!("deny {baseline}#0"))),
            ("10.1.0.1 > 9.9.1.1 TCP 80", &format!("deny out deny {baseline}#0 in none")),
            ("9.9.1.1 > 10.1.0.2 TCP 80", "allow out none in allow Profile//kns.x#0"),
        ],
    );
}

#[test]
fn cluster_policies_find_nodes_by_their_labels() {
    let node = |name: &str, role: &str, address: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{role: {role}}}}}\nstatus:\n  addresses:\n  - {{type: InternalIP, address: {address}}}\n"
        )
    };
    for tier in ["Admin", "Baseline"] {
        let documents = with(&[
            node("one", "cp", "172.20.0.1"),
            node("two", "worker", "172.20.0.2"),
            cluster(
                "c",
                &format!(
                    "tier: {tier}, priority: 1, subject: {{namespaces: {{}}}}, egress: [{{action: Accept, to: [{{nodes: {{matchLabels: {{role: cp}}}}}}], protocols: [{{tcp: {{destinationPort: {{number: 6443}}}}}}]}}, {{action: Deny, to: [{{nodes: {{}}}}]}}]"
                ),
            ),
        ]);
        let rule = |n| format!("KubernetesClusterNetworkPolicy//c#{n}");
        expect(
            &documents,
            &[
                ("10.1.0.1 > 172.20.0.1 TCP 6443", &format!("allow out allow {} in none", rule(0))),
                ("10.1.0.1 > 172.20.0.1 TCP 22", &format!("deny out deny {} in none", rule(1))),
                ("10.1.0.1 > 172.20.0.2 TCP 6443", &format!("deny out deny {} in none", rule(1))),
                ("10.1.0.1 > 9.9.1.1 TCP 1", "allow out allow Profile//kns.x#0 in none"),
            ],
        );
    }
}

#[test]
fn nobody_chooses_his_namespace_or_his_service_account_by_a_label_of_his_own() {
    let forger = "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: forger\n  namespace: z\n  labels: {pcns.kubernetes.io/metadata.name: x, pcns.ns: x, pcsa.trust: high, projectcalico.org/namespace: x}\nspec: {nodeName: n, containers: [{name: m}]}\nstatus: {phase: Running, podIP: 10.3.0.99, podIPs: [{ip: 10.3.0.99}]}\n";
    let documents = with(&[
        forger.to_owned(),
        calico(
            "GlobalNetworkSet",
            "posing",
            "nets: [9.9.1.0/24]",
        )
        .replace("name: posing", "name: posing, labels: {projectcalico.org/orchestrator: k8s, pcns.ns: x}"),
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: k, namespace: x}\nspec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}\n".to_owned(),
        calico(
            "NetworkPolicy",
            "y/trust",
            "selector: all(), types: [Ingress], ingress: [{action: Allow, source: {serviceAccounts: {selector: \"trust == 'high'\"}}}]",
        ),
    ]);
    expect_verdicts(
        &documents,
        &[
            "+10.1.0.2 > 10.1.0.1 TCP 80",
            "-10.3.0.99 > 10.1.0.1 TCP 80",
            "-9.9.1.1 > 10.1.0.1 TCP 80",
            "-10.3.0.99 > 10.2.0.1 TCP 80",
        ],
    );
}

#[test]
fn a_rule_that_cannot_be_converted_never_opens_anything() {
    let documents = with(&[cluster(
        "c",
        "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{nodes: {}, domainNames: [example.com]}, {networks: [1.1.1.0/24]}]}, {action: Accept, to: [{networks: [2.2.2.0/24]}]}, {action: Pass, to: [{domainNames: [example.com]}]}]",
    )]);
    expect(
        &documents,
        &[
            (
                "10.1.0.1 > 1.1.1.1 TCP 1",
                "deny out deny KubernetesClusterNetworkPolicy//c#2 in none",
            ),
            (
                "10.1.0.1 > 2.2.2.2 TCP 1",
                "allow out allow KubernetesClusterNetworkPolicy//c#1 in none",
            ),
        ],
    );
}

#[test]
fn profiles_of_host_endpoints_decide_where_no_policy_does() {
    let documents = with(&[
        calico(
            "Profile",
            "mine",
            "ingress: [{action: Allow, protocol: TCP}], egress: [{action: Allow}]",
        ),
        calico(
            "HostEndpoint",
            "hn",
            "node: n, interfaceName: eth0, expectedIPs: [192.168.0.1], profiles: [mine]",
        ),
        calico("HostEndpoint", "hm", "node: m, interfaceName: \"*\""),
    ]);
    expect(
        &documents,
        &[
            ("9.9.9.9 > 192.168.0.1 TCP 80", "allow out none in allow Profile//mine#0"),
            ("9.9.9.9 > 192.168.0.1 UDP 80", "deny out none in deny"),
            ("9.9.9.9 > 192.168.0.1 UDP 68", "allow out none in allow"),
            ("9.9.9.9 > 192.168.0.2 TCP 80", "deny out none in deny"),
            ("9.9.9.9 > 192.168.0.2 TCP 22", "allow out none in allow"),
            ("192.168.0.1 > 10.1.0.1 TCP 80", "allow out none in none"),
            ("10.1.0.1 > 192.168.0.1 UDP 80", "allow out allow Profile//kns.x#0 in none"),
            ("10.1.0.1 > 192.168.0.2 UDP 80", "deny out allow Profile//kns.x#0 in deny"),
        ],
    );
}

#[test]
fn the_endpoint_to_host_action_follows_the_pods_policy() {
    let documents =
        with(&[calico("FelixConfiguration", "default", "defaultEndpointToHostAction: Drop")]);
    expect(
        &documents,
        &[
            ("10.1.0.1 > 192.168.0.1 TCP 80", "deny out allow Profile//kns.x#0 in none"),
            ("10.1.0.1 > 192.168.0.2 TCP 80", "allow out allow Profile//kns.x#0 in none"),
        ],
    );
}

#[test]
fn a_workload_endpoint_has_its_own_address_and_needs_no_pod() {
    let documents = with(&[
        calico(
            "WorkloadEndpoint",
            "x/n-k8s-a-eth0",
            "orchestrator: k8s, node: n, pod: a, endpoint: eth0, interfaceName: calia, ipNetworks: [10.1.9.1/32]",
        ),
        calico(
            "WorkloadEndpoint",
            "x/n-k8s-lone-eth0",
            "orchestrator: k8s, node: n, pod: lone, endpoint: eth0, interfaceName: calib, ipNetworks: [10.1.9.2/32]",
        ),
        calico("GlobalNetworkPolicy", "g", "selector: \"pod == 'a'\", ingress: [{action: Deny}]"),
    ]);
    expect(
        &documents,
        &[
            ("9.9.9.9 > 10.1.9.1 TCP 1", "deny out none in deny GlobalNetworkPolicy//g#0"),
            ("9.9.9.9 > 10.1.0.1 TCP 1", "allow out none in none"),
            ("9.9.9.9 > 10.1.9.2 TCP 1", "allow out none in allow Profile//kns.x#0"),
        ],
    );
}
