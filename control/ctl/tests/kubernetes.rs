//! The documented scenarios of Kubernetes' NetworkPolicy, asked of `policy simulate`.

mod common;

use common::{expect, expect_verdicts, three_by_three};

/// The three namespaces with a policy `p` of namespace `x`.
fn with_policy(spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "{}apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: \
         x}}\nspec:\n  {spec}\n",
        three_by_three()
    )
}

#[test]
fn without_policy_everything_is_allowed_by_the_profile() {
    expect(
        &three_by_three(),
        &[(
            "10.1.0.1 > 10.2.0.1 TCP 80",
            "allow out allow Profile//kns.x#0 in allow Profile//kns.y#0",
        )],
    );
}

#[test]
fn default_deny_ingress_closes_the_namespace_inward_only() {
    expect(
        &with_policy("podSelector: {}\npolicyTypes: [Ingress]"),
        &[
            (
                "10.2.0.1 > 10.1.0.1 TCP 80",
                "deny out allow Profile//kns.y#0 in deny end of default",
            ),
            (
                "10.1.0.1 > 10.2.0.1 TCP 80",
                "allow out allow Profile//kns.x#0 in allow Profile//kns.y#0",
            ),
            ("10.1.0.1 > 10.1.0.1 TCP 80", "allow out none in none"),
        ],
    );
}

#[test]
fn default_deny_of_both_directions_says_so_on_both_sides() {
    expect(
        &with_policy("podSelector: {}\npolicyTypes: [Ingress, Egress]"),
        &[
            ("10.1.0.1 > 10.1.0.2 UDP 53", "deny out deny end of default in deny end of default"),
            ("10.1.0.1 > 8.8.8.8 UDP 53", "deny out deny end of default in none"),
            ("8.8.8.8 > 10.1.0.1 UDP 53", "deny out none in deny end of default"),
        ],
    );
}

#[test]
fn allow_all_opens_what_a_deny_closed() {
    expect_verdicts(
        &(with_policy("podSelector: {}\ningress: [{}]")
            + "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, \
               namespace: x}\nspec: {podSelector: {}}\n"),
        &["+10.3.0.1 > 10.1.0.1 TCP 80", "+1.2.3.4 > 10.1.0.1 SCTP 9"],
    );
}

#[test]
fn a_pod_selector_means_pods_of_the_own_namespace() {
    expect(
        &with_policy(
            "podSelector: {matchLabels: {pod: a}}
ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]",
        ),
        &[
            (
                "10.1.0.2 > 10.1.0.1 TCP 80",
                "allow out allow Profile//kns.x#0 in allow KubernetesNetworkPolicy/x/p#0",
            ),
            (
                "10.2.0.2 > 10.1.0.1 TCP 80",
                "deny out allow Profile//kns.y#0 in deny end of default",
            ),
        ],
    );
}

#[test]
fn namespace_and_pod_selectors_of_one_peer_are_both_to_hold() {
    expect_verdicts(
        &with_policy(
            "podSelector: {matchLabels: {pod: a}}
ingress:
- from:
  - namespaceSelector: {matchLabels: {ns: y}}
    podSelector: {matchLabels: {pod: b}}
  - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}",
        ),
        &[
            "+10.2.0.2 > 10.1.0.1 TCP 80",
            "-10.2.0.1 > 10.1.0.1 TCP 80",
            "+10.3.0.3 > 10.1.0.1 TCP 80",
            "-10.1.0.2 > 10.1.0.1 TCP 80",
            "-9.9.9.9 > 10.1.0.1 TCP 80",
        ],
    );
}

#[test]
fn expressions_select_by_presence_and_by_sets() {
    expect_verdicts(
        &with_policy(
            "podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}
ingress:
- from:
  - namespaceSelector:
      matchExpressions:
      - {key: ns, operator: NotIn, values: [x]}
      - {key: ns, operator: Exists}
    podSelector: {matchExpressions: [{key: other, operator: DoesNotExist}, {key: pod, operator: NotIn, values: [c]}]}",
        ),
        &[
            "+10.2.0.1 > 10.1.0.1 TCP 80",
            "-10.2.0.3 > 10.1.0.1 TCP 80",
            "-10.1.0.2 > 10.1.0.1 TCP 80",
            "+10.1.0.2 > 10.1.0.3 TCP 80",
        ],
    );
}

#[test]
fn an_empty_namespace_selector_means_all_pods_and_nothing_else() {
    expect_verdicts(
        &with_policy("podSelector: {}\ningress: [{from: [{namespaceSelector: {}}]}]"),
        &["+10.3.0.1 > 10.1.0.1 TCP 80", "-9.9.9.9 > 10.1.0.1 TCP 80"],
    );
}

#[test]
fn an_ip_block_leaves_out_its_exceptions() {
    let policy = with_policy(
        "podSelector: {}
policyTypes: [Egress]
egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16]}}, {ipBlock: {cidr: 10.2.0.3/32}}]}]",
    );
    expect(
        &policy,
        &[
            (
                "10.1.0.1 > 10.3.0.1 TCP 80",
                "allow out allow KubernetesNetworkPolicy/x/p#0 in allow Profile//kns.z#0",
            ),
            (
                "10.1.0.1 > 10.2.0.1 TCP 80",
                "deny out deny end of default in allow Profile//kns.y#0",
            ),
            (
                "10.1.0.1 > 10.2.0.3 TCP 80",
                "allow out allow KubernetesNetworkPolicy/x/p#0 in allow Profile//kns.y#0",
            ),
            ("10.1.0.1 > 11.0.0.1 TCP 80", "deny out deny end of default in none"),
        ],
    );
}

#[test]
fn ports_are_numbers_names_and_ranges_of_one_protocol() {
    expect_verdicts(
        &with_policy(
            "podSelector: {}
ingress:
- ports:
  - {port: serve-80}
  - {port: 8000, endPort: 8003}
  - {protocol: UDP, port: 53}
  - {protocol: SCTP, port: serve-80-sctp}",
        ),
        &[
            "+10.2.0.1 > 10.1.0.1 TCP 80",
            "-10.2.0.1 > 10.1.0.1 TCP 81",
            "-10.2.0.1 > 10.1.0.1 UDP 80",
            "+10.2.0.1 > 10.1.0.1 SCTP 80",
            "-10.2.0.1 > 10.1.0.1 TCP 7999",
            "+10.2.0.1 > 10.1.0.1 TCP 8000",
            "+10.2.0.1 > 10.1.0.1 TCP 8003",
            "-10.2.0.1 > 10.1.0.1 TCP 8004",
            "+10.2.0.1 > 10.1.0.1 UDP 53",
            "-10.2.0.1 > 10.1.0.1 TCP 53",
            "-10.2.0.1 > 10.1.0.1 ICMP 8/0",
            "-10.2.0.1 > 10.1.0.1 TCP",
        ],
    );
}

#[test]
fn a_named_port_of_an_egress_rule_is_the_destinations() {
    expect_verdicts(
        &with_policy(
            "podSelector: {}\npolicyTypes: [Egress]\negress: [{ports: [{port: serve-80}]}]",
        ),
        &[
            "+10.1.0.1 > 10.2.0.1 TCP 80",
            "-10.1.0.1 > 10.2.0.1 TCP 81",
            "-10.1.0.1 > 9.9.9.9 TCP 80",
        ],
    );
}

#[test]
fn the_rule_is_counted_as_in_the_document() {
    expect(
        &with_policy(
            "podSelector: {}
ingress:
- {from: [{ipBlock: {cidr: 1.0.0.0/8}}, {ipBlock: {cidr: 2.0.0.0/8}}], ports: [{port: 1}, {port: 1, protocol: UDP}]}
- {from: [{ipBlock: {cidr: 3.0.0.0/8}}]}",
        ),
        &[
            ("2.0.0.1 > 10.1.0.1 UDP 1", "allow out none in allow KubernetesNetworkPolicy/x/p#0"),
            ("3.0.0.1 > 10.1.0.1 UDP 1", "allow out none in allow KubernetesNetworkPolicy/x/p#1"),
        ],
    );
}

#[test]
fn a_host_reaches_its_own_pods_and_no_others() {
    expect(
        &with_policy("podSelector: {}"),
        &[
            ("192.168.0.1 > 10.1.0.1 TCP 80", "allow out none in none"),
            ("192.168.0.2 > 10.1.0.1 TCP 80", "deny out none in deny end of default"),
            ("10.1.0.1 > 192.168.0.1 TCP 22", "allow out allow Profile//kns.x#0 in none"),
        ],
    );
}

#[test]
fn both_families_are_policed() {
    let pods = "apiVersion: v1
kind: Pod
metadata: {name: d, namespace: x, labels: {pod: d}}
spec: {nodeName: n}
status: {podIP: 10.1.0.9, podIPs: [{ip: 10.1.0.9}, {ip: 'fd00:1::9'}]}
---
";
    let policy = with_policy(
        "podSelector: {matchLabels: {pod: d}}\ningress: [{from: [{ipBlock: {cidr: 'fd00:2::/64'}}]}]",
    );
    expect_verdicts(
        &(pods.to_owned() + &policy),
        &[
            "+fd00:2::1 > fd00:1::9 TCP 80",
            "-fd00:3::1 > fd00:1::9 TCP 80",
            "-10.1.0.1 > 10.1.0.9 TCP 80",
            "+fd00:2::1 > fd00:1::9 ICMPv6 128/0",
        ],
    );
}
