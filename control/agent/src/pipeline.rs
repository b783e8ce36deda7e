//! From the datastore's changes to the dataplane: mirror → compiler → publisher.
//!
//! One task owns all three. There is no clock in it: a change is compiled as soon as it is seen,
//! and what came meanwhile is compiled together with the next.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use margay_authz::{Law, Scribe};
use margay_compile::{
    CompileError, Compiler, HealthChecks, NodeConfig, ResourceChange, Scope, Work,
};
use margay_datastore::{self as datastore, Change, Datastore, Key, Mirror, MirrorHandle, Object};
use margay_model::EndpointKey;
use margay_resources::v3::QosControls;
use margay_resources::{Kind, Resource, ResourceError, conf, qos};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::flowlog::Feed;
use crate::node_health::Standing;
use crate::publisher::view::{self, View};
use crate::publisher::{NotInForce, Publisher, Revision};

/// What the compiler reads. Other kinds are no business of the dataplane.
const FOLLOWED: &[Kind] = &[
    Kind::Namespace,
    Kind::KubernetesNode,
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::KubernetesNetworkPolicy,
    Kind::ServiceAccount,
    Kind::ServiceCidr,
    Kind::ClusterNetworkPolicy,
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedKubernetesNetworkPolicy,
    Kind::Tier,
    Kind::NetworkSet,
    Kind::GlobalNetworkSet,
    Kind::HostEndpoint,
    Kind::Profile,
    Kind::IpPool,
    Kind::FelixConfiguration,
    Kind::Node,
    Kind::WorkloadEndpoint,
    Kind::IpamBlock,
];

/// What the pipeline has done, for metrics and for those who wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// The revision that contains everything that was seen; `None` before everything was listed.
    pub(crate) revision: Option<Revision>,
    /// Objects that are known, by kind.
    pub(crate) objects: BTreeMap<Kind, u64>,
    /// Objects that could not be compiled, since the start.
    pub(crate) failures: u64,
    /// Batches that were compiled.
    pub(crate) batches: u64,
    /// Time spent on them.
    pub(crate) busy: Duration,
    /// The compiler's own counts.
    pub(crate) work: Work,
}

/// Waits for the pipeline and the dataplane.
#[derive(Clone)]
pub(crate) struct Waiter {
    mirror: MirrorHandle,
    progress: watch::Receiver<Progress>,
    view: watch::Receiver<View>,
}

/// What was in the datastore is not in force in time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    /// The datastore cannot be read.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// It took too long to read.
    #[error("the datastore was not read within {0:?}")]
    Slow(Duration),
    /// The dataplane does not have it in force.
    #[error(transparent)]
    NotInForce(#[from] NotInForce),
}

/// Follows the datastore and tells the publisher.
pub(crate) struct Pipeline {
    mirror: Mirror,
    compiler: Compiler,
    publisher: Publisher,
    /// What the compiler was given, and how many of each kind.
    known: HashSet<Key>,
    objects: BTreeMap<Kind, u64>,
    progress: watch::Sender<Progress>,
    health: watch::Sender<HealthChecks>,
    standing: watch::Sender<Standing>,
    /// Writes down what proxies are answered by, if any may ask.
    scribe: Option<Scribe>,
    /// Told what has which name, if flows are logged.
    flow_log: Option<Feed>,
    node: Arc<str>,
}

// === impl Pipeline ===

impl Pipeline {
    /// Begins to follow the datastore. Must be called within a tokio runtime.
    pub(crate) fn new(store: Arc<dyn Datastore>, node: NodeConfig, publisher: Publisher) -> Self {
        let followed: Vec<_> = FOLLOWED.iter().map(|kind| kind.stored()).collect();
        Self {
            flow_log: None,
            node: node.name.clone(),
            mirror: Mirror::start(store, &followed),
            compiler: Compiler::new(Scope::Node(node)),
            publisher,
            known: HashSet::new(),
            objects: BTreeMap::new(),
            progress: watch::Sender::default(),
            health: watch::Sender::default(),
            standing: watch::Sender::default(),
            scribe: None,
        }
    }

    /// Has the law written down that proxies are answered by; tells where.
    pub(crate) fn write_law(&mut self) -> watch::Receiver<Option<Arc<Law>>> {
        let (scribe, law) = Scribe::new();
        self.scribe = Some(scribe);
        law
    }

    /// Has the flow log told what has which name, and its interval.
    pub(crate) fn feed(&mut self, flow_log: Feed) {
        self.flow_log = Some(flow_log);
    }

    /// What the pipeline has done.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// What load balancers are told of this node.
    pub(crate) fn health_checks(&self) -> watch::Receiver<HealthChecks> {
        self.health.subscribe()
    }

    /// What they are told whatever the service.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// What is known about the dataplane.
    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.publisher.view()
    }

    /// For those who wait for something to be in force.
    pub(crate) fn waiter(&self) -> Waiter {
        Waiter {
            mirror: self.mirror.handle(),
            progress: self.progress.subscribe(),
            view: self.publisher.view(),
        }
    }

    /// Runs until the future is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let batch = self.mirror.next().await;
            let begin = Instant::now();
            let (synced, changes) = (batch.synced, batch.changes);
            let failures: u64 = changes.iter().map(|change| u64::from(!self.take_in(change))).sum();
            // The first publication has to be a complete state.
            let revision = synced.then(|| self.publish());
            let busy = begin.elapsed();
            debug!(changes = changes.len(), ?busy, ?revision, "compiled");
            self.progress.send_modify(|progress| {
                progress.objects.clone_from(&self.objects);
                progress.failures += failures;
                progress.batches += 1;
                progress.busy += busy;
                progress.work = self.compiler.work();
                progress.revision = revision.or(progress.revision);
            });
        }
    }

    /// Gives a change to the compiler; whether it could use it.
    fn take_in(&mut self, change: &Change) -> bool {
        let key = &change.object().key;
        let Some(kind) = Kind::of_stored(&key.kind) else { return true };
        let count = self.objects.entry(kind).or_default();
        let taken = match change {
            Change::Upsert(object) => {
                *count += u64::from(self.known.insert(key.clone()));
                let taken = read(object);
                if let Ok(resource) = &taken {
                    tell_of_limits(&self.node, resource);
                    tell_of_settings(resource);
                }
                taken.and_then(|resource| {
                    upsert(&mut self.compiler, self.flow_log.as_ref(), resource)
                })
            }
            Change::Delete(_) => {
                *count -= u64::from(self.known.remove(key));
                let (namespace, name) = (key.namespace.clone(), key.name.clone());
                if let Some(flow_log) = &self.flow_log {
                    flow_log.names().delete(kind, &namespace, &name, Instant::now());
                }
                let change = ResourceChange::Delete { kind, namespace, name };
                self.compiler.apply(change).map_err(Unusable::from)
            }
        };
        if let Err(problem) = &taken {
            error!(object = %key, error = %problem, "cannot be compiled, its last good version stays");
        }
        taken.is_ok()
    }

    fn publish(&mut self) -> Revision {
        let updates = self.compiler.flush();
        if let Some(scribe) = &mut self.scribe {
            scribe.note(&updates, &self.compiler);
        }
        let settings = self.compiler.felix_settings_of(&self.node);
        let standing = Standing {
            port: settings.bpf_kube_proxy_healthz_port,
            leaving: self.compiler.is_leaving(&self.node),
        };
        self.standing.send_if_modified(|told| std::mem::replace(told, standing) != standing);
        if let Some(flow_log) = &self.flow_log {
            flow_log.set_interval(settings.flow_logs_flush_interval);
        }
        self.health.send_if_modified(|told| {
            let now = self.compiler.health_checks();
            let changed = told.revision() != now.revision();
            if changed {
                told.clone_from(now);
            }
            changed
        });
        let is_first = self.publisher.revision() == Revision::default();
        if is_first {
            info!(updates = updates.len(), "the datastore was read and compiled");
        } else if updates.is_empty() {
            return self.publisher.revision();
        }
        self.publisher.publish(updates)
    }
}

/// An object is of no use to the compiler.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Read(#[from] ResourceError),
    #[error("{0}: {source}", source = std::error::Error::source(.0).map(ToString::to_string).unwrap_or_default())]
    Compile(#[from] CompileError),
}

fn read(object: &Object) -> Result<Resource, Unusable> {
    Ok(Resource::from_value(&object.value)?)
}

/// Says what is wrong with the limits that a pod of the node asks for, or with the marks of the node's
/// own packets; both have their network anyway.
fn tell_of_limits(node: &str, resource: &Resource) {
    let (kind, problems) = match resource {
        Resource::Pod(pod)
            if pod.spec.as_ref().is_some_and(|s| s.node_name.as_deref() == Some(node)) =>
        {
            let Some(annotations) = &pod.metadata.annotations else { return };
            (Kind::Pod, qos::read(annotations, &QosControls::default()).1)
        }
        Resource::HostEndpoint(host) if host.spec.node == node => {
            (Kind::HostEndpoint, qos::dscp(host.metadata.annotations.as_ref()).1)
        }
        _ => return,
    };
    for problem in problems {
        let (namespace, name) = (resource.namespace(), resource.name());
        warn!(object = %kind.key(namespace, name), error = %problem, "a limit is not as it was asked for");
    }
}

/// Says which settings of a configuration are not followed.
fn tell_of_settings(resource: &Resource) {
    let Resource::FelixConfiguration(felix) = resource else { return };
    for problem in conf::without_effect(&felix.spec) {
        let object = Kind::FelixConfiguration.key("", resource.name());
        warn!(%object, field = %problem.field, "{}", problem.message);
    }
}

fn upsert(
    compiler: &mut Compiler,
    flow_log: Option<&Feed>,
    resource: Resource,
) -> Result<(), Unusable> {
    if let Some(flow_log) = flow_log {
        flow_log.names().upsert(&resource);
    }
    Ok(compiler.apply(ResourceChange::Upsert(Box::new(resource)))?)
}

// === impl Waiter ===

impl Waiter {
    /// Waits until everything that is in the datastore now is in force and, if one is named, an
    /// endpoint is attached.
    pub(crate) async fn in_force(
        &self,
        endpoint: Option<&EndpointKey>,
        patience: Duration,
    ) -> Result<(), WaitError> {
        let begin = Instant::now();
        let barrier = tokio::time::timeout(patience, self.mirror.barrier());
        barrier.await.map_err(|_| WaitError::Slow(patience))??;
        // The barrier is passed only by a synced pipeline that has published what it saw.
        let revision = self.progress.borrow().revision.unwrap_or_default();
        let left = patience.saturating_sub(begin.elapsed());
        Ok(view::in_force(&mut self.view.clone(), revision, endpoint, left).await?)
    }
}
