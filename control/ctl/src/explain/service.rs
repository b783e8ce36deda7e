//! Which service a flow finds, and where it leads.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use margay_compile::BackendView;
use margay_model::Backend;
use serde::Serialize;

use crate::court::Court;
use crate::court::flow::Flow;
use crate::court::translate::{Frontend, Lead};
use crate::court::verdict::Fate;

/// A service in the way.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceReport {
    /// `NAMESPACE/NAME:PORT/PROTOCOL/FAMILY`; none where an address of services has no such port.
    pub(super) service: Option<Arc<str>>,
    /// The kind of address that was used.
    pub(super) frontend: Option<&'static str>,
    /// Which backends come into question.
    pub(super) policy: &'static str,
    pub(super) backends: Vec<BackendReport>,
    /// Why it leads nowhere.
    pub(super) refused: Option<String>,
}

/// An endpoint of the service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendReport {
    pub(super) addr: IpAddr,
    pub(super) port: u16,
    /// `NAMESPACE/POD` of whoever has the address.
    pub(super) pod: Option<String>,
    pub(super) node: Option<Arc<str>>,
    pub(super) taken: bool,
    pub(super) usable: bool,
    /// Why it was taken or not.
    pub(super) because: String,
    /// What becomes of the flow if it is sent there; none where it is never sent there.
    pub(super) verdict: Option<Fate>,
}

/// Describes the service that a flow finds, if it finds one. `led` tells whether its translation
/// was asked for and led nowhere.
pub(super) fn report(court: &mut Court<'_>, flow: &Flow, refused: bool) -> Option<ServiceReport> {
    let (src, dst) = (court.world.party(flow.src), court.world.party(flow.dst));
    let Some(lead) = court.world.services.lead(flow, &src, &dst) else {
        return refused.then(|| ServiceReport {
            service: None,
            frontend: None,
            policy: "",
            backends: Vec::new(),
            refused: Some("no service has this address and port".into()),
        });
    };
    let usable = court.world.services.usable(&lead).to_vec();
    let backends = court.world.compiler().backends_of(&lead.service.key);
    let backends = backends.iter().map(|view| backend(court, flow, &lead, &usable, view));
    let backends: Vec<_> = backends.collect();
    Some(ServiceReport {
        service: Some(lead.service.key.clone()),
        frontend: Some(match lead.frontend {
            Frontend::Cluster => "cluster address",
            Frontend::External => "external address",
            Frontend::LoadBalancer => "load balancer's address",
            Frontend::NodePort => "node port",
        }),
        policy: if lead.local { "Local" } else { "Cluster" },
        refused: why_nowhere(&lead, &usable, &backends),
        backends,
    })
}

fn why_nowhere(
    lead: &Lead<'_, '_>,
    usable: &[Backend],
    backends: &[BackendReport],
) -> Option<String> {
    if lead.barred {
        return Some("the source is in none of loadBalancerSourceRanges".into());
    }
    let none = usable.is_empty();
    none.then(|| match (backends, lead.local) {
        ([], _) => "it has no endpoints".into(),
        (_, true) => "the traffic policy is Local, and no endpoint of that node is ready".into(),
        (_, false) => "no endpoint is ready".into(),
    })
}

fn backend(
    court: &mut Court<'_>,
    flow: &Flow,
    lead: &Lead<'_, '_>,
    usable: &[Backend],
    view: &BackendView,
) -> BackendReport {
    let itself = Backend { addr: view.addr, port: view.port };
    let is_usable = usable.contains(&itself) && !lead.barred;
    let taken = is_usable && usable.first() == Some(&itself);
    let party = court.world.party(view.addr);
    let pod = party.endpoint.filter(|_| party.is_pod).map(|endpoint| {
        let mut parts = endpoint.key.splitn(3, '/');
        format!("{}/{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    });
    let verdict = is_usable.then(|| {
        let case = court.hear_at(flow, SocketAddr::new(view.addr, view.port));
        court.decide(case).verdict
    });
    BackendReport {
        addr: view.addr,
        port: view.port,
        pod,
        node: view.node.clone(),
        taken,
        usable: is_usable,
        because: because(lead, view, is_usable, taken, usable.len()),
        verdict,
    }
}

fn because(
    lead: &Lead<'_, '_>,
    view: &BackendView,
    usable: bool,
    taken: bool,
    count: usize,
) -> String {
    let here = lead.node.is_some() && view.node.as_ref() == lead.node;
    match () {
        () if taken && count == 1 => "taken: the only usable one".into(),
        () if taken => format!("taken: the first of {count} usable; live clients are spread"),
        () if usable => "usable: live clients may be sent here too".into(),
        () if view.terminating && view.serving => "terminating: only used if none is ready".into(),
        () if !view.ready => "not ready".into(),
        () if lead.barred => "the client is refused".into(),
        () if lead.local && !here => "on another node; the traffic policy is Local".into(),
        () if !view.meant_for.is_empty() => {
            format!("its topology hints keep it for {}", view.meant_for.join(", "))
        }
        () => "another one answers for this address".into(),
    }
}
