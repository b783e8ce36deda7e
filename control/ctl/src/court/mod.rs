//! Who decides on flows that nobody sends: the very compiler and classifier that decide live
//! traffic, on a datastore's content.
//!
//! - [`flow`]: a flow, and how a line of input tells it;
//! - [`world`]: the compiled datastore, and who has which address;
//! - [`translate`]: services come first;
//! - [`judge`]: who is asked; [`passage`]: on the way between nodes; [`jury`]: what policies say; [`verdict`]: how it is written.
//!
//! Its tests hold it against an evaluator written apart (`naive`).

pub(crate) mod flow;
pub(crate) mod world;
pub(crate) mod translate;
pub(crate) mod judge;
pub(crate) mod passage;
pub(crate) mod jury;
pub(crate) mod verdict;

#[cfg(test)]
pub(crate) mod generate;
#[cfg(test)]
mod naive;

use std::net::SocketAddr;

use margay_compile::{Compiler, ResourceChange, Scope};
use margay_resources::{Kind, Resource};

use flow::Flow;
use judge::Case;
use jury::Jury;
use verdict::Answer;
use world::World;

use crate::dataplane::names::Known;

/// What the compiler reads.
pub(crate) const KINDS: &[Kind] = &[
    Kind::Namespace,
    Kind::ServiceAccount,
    Kind::KubernetesNode,
    Kind::Node,
    Kind::FelixConfiguration,
    Kind::ServiceCidr,
    Kind::IpPool,
    Kind::Tier,
    Kind::Profile,
    Kind::NetworkSet,
    Kind::GlobalNetworkSet,
    Kind::Pod,
    Kind::WorkloadEndpoint,
    Kind::HostEndpoint,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::ClusterNetworkPolicy,
    Kind::KubernetesNetworkPolicy,
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
];

/// Everybody who decides on flows.
pub(crate) struct Court<'c> {
    pub(crate) world: World<'c>,
    pub(crate) jury: Jury<'c>,
    /// Whether host endpoints between the ends are asked.
    pub(crate) passages: bool,
    /// How many flows would have been asked about at such ones, but were not.
    pub(crate) passed_unasked: usize,
}

/// Compiles a cluster. What cannot be compiled is left out and logged.
pub(crate) fn compile(resources: impl IntoIterator<Item = Resource>) -> Compiler {
    let mut compiler = Compiler::new(Scope::Cluster);
    for resource in resources {
        if let Err(error) = compiler.apply(ResourceChange::Upsert(Box::new(resource))) {
            tracing::error!("{error}");
        }
    }
    compiler.flush();
    compiler
}

// === impl Court ===

impl<'c> Court<'c> {
    /// A court for many flows: all cores decide. It asks the ends alone.
    pub(crate) fn new(compiler: &'c Compiler) -> Self {
        Self::of(compiler, Jury::new(compiler), false)
    }

    /// A court for few flows, which asks the host endpoints on the way as well.
    pub(crate) fn small(compiler: &'c Compiler) -> Self {
        Self::of(compiler, Jury::of(compiler, 1), true)
    }

    fn of(compiler: &'c Compiler, jury: Jury<'c>, passages: bool) -> Self {
        Self { world: World::new(compiler), jury, passages, passed_unasked: 0 }
    }

    /// The same with what is known of domain names.
    pub(crate) fn knowing(self, known: &Known) -> Self {
        Self { jury: self.jury.knowing(known), ..self }
    }

    /// Tells who is to be asked about a flow.
    pub(crate) fn hear(&mut self, flow: &Flow) -> Case<'c> {
        let case = judge::hear(&mut self.world, flow);
        self.limited(case)
    }

    /// Tells who is to be asked about a flow that a service sends to a backend.
    pub(crate) fn hear_at(&mut self, flow: &Flow, backend: SocketAddr) -> Case<'c> {
        let case = judge::hear_at(&mut self.world, flow, backend);
        self.limited(case)
    }

    fn limited(&mut self, case: Case<'c>) -> Case<'c> {
        if self.passages || case.gates.is_empty() {
            return case;
        }
        self.passed_unasked += 1;
        Case { gates: Vec::new(), ..case }
    }

    /// Decides one flow.
    pub(crate) fn decide(&mut self, case: Case<'c>) -> Answer {
        let questions: Vec<_> = case.questions().collect();
        case.answer(&mut self.jury.decide(&questions).into_iter(), self.passages)
    }
}
