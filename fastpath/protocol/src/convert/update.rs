//! Changes of the state.

use std::sync::Arc;

use margay_model::{AddressSet, Member, Update};

use super::dns::patterns;
use crate::bytes::{each, messages, needed};
use crate::error::{At, FieldError};
use crate::proto;
use crate::proto::update::Change;

impl From<&Update> for proto::Update {
    fn from(update: &Update) -> Self {
        Self { change: Some(update.into()) }
    }
}

impl From<&Update> for Change {
    fn from(update: &Update) -> Self {
        match update {
            Update::Node(node) => Self::Node(node.as_ref().into()),
            Update::Remote(remote) => Self::Remote(remote.as_ref().into()),
            Update::RemoteGone(name) => Self::RemoteGone(name.to_string()),
            Update::Pool(pool) => Self::Pool(pool.into()),
            Update::PoolGone(cidr) => Self::PoolGone(cidr.into()),
            Update::Set(id, set) => Self::Set(proto::Set {
                id: id.to_string(),
                members: messages(&set.members),
                domains: set.domains.iter().map(ToString::to_string).collect(),
            }),
            Update::SetMembers { id, add, remove } => Self::SetMembers(proto::SetMembers {
                id: id.to_string(),
                add: messages(add),
                remove: messages(remove),
            }),
            Update::SetGone(id) => Self::SetGone(id.to_string()),
            Update::Policy(policy) => Self::Policy(policy.as_ref().into()),
            Update::PolicyGone(key) => Self::PolicyGone(key.to_string()),
            Update::Endpoint(endpoint) => Self::Endpoint(endpoint.as_ref().into()),
            Update::EndpointGone(key) => Self::EndpointGone(key.to_string()),
            Update::Host(host) => Self::Host(host.as_ref().into()),
            Update::HostGone(key) => Self::HostGone(key.to_string()),
            Update::Route(route) => Self::Route(route.into()),
            Update::RouteGone(dst) => Self::RouteGone(dst.into()),
            Update::Service(service) => Self::Service(service.as_ref().into()),
            Update::ServiceGone(key) => Self::ServiceGone(key.to_string()),
        }
    }
}

impl TryFrom<proto::Update> for Update {
    type Error = FieldError;

    fn try_from(update: proto::Update) -> Result<Self, FieldError> {
        Ok(match needed(update.change, "change")? {
            Change::Node(node) => Self::Node(shared(node).at("node")?),
            Change::Remote(remote) => Self::Remote(shared(remote).at("remote")?),
            Change::RemoteGone(name) => Self::RemoteGone(name.into()),
            Change::Pool(pool) => Self::Pool(pool.try_into().at("pool")?),
            Change::PoolGone(cidr) => Self::PoolGone(cidr.try_into().at("pool_gone")?),
            Change::Set(set) => {
                let members: Vec<Member> = each(set.members, "members").at("set")?;
                let domains = patterns(&set.domains).at("set")?;
                let set_of = AddressSet { domains, ..AddressSet::from(members) };
                Self::Set(set.id.into(), Arc::new(set_of))
            }
            Change::SetMembers(change) => Self::SetMembers {
                id: change.id.into(),
                add: each(change.add, "add").at("set_members")?,
                remove: each(change.remove, "remove").at("set_members")?,
            },
            Change::SetGone(id) => Self::SetGone(id.into()),
            Change::Policy(policy) => Self::Policy(shared(policy).at("policy")?),
            Change::PolicyGone(key) => Self::PolicyGone(key.into()),
            Change::Endpoint(endpoint) => Self::Endpoint(shared(endpoint).at("endpoint")?),
            Change::EndpointGone(key) => Self::EndpointGone(key.into()),
            Change::Host(host) => Self::Host(shared(host).at("host")?),
            Change::HostGone(key) => Self::HostGone(key.into()),
            Change::Route(route) => Self::Route(route.try_into().at("route")?),
            Change::RouteGone(dst) => Self::RouteGone(dst.try_into().at("route_gone")?),
            Change::Service(service) => Self::Service(shared(service).at("service")?),
            Change::ServiceGone(key) => Self::ServiceGone(key.into()),
        })
    }
}

fn shared<P, M: TryFrom<P>>(message: P) -> Result<Arc<M>, M::Error> {
    message.try_into().map(Arc::new)
}
