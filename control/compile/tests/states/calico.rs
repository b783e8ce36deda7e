//! Calico's policies, tiers and staged policies.

use serde_json::json;

use super::common::calico;
use super::{DB, Named, db, named, other, web};

pub(super) fn states() -> Vec<Named> {
    vec![
        named(
            "tiers in order, a missing one last",
            vec![
                web(),
                calico("Tier", "", "early", json!({"order": 1, "defaultAction": "Pass"})),
                calico(
                    "NetworkPolicy",
                    "default",
                    "b",
                    json!({
                        "tier": "early", "order": 2, "types": ["Ingress", "Egress"],
                        "ingress": [{"action": "Pass"}], "egress": [{"action": "Allow"}],
                    }),
                ),
                calico(
                    "GlobalNetworkPolicy",
                    "",
                    "a",
                    json!({
                        "tier": "early", "order": 2, "selector": "app == 'web'",
                    }),
                ),
                calico(
                    "GlobalNetworkPolicy",
                    "",
                    "first",
                    json!({
                        "tier": "early", "order": 1, "namespaceSelector": "all()",
                        "egress": [{"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8}}],
                    }),
                ),
                calico("GlobalNetworkPolicy", "", "lost", json!({"tier": "nowhere"})),
                calico("NetworkPolicy", "default", "last", json!({"selector": "has(app)"})),
                calico("StagedNetworkPolicy", "default", "staged", json!({"selector": "all()"})),
                calico(
                    "GlobalNetworkPolicy",
                    "",
                    "untracked",
                    json!({
                        "doNotTrack": true, "applyOnForward": true,
                    }),
                ),
            ],
            &[
                "endpoint default/web/eth0 10.0.0.1 | early in[GlobalNetworkPolicy//a NetworkPolicy/default/b] out[GlobalNetworkPolicy//first NetworkPolicy/default/b] | default in[NetworkPolicy/default/last] out[] | nowhere in[GlobalNetworkPolicy//lost] out[] | Profile//kns.default Profile//ksa.default.default",
                "  pending | early in[GlobalNetworkPolicy//a NetworkPolicy/default/b] out[GlobalNetworkPolicy//first NetworkPolicy/default/b] | default in[NetworkPolicy/default/last StagedNetworkPolicy/default/staged] out[] | nowhere in[GlobalNetworkPolicy//lost] out[]",
                "policy GlobalNetworkPolicy//a",
                "policy GlobalNetworkPolicy//first",
                "  out deny V4 proto 1 icmp 8/None",
                "policy GlobalNetworkPolicy//lost",
                "policy NetworkPolicy/default/b",
                "  in pass",
                "  out allow",
                "policy NetworkPolicy/default/last",
                "policy StagedNetworkPolicy/default/staged",
            ],
        ),
        named(
            "staged policies are seen in prospect only: made, replaced, removed, learned",
            vec![
                web(),
                db(),
                calico("NetworkPolicy", "default", "old", json!({"selector": "app == 'web'"})),
                calico("NetworkPolicy", "default", "gone", json!({"selector": "app == 'web'"})),
                calico(
                    "StagedNetworkPolicy",
                    "default",
                    "old",
                    json!({"selector": "app == 'db'", "ingress": [{"action": "Allow"}]}),
                ),
                calico("StagedNetworkPolicy", "default", "gone", json!({"stagedAction": "Delete"})),
                calico(
                    "StagedGlobalNetworkPolicy",
                    "",
                    "learned",
                    json!({"stagedAction": "Learn", "selector": "all()"}),
                ),
            ],
            &[
                "endpoint default/db/eth0 10.0.0.2 | Profile//kns.default Profile//ksa.default.default",
                "  pending | default in[StagedNetworkPolicy/default/old] out[]",
                "endpoint default/web/eth0 10.0.0.1 | default in[NetworkPolicy/default/gone NetworkPolicy/default/old] out[] | Profile//kns.default Profile//ksa.default.default",
                "  pending",
                "policy NetworkPolicy/default/gone",
                "policy NetworkPolicy/default/old",
                "policy StagedNetworkPolicy/default/old",
                "  in allow",
            ],
        ),
        named(
            "selectors of entities",
            vec![
                web(),
                db(),
                other(),
                calico(
                    "GlobalNetworkSet",
                    "",
                    "set",
                    json!({"nets": ["192.168.0.0/16", "fd00::/8"]}),
                ),
                calico(
                    "NetworkPolicy",
                    "default",
                    "p",
                    json!({
                        "selector": "app == 'web'",
                        "ingress": [
                            {"action": "Allow", "source": {"selector": "has(app)"}},
                            {"action": "Allow", "source": {"selector": "has(app)", "notSelector": "tier == 'back'"}},
                            {"action": "Allow", "source": {"notSelector": "tier == 'back'"}},
                            {"action": "Allow", "source": {"selector": "app == 'web'", "namespaceSelector": "all()"}},
                            {"action": "Allow", "source": {"namespaceSelector": "global()"}},
                            {"action": "Allow", "source": {"serviceAccounts": {"names": ["default"]}}},
                            {"action": "Allow", "protocol": "TCP", "http": {"methods": ["GET"]}},
                        ],
                    }),
                ),
                calico(
                    "GlobalNetworkPolicy",
                    "",
                    "g",
                    json!({
                        "selector": "app == 'web'",
                        "ingress": [{"action": "Deny", "source": {"notSelector": "has(app)"}}],
                    }),
                ),
            ],
            &[
                DB,
                "endpoint default/web/eth0 10.0.0.1 | default in[GlobalNetworkPolicy//g NetworkPolicy/default/p] out[] | Profile//kns.default Profile//ksa.default.default",
                "endpoint other/web/eth0 10.0.0.3 | default in[GlobalNetworkPolicy//g] out[] | Profile//kns.other Profile//ksa.other.default",
                "policy GlobalNetworkPolicy//g",
                "  in deny from not {10.0.0.1/32 10.0.0.2/32 10.0.0.3/32}",
                "policy NetworkPolicy/default/p",
                "  in allow from {10.0.0.1/32 10.0.0.2/32}",
                "  in allow from {10.0.0.1/32}",
                "  in allow from {10.0.0.1/32}",
                "  in allow from {10.0.0.1/32 10.0.0.3/32}",
                "  in allow from {192.168.0.0/16 fd00::/8}",
                "  in allow from {10.0.0.1/32 10.0.0.2/32}",
                "  in allow proto 6",
            ],
        ),
    ]
}
