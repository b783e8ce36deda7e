use serde_json::{Value, json};

use super::{calico, fields, object, table};

#[test]
fn a_pool_is_a_canonical_network_with_room_for_a_block() {
    table(
        "IPPool",
        &[
            (json!({"cidr": "10.0.0.0/16"}), ""),
            (json!({"cidr": "fd00::/48", "vxlanMode": "Always"}), ""),
            (json!({}), "cidr"),
            (json!({"cidr": "x"}), "cidr"),
            (json!({"cidr": "10.0.0.1/16"}), "cidr"),
            (json!({"cidr": "10.0.0.0/26"}), ""),
            (json!({"cidr": "10.0.0.0/27"}), "cidr"),
            (json!({"cidr": "10.0.0.0/27", "disabled": true}), ""),
            (json!({"cidr": "10.0.0.0/28", "blockSize": 29}), ""),
            (json!({"cidr": "10.0.0.0/8", "blockSize": 19}), "blockSize"),
            (json!({"cidr": "10.0.0.0/8", "blockSize": 33}), "blockSize"),
            (json!({"cidr": "fd00::/48", "blockSize": 115}), "blockSize"),
            (json!({"cidr": "fd00::/48", "blockSize": 128}), ""),
            (json!({"cidr": "169.254.0.0/20"}), "cidr"),
            (json!({"cidr": "0.0.0.0/0"}), "cidr"),
            (json!({"cidr": "fe80::/64"}), "cidr"),
            (json!({"cidr": "10.0.0.0/16", "nodeSelector": "a"}), "nodeSelector"),
            (json!({"cidr": "10.0.0.0/16", "namespaceSelector": "a"}), "namespaceSelector"),
            (json!({"cidr": "10.0.0.0/16", "ipipMode": "Sometimes"}), "ipipMode"),
            (json!({"cidr": "10.0.0.0/16", "nat-outgoing": true}), "nat-outgoing"),
        ],
    );
}

#[test]
fn a_pool_has_one_encapsulation_at_most() {
    table(
        "IPPool",
        &[
            (json!({"cidr": "10.0.0.0/16", "ipipMode": "CrossSubnet", "vxlanMode": "Never"}), ""),
            (
                json!({"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}),
                "vxlanMode",
            ),
            (json!({"cidr": "fd00::/48", "ipipMode": "Always"}), "ipipMode"),
        ],
    );
}

#[test]
fn a_pool_of_load_balancers_is_for_nothing_else() {
    let spec = |rest: Value| {
        let mut spec = json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"]});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        spec
    };
    table(
        "IPPool",
        &[
            (spec(json!({})), ""),
            (spec(json!({"allowedUses": ["LoadBalancer", "Tunnel"]})), "allowedUses"),
            (spec(json!({"allowedUses": ["Guests"]})), "allowedUses[0]"),
            (spec(json!({"vxlanMode": "Always"})), "vxlanMode"),
            (spec(json!({"ipipMode": "CrossSubnet"})), "ipipMode"),
            (spec(json!({"disableBGPExport": true})), "disableBGPExport"),
            (spec(json!({"nodeSelector": "has(a)"})), "nodeSelector"),
        ],
    );
}

#[test]
fn address_management_has_no_contradictory_settings() {
    table(
        "IPAMConfiguration",
        &[
            (json!({}), ""),
            (
                json!({"strictAffinity": true, "maxBlocksPerHost": 4, "autoAllocateBlocks": false}),
                "",
            ),
            (json!({"maxBlocksPerHost": 4, "autoAllocateBlocks": true}), "maxBlocksPerHost"),
            (json!({"strictAffinity": true, "maxBlocksPerHost": -1}), "maxBlocksPerHost"),
            (json!({"autoAllocateBlocks": false}), "autoAllocateBlocks"),
            (json!({"ipCooldownSeconds": 1200}), ""),
            (json!({"ipCooldownSeconds": 1201}), "ipCooldownSeconds"),
            (json!({"kubeVirtVMAddressPersistence": "On"}), "kubeVirtVMAddressPersistence"),
        ],
    );
    table(
        "IPReservation",
        &[
            (json!({"reservedCIDRs": ["10.0.0.0/30", "10.0.0.9"]}), ""),
            (json!({"reservedCIDRs": ["10.0.0.0/33"]}), "reservedCIDRs[0]"),
        ],
    );
    for kind in ["NetworkSet", "GlobalNetworkSet"] {
        table(
            kind,
            &[
                (json!({"nets": ["10.0.0.1", "10.0.0.1/8", "fd00::/8"]}), ""),
                (json!({"nets": ["10.0.0.1", "ten"]}), "nets[1]"),
                (json!({"allowedEgressDomains": ["example.com", "*.Example.org.", "a.*.b"]}), ""),
                (
                    json!({"allowedEgressDomains": ["a.b", "a*.b", "*.*.b", "", "a..b", "a b"]}),
                    "allowedEgressDomains[1] allowedEgressDomains[2] allowedEgressDomains[3] \
                     allowedEgressDomains[4] allowedEgressDomains[5]",
                ),
            ],
        );
    }
}

#[test]
fn a_host_endpoint_has_a_node_and_an_interface_or_addresses() {
    let port = |name: &str, protocol: Value, port: i64| json!({"node": "n", "interfaceName": "*", "ports": [{"name": name, "protocol": protocol, "port": port}]});
    table(
        "HostEndpoint",
        &[
            (json!({"node": "n", "interfaceName": "eth0"}), ""),
            (json!({"node": "n", "interfaceName": "*"}), ""),
            (json!({"node": "n", "expectedIPs": ["10.0.0.1", "fd00::1"], "profiles": ["a"]}), ""),
            (json!({"interfaceName": "eth0"}), "node"),
            (json!({"node": "n"}), "interfaceName"),
            (json!({"node": "n", "interfaceName": "a-name-of-sixteen"}), "interfaceName"),
            (json!({"node": "n", "interfaceName": "eth*"}), "interfaceName"),
            (
                json!({"node": "n", "interfaceName": "*", "expectedIPs": ["10.0.0.0/8"]}),
                "expectedIPs[0]",
            ),
            (json!({"node": "n", "interfaceName": "*", "profiles": ["A"]}), "profiles[0]"),
            (port("http", json!("TCP"), 80), ""),
            (port("HTTP", json!("TCP"), 80), "ports[0].name"),
            (port("http", json!("ICMP"), 80), "ports[0].protocol"),
            (port("http", json!(17), 0), "ports[0].port"),
            (port("http", json!("TCP"), 65_536), "ports[0].port"),
        ],
    );
}

#[test]
fn fields_of_a_peer_exclude_each_other() {
    table(
        "BGPPeer",
        &[
            (json!({"peerIP": "10.0.0.1", "asNumber": 64512}), ""),
            (json!({"peerIP": "10.0.0.1:179", "asNumber": "1.10", "node": "n"}), ""),
            (json!({"peerIP": "[fd00::1]:179", "nodeSelector": "has(a)"}), ""),
            (json!({"peerSelector": "has(a)", "nodeSelector": "has(b)"}), ""),
            (json!({"localWorkloadSelector": "has(a)", "asNumber": 5}), ""),
            (json!({"node": "n", "nodeSelector": "has(a)"}), "node"),
            (
                json!({"peerIP": "10.0.0.1", "peerSelector": "has(a)", "asNumber": 5}),
                "peerIP asNumber",
            ),
            (json!({"localWorkloadSelector": "has(a)"}), "asNumber"),
            (
                json!({"localWorkloadSelector": "has(a)", "asNumber": 5, "peerIP": "10.0.0.1"}),
                "peerIP",
            ),
            (json!({"peerIP": "10.0.0"}), "peerIP"),
            (json!({"peerIP": "10.0.0.1:0"}), "peerIP"),
            (json!({"peerIP": "fd00::1:179:x"}), "peerIP"),
            (json!({"reachableBy": "10.0.0.1"}), "reachableBy"),
            (json!({"peerIP": "fd00::1", "reachableBy": "10.0.0.1"}), "reachableBy"),
            (json!({"peerIP": "10.0.0.2", "reachableBy": "10.0.0.1"}), ""),
            (
                json!({"peerIP": "10.0.0.2", "keepOriginalNextHop": true, "nextHopMode": "Auto"}),
                "keepOriginalNextHop",
            ),
            (
                json!({"peerIP": "10.0.0.2", "nextHopMode": "Mine", "sourceAddress": "x"}),
                "nextHopMode sourceAddress",
            ),
            (
                json!({"peerIP": "10.0.0.2", "maxRestartTime": "5", "ttlSecurity": 256}),
                "maxRestartTime ttlSecurity",
            ),
            (json!({"peerSelector": "a", "nodeSelector": "b"}), "nodeSelector peerSelector"),
        ],
    );
}

#[test]
fn settings_of_bgp_are_checked() {
    table(
        "BGPConfiguration",
        &[
            (json!({"asNumber": 64512, "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]}), ""),
            (
                json!({"serviceExternalIPs": [{"cidr": "10.96.0.1/12"}]}),
                "serviceExternalIPs[0].cidr",
            ),
            (json!({"logSeverityScreen": "Loud", "bindMode": "All"}), "logSeverityScreen bindMode"),
            (json!({"ignoredInterfaces": ["eth*", "*"]}), "ignoredInterfaces[1]"),
            (json!({"communities": [{"name": "a", "value": "1:2"}]}), "communities"),
            (
                json!({"communities": [{"name": "a", "value": "1:2"}],
                "prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["a", "3:4"]}]}),
                "",
            ),
            (
                json!({"communities": [{"name": "", "value": "70000:2"}],
                "prefixAdvertisements": [{"cidr": "10.0.0.1/8", "communities": ["b"]}]}),
                "communities[0].name communities[0].value prefixAdvertisements[0].cidr \
             prefixAdvertisements[0].communities[0]",
            ),
            (
                json!({"nodeToNodeMeshEnabled": false, "nodeMeshMaxRestartTime": "5s"}),
                "nodeMeshMaxRestartTime",
            ),
            (json!({"nodeMeshMaxRestartTime": "soon"}), "nodeMeshMaxRestartTime"),
            (json!({"localWorkloadPeeringIPV4": "fd00::1"}), "localWorkloadPeeringIPV4"),
            (json!({"ipv4NormalRoutePriority": 0}), "ipv4NormalRoutePriority"),
        ],
    );
    let value = object(
        "projectcalico.org/v3",
        "BGPConfiguration",
        "node.a",
        json!({"nodeMeshPassword": {}}),
    );
    assert_eq!(fields(&value), "spec.nodeMeshPassword");
}

#[test]
fn rules_of_filters_are_whole() {
    let rule = |key: &str, rest: Value| {
        let mut rule = json!({"action": "Accept"});
        rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({key: [rule]})
    };
    let v4 = |rest| rule("exportV4", rest);
    let cidr = json!({"cidr": "10.0.0.0/8", "matchOperator": "In"});
    let rows = [
        (json!({}), ""),
        (cidr.clone(), ""),
        (json!({"cidr": "10.0.0.0/8"}), "matchOperator"),
        (json!({"matchOperator": "In"}), "cidr"),
        (json!({"cidr": "10.0.0.1/8", "matchOperator": "In"}), "cidr"),
        (json!({"cidr": "fd00::/8", "matchOperator": "In"}), "cidr"),
        (json!({"prefixLength": {"min": 8}}), "cidr"),
        (
            json!({"source": "Me", "peerType": "bgp", "interface": "a b"}),
            "source peerType interface",
        ),
        (json!({"priority": 0}), "priority"),
        (json!({"communities": {"values": []}}), "communities.values"),
        (json!({"communities": {"values": ["x"]}}), "communities.values[0]"),
        (json!({"operations": [{"setPriority": {"value": 1}}]}), ""),
        (json!({"operations": [{}]}), "operations[0]"),
        (
            json!({"operations": [{"setPriority": {"value": 0}, "addCommunity": {"value": "x"}}]}),
            "operations[0] operations[0].addCommunity.value operations[0].setPriority.value",
        ),
        (
            json!({"operations": [{"prependASPath": {"prefix": []}}]}),
            "operations[0].prependASPath.prefix",
        ),
        (json!({"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}), "operations"),
    ];
    for (rest, expected) in rows {
        let expected: Vec<_> =
            expected.split_whitespace().map(|f| format!("exportV4[0].{f}")).collect();
        table("BGPFilter", &[(v4(rest), &expected.join(" "))]);
    }
    let lengths = |min: i64, max: i64| {
        let mut rest = cidr.clone();
        rest["prefixLength"] = json!({"min": min, "max": max});
        fields(&calico("BGPFilter", v4(rest)))
    };
    assert_eq!(lengths(8, 32), "");
    assert_eq!(lengths(9, 8), "spec.exportV4[0].prefixLength.max");
    assert_eq!(lengths(8, 33), "spec.exportV4[0].prefixLength.max");
    let v6 = json!({"cidr": "fd00::/8", "matchOperator": "Equal", "prefixLength": {"max": 128}});
    assert_eq!(fields(&calico("BGPFilter", rule("importV6", v6))), "");
}
