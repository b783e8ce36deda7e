//! The rules by which the node reaches its own node ports through the dataplane.
//!
//! A packet of the node to one of its own addresses would be delivered by the `local` table before
//! any route is asked. So the rule for that table moves from priority 0 to [`LOCAL`], and before it
//! stand rules that match only what leaves the node itself (`iif lo`) for a node port. There is no
//! moment without a rule for the local table: the new one is added before the old one goes, and the
//! other way round at the end.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::route::{RouteHeader, RouteProtocol};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol};
use rtnetlink::{Handle, IpVersion};

use super::hostport::{Change, NodePortAccess};
use super::{Result, errno, own_protocol, refused};

/// Priority of the node-port rules.
pub(super) const NODE_PORT: u32 = 10;
/// Priority of the rule for the local table while Margay runs.
pub(super) const LOCAL: u32 = 20;
/// The table with the routes to the trunk for the node's own addresses.
pub(super) const TABLE: u32 = 0x4d67;
const LOCAL_TABLE: u32 = 255;
const LOOPBACK: &str = "lo";
const EXISTS: i32 = 17;
const NO_SUCH: i32 = 2;

const FAMILIES: [(IpVersion, AddressFamily); 2] =
    [(IpVersion::V4, AddressFamily::Inet), (IpVersion::V6, AddressFamily::Inet6)];

/// What decides whether a rule is the one that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodePortRule {
    addr: IpAddr,
    protocol: u8,
    ports: (u16, u16),
}

/// Makes exactly the wanted rules stand; with none wanted, the `local` rule goes back to its place.
pub(super) async fn ensure(
    handle: &Handle,
    access: Option<&NodePortAccess>,
    changes: &mut Vec<Change>,
) -> Result<()> {
    for (version, family) in FAMILIES {
        let found = handle.rule().get(version).execute();
        let Ok(found) = found.try_collect::<Vec<_>>().await else {
            // A kernel without IPv6 has no rules of it.
            continue;
        };
        let wanted = wanted(access, family);
        if wanted.is_empty() {
            remove_rules(handle, &found, &wanted, changes).await?;
            move_local(handle, family, &found, 0, LOCAL, changes).await?;
        } else {
            move_local(handle, family, &found, LOCAL, 0, changes).await?;
            remove_rules(handle, &found, &wanted, changes).await?;
            add_rules(handle, &found, &wanted, changes).await?;
        }
    }
    Ok(())
}

fn wanted(access: Option<&NodePortAccess>, family: AddressFamily) -> BTreeSet<NodePortRule> {
    let Some(access) = access else { return BTreeSet::new() };
    let of_family = |addr: &&IpAddr| addr.is_ipv4() == (family == AddressFamily::Inet);
    let rules = access.addresses.iter().filter(of_family).flat_map(|addr| {
        let ranges = access.ports.iter();
        let ranges = ranges.flat_map(|(protocol, ports)| ports.iter().map(|p| (*protocol, *p)));
        ranges.map(|(protocol, ports)| NodePortRule { addr: *addr, protocol, ports })
    });
    rules.collect()
}

/// Moves the rule for the local table from one priority to another.
async fn move_local(
    handle: &Handle,
    family: AddressFamily,
    found: &[RuleMessage],
    to: u32,
    from: u32,
    changes: &mut Vec<Change>,
) -> Result<()> {
    let at = |priority: u32| found.iter().filter(move |rule| is_local_rule(rule, priority));
    if at(to).next().is_none() {
        // Nothing to move: this node keeps its rules elsewhere, or has never been touched.
        if at(from).next().is_none() {
            return Ok(());
        }
        add(handle, local_rule(family, to)).await?;
        changes.push(Change::LocalRuleMoved { priority: to });
    }
    for rule in at(from) {
        delete(handle, rule.clone()).await?;
    }
    Ok(())
}

async fn remove_rules(
    handle: &Handle,
    found: &[RuleMessage],
    wanted: &BTreeSet<NodePortRule>,
    changes: &mut Vec<Change>,
) -> Result<()> {
    for rule in found.iter().filter(|rule| is_node_port_rule(rule)) {
        if !node_port_rule(rule).is_some_and(|rule| wanted.contains(&rule)) {
            delete(handle, rule.clone()).await?;
            changes.push(Change::NodePortRuleRemoved);
        }
    }
    Ok(())
}

async fn add_rules(
    handle: &Handle,
    found: &[RuleMessage],
    wanted: &BTreeSet<NodePortRule>,
    changes: &mut Vec<Change>,
) -> Result<()> {
    let ours = found.iter().filter(|rule| is_node_port_rule(rule));
    let there: BTreeSet<_> = ours.filter_map(node_port_rule).collect();
    for rule in wanted.difference(&there) {
        add(handle, message(rule)).await?;
        changes.push(Change::NodePortRuleAdded(rule.addr));
    }
    Ok(())
}

fn is_local_rule(rule: &RuleMessage, priority: u32) -> bool {
    let (mut rule_priority, mut table) = (0, u32::from(rule.header.table));
    let mut conditions = rule.header.src_len != 0 || rule.header.dst_len != 0;
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(value) => rule_priority = *value,
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::Protocol(_)
            | RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            _ => conditions = true,
        }
    }
    !conditions && rule_priority == priority && table == LOCAL_TABLE
}

/// Whether a rule is one that [`ensure`] makes.
pub(super) fn is_node_port_rule(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Protocol(own_protocol()))
        && rule.attributes.contains(&RuleAttribute::Priority(NODE_PORT))
}

fn node_port_rule(rule: &RuleMessage) -> Option<NodePortRule> {
    let (mut addr, mut protocol, mut ports) = (None, None, None);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Destination(value) => addr = Some(*value),
            RuleAttribute::IpProtocol(value) => protocol = Some(u8::from(*value)),
            RuleAttribute::DestinationPortRange(range) => ports = Some((range.start, range.end)),
            _ => {}
        }
    }
    Some(NodePortRule { addr: addr?, protocol: protocol?, ports: ports? })
}

fn local_rule(family: AddressFamily, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.header.table = LOCAL_TABLE as u8;
    message.attributes.push(RuleAttribute::Priority(priority));
    // As the kernel's own, so that the end state is what was found.
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Kernel));
    message
}

fn message(rule: &NodePortRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    let v4 = rule.addr.is_ipv4();
    message.header.family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.dst_len = if v4 { 32 } else { 128 };
    message.header.action = RuleAction::ToTable;
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    let ports = RulePortRange { start: rule.ports.0, end: rule.ports.1 };
    message.attributes.extend([
        RuleAttribute::Table(TABLE),
        RuleAttribute::Priority(NODE_PORT),
        RuleAttribute::Protocol(own_protocol()),
        RuleAttribute::Iifname(LOOPBACK.to_owned()),
        RuleAttribute::Destination(rule.addr),
        RuleAttribute::IpProtocol(IpProtocol::from(rule.protocol)),
        RuleAttribute::DestinationPortRange(ports),
    ]);
    message
}

async fn add(handle: &Handle, message: RuleMessage) -> Result<()> {
    let mut request = handle.rule().add();
    *request.message_mut() = message;
    match request.execute().await {
        Err(error) if errno(&error) == Some(EXISTS) => Ok(()),
        done => done.map_err(refused("add", "a rule")),
    }
}

async fn delete(handle: &Handle, message: RuleMessage) -> Result<()> {
    match handle.rule().del(message).execute().await {
        Err(error) if errno(&error) == Some(NO_SUCH) => Ok(()),
        done => done.map_err(refused("remove", "a rule")),
    }
}
