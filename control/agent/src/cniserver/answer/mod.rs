//! The answers of this node, from its datastore, its addresses and its dataplane.
//!
//! - [`wishes`]: what a Pod's and its Namespace's annotations ask for;
//! - [`mtu`]: how large a pod's packets may be;
//! - [`plan`]: how an interface is to be made;
//! - [`addresses`]: reserving and freeing addresses;
//! - [`endpoint`]: endpoints come into force and go; [`object`]: as WorkloadEndpoint objects;
//! - [`ready`]: whether an ADD would succeed;
//! - [`failure`]: errors as the CNI specification shapes them.
//!
//! Nothing is kept in memory: what was answered yesterday, by a process that is gone, is in the
//! datastore, and every change there is a compare-and-swap.

mod wishes;

mod mtu;

mod plan;

mod addresses;

mod object;

mod endpoint;

mod ready;

mod failure;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use margay_cni_api::{
    AddEndpoint, AddressStatus, Allocate, CheckAddress, CheckEndpoint, CniError, DelEndpoint,
    Deleted, Done, EndpointPlan, GcAddresses, GcEndpoints, Lease, PlanEndpoint, Readiness, Release,
    Status, Swept,
};
use margay_datastore::Datastore;
use margay_ipam::Ipam;
use margay_model::EndpointKey;

use super::backend::CniBackend;
use crate::config::{Config, NodeAddresses};
use crate::pipeline::{WaitError, Waiter};

/// Tells when what the datastore holds is in force in the dataplane.
pub(crate) trait InForce: Send + Sync + 'static {
    /// Waits until everything that is in the datastore now is in force and, if one is named, an
    /// endpoint is attached.
    fn in_force(
        &self,
        endpoint: Option<&EndpointKey>,
        patience: Duration,
    ) -> impl Future<Output = Result<(), WaitError>> + Send;
}

impl InForce for Waiter {
    async fn in_force(
        &self,
        endpoint: Option<&EndpointKey>,
        patience: Duration,
    ) -> Result<(), WaitError> {
        Self::in_force(self, endpoint, patience).await
    }
}

/// Answers for one node.
pub(crate) struct Backend<W = Waiter> {
    node: Arc<str>,
    /// The node's own addresses: their interface is the uplink.
    own: NodeAddresses,
    store: Arc<dyn Datastore>,
    ipam: Arc<Ipam>,
    dataplane: W,
}

// === impl Backend ===

impl<W: InForce> Backend<W> {
    /// Answers for the node that `config` names.
    pub(crate) fn new(
        config: &Config,
        store: Arc<dyn Datastore>,
        ipam: Arc<Ipam>,
        dataplane: W,
    ) -> Self {
        Self { node: config.node.clone(), own: config.addresses, store, ipam, dataplane }
    }
}

impl<W: InForce> CniBackend for Backend<W> {
    async fn plan_endpoint(&self, request: PlanEndpoint) -> Result<EndpointPlan, CniError> {
        self.plan(&request).await
    }

    async fn allocate(&self, request: Allocate) -> Result<Lease, CniError> {
        self.reserve(&request).await
    }

    async fn release(&self, request: Release) -> Result<Deleted, CniError> {
        self.free(&request).await
    }

    async fn check_address(&self, request: CheckAddress) -> Result<Done, CniError> {
        self.check_reserved(&request).await
    }

    async fn add_endpoint(&self, request: AddEndpoint) -> Result<Done, CniError> {
        self.attach(&request).await
    }

    async fn del_endpoint(&self, request: DelEndpoint) -> Result<Deleted, CniError> {
        self.detach(&request).await
    }

    async fn check_endpoint(&self, request: CheckEndpoint) -> Result<Done, CniError> {
        self.check_attached(&request).await
    }

    async fn gc_endpoints(&self, request: GcEndpoints) -> Result<Swept, CniError> {
        self.detach_stale(&request).await
    }

    async fn gc_addresses(&self, request: GcAddresses) -> Result<Swept, CniError> {
        self.free_stale(&request).await
    }

    async fn status(&self, Status {}: Status) -> Result<Readiness, CniError> {
        Ok(self.readiness().await)
    }

    async fn address_status(&self, request: AddressStatus) -> Result<Readiness, CniError> {
        self.address_readiness(&request).await
    }
}

#[cfg(test)]
mod tests;
