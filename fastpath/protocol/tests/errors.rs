//! A bad value is refused with the path of its field.

use margay_model::{Update, flow::FlowView};
use margay_protocol::proto::{self, update::Change};
use margay_protocol::{AgentMessage, FlowFilter};

fn refusal(change: Change) -> String {
    let message = proto::from_agent::Message::Update(proto::Update { change: Some(change) });
    let message = proto::FromAgent { message: Some(message) };
    AgentMessage::try_from(message).unwrap_err().to_string()
}

fn net(address: &[u8], length: u32) -> proto::Net {
    proto::Net { address: address.to_vec(), length }
}

#[test]
fn a_prefix_longer_than_its_family_allows_is_named() {
    assert_eq!(
        refusal(Change::PoolGone(net(&[10, 0, 0, 0], 33))),
        "update.pool_gone.length: 33 is more than 32"
    );
    assert_eq!(
        refusal(Change::PoolGone(net(&[0; 16], u32::MAX))),
        "update.pool_gone.length: 4294967295 is more than 128"
    );
}

#[test]
fn an_address_of_no_family_is_named_with_its_place_in_every_list() {
    let src =
        proto::EntityMatch { nets: vec![net(&[0; 4], 0), net(&[0; 5], 0)], ..Default::default() };
    let bad =
        proto::Rule { action: proto::Action::Allow.into(), src: Some(src), ..Default::default() };
    let good = proto::Rule { action: proto::Action::Allow.into(), ..Default::default() };
    let policy = proto::Policy { key: "p".into(), ingress: vec![good, bad], egress: vec![] };
    assert_eq!(
        refusal(Change::Policy(policy)),
        "update.policy.ingress[1].src.nets[1].address: an address of 5 bytes does not belong here"
    );
}

#[test]
fn an_unspecified_or_unknown_enumeration_value_is_named() {
    for value in [0, 99, -1] {
        let route = proto::Route {
            dst: Some(net(&[10, 0, 0, 0], 8)),
            target: Some(proto::route::Target::Node(proto::NodeTarget {
                node: "a".into(),
                encap: value,
            })),
        };
        assert_eq!(
            refusal(Change::Route(route)),
            format!("update.route.node.encap: {value} is no value of this enumeration")
        );
    }
}

#[test]
fn a_missing_message_is_named() {
    assert_eq!(refusal(Change::Pool(proto::Pool::default())), "update.pool.cidr: is missing");
    let node = proto::LocalNode { vtep_mac: vec![0; 6], ..Default::default() };
    assert_eq!(refusal(Change::Node(node)), "update.node.settings: is missing");
    let empty = proto::FromAgent { message: None };
    assert_eq!(AgentMessage::try_from(empty).unwrap_err().to_string(), "message: is missing");
    let update = proto::Update { change: None };
    assert_eq!(Update::try_from(update).unwrap_err().to_string(), "change: is missing");
}

#[test]
fn numbers_beyond_their_field_are_named() {
    let backend = proto::Backend { address: vec![10, 0, 0, 1], port: 65_536 };
    let service = proto::Service {
        internal: proto::TrafficPolicy::Cluster.into(),
        external: proto::TrafficPolicy::Local.into(),
        cluster_backends: vec![backend],
        ..Default::default()
    };
    assert_eq!(
        refusal(Change::Service(service)),
        "update.service.cluster_backends[0].port: 65536 is more than 65535"
    );
    let rule = proto::Rule {
        action: proto::Action::Deny.into(),
        protocol: Some(256),
        ..Default::default()
    };
    let policy = proto::Policy { key: "p".into(), ingress: vec![], egress: vec![rule] };
    assert_eq!(
        refusal(Change::Policy(policy)),
        "update.policy.egress[0].protocol: 256 is more than 255"
    );
}

#[test]
fn a_range_that_runs_backwards_is_named() {
    let ports = vec![proto::PortRange { first: 2, last: 1 }];
    let dst = proto::EntityMatch { ports, ..Default::default() };
    let rule =
        proto::Rule { action: proto::Action::Deny.into(), dst: Some(dst), ..Default::default() };
    let policy = proto::Policy { key: "p".into(), ingress: vec![rule], egress: vec![] };
    assert_eq!(
        refusal(Change::Policy(policy)),
        "update.policy.ingress[0].dst.ports[0]: the last port 1 is below the first 2"
    );
}

#[test]
fn an_ethernet_address_of_another_length_is_named() {
    let endpoint = proto::Endpoint { mac: vec![1, 2, 3], ..Default::default() };
    assert_eq!(
        refusal(Change::Endpoint(endpoint)),
        "update.endpoint.mac: an Ethernet address has 6 bytes, not 3"
    );
}

#[test]
fn a_filter_matches_either_direction_of_a_connection() {
    use margay_model::flow::{FlowCount, FlowTuple};
    let tuple = |src: &str, dst: &str, src_port, dst_port| FlowTuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: 6,
        src_port,
        dst_port,
    };
    let flow = FlowView {
        shortcut: true,
        orig: tuple("10.0.0.1", "10.96.0.1", 1000, 80),
        reply: tuple("10.0.1.1", "10.0.0.1", 8080, 1000),
        orig_count: FlowCount::default(),
        reply_count: FlowCount::default(),
        state: "ESTABLISHED",
        idle_ms: 0,
        denied: None,
        allowed: true,
        egress: None,
        ingress: None,
        passed: [None, None],
    };
    let any = FlowFilter::default();
    for good in [
        any.clone(),
        FlowFilter { net: Some("10.0.1.0/24".parse().unwrap()), ..any.clone() },
        FlowFilter { net: Some("10.96.0.1/32".parse().unwrap()), ..any.clone() },
        FlowFilter { port: Some(8080), protocol: Some(6), ..any.clone() },
        FlowFilter { allowed: Some(true), ..any.clone() },
    ] {
        assert!(good.matches(&flow), "{good:?}");
        assert_eq!(FlowFilter::try_from(proto::FlowFilter::from(&good)), Ok(good));
    }
    for bad in [
        FlowFilter { net: Some("10.0.2.0/24".parse().unwrap()), ..any.clone() },
        FlowFilter { port: Some(81), ..any.clone() },
        FlowFilter { protocol: Some(17), ..any.clone() },
        FlowFilter { allowed: Some(false), ..any },
    ] {
        assert!(!bad.matches(&flow), "{bad:?}");
    }
}
