//! Everything a node's dataplane was told, and the deltas between two such states.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::endpoint::{Endpoint, EndpointKey};
use crate::host::{HostEndpoint, HostKey};
use crate::node::{LocalNode, Pool, RemoteNode};
use crate::policy::{Policy, PolicyKey};
use crate::route::{Route, RouteTarget};
use crate::service::{Service, ServiceKey};
use crate::set::{AddressSet, Member, SetId};

/// All that is in force. Values are behind `Arc`, so a copy is cheap and a delta keeps the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// This node.
    pub node: Arc<LocalNode>,
    /// Other nodes by name.
    pub remotes: BTreeMap<Arc<str>, Arc<RemoteNode>>,
    /// Pools by network.
    pub pools: BTreeMap<IpNet, Pool>,
    /// Address sets.
    pub sets: BTreeMap<SetId, Arc<AddressSet>>,
    /// Policies and profiles.
    pub policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// Endpoints of this node.
    pub endpoints: BTreeMap<EndpointKey, Arc<Endpoint>>,
    /// Host endpoints of this node.
    pub hosts: BTreeMap<HostKey, Arc<HostEndpoint>>,
    /// Routes by destination.
    pub routes: BTreeMap<IpNet, RouteTarget>,
    /// Services.
    pub services: BTreeMap<ServiceKey, Arc<Service>>,
}

/// One change of a [`State`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Replaces the node.
    Node(Arc<LocalNode>),
    /// Adds or replaces a peer.
    Remote(Arc<RemoteNode>),
    /// Removes a peer.
    RemoteGone(Arc<str>),
    /// Adds or replaces a pool.
    Pool(Pool),
    /// Removes a pool.
    PoolGone(IpNet),
    /// Adds or replaces a set.
    Set(SetId, Arc<AddressSet>),
    /// Changes members of a set that is there.
    SetMembers {
        /// The set.
        id: SetId,
        /// Members that join.
        add: Vec<Member>,
        /// Members that leave.
        remove: Vec<Member>,
    },
    /// Removes a set.
    SetGone(SetId),
    /// Adds or replaces a policy or profile.
    Policy(Arc<Policy>),
    /// Removes a policy or profile.
    PolicyGone(PolicyKey),
    /// Adds or replaces an endpoint.
    Endpoint(Arc<Endpoint>),
    /// Removes an endpoint.
    EndpointGone(EndpointKey),
    /// Adds or replaces a host endpoint.
    Host(Arc<HostEndpoint>),
    /// Removes a host endpoint.
    HostGone(HostKey),
    /// Adds or replaces a route.
    Route(Route),
    /// Removes a route.
    RouteGone(IpNet),
    /// Adds or replaces a service.
    Service(Arc<Service>),
    /// Removes a service.
    ServiceGone(ServiceKey),
}

// === impl State ===

impl State {
    /// Puts one change in force. Removing what is not there and changing members of a set that is
    /// not there (it is then made) are no errors: deltas are idempotent.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Node(node) => self.node = node,
            Update::Remote(remote) => {
                self.remotes.insert(remote.name.clone(), remote);
            }
            Update::RemoteGone(name) => {
                self.remotes.remove(&name);
            }
            Update::Pool(pool) => {
                self.pools.insert(pool.cidr, pool);
            }
            Update::PoolGone(cidr) => {
                self.pools.remove(&cidr);
            }
            Update::Set(id, set) => {
                self.sets.insert(id, set);
            }
            Update::SetMembers { id, add, remove } => {
                let set = Arc::make_mut(self.sets.entry(id).or_default());
                for member in &remove {
                    set.members.remove(member);
                }
                set.members.extend(add);
            }
            Update::SetGone(id) => {
                self.sets.remove(&id);
            }
            Update::Policy(policy) => {
                self.policies.insert(policy.key.clone(), policy);
            }
            Update::PolicyGone(key) => {
                self.policies.remove(&key);
            }
            Update::Endpoint(endpoint) => {
                self.endpoints.insert(endpoint.key.clone(), endpoint);
            }
            Update::EndpointGone(key) => {
                self.endpoints.remove(&key);
            }
            Update::Host(host) => {
                self.hosts.insert(host.key.clone(), host);
            }
            Update::HostGone(key) => {
                self.hosts.remove(&key);
            }
            Update::Route(route) => {
                self.routes.insert(route.dst, route.target);
            }
            Update::RouteGone(dst) => {
                self.routes.remove(&dst);
            }
            Update::Service(service) => {
                self.services.insert(service.key.clone(), service);
            }
            Update::ServiceGone(key) => {
                self.services.remove(&key);
            }
        }
    }

    /// The changes that lead from `self` to `new`, in an order in which nothing refers to what is
    /// not there yet: node, peers, pools, sets, policies, endpoints, host endpoints, routes, services come in this
    /// order, removals leave in the reverse.
    pub fn diff(&self, new: &Self) -> Vec<Update> {
        let mut out = Vec::new();
        if self.node != new.node {
            out.push(Update::Node(new.node.clone()));
        }
        changed(&self.remotes, &new.remotes, |_, v| out.push(Update::Remote(v.clone())));
        changed(&self.pools, &new.pools, |_, v| out.push(Update::Pool(*v)));
        changed(&self.sets, &new.sets, |k, v| out.push(set_change(k, self.sets.get(k), v)));
        changed(&self.policies, &new.policies, |_, v| out.push(Update::Policy(v.clone())));
        changed(&self.endpoints, &new.endpoints, |_, v| out.push(Update::Endpoint(v.clone())));
        changed(&self.hosts, &new.hosts, |_, v| out.push(Update::Host(v.clone())));
        changed(&self.routes, &new.routes, |k, v| {
            out.push(Update::Route(Route { dst: *k, target: v.clone() }));
        });
        changed(&self.services, &new.services, |_, v| out.push(Update::Service(v.clone())));

        gone(&self.services, &new.services, |k| out.push(Update::ServiceGone(k.clone())));
        gone(&self.routes, &new.routes, |k| out.push(Update::RouteGone(*k)));
        gone(&self.hosts, &new.hosts, |k| out.push(Update::HostGone(k.clone())));
        gone(&self.endpoints, &new.endpoints, |k| out.push(Update::EndpointGone(k.clone())));
        gone(&self.policies, &new.policies, |k| out.push(Update::PolicyGone(k.clone())));
        gone(&self.sets, &new.sets, |k| out.push(Update::SetGone(k.clone())));
        gone(&self.pools, &new.pools, |k| out.push(Update::PoolGone(*k)));
        gone(&self.remotes, &new.remotes, |k| out.push(Update::RemoteGone(k.clone())));
        out
    }
}

fn changed<K: Ord, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    mut each: impl FnMut(&K, &V),
) {
    for (key, value) in new {
        if old.get(key) != Some(value) {
            each(key, value);
        }
    }
}

fn gone<K: Ord, V>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>, mut each: impl FnMut(&K)) {
    for key in old.keys() {
        if !new.contains_key(key) {
            each(key);
        }
    }
}

/// A whole set, or only its changed members where that is shorter.
fn set_change(id: &SetId, old: Option<&Arc<AddressSet>>, new: &Arc<AddressSet>) -> Update {
    let old = match old {
        Some(old) if old.domains == new.domains => old,
        _ => return Update::Set(id.clone(), new.clone()),
    };
    let add: Vec<_> = new.members.difference(&old.members).copied().collect();
    let remove: Vec<_> = old.members.difference(&new.members).copied().collect();
    if add.len() + remove.len() < new.members.len() {
        Update::SetMembers { id: id.clone(), add, remove }
    } else {
        Update::Set(id.clone(), new.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn states() -> Vec<State> {
        let mut states = vec![State::default()];
        let mut state = State::default();
        let ten: Vec<_> = (0..10).map(|i| Member::Net(net(&format!("10.0.0.{i}/32")))).collect();
        state.apply(Update::Set("s".into(), Arc::new(ten.into())));
        state.apply(Update::Pool(Pool {
            cidr: net("10.0.0.0/16"),
            nat_outgoing: true,
            encap: Default::default(),
            encap_always: false,
        }));
        states.push(state.clone());
        state.apply(Update::SetMembers {
            id: "s".into(),
            add: vec![Member::Net(net("10.1.0.0/16"))],
            remove: vec![Member::Net(net("10.0.0.3/32"))],
        });
        state.apply(Update::Route(Route {
            dst: net("10.0.1.0/26"),
            target: RouteTarget::LocalBlock,
        }));
        states.push(state);
        states
    }

    #[test]
    fn applying_a_diff_leads_to_the_new_state() {
        for old in states() {
            for new in states() {
                let mut state = old.clone();
                for update in old.diff(&new) {
                    state.apply(update);
                }
                assert_eq!(state, new);
                assert!(state.diff(&new).is_empty());
            }
        }
    }

    #[test]
    fn a_small_change_of_a_set_is_sent_as_members_and_its_names_as_a_whole() {
        let states = states();
        let diff = states[1].diff(&states[2]);
        assert!(
            matches!(&diff[0], Update::SetMembers { add, remove, .. } if add.len() == 1 && remove.len() == 1)
        );
        let mut named = states[2].clone();
        let mut set = AddressSet::clone(&named.sets["s"]);
        set.domains.insert("*.example.com".parse().unwrap());
        named.apply(Update::Set("s".into(), Arc::new(set)));
        assert!(
            matches!(&states[2].diff(&named)[..], [Update::Set(_, set)] if set.members.len() == 10)
        );
    }
}
