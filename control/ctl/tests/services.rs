//! Services, asked of `policy simulate`.

mod common;

use common::{expect, three_by_three};

fn service(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: x}}\nspec: {{{spec}}}\n"
    )
}

fn slice(name: &str, service: &str, endpoints: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: x, labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{port: 8080, name: web}}]\nendpoints: [{endpoints}]\n"
    )
}

fn with(documents: &[String]) -> String {
    three_by_three() + &documents.concat()
}

const OUT: &str = "out allow Profile//kns.x#0";

#[test]
fn the_service_comes_first_and_policy_sees_its_backend() {
    let policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\nspec: {podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: 80}], from: [{podSelector: {matchLabels: {pod: a}}}]}]}\n";
    let documents = with(&[
        service(
            "s",
            "clusterIP: 10.96.0.1, selector: {pod: b}, ports: [{port: 8000, targetPort: serve-80}]",
        ),
        policy.into(),
    ]);
    let refused = &format!("deny {OUT} in none");
    expect(
        &documents,
        &[
            (
                "10.1.0.1 > 10.96.0.1 TCP 8000",
                &format!("allow {OUT} in allow KubernetesNetworkPolicy/x/p#0 to 10.1.0.2:80"),
            ),
            (
                "10.1.0.3 > 10.96.0.1 TCP 8000",
                &format!("deny {OUT} in deny end of default to 10.1.0.2:80"),
            ),
            ("10.1.0.1 > 10.96.0.1 TCP 80", refused),
            ("10.1.0.1 > 10.96.0.1 UDP 8000", refused),
            ("10.1.0.2 > 10.96.0.1 TCP 8000", "allow out none in none to 10.1.0.2:80"),
        ],
    );
}

#[test]
fn the_lowest_usable_backend_is_taken_and_none_refuses() {
    let documents = with(&[
        service("s", "clusterIP: 10.96.0.1, ports: [{port: 80, name: web}]"),
        slice(
            "s-1",
            "s",
            "{addresses: [10.1.0.3]}, {addresses: [10.1.0.2], conditions: {ready: false}}, {addresses: [10.2.0.1], conditions: {ready: true}}",
        ),
        service("drains", "clusterIP: 10.96.0.2, ports: [{port: 80, name: web}]"),
        slice(
            "drains-1",
            "drains",
            "{addresses: [10.1.0.3], conditions: {ready: false, serving: true, terminating: true}}, {addresses: [10.1.0.2], conditions: {ready: false, serving: false, terminating: true}}",
        ),
        service("empty", "clusterIP: 10.96.0.3, selector: {pod: nobody}, ports: [{port: 80}]"),
    ]);
    expect(
        &documents,
        &[
            (
                "10.1.0.1 > 10.96.0.1 TCP 80",
                &format!("allow {OUT} in allow Profile//kns.x#0 to 10.1.0.3:8080"),
            ),
            (
                "10.1.0.1 > 10.96.0.2 TCP 80",
                &format!("allow {OUT} in allow Profile//kns.x#0 to 10.1.0.3:8080"),
            ),
            ("10.1.0.1 > 10.96.0.3 TCP 80", &format!("deny {OUT} in none")),
            ("9.9.9.9 > 10.96.0.3 TCP 80", "deny out none in none"),
        ],
    );
}

#[test]
fn local_policies_ask_for_backends_on_the_clients_node() {
    let documents = with(&[
        service("in", "clusterIP: 10.96.0.1, selector: {pod: a}, internalTrafficPolicy: Local, ports: [{port: 80}]"),
        service(
            "out",
            "type: NodePort, clusterIP: 10.96.0.2, selector: {pod: b}, externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30080}]",
        ),
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: far, namespace: z}\nspec: {clusterIP: 10.96.0.3, selector: {pod: a}, internalTrafficPolicy: Local, ports: [{port: 80}]}\n".into(),
    ]);
    expect(
        &documents,
        &[
            (
                "10.1.0.2 > 10.96.0.1 TCP 80",
                &format!("allow {OUT} in allow Profile//kns.x#0 to 10.1.0.1:80"),
            ),
            ("10.3.0.1 > 10.96.0.1 TCP 80", "deny out allow Profile//kns.z#0 in none"),
            ("10.1.0.1 > 10.96.0.3 TCP 80", &format!("deny {OUT} in none")),
            (
                "10.3.0.2 > 10.96.0.3 TCP 80",
                "allow out allow Profile//kns.z#0 in allow Profile//kns.z#0 to 10.3.0.1:80",
            ),
            (
                "9.9.9.9 > 192.168.0.1 TCP 30080",
                "allow out none in allow Profile//kns.x#0 to 10.1.0.2:80",
            ),
            ("9.9.9.9 > 192.168.0.2 TCP 30080", "deny out none in none"),
            (
                "10.3.0.1 > 192.168.0.2 TCP 30080",
                "allow out allow Profile//kns.z#0 in allow Profile//kns.x#0 to 10.1.0.2:80",
            ),
        ],
    );
}

#[test]
fn source_ranges_close_the_load_balancers_address_only() {
    let documents = with(&[service(
        "lb",
        "type: LoadBalancer, clusterIP: 10.96.0.1, selector: {pod: a}, externalIPs: [20.0.0.1], loadBalancerSourceRanges: [\" 9.0.0.0/8\"], ports: [{port: 80, nodePort: 30080}]",
    ) + "status: {loadBalancer: {ingress: [{ip: 20.0.0.2}]}}\n"]);
    let open = "allow out none in allow Profile//kns.x#0 to 10.1.0.1:80";
    expect(
        &documents,
        &[
            ("9.9.9.9 > 20.0.0.2 TCP 80", open),
            ("8.8.8.8 > 20.0.0.2 TCP 80", "deny out none in none"),
            ("8.8.8.8 > 20.0.0.1 TCP 80", open),
            ("8.8.8.8 > 192.168.0.2 TCP 30080", open),
            ("8.8.8.8 > 20.0.0.1 TCP 81", "deny out none in none"),
            ("10.1.0.2 > 20.0.0.2 TCP 80", &format!("deny {OUT} in none")),
        ],
    );
}

#[test]
fn an_address_of_the_service_range_that_no_service_has_is_dropped() {
    let range = "---\napiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\nspec: {cidrs: [10.96.0.0/16]}\n";
    let documents = with(&[
        range.into(),
        service("h", "clusterIP: None, selector: {pod: a}, ports: [{port: 80}]"),
    ]);
    expect(
        &documents,
        &[
            ("10.1.0.1 > 10.96.7.7 TCP 80", &format!("deny {OUT} in none")),
            ("10.1.0.1 > 10.97.7.7 TCP 80", &format!("allow {OUT} in none")),
        ],
    );
}

#[test]
fn services_that_another_proxy_serves_are_not_translated() {
    let named = |label: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: x, labels: {{service.kubernetes.io/{label}: a}}}}\nspec: {{clusterIP: 10.96.0.1, selector: {{pod: b}}, ports: [{{port: 80}}]}}\n"
        )
    };
    for label in ["service-proxy-name", "headless"] {
        expect(
            &with(&[named(label)]),
            &[("10.1.0.1 > 10.96.0.1 TCP 80", &format!("allow {OUT} in none"))],
        );
    }
}

#[test]
fn rules_may_name_services() {
    let documents = with(&[
        service("s", "clusterIP: 10.96.0.1, ports: [{port: 80, name: web}]"),
        slice("s-1", "s", "{addresses: [10.1.0.2]}"),
        "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\nspec: {selector: \"pod == 'a'\", types: [Ingress, Egress], egress: [{action: Allow, destination: {services: {name: s}}}], ingress: [{action: Allow, source: {services: {name: s}}}]}\n".into(),
    ]);
    expect(
        &documents,
        &[
            (
                "10.1.0.1 > 10.96.0.1 TCP 80",
                "allow out allow NetworkPolicy/x/p#0 in allow Profile//kns.x#0 to 10.1.0.2:8080",
            ),
            (
                "10.1.0.1 > 10.1.0.2 TCP 8080",
                "allow out allow NetworkPolicy/x/p#0 in allow Profile//kns.x#0",
            ),
            (
                "10.1.0.1 > 10.1.0.2 TCP 81",
                "deny out deny end of default in allow Profile//kns.x#0",
            ),
            ("10.1.0.2 > 10.1.0.1 UDP 9", &format!("allow {OUT} in allow NetworkPolicy/x/p#0")),
            ("10.1.0.3 > 10.1.0.1 UDP 9", &format!("deny {OUT} in deny end of default")),
        ],
    );
}

#[test]
fn hints_send_a_client_to_the_backend_that_is_meant_for_its_node() {
    let hinted = |address: &str, node: &str| {
        format!(
            "{{addresses: [{address}], nodeName: {node}, hints: {{forNodes: [{{name: {node}}}]}}}}"
        )
    };
    let endpoints = [hinted("10.1.0.1", "n"), hinted("10.3.0.1", "m")].join(", ");
    let documents = with(&[
        service("s", "clusterIP: 10.96.0.1, ports: [{port: 80, name: web}]"),
        slice("s-1", "s", &endpoints),
    ]);
    expect(
        &documents,
        &[
            (
                "10.1.0.2 > 10.96.0.1 TCP 80",
                &format!("allow {OUT} in allow Profile//kns.x#0 to 10.1.0.1:8080"),
            ),
            (
                "10.3.0.2 > 10.96.0.1 TCP 80",
                "allow out allow Profile//kns.z#0 in allow Profile//kns.z#0 to 10.3.0.1:8080",
            ),
            (
                "9.9.9.9 > 10.96.0.1 TCP 80",
                "allow out none in allow Profile//kns.x#0 to 10.1.0.1:8080",
            ),
        ],
    );
}
