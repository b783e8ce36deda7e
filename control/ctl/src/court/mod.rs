//! Who decides on flows that nobody sends: the very compiler and classifier that decide live
//! traffic, on a datastore's content.
//!
//! - [`flow`]: a flow, and how a line of input tells it;
//! - [`world`]: the compiled datastore, and who has which address;
//! - [`translate`]: services come first;
//! - [`judge`]: who is asked; [`jury`]: what policies say; [`verdict`]: how it is written.

pub(crate) mod flow;
pub(crate) mod world;
pub(crate) mod translate;
pub(crate) mod judge;
pub(crate) mod jury;
pub(crate) mod verdict;

#[cfg(test)]
pub(crate) mod generate;

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
    /// A court for many flows: all cores decide.
    pub(crate) fn new(compiler: &'c Compiler) -> Self {
        Self { world: World::new(compiler), jury: Jury::new(compiler) }
    }

    /// A court for few flows.
    pub(crate) fn small(compiler: &'c Compiler) -> Self {
        Self { world: World::new(compiler), jury: Jury::of(compiler, 1) }
    }

    /// The same with what is known of domain names.
    pub(crate) fn knowing(self, known: &Known) -> Self {
        Self { jury: self.jury.knowing(known), ..self }
    }

    /// Tells who is to be asked about a flow.
    pub(crate) fn hear(&mut self, flow: &Flow) -> Case<'c> {
        judge::hear(&mut self.world, flow)
    }

    /// Tells who is to be asked about a flow that a service sends to a backend.
    pub(crate) fn hear_at(&mut self, flow: &Flow, backend: SocketAddr) -> Case<'c> {
        judge::hear_at(&mut self.world, flow, backend)
    }

    /// Decides one flow.
    pub(crate) fn decide(&mut self, case: Case<'c>) -> Answer {
        let questions: Vec<_> = case.questions().collect();
        case.answer(&mut self.jury.decide(&questions).into_iter())
    }
}
