use serde_json::json;

use super::*;
use crate::v3::{EncapMode, PolicyType, TierAction};

fn object(api_version: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": spec})
}

fn calico(kind: &str, spec: Value) -> Value {
    object("projectcalico.org/v3", kind, spec)
}

fn read(value: &Value) -> Resource {
    Resource::from_value(value).unwrap_or_else(|e| panic!("{e}"))
}

/// The fields and the messages of the problems of a document.
fn problems(value: &Value) -> Vec<(String, String)> {
    let error = Resource::check(value).expect_err("nothing is wrong");
    error.problems.into_iter().map(|p| (p.field.to_string(), p.message)).collect()
}

fn fields(value: &Value) -> Vec<String> {
    problems(value).into_iter().map(|(field, _)| field).collect()
}

#[test]
fn a_policy_polices_the_directions_for_which_it_has_rules() {
    use PolicyType::{Egress, Ingress};
    let rule = json!([{"action": "Allow"}]);
    let table = [
        (json!({}), vec![Ingress]),
        (json!({"ingress": rule}), vec![Ingress]),
        (json!({"egress": rule}), vec![Egress]),
        (json!({"ingress": rule, "egress": rule}), vec![Ingress, Egress]),
        (json!({"ingress": [], "egress": []}), vec![Ingress]),
        (json!({"types": ["Egress"], "ingress": rule}), vec![Egress]),
    ];
    for (spec, types) in table {
        for kind in ["NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy"] {
            let (Resource::NetworkPolicy(p)
            | Resource::GlobalNetworkPolicy(p)
            | Resource::StagedNetworkPolicy(p)) = read(&calico(kind, spec.clone()))
            else {
                panic!("{kind} is read as another kind")
            };
            assert_eq!(p.spec.types, types, "{kind} {spec}");
            assert_eq!(p.spec.tier, "default");
            assert_eq!(p.spec.order, None);
        }
    }
}

#[test]
fn a_kubernetes_policy_polices_egress_only_when_it_has_rules_for_it() {
    let types = |spec: Value| {
        let value = object("networking.k8s.io/v1", "NetworkPolicy", spec);
        let Resource::KubernetesNetworkPolicy(policy) = read(&value) else { panic!("other kind") };
        policy.spec.unwrap().policy_types.unwrap().join(" ")
    };
    assert_eq!(types(json!({"podSelector": {}})), "Ingress");
    assert_eq!(types(json!({"podSelector": {}, "egress": []})), "Ingress");
    assert_eq!(types(json!({"podSelector": {}, "egress": [{}]})), "Ingress Egress");
    assert_eq!(types(json!({"policyTypes": ["Egress"]})), "Egress");
}

#[test]
fn a_pool_has_calicos_defaults() {
    let pool = |spec| {
        let Resource::IpPool(pool) = read(&calico("IPPool", spec)) else { panic!("other kind") };
        pool.spec
    };
    let v4 = pool(json!({"cidr": "10.0.0.0/16"}));
    assert_eq!(v4.ipip_mode, Some(EncapMode::Never));
    assert_eq!(v4.vxlan_mode, Some(EncapMode::Never));
    assert_eq!((v4.nat_outgoing, v4.disabled, v4.disable_bgp_export), (false, false, false));
    assert_eq!(v4.block_size, Some(26));
    assert_eq!(v4.node_selector, "all()");
    let written = serde_json::to_value(&v4).unwrap();
    assert_eq!(written["allowedUses"], json!(["Workload", "Tunnel"]));
    assert_eq!(written["assignmentMode"], json!("Automatic"));
    assert_eq!(pool(json!({"cidr": "fd00::/48"})).block_size, Some(122));
    assert_eq!(pool(json!({"cidr": "fd00::/48", "blockSize": 120})).block_size, Some(120));
}

#[test]
fn the_built_in_tiers_have_their_places() {
    let tier = |name: &str, spec: Value| {
        let mut value = calico("Tier", spec);
        value["metadata"]["name"] = name.into();
        let Resource::Tier(tier) = read(&value) else { panic!("other kind") };
        (tier.spec.order, tier.spec.default_action)
    };
    assert_eq!(tier("default", json!({})), (Some(1e6), Some(TierAction::Deny)));
    assert_eq!(tier("kube-admin", json!({})), (Some(1e3), Some(TierAction::Pass)));
    assert_eq!(tier("kube-baseline", json!({})), (Some(1e7), Some(TierAction::Pass)));
    assert_eq!(tier("mine", json!({})), (None, Some(TierAction::Deny)));
    assert_eq!(tier("mine", json!({"defaultAction": "Pass"})), (None, Some(TierAction::Pass)));
}

#[test]
fn a_namespaced_object_without_namespace_lives_in_default() {
    assert_eq!(read(&calico("NetworkSet", json!({}))).namespace(), "default");
    assert_eq!(read(&calico("GlobalNetworkSet", json!({}))).namespace(), "");
}

#[test]
fn null_is_as_good_as_missing() {
    let value = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"name": "x", "labels": {"a": null}, "annotations": null},
        "spec": {"order": null, "ingress": null, "egress": [{"action": "Deny", "source": null}]},
    });
    let policy = read(&value);
    assert_eq!(policy.metadata().labels.as_ref().unwrap()["a"], "");
    let Resource::NetworkPolicy(policy) = policy else { panic!("other kind") };
    assert_eq!(policy.spec.types, [PolicyType::Egress]);
}

#[test]
fn every_field_of_a_wrong_type_is_found() {
    let value = calico(
        "NetworkPolicy",
        json!({
            "order": "first",
            "ingress": [
                {"action": "Allow", "protocol": "tcp"},
                {"action": "Maybe"},
                {"action": "Allow", "protocol": "TCP", "destination": {
                    "ports": [0, 80, "9:8", "http", 70000],
                    "nets": ["10.0.0.0/8", "10.0.0.0/99"],
                }},
                {"protocol": "UDP"},
            ],
            "selectr": "all()",
        }),
    );
    let expected = [
        "spec.order",
        "spec.ingress[0].protocol",
        "spec.ingress[1].action",
        "spec.ingress[2].destination.nets[1]",
        "spec.ingress[2].destination.ports[0]",
        "spec.ingress[2].destination.ports[2]",
        "spec.ingress[2].destination.ports[4]",
        "spec.ingress[3]",
        "spec.selectr",
    ];
    let mut found = fields(&value);
    found.sort();
    let mut expected = expected.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(found, expected);
    let message = |field: &str| {
        problems(&value).into_iter().find(|(f, _)| f == field).map(|(_, m)| m).unwrap()
    };
    assert!(message("spec.ingress[0].protocol").contains("TCP, UDP, ICMP"));
    assert!(message("spec.ingress[1].action").contains("`Allow`, `Deny`"));
    assert!(message("spec.ingress[2].destination.ports[2]").contains("lower port first"));
    assert_eq!(message("spec.ingress[3]"), "missing field `action`");
    assert_eq!(message("spec.selectr"), "NetworkPolicy has no such field");
}

#[test]
fn what_only_follows_from_a_field_of_a_wrong_type_is_not_reported() {
    let value = calico(
        "NetworkPolicy",
        json!({"tier": 5, "ingress": [
            {"action": "Allow", "protocol": "TPC", "destination": {"ports": [80]}},
            {"action": "Allow", "destination": {"ports": [80]}},
        ]}),
    );
    let expected = ["spec.ingress[0].protocol", "spec.ingress[1].destination.ports", "spec.tier"];
    assert_eq!(fields(&value), expected);
}

#[test]
fn unknown_fields_are_errors_where_a_policy_would_say_something_else() {
    let mut policy = object("networking.k8s.io/v1", "NetworkPolicy", json!({"ingres": []}));
    assert_eq!(fields(&policy), ["spec.ingres"]);
    policy["spec"] = json!({"ingress": [{"from": [{"podSelectors": {}}]}]});
    // Without what is misspelt, nothing is left of the peer.
    let expected = ["spec.ingress[0].from[0]", "spec.ingress[0].from[0].podSelectors"];
    assert_eq!(fields(&policy), expected);

    let pod = object("v1", "Pod", json!({"containers": [], "brandNew": 1}));
    let checked = Resource::check(&pod).unwrap();
    let warnings: Vec<_> = checked.warnings.iter().map(|w| w.field.to_string()).collect();
    assert_eq!(warnings, ["spec.brandNew"]);
    assert!(Resource::from_value(&policy).is_ok(), "a datastore's objects are read leniently");
}

#[test]
fn a_document_of_no_known_kind_is_refused_with_the_mend() {
    let refusal = |value: Value| Resource::from_value(&value).unwrap_err().to_string();
    let table = [
        (json!([]), "expected an object"),
        (json!({}), "kind: is missing"),
        (json!({"kind": "Tier"}), "projectcalico.org/v3"),
        (json!({"kind": "Tier", "apiVersion": "projectcalico.org/v2"}), "use projectcalico.org/v3"),
        (json!({"kind": "Teir", "apiVersion": "projectcalico.org/v3"}), "no kind Teir"),
    ];
    for (value, part) in table {
        let text = refusal(value);
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

/// One document of each kind with most of its fields, without defaults.
fn samples() -> Vec<Value> {
    let rule = json!({
        "action": "Allow", "ipVersion": 4, "protocol": "TCP",
        "source": {
            "nets": ["10.0.0.0/8"], "selector": "has(a)", "namespaceSelector": "global()",
            "serviceAccounts": {"names": ["a"], "selector": "has(b)"}, "notNets": ["10.1.0.0/16"],
            "notSelector": "has(c)", "notPorts": [5],
        },
        "destination": {"ports": [80, "1000:2000", "http"]},
        "http": {"methods": ["GET"], "paths": [{"exact": "/a"}, {"prefix": "/b"}]},
        "metadata": {"annotations": {"a": "b"}},
    });
    let icmp = json!({
        "action": "Deny", "protocol": 1, "icmp": {"type": 8, "code": 0}, "notICMP": {"type": 3},
        "notProtocol": "UDP",
    });
    let service =
        json!({"action": "Pass", "destination": {"services": {"name": "a", "namespace": "b"}}});
    let global = json!({
        "tier": "t", "order": 1.5, "selector": "has(a)", "types": ["Ingress", "Egress"],
        "ingress": [rule, icmp], "egress": [service], "serviceAccountSelector": "has(s)",
        "namespaceSelector": "has(n)", "applyOnForward": true, "doNotTrack": true,
        "performanceHints": ["AssumeNeededOnEveryNode"],
    });
    let filter = json!({
        "action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In",
        "prefixLength": {"min": 16, "max": 24}, "source": "RemotePeers", "interface": "eth*",
        "peerType": "eBGP", "communities": {"values": ["1:2"]}, "asPathPrefix": [1, 2],
        "priority": 5,
        "operations": [{"addCommunity": {"value": "1:2"}}, {"prependASPath": {"prefix": [1]}},
            {"setPriority": {"value": 3}}],
    });
    vec![
        calico("GlobalNetworkPolicy", global),
        calico("Tier", json!({"order": 5.0, "defaultAction": "Pass"})),
        calico("GlobalNetworkSet", json!({"nets": ["10.0.0.1", "10.1.1.1/8"]})),
        calico(
            "HostEndpoint",
            json!({
                "node": "n", "interfaceName": "eth0", "expectedIPs": ["10.0.0.1"], "profiles": ["p"],
                "ports": [{"name": "a", "protocol": "TCP", "port": 1}],
            }),
        ),
        calico("Profile", json!({"ingress": [{"action": "Allow"}], "labelsToApply": {"a": "b"}})),
        calico("IPReservation", json!({"reservedCIDRs": ["10.0.0.0/30"]})),
        calico(
            "IPAMConfiguration",
            json!({
                "strictAffinity": true, "maxBlocksPerHost": 4, "autoAllocateBlocks": true,
                "kubeVirtVMAddressPersistence": "Enabled", "ipCooldownSeconds": 5,
            }),
        ),
        calico(
            "BGPConfiguration",
            json!({
                "asNumber": 64512, "nodeToNodeMeshEnabled": false, "listenPort": 1790,
                "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}], "bindMode": "NodeIP",
                "communities": [{"name": "a", "value": "1:2"}], "ignoredInterfaces": ["eth9"],
                "prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["a"]}],
                "localWorkloadPeeringIPV4": "10.0.0.1", "ipv4NormalRoutePriority": 1024,
            }),
        ),
        calico(
            "BGPPeer",
            json!({
                "peerIP": "10.0.0.1:179", "asNumber": 64513, "localASNumber": 64514,
                "nextHopMode": "Self", "sourceAddress": "None", "ttlSecurity": 1, "filters": ["f"],
                "password": {"secretKeyRef": {"name": "a", "key": "b"}}, "reachableBy": "10.0.0.2",
                "numAllowedLocalASNumbers": 1, "maxRestartTime": "10s", "keepaliveTime": "5s",
            }),
        ),
        calico("BGPFilter", json!({"exportV4": [filter], "importV6": [{"action": "Reject"}]})),
        calico("FelixConfiguration", json!({"vxlanPort": 4790, "bpfEnabled": true})),
        calico("ClusterInformation", json!({"clusterGUID": "a", "datastoreReady": true})),
        calico(
            "Node",
            json!({
                "bgp": {"ipv4Address": "10.0.0.1/24", "ipv4IPIPTunnelAddr": "10.1.0.1", "asNumber": 1},
                "ipv4VXLANTunnelAddr": "10.1.0.2", "vxlanTunnelMACAddr": "66:00:00:00:00:01",
                "orchRefs": [{"nodeName": "n", "orchestrator": "k8s"}],
                "addresses": [{"address": "10.0.0.1", "type": "InternalIP"}],
            }),
        ),
        calico(
            "IPAMBlock",
            json!({
                "cidr": "10.0.0.0/30", "affinity": "host:n", "allocations": [0, null, null, null],
                "unallocated": [1, 2, 3], "attributes": [{"handle_id": "h", "secondary": {"a": "b"}}],
                "sequenceNumber": 18_000_000_000_000_000_000_u64, "deleted": false,
                "sequenceNumberForAllocation": {"0": 5}, "strictAffinity": false,
            }),
        ),
        calico(
            "BlockAffinity",
            json!({
                "state": "confirmed", "node": "n", "cidr": "10.0.0.0/26", "deleted": "false",
            }),
        ),
        calico("IPAMHandle", json!({"handleID": "h", "block": {"10.0.0.0/30": 1}})),
        calico(
            "CalicoNodeStatus",
            json!({
                "node": "n", "classes": ["BGP"], "updatePeriodSeconds": 10,
            }),
        ),
        calico(
            "KubeControllersConfiguration",
            json!({
                "controllers": {"node": {"reconcilerPeriod": "5m", "hostEndpoint": {
                    "autoCreate": "Enabled", "templates": [{"generateName": "t",
                        "interfaceCIDRs": ["10.0.0.0/8"], "labels": {"a": "b"}}],
                }}, "loadBalancer": {"assignIPs": "AllServices"}},
            }),
        ),
    ]
}

#[test]
fn what_is_read_is_written_back_unchanged() {
    for value in samples() {
        let resource = read(&value);
        assert_eq!(resource.to_value(), value);
        assert_eq!(read(&resource.to_value()), resource);
    }
}

#[test]
fn a_stored_object_of_the_crd_group_is_the_same_object() {
    for mut value in samples() {
        let resource = read(&value);
        value["apiVersion"] = "crd.projectcalico.org/v1".into();
        assert_eq!(read(&value), resource);
    }
}

#[test]
fn a_status_is_kept() {
    let mut value = calico("Tier", json!({"order": 5.0, "defaultAction": "Pass"}));
    value["status"] = json!({"conditions": [{"type": "Ready"}]});
    assert_eq!(read(&value).to_value(), value);
}
