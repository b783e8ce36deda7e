//! Endpoints come into force and go.

use std::sync::Arc;
use std::time::Duration;

use margay_cni_api::{
    AddEndpoint, Attachment, CheckEndpoint, CniError, Code, DelEndpoint, Deleted, Done,
    GcEndpoints, Orchestrator, Swept, Workload,
};
use margay_datastore::Object;
use margay_model::EndpointKey;
use margay_resources::v3::WorkloadEndpoint;

use super::wishes::Wishes;
use super::{Backend, InForce, failure, object};

/// How long an ADD waits for its policy unless the network configuration says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a DEL lets the dataplane take leave of an interface. A dataplane that is away does not
/// hold a DEL up: the interface goes anyway.
const PARTING: Duration = Duration::from_secs(1);

/// How often a compare-and-swap is tried.
const ATTEMPTS: u32 = 20;

/// What the dataplane calls a workload's interface.
fn key(workload: &Workload, ifname: &str) -> EndpointKey {
    format!("{}/{}/{ifname}", workload.namespace, workload.pod).into()
}

// === impl Backend ===

impl<W: InForce> Backend<W> {
    /// Stores the endpoint and waits for it.
    ///
    /// An older object of the same name is of an earlier sandbox, or of an ADD that was killed; its
    /// interface is gone. One of another node is of a pod whose place this one has taken, and that
    /// node was not there to say so. They are taken out of force first, so that the dataplane's word
    /// about the endpoint is a word about the new interface.
    pub(super) async fn attach(&self, request: &AddEndpoint) -> Result<Done, CniError> {
        let AddEndpoint { attachment, workload, .. } = request;
        let wishes = Wishes::read(&*self.store, workload).await?;
        self.retire(workload, &attachment.ifname).await?;
        let value = object::build(&self.node, request, &wishes);
        self.store.create(value).await.map_err(failure::of_store)?;
        let patience = match request.timeout_s {
            0 => PATIENCE,
            seconds => Duration::from_secs(seconds.into()),
        };
        let key = key(workload, &attachment.ifname);
        self.dataplane.in_force(Some(&key), patience).await.map_err(failure::of_wait)?;
        Ok(Done {})
    }

    async fn retire(&self, workload: &Workload, ifname: &str) -> Result<(), CniError> {
        let mut old = self.elsewhere(workload, ifname).await?;
        old.extend(self.stored(workload, ifname).await?);
        for object in &old {
            match self.store.delete(&object.key, None).await {
                Err(error) if !error.is_not_found() => return Err(failure::of_store(error)),
                _ => {}
            }
        }
        if !old.is_empty() {
            self.part().await;
        }
        Ok(())
    }

    /// What other nodes have said of this pod's interface. A pod is in one place at a time.
    async fn elsewhere(
        &self,
        workload: &Workload,
        ifname: &str,
    ) -> Result<Vec<Arc<Object>>, CniError> {
        if workload.orchestrator != Orchestrator::K8s {
            return Ok(Vec::new());
        }
        let listing = self.store.list(&object::KIND.stored()).await.map_err(failure::of_store)?;
        let mut objects = listing.objects;
        objects.retain(|object| {
            object.key.namespace == workload.namespace
                && object::parse(&object.value).is_some_and(|WorkloadEndpoint { spec, .. }| {
                    spec.pod == workload.pod && spec.endpoint == ifname && spec.node != *self.node
                })
        });
        Ok(objects)
    }

    /// Waits a little for the dataplane to let go of what the datastore no longer holds.
    async fn part(&self) {
        if let Err(error) = self.dataplane.in_force(None, PARTING).await {
            tracing::debug!(%error, "not waiting for the dataplane any longer");
        }
    }

    /// The object of a workload's interface.
    async fn stored(
        &self,
        workload: &Workload,
        ifname: &str,
    ) -> Result<Option<Arc<Object>>, CniError> {
        let name = object::name(&self.node, workload, ifname);
        match self.store.get(&object::KIND.key(&workload.namespace, &name)).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(failure::of_store(error)),
        }
    }

    pub(super) async fn detach(&self, request: &DelEndpoint) -> Result<Deleted, CniError> {
        let DelEndpoint { attachment, workload } = request;
        for _ in 0..ATTEMPTS {
            let Some(found) = self.find(attachment, workload).await? else {
                return Ok(Deleted { existed: false });
            };
            match self.store.delete(&found.key, Some(&found.revision)).await {
                Ok(_) => {
                    self.part().await;
                    return Ok(Deleted { existed: true });
                }
                // Whoever changed it may have made it another container's.
                Err(error) if error.is_race() => {}
                Err(error) => return Err(failure::of_store(error)),
            }
        }
        Err(CniError::new(
            Code::TRY_AGAIN_LATER,
            format!("the WorkloadEndpoint of {} keeps changing", attachment.handle()),
            "try again",
        ))
    }

    /// The attachment's object: by the workload's name, or, for a DEL that comes without CNI_ARGS,
    /// by the container's id. An object of the workload's next sandbox is not it.
    async fn find(
        &self,
        attachment: &Attachment,
        workload: &Workload,
    ) -> Result<Option<Arc<Object>>, CniError> {
        let is_its = |found: &Arc<Object>| {
            object::parse(&found.value).is_some_and(|endpoint| {
                *endpoint.spec.node == *self.node && object::belongs_to(&endpoint, attachment)
            })
        };
        let by_name = self.stored(workload, &attachment.ifname).await?.filter(is_its);
        if by_name.is_some() {
            return Ok(by_name);
        }
        let listing = self.store.list(&object::KIND.stored()).await.map_err(failure::of_store)?;
        Ok(listing.objects.into_iter().find(is_its))
    }

    pub(super) async fn check_attached(&self, request: &CheckEndpoint) -> Result<Done, CniError> {
        let CheckEndpoint { attachment, workload, host_interface, addresses } = request;
        let wrong = |what: &str| {
            CniError::new(
                Code::CHECK_FAILED,
                format!("the WorkloadEndpoint of {} {what}", attachment.handle()),
                "let the runtime recreate the container's sandbox",
            )
        };
        let found = self.find(attachment, workload).await?.ok_or_else(|| wrong("is missing"))?;
        let endpoint = object::parse(&found.value).ok_or_else(|| wrong("cannot be read"))?;
        if endpoint.spec.interface_name != *host_interface {
            return Err(wrong("names another interface"));
        }
        let held: Vec<_> = endpoint.spec.ip_networks.iter().map(|net| net.net().addr()).collect();
        if held.len() != addresses.len() || !addresses.iter().all(|ip| held.contains(ip)) {
            return Err(wrong("has other addresses"));
        }
        let key = key(workload, &attachment.ifname);
        self.dataplane.in_force(Some(&key), PARTING).await.map_err(failure::of_wait)?;
        Ok(Done {})
    }

    pub(super) async fn detach_stale(&self, request: &GcEndpoints) -> Result<Swept, CniError> {
        let listing = self.store.list(&object::KIND.stored()).await.map_err(failure::of_store)?;
        let mut swept = Swept::default();
        for found in listing.objects {
            let Some(endpoint) = object::parse(&found.value) else { continue };
            let is_ours = *endpoint.spec.node == *self.node
                && object::network(&endpoint) == Some(&request.network);
            if !is_ours || request.valid.contains(&object::attachment(&endpoint)) {
                continue;
            }
            match self.store.delete(&found.key, Some(&found.revision)).await {
                Ok(_) => swept.removed.push(endpoint.spec.container_id),
                Err(error) if error.is_not_found() => {}
                Err(error) => swept.errors.push(format!("{}: {error}", found.key)),
            }
        }
        if !swept.removed.is_empty() {
            self.part().await;
        }
        Ok(swept)
    }
}
