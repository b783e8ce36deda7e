//! Host endpoints between the ends of a flow, and what is assumed where the datastore does not tell.

use std::net::IpAddr;

use margay_model::HostInterface;

use crate::court::Court;
use crate::court::flow::Flow;
use crate::court::judge::Case;
use crate::court::jury::{Passage, Whom};
use crate::court::passage::Gate;
use crate::court::world::Party;

/// A list of a host endpoint.
pub(super) fn name(passage: Passage) -> &'static str {
    match passage {
        Passage::Untracked => "untracked",
        Passage::PreDnat => "preDNAT",
        Passage::Forward => "forward",
    }
}

/// By which interface a flow passes.
pub(super) fn by(court: &Court<'_>, gate: &Gate<'_>) -> String {
    let interface = match &gate.host.interface {
        _ if gate.tunnel => return "a tunnel between the nodes".to_owned(),
        HostInterface::Named(name) => format!("{name}, the interface"),
        HostInterface::All | HostInterface::With(_) => "the interface".to_owned(),
    };
    let [arriving, judged] = gate.flows;
    let party = court.world.party(arriving.dst);
    let main = court.world.compiler().main_address(gate.node, judged.dst.is_ipv4());
    match main {
        _ if party.host == Some(gate.node) => format!("{interface} that has {}", arriving.dst),
        Some(address) => format!("{interface} that has the node's address {address}"),
        None => format!("{interface} of its first host endpoint; the node has no address"),
    }
}

/// What is assumed of a flow's way.
pub(super) fn assumed(court: &Court<'_>, flow: &Flow, case: &Case<'_>) -> Vec<String> {
    let led = case.backend.map_or(*flow, |backend| flow.to(backend));
    let [src, asked, dst] = [flow.src, flow.dst, led.dst].map(|a| court.world.party(a));
    let mut assumed = guesses(court, case);
    if src.node.is_none()
        && asked.host.is_none()
        && case.backend.is_some()
        && court.world.has_doors()
    {
        assumed.extend(dst.node.map(|node| {
            format!("it comes into the cluster by node {node}, where its backend is; live, by any")
        }));
    }
    if is_within_node(&src, &dst) {
        assumed.push(
            "it leaves its node; live, what a node sends to itself stays in its kernel, and no \
             policy is asked"
                .to_owned(),
        );
    }
    assumed.extend(masquerade(court, &src, &dst, &led));
    assumed
}

/// Host endpoints about whose addresses nothing is known.
fn guesses(court: &Court<'_>, case: &Case<'_>) -> Vec<String> {
    let compiler = court.world.compiler();
    let hosts = case.questions().map(|question| match question.whom {
        Whom::End(endpoint) => endpoint.key.trim_matches('/').to_owned(),
        Whom::Passage(host, _) => host.key.to_string(),
    });
    let mut hosts: Vec<_> = hosts.filter(|host| compiler.guesses_addresses(host)).collect();
    hosts.sort();
    hosts.dedup();
    let guess = |host: String| {
        let endpoint = compiler.state().endpoints.get(&*format!("/{host}/"));
        let addresses = endpoint.map(|endpoint| &endpoint.addresses[..]).unwrap_or_default();
        let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        format!(
            "the interface of host endpoint {host} has {}: it names no expectedIPs, and the \
             datastore does not say which interface has which address",
            addresses.join(", ")
        )
    };
    hosts.into_iter().map(guess).collect()
}

fn is_within_node(src: &Party<'_>, dst: &Party<'_>) -> bool {
    !src.is_pod && !dst.is_pod && src.node.is_some() && src.node == dst.node
}

/// A pod's packets to another node carry its own node's address where its pool says so.
fn masquerade(court: &Court<'_>, src: &Party<'_>, dst: &Party<'_>, flow: &Flow) -> Option<String> {
    let compiler = court.world.compiler();
    let pools = &compiler.state().pools;
    let in_pool = |address: IpAddr| pools.values().filter(move |p| p.cidr.contains(&address));
    let node =
        src.node.filter(|node| src.is_pod && dst.guard.is_some() && dst.node != Some(*node))?;
    let masquerades = in_pool(flow.src).any(|pool| pool.nat_outgoing);
    let address = compiler.main_address(node, flow.src.is_ipv4())?;
    (masquerades && in_pool(flow.dst).next().is_none()).then(|| {
        format!(
            "the destination's policy sees the pod's address; live, natOutgoing of its pool makes \
             it {address}, the address of node {node}"
        )
    })
}
