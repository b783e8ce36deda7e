use serde_json::json;

use super::{calico, fields, object, table};
use crate::resource::Resource;

#[test]
fn a_workload_endpoint_has_single_addresses_and_an_interface() {
    table(
        "WorkloadEndpoint",
        &[
            (
                json!({"node": "n", "pod": "p", "interfaceName": "cali0123456789a",
                "ipNetworks": ["10.0.0.1/32", "fd00::1/128"], "mac": "ee:ee:ee:ee:ee:ee",
                "ipv4Gateway": "169.254.1.1", "profiles": ["kns.a"],
                "ports": [{"name": "http", "protocol": "TCP", "port": 80}]}),
                "",
            ),
            (json!({}), "interfaceName"),
            (json!({"interfaceName": "a", "ipNetworks": ["10.0.0.0/31"]}), "ipNetworks[0]"),
            (
                json!({"interfaceName": "a", "ipv4Gateway": "fd00::1", "mac": "x"}),
                "ipv4Gateway mac",
            ),
            (
                json!({"interfaceName": "a", "ipNetworks": ["10.0.0.1/32"],
                "ipNATs": [{"internalIP": "10.0.0.2", "externalIP": "fd00::1"}]}),
                "ipNATs[0].externalIP ipNATs[0].internalIP",
            ),
            (
                json!({"interfaceName": "a", "ports": [{"protocol": "ICMP", "port": 80}]}),
                "ports[0].name ports[0].protocol",
            ),
        ],
    );
}

#[test]
fn a_node_has_addresses_of_the_right_family() {
    table(
        "Node",
        &[
            (json!({"bgp": {"ipv4Address": "192.0.2.1/24", "ipv6Address": "fd00::1"}}), ""),
            (json!({"bgp": {}}), "bgp"),
            (
                json!({"bgp": {"ipv4Address": "fd00::1/64", "ipv6Address": "x"}}),
                "bgp.ipv4Address bgp.ipv6Address",
            ),
            (
                json!({"ipv4VXLANTunnelAddr": "x", "vxlanTunnelMACAddr": "x"}),
                "ipv4VXLANTunnelAddr vxlanTunnelMACAddr",
            ),
            (
                json!({"addresses": [{"address": "x", "type": "Home"}]}),
                "addresses[0].address addresses[0].type",
            ),
        ],
    );
}

#[test]
fn what_machines_write_may_have_more_fields_than_are_known() {
    for (kind, spec) in [
        ("Node", json!({"new": 1})),
        ("WorkloadEndpoint", json!({"interfaceName": "a", "new": 1})),
        ("IPAMBlock", json!({"cidr": "10.0.0.0/26", "new": 1})),
        (
            "BlockAffinity",
            json!({"state": "confirmed", "node": "n", "cidr": "10.0.0.0/26", "new": 1}),
        ),
        ("IPAMHandle", json!({"handleID": "h", "new": 1})),
    ] {
        let checked = Resource::check(&calico(kind, spec)).unwrap_or_else(|e| panic!("{e}"));
        let warnings: Vec<_> = checked.warnings.iter().map(|w| w.field.to_string()).collect();
        assert_eq!(warnings, ["spec.new"], "{kind}");
    }
}

#[test]
fn a_report_on_a_node_says_what_and_how_often() {
    table(
        "CalicoNodeStatus",
        &[
            (
                json!({"node": "n", "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 0}),
                "",
            ),
            (json!({}), "node classes updatePeriodSeconds"),
            (
                json!({"node": "n", "classes": ["BGP", "BGP", "CPU"], "updatePeriodSeconds": 86_401}),
                "classes classes[2] updatePeriodSeconds",
            ),
        ],
    );
}

#[test]
fn settings_of_controllers_are_checked() {
    table(
        "KubeControllersConfiguration",
        &[
            (
                json!({"controllers": {"node": {"reconcilerPeriod": "5m", "syncLabels": "Enabled"}}}),
                "",
            ),
            (
                json!({"logSeverityScreen": "Loud", "prometheusMetricsPort": 70_000,
                "controllers": {"node": {"leakGracePeriod": "5", "hostEndpoint": {
                    "autoCreate": "Yes", "templates": [{"nodeSelector": "a"}]}},
                    "loadBalancer": {"assignIPs": "All"}, "policy": {"reconcilerPeriod": "x"}}}),
                "logSeverityScreen prometheusMetricsPort controllers.node.leakGracePeriod \
             controllers.node.hostEndpoint.autoCreate controllers.node.hostEndpoint.templates[0] \
             controllers.node.hostEndpoint.templates[0].nodeSelector \
             controllers.loadBalancer.assignIPs controllers.policy.reconcilerPeriod",
            ),
        ],
    );
}

#[test]
fn settings_of_the_dataplane_are_checked_where_they_are_known() {
    let of = |spec| fields(&object("projectcalico.org/v3", "FelixConfiguration", "default", spec));
    assert_eq!(of(json!({"vxlanPort": 4789, "bpfEnabled": true, "logSeverityScreen": "Info"})), "");
    assert_eq!(
        of(json!({"vxlanPort": 0, "nodeSelector": "a", "defaultEndpointToHostAction": "Keep"})),
        "spec.defaultEndpointToHostAction spec.nodeSelector spec.vxlanPort"
    );
}
