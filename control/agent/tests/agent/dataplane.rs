//! Speaks the daemon's side of the protocol and keeps what it is told.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use margay_model::State;
use margay_protocol::message::{DaemonHello, DaemonMessage, EndpointStatus};
use margay_protocol::socket::{self, SocketFile};
use margay_protocol::{AgentMessage, Dataplane, Session, Step, VERSION, proto};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Everything an agent told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// What would be in force.
    pub(crate) state: State,
    /// Full states that came.
    pub(crate) full_states: usize,
    /// Deltas that came.
    pub(crate) commits: usize,
    /// When the last of them came.
    pub(crate) at: Option<Instant>,
}

/// How it behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// Says nothing about what comes: neither acknowledges nor refuses.
    pub(crate) mute: bool,
    /// Refuses the next so many full states and deltas.
    pub(crate) refusals: usize,
    /// Says of every endpoint that it is down, and why.
    pub(crate) down: Option<String>,
}

/// A dataplane that serves until it is dropped.
pub(crate) struct FakeDataplane {
    told: watch::Receiver<Told>,
    pub(crate) manner: Arc<watch::Sender<Manner>>,
    /// Of its own, so that its end ends all connections, as that of a process does.
    runtime: Option<Runtime>,
    _file: SocketFile,
}

#[derive(Clone)]
struct Service {
    told: Arc<watch::Sender<Told>>,
    manner: Arc<watch::Sender<Manner>>,
}

// === impl FakeDataplane ===

impl FakeDataplane {
    pub(crate) fn serve(path: &Path) -> Self {
        let (tell, told) = watch::channel(Told::default());
        let manner = Arc::new(watch::Sender::new(Manner::default()));
        let service = Service { told: Arc::new(tell), manner: manner.clone() };
        let runtime = Runtime::new().expect("a runtime");
        let path = path.to_owned();
        let (bound, file) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let (listener, file) = socket::bind(&path).expect("the dataplane's socket");
            bound.send(file).expect("somebody waits");
            let forever = std::future::pending();
            socket::serve(listener, service, forever).await.expect("the server");
        });
        let file = file.recv().expect("bound");
        Self { told, manner, runtime: Some(runtime), _file: file }
    }

    /// What was told so far.
    pub(crate) fn told(&self) -> Told {
        self.told.borrow().clone()
    }

    /// Waits until what was told fulfils a condition; says what it was if it never does.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Told) -> bool) -> Told {
        let mut told = self.told.clone();
        let waited = tokio::time::timeout(Duration::from_secs(10), told.wait_for(is)).await;
        match waited {
            Ok(told) => told.expect("the dataplane lives").clone(),
            Err(_) => panic!("never {what}: {:#?}", self.told()),
        }
    }
}

impl Drop for FakeDataplane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Dataplane for Service {
    type SyncStream = Answers<proto::FromDaemon>;
    type ListFlowsStream = Answers<proto::Flow>;
    type ListNamesStream = Answers<proto::NameAddress>;
    type TraceStream = Answers<proto::Sighting>;
    type ProbeStream = Answers<proto::Sighting>;
    type WatchFlowsStream = Answers<proto::FlowReports>;

    async fn sync(
        &self,
        request: Request<Streaming<proto::FromAgent>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (answer, answers) = mpsc::unbounded_channel();
        let service = self.clone();
        tokio::spawn(async move {
            let mut messages = request.into_inner();
            let mut session = Session::default();
            while let Some(Ok(message)) = messages.next().await {
                let message = AgentMessage::try_from(message).expect("a good message");
                let step = session.on(message).expect("a message in its order");
                for message in service.take(step, &mut session) {
                    let _ = answer.send(Ok((&message).into()));
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(answers))))
    }

    async fn list_flows(
        &self,
        _: Request<proto::FlowFilter>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        Err(Status::unimplemented("the agent does not ask for flows"))
    }

    async fn list_names(
        &self,
        _: Request<proto::ListNamesRequest>,
    ) -> Result<Response<Self::ListNamesStream>, Status> {
        Err(Status::unimplemented("the agent does not ask for names"))
    }

    async fn list_rule_counts(
        &self,
        _: Request<proto::ListRuleCountsRequest>,
    ) -> Result<Response<proto::RuleCounts>, Status> {
        Err(Status::unimplemented("the agent does not ask for rules"))
    }

    async fn watch_flows(
        &self,
        _: Request<proto::WatchFlowsRequest>,
    ) -> Result<Response<Self::WatchFlowsStream>, Status> {
        Err(Status::unimplemented("no flows are reported"))
    }

    async fn get_counters(
        &self,
        _: Request<proto::GetCountersRequest>,
    ) -> Result<Response<proto::Counters>, Status> {
        Err(Status::unimplemented("the agent does not ask for counters"))
    }

    async fn get_cycles(
        &self,
        _: Request<proto::GetCyclesRequest>,
    ) -> Result<Response<proto::Cycles>, Status> {
        Err(Status::unimplemented("the agent does not ask for cycles"))
    }

    async fn get_status(
        &self,
        _: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::Status>, Status> {
        Err(Status::unimplemented("the agent does not ask for the status"))
    }

    async fn trace(
        &self,
        _: Request<proto::TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        Err(Status::unimplemented("the agent does not ask for packets"))
    }

    async fn probe(
        &self,
        _: Request<proto::ProbeRequest>,
    ) -> Result<Response<Self::ProbeStream>, Status> {
        Err(Status::unimplemented("the agent does not ask for packets"))
    }
}

impl Service {
    /// Does what the daemon would do, and answers as it would.
    fn take(&self, step: Step, session: &mut Session) -> Vec<DaemonMessage> {
        let sequence = match &step {
            Step::Wait => return Vec::new(),
            Step::Greet(_) => {
                let hello = DaemonHello { version: VERSION, instance: 1, generation: 0 };
                return vec![DaemonMessage::Hello(hello)];
            }
            Step::Replace { sequence, .. }
            | Step::Apply { sequence, .. }
            | Step::Stale { sequence } => *sequence,
        };
        let refuse = matches!(step, Step::Stale { .. }) || self.spend_a_refusal();
        if refuse {
            session.refused();
            return vec![DaemonMessage::Refused { sequence, reason: "in a bad mood".into() }];
        }
        // Looked at before anybody can see what came, so that a test that has seen it and changes
        // the manner changes it for what comes next.
        let manner = self.manner.borrow().clone();
        self.told.send_modify(|told| match step {
            Step::Replace { state, .. } => {
                told.state = *state;
                told.full_states += 1;
                told.at = Some(Instant::now());
            }
            Step::Apply { updates, .. } => {
                updates.into_iter().for_each(|update| told.state.apply(update));
                told.commits += 1;
                told.at = Some(Instant::now());
            }
            Step::Wait | Step::Greet(_) | Step::Stale { .. } => {}
        });
        if manner.mute {
            return Vec::new();
        }
        let mut answers = vec![DaemonMessage::Ack { sequence, generation: sequence }];
        let told = self.told.borrow();
        answers.extend(told.state.endpoints.keys().map(|key| {
            DaemonMessage::EndpointStatus(EndpointStatus {
                key: key.clone(),
                down: manner.down.clone(),
            })
        }));
        answers
    }

    fn spend_a_refusal(&self) -> bool {
        self.manner.send_if_modified(|manner| {
            let refuses = manner.refusals > 0;
            manner.refusals = manner.refusals.saturating_sub(1);
            refuses
        })
    }
}
