//! Arbitrary values of the model, each within what the model allows.

mod policy;
mod topology;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use margay_model::{Mac, PortRange, Update};
use margay_protocol::AgentMessage;
use margay_protocol::message::AgentHello;
use proptest::collection::vec;
use proptest::prelude::*;

/// Any change.
pub(crate) fn update() -> impl Strategy<Value = Update> {
    prop_oneof![
        topology::local_node().prop_map(|n| Update::Node(Arc::new(n))),
        topology::remote_node().prop_map(|n| Update::Remote(Arc::new(n))),
        name().prop_map(Update::RemoteGone),
        topology::pool().prop_map(Update::Pool),
        net().prop_map(Update::PoolGone),
        (name(), policy::set()).prop_map(|(id, set)| Update::Set(id, Arc::new(set))),
        (name(), vec(policy::member(), 0..4), vec(policy::member(), 0..4))
            .prop_map(|(id, add, remove)| Update::SetMembers { id, add, remove }),
        name().prop_map(Update::SetGone),
        policy::policy().prop_map(|p| Update::Policy(Arc::new(p))),
        name().prop_map(Update::PolicyGone),
        policy::endpoint().prop_map(|e| Update::Endpoint(Arc::new(e))),
        name().prop_map(Update::EndpointGone),
        policy::host().prop_map(|h| Update::Host(Arc::new(h))),
        name().prop_map(Update::HostGone),
        topology::route().prop_map(Update::Route),
        net().prop_map(Update::RouteGone),
        topology::service().prop_map(|s| Update::Service(Arc::new(s))),
        name().prop_map(Update::ServiceGone),
    ]
}

/// Any message of an agent.
pub(crate) fn agent_message() -> impl Strategy<Value = AgentMessage> {
    prop_oneof![
        (any::<u32>(), name(), ".{0,9}").prop_map(|(version, node, release)| {
            AgentMessage::Hello(AgentHello { version, node, release })
        }),
        Just(AgentMessage::Begin),
        update().prop_map(AgentMessage::Update),
        any::<u64>().prop_map(|sequence| AgentMessage::InSync { sequence }),
        any::<u64>().prop_map(|sequence| AgentMessage::Commit { sequence }),
    ]
}

fn name() -> impl Strategy<Value = Arc<str>> {
    "[a-z/.ü]{0,12}".prop_map(Into::into)
}

fn names() -> impl Strategy<Value = Vec<Arc<str>>> {
    vec(name(), 0..3)
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac)
}

/// Any network of either family, also one with host bits.
fn net() -> impl Strategy<Value = IpNet> {
    any::<IpAddr>().prop_flat_map(|address| {
        let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
        (0..=longest).prop_map(move |length| IpNet::new(address, length).unwrap())
    })
}

fn port_range() -> impl Strategy<Value = PortRange> {
    any::<(u16, u16)>().prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) })
}
