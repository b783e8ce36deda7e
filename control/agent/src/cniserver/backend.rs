//! What a request means: the trait that the server calls.

use std::future::Future;

use margay_cni_api::{
    AddEndpoint, AddressStatus, Allocate, CheckAddress, CheckEndpoint, CniError, DelEndpoint,
    Deleted, Done, EndpointPlan, GcAddresses, GcEndpoints, Lease, PlanEndpoint, Readiness, Release,
    Status, Swept,
};

/// An answer that is under way.
pub(crate) trait Answering<T>: Future<Output = Result<T, CniError>> + Send {}

impl<T, F: Future<Output = Result<T, CniError>> + Send> Answering<T> for F {}

/// Answers the CNI plugins; each method's contract is its request's.
pub(crate) trait CniBackend: Send + Sync + 'static {
    /// See [`PlanEndpoint`].
    fn plan_endpoint(&self, request: PlanEndpoint) -> impl Answering<EndpointPlan>;
    /// See [`Allocate`].
    fn allocate(&self, request: Allocate) -> impl Answering<Lease>;
    /// See [`Release`].
    fn release(&self, request: Release) -> impl Answering<Deleted>;
    /// See [`CheckAddress`].
    fn check_address(&self, request: CheckAddress) -> impl Answering<Done>;
    /// See [`AddEndpoint`].
    fn add_endpoint(&self, request: AddEndpoint) -> impl Answering<Done>;
    /// See [`DelEndpoint`].
    fn del_endpoint(&self, request: DelEndpoint) -> impl Answering<Deleted>;
    /// See [`CheckEndpoint`].
    fn check_endpoint(&self, request: CheckEndpoint) -> impl Answering<Done>;
    /// See [`GcEndpoints`].
    fn gc_endpoints(&self, request: GcEndpoints) -> impl Answering<Swept>;
    /// See [`GcAddresses`].
    fn gc_addresses(&self, request: GcAddresses) -> impl Answering<Swept>;
    /// See [`Status`].
    fn status(&self, request: Status) -> impl Answering<Readiness>;
    /// See [`AddressStatus`].
    fn address_status(&self, request: AddressStatus) -> impl Answering<Readiness>;
}
