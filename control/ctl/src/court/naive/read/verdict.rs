//! Tiers in order, policies in order, rules in order, then the profile.

use serde_json::{Value, json};

use super::world::{Item, World, name};
use super::{Action, Packet, Policy, Rule, calico, cluster, kubernetes, text};

/// Everything that documents say.
pub(crate) struct Evaluator {
    world: World,
    /// In order.
    tiers: Vec<Tier>,
}

struct Tier {
    name: String,
    order: f64,
    exists: bool,
    denies: bool,
    /// In order.
    policies: Vec<Policy>,
}

// === impl Evaluator ===

impl Evaluator {
    pub(crate) fn read(documents: &[Value]) -> Self {
        let mut tiers: Vec<Tier> =
            documents.iter().filter(|d| d["kind"] == "Tier").map(tier).collect();
        for (name, order, denies) in
            [("kube-admin", 1e3, false), ("default", 1e6, true), ("kube-baseline", 1e7, false)]
        {
            if tiers.iter().all(|tier| tier.name != name) {
                let (name, policies) = (name.to_owned(), Vec::new());
                tiers.push(Tier { name, order, exists: true, denies, policies });
            }
        }
        for policy in documents.iter().filter_map(policy) {
            match tiers.iter_mut().find(|tier| tier.name == policy.tier) {
                Some(tier) => tier.policies.push(policy),
                None => tiers.push(Tier {
                    name: policy.tier.clone(),
                    order: f64::INFINITY,
                    exists: false,
                    denies: true,
                    policies: vec![policy],
                }),
            }
        }
        tiers.sort_by(|a, b| {
            let by_order = b.exists.cmp(&a.exists).then(a.order.total_cmp(&b.order));
            by_order.then_with(|| a.name.cmp(&b.name))
        });
        for tier in &mut tiers {
            tier.policies
                .sort_by(|a, b| a.order.total_cmp(&b.order).then_with(|| a.tie.cmp(&b.tie)));
        }
        Self { world: World::read(documents), tiers }
    }

    /// What the simulation should answer.
    pub(crate) fn answer(&self, packet: &Packet) -> Value {
        let none = json!({"verdict": "none", "tier": null, "policy": null, "rule": null});
        let src = self.world.pod_at(packet.src);
        let dst = self.world.pod_at(packet.dst);
        // What a pod sends to itself, and a node to its own pods, is never policed.
        let to_itself = src.is_some() && packet.src == packet.dst;
        let from_host = self
            .world
            .node_at(packet.src)
            .is_some_and(|node| src.is_none() && dst.is_some_and(|(_, pod)| pod.node == node.name));
        let side = |end: Option<(&Item, _)>, ingress| match end {
            Some((item, _)) if !to_itself && !from_host => self.side(item, ingress, packet),
            _ => none.clone(),
        };
        let (egress, ingress) = (side(src, false), side(dst, true));
        let denied = egress["verdict"] == "deny" || ingress["verdict"] == "deny";
        json!({"verdict": if denied { "deny" } else { "allow" },
            "egress": egress, "ingress": ingress, "backend": null})
    }

    fn side(&self, pod: &Item, ingress: bool, packet: &Packet) -> Value {
        let word = |deny| if deny { "deny" } else { "allow" };
        'tiers: for tier in &self.tiers {
            let mut applied = false;
            for policy in &tier.policies {
                let rules = if ingress { &policy.ingress } else { &policy.egress };
                let Some(rules) = rules.as_ref().filter(|_| (policy.subject)(pod)) else {
                    continue;
                };
                applied = true;
                match self.first(rules, packet) {
                    Some((_, Action::Pass)) => continue 'tiers,
                    Some((number, action)) => {
                        return json!({"verdict": word(action == Action::Deny),
                            "tier": tier.name, "policy": policy.key, "rule": number});
                    }
                    None => {}
                }
            }
            if applied && tier.denies {
                return json!({"verdict": "deny", "tier": tier.name, "policy": null, "rule": null});
            }
        }
        let profile = format!("Profile//kns.{}", pod.namespace);
        json!({"verdict": "allow", "tier": null, "policy": profile, "rule": 0})
    }

    /// The first rule that matches and does not only log.
    fn first(&self, rules: &[Rule], packet: &Packet) -> Option<(usize, Action)> {
        let numbered = rules.iter().enumerate();
        let mut deciding = numbered.filter(|(_, rule)| rule.action != Action::Log);
        let (number, rule) = deciding.find(|(_, rule)| (rule.matches)(&self.world, packet))?;
        Some((number, rule.action))
    }
}

fn tier(document: &Value) -> Tier {
    Tier {
        name: name(document),
        order: document["spec"]["order"].as_f64().unwrap_or(f64::INFINITY),
        exists: true,
        denies: text(&document["spec"]["defaultAction"]) != "Pass",
        policies: Vec::new(),
    }
}

/// A document's policy, if it is one that is in force at pods.
fn policy(document: &Value) -> Option<Policy> {
    match (text(&document["kind"]), text(&document["apiVersion"])) {
        ("NetworkPolicy", "networking.k8s.io/v1") => Some(kubernetes::policy(document)),
        ("ClusterNetworkPolicy", _) => Some(cluster::policy(document)),
        ("NetworkPolicy" | "GlobalNetworkPolicy", _) => calico::policy(document),
        _ => None,
    }
}
