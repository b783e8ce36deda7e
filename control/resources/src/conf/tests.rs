use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::field::Problem;

fn configuration(name: &str, spec: Value) -> FelixConfiguration {
    let value = json!({"metadata": {"name": name}, "spec": spec});
    serde_json::from_value(value).unwrap()
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn of_default(spec: Value) -> Settings {
    Settings::of_node("n", &labels(""), &[configuration("default", spec)])
}

fn problems(spec: Value) -> Vec<String> {
    let mut problems = Vec::new();
    check(&configuration("default", spec).spec, &mut Report::new(&mut problems));
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn without_configuration_the_built_in_settings_hold() {
    let settings = Settings::of_node("n", &labels(""), []);
    assert_eq!(settings, Settings::default());
    assert_eq!((settings.vxlan_port, settings.vxlan_vni), (4789, 4096));
    assert_eq!(settings.default_endpoint_to_host_action, HostAction::Accept);
    assert_eq!(settings.kube_node_port_ranges, [(30_000, 32_767)]);
    let ports = |list: &[FailsafePort]| -> Vec<String> {
        list.iter().map(|f| format!("{}:{}", f.protocol, f.port)).collect()
    };
    assert_eq!(
        ports(&settings.failsafe_inbound_host_ports).join(","),
        "TCP:22,UDP:68,TCP:179,TCP:2379,TCP:2380,TCP:5473,TCP:6443,TCP:6666,TCP:6667"
    );
    assert_eq!(
        ports(&settings.failsafe_outbound_host_ports).join(","),
        "UDP:53,UDP:67,TCP:179,TCP:2379,TCP:2380,TCP:5473,TCP:6443,TCP:6666,TCP:6667"
    );
}

#[test]
fn each_setting_comes_from_the_nearest_configuration_that_has_it() {
    let all = [
        configuration("default", json!({"vxlanPort": 1, "vxlanVNI": 10, "floatingIPs": "Enabled"})),
        configuration(
            "gpu",
            json!({"nodeSelector": "gpu == 'yes'", "vxlanPort": 2, "vxlanVNI": 20}),
        ),
        configuration("node.n", json!({"vxlanPort": 3})),
        configuration("node.other", json!({"vxlanPort": 4})),
        configuration("stray", json!({"vxlanPort": 5})),
        configuration("broken", json!({"nodeSelector": "gpu ==", "vxlanPort": 6})),
    ];
    let of = |name: &str, text: &str| {
        let settings = Settings::of_node(name, &labels(text), &all);
        (settings.vxlan_port, settings.vxlan_vni, settings.floating_ips)
    };
    assert_eq!(of("n", "gpu=yes"), (3, 20, true));
    assert_eq!(of("n", ""), (3, 10, true));
    assert_eq!(of("m", "gpu=yes"), (2, 20, true));
    assert_eq!(of("m", ""), (1, 10, true));
}

#[test]
fn of_several_selected_configurations_only_the_oldest_counts() {
    let aged = |name: &str, created: &str, spec: Value| {
        let metadata = json!({"name": name, "creationTimestamp": created});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    };
    let all: [FelixConfiguration; 2] = [
        aged(
            "a",
            "2026-02-01T00:00:00Z",
            json!({"nodeSelector": "all()", "vxlanPort": 1, "vxlanVNI": 9}),
        ),
        aged("b", "2026-01-01T00:00:00Z", json!({"nodeSelector": "all()", "vxlanPort": 2})),
    ];
    let settings = Settings::of_node("n", &labels(""), &all);
    assert_eq!((settings.vxlan_port, settings.vxlan_vni), (2, 4096));
}

#[test]
fn every_setting_is_read() {
    let settings = of_default(json!({
        "vxlanPort": 4790, "vxlanVNI": 5, "natPortRange": "40000:50000",
        "natOutgoingAddress": "192.0.2.1", "natOutgoingExclusions": "IPPoolsAndHostIPs",
        "defaultEndpointToHostAction": "DROP", "allowVXLANPacketsFromWorkloads": true,
        "allowIPIPPacketsFromWorkloads": true, "workloadSourceSpoofing": "Any",
        "floatingIPs": "Enabled", "kubeNodePortRanges": ["30000:30100", 31000],
        "serviceLoopPrevention": "Reject",
        "failsafeInboundHostPorts": [{"protocol": "tcp", "port": 22, "net": "10.0.0.0/8"}],
        "failsafeOutboundHostPorts": [], "externalNodesList": ["192.0.2.0/24", "198.51.100.1"],
        "bpfKubeProxyHealthzPort": 0, "bpfExternalServiceMode": "DSR", "bpfDSROptoutCIDRs": ["198.51.100.0/24"],
        "bpfConntrackTimeouts": {"tcpSynSent": "5s", "tcpFinsSeen": "1m", "udpTimeout": "Auto"},
        "dnsTrustedServers": ["192.0.2.53", "k8s-service:dns/coredns:5353"],
        "dnsExtraTTL": "30s", "dnsPacketsNfqueueMaxHoldDuration": "500ms", "dnsCacheEpoch": 2,
        "logPrefix": "%n", "logActionRateLimit": "5/minute", "logActionRateLimitBurst": 7,
        "flowLogsFlushInterval": "15s", "somethingElse": {"is": "kept"},
    }));
    let expected = Settings {
        vxlan_port: 4790,
        vxlan_vni: 5,
        nat_port_range: Some((40_000, 50_000)),
        nat_outgoing_address: Some(Ipv4Addr::new(192, 0, 2, 1)),
        nat_outgoing_exclusions: NatExclusions::IpPoolsAndHostIps,
        default_endpoint_to_host_action: HostAction::Drop,
        allow_vxlan_packets_from_workloads: true,
        allow_ipip_packets_from_workloads: true,
        workload_source_spoofing: true,
        floating_ips: true,
        kube_node_port_ranges: vec![(30_000, 30_100), (31_000, 31_000)],
        service_loop_prevention: LoopPrevention::Reject,
        failsafe_inbound_host_ports: vec![FailsafePort {
            protocol: Protocol::TCP,
            port: 22,
            net: "10.0.0.0/8".parse().ok(),
        }],
        failsafe_outbound_host_ports: vec![],
        external_nodes_list: vec![
            "192.0.2.0/24".parse().unwrap(),
            "198.51.100.1/32".parse().unwrap(),
        ],
        bpf_external_service_mode: ExternalServiceMode::Dsr,
        bpf_kube_proxy_healthz_port: 0,
        bpf_dsr_optout_cidrs: vec!["198.51.100.0/24".parse().unwrap()],
        conntrack_timeouts: ConntrackTimeouts {
            tcp_syn_sent: Duration::from_secs(5),
            tcp_fins_seen: Some(Duration::from_secs(60)),
            ..ConntrackTimeouts::default()
        },
        dns_trusted_servers: vec![
            DnsServer::Address { addr: "192.0.2.53".parse().unwrap(), port: 53 },
            DnsServer::Service { namespace: "dns".into(), name: "coredns".into(), port: 5353 },
        ],
        dns_extra_ttl: Duration::from_secs(30),
        dns_packets_nfqueue_max_hold_duration: Duration::from_millis(500),
        dns_cache_epoch: 2,
        log_prefix: "%n".to_owned(),
        log_action_rate_limit: Some((5, Duration::from_secs(60))),
        log_action_rate_limit_burst: 7,
        flow_logs_flush_interval: Duration::from_secs(15),
    };
    assert_eq!(settings, expected);
}

#[test]
fn what_cannot_be_read_is_reported_and_leaves_the_setting_alone() {
    let spec = json!({
        "vxlanPort": 0, "vxlanVNI": 16_777_216, "natPortRange": "9:8",
        "defaultEndpointToHostAction": "Ignore", "allowVXLANPacketsFromWorkloads": "yes",
        "kubeNodePortRanges": [1, 2, 3, 4, 5, 6, 7, 8], "failsafeInboundHostPorts": [{"port": 70000}],
        "externalNodesList": "10.0.0.0/8", "bpfConntrackTimeouts": {"tcpSynSent": "soon"},
        "natOutgoingAddress": "fd00::1", "floatingIPs": null, "bpfExternalServiceMode": "Direct",
    });
    assert_eq!(of_default(spec.clone()), Settings::default());
    let found = problems(spec);
    let expected = [
        "vxlanPort: 0 is not a number from 1 to 65535",
        "vxlanVNI: 16777216 is not a number",
        "natPortRange: invalid value",
        "natOutgoingAddress: \"fd00::1\" is not an IPv4",
        "defaultEndpointToHostAction: \"Ignore\" is none of Accept, Drop, Return",
        "allowVXLANPacketsFromWorkloads: \"yes\" is neither",
        "kubeNodePortRanges: has 8 ranges",
        "failsafeInboundHostPorts: 70000 is not a number",
        "externalNodesList: \"10.0.0.0/8\" is not a list",
        "bpfExternalServiceMode: \"Direct\" is none of Tunnel, DSR",
        "bpfConntrackTimeouts: tcpSynSent is \"soon\"",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} does not start with {expected:?}");
    }
}

#[test]
fn the_log_action_has_a_prefix_and_a_rate() {
    let settings = of_default(json!({}));
    assert_eq!((&*settings.log_prefix, settings.log_action_rate_limit), ("calico-packet", None));
    assert_eq!(settings.log_action_rate_limit_burst, 5);
    let spec = json!({
        "logPrefix": "%t/%n", "logActionRateLimit": "5/minute", "logActionRateLimitBurst": 7
    });
    let settings = of_default(spec);
    let rate = Some((5, Duration::from_secs(60)));
    assert_eq!((&*settings.log_prefix, settings.log_action_rate_limit), ("%t/%n", rate));
    assert_eq!(settings.log_action_rate_limit_burst, 7);
    for bad in ["5", "0/second", "x/minute", "5/week", "5/minute/", "99999/second"] {
        assert_eq!(problems(json!({ "logActionRateLimit": bad })).len(), 1, "{bad}");
    }
    for bad in ["", "two\nlines", &"x".repeat(128)] {
        assert_eq!(problems(json!({ "logPrefix": bad })).len(), 1, "{bad}");
    }
}

#[test]
fn settings_that_are_not_followed_are_told_where_they_ask_for_something() {
    let told = |spec: Value| {
        let document = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
            "metadata": {"name": "default"}, "spec": spec,
        });
        let checked = crate::Resource::check(&document).unwrap();
        checked.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let usual = json!({
        "natOutgoingAddress": "", "natOutgoingExclusions": "IPPoolsOnly", "externalNodesList": [],
        "floatingIPs": "Disabled", "wireguardEnabled": false, "bpfEnforceRPF": "Loose",
        "vxlanPort": 4790, "bpfLogLevel": "Debug",
    });
    assert_eq!(told(usual), Vec::<String>::new());
    let other = json!({"natOutgoingAddress": "192.0.2.1", "wireguardEnabled": true});
    assert_eq!(
        told(other),
        [
            "spec.natOutgoingAddress: has no effect here: masqueraded packets carry the node's own address",
            "spec.wireguardEnabled: has no effect here: packets between nodes are not encrypted",
        ]
    );
}
