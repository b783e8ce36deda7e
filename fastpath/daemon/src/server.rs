//! The protocol's server: the agent's stream, and questions.

use std::pin::Pin;
use std::sync::Arc;

use margay_protocol::message::{AgentMessage, DaemonHello, DaemonMessage};
use margay_protocol::{Dataplane, FlowFilter, Session, Step, proto};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request as Call, Response, Status, Streaming};
use tracing::{info, warn};

use crate::control::Request;
use crate::shared::Shared;
use crate::show;
use crate::trace::{self, Tapped};

/// Answers that may wait for an agent that is slow to read.
const BACKLOG: usize = 1024;

/// The service.
pub(crate) struct Server {
    shared: Arc<Shared>,
    control: mpsc::UnboundedSender<Request>,
    /// Number of the agent's stream that counts; it grows with each.
    current: Arc<watch::Sender<u64>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

// === impl Server ===

impl Server {
    /// A server that hands changes to the control task. When `current` is closed, streams end.
    pub(crate) fn new(
        shared: Arc<Shared>,
        control: mpsc::UnboundedSender<Request>,
        current: Arc<watch::Sender<u64>>,
    ) -> Self {
        Self { shared, control, current }
    }
}

#[tonic::async_trait]
impl Dataplane for Server {
    type SyncStream = Answers<proto::FromDaemon>;
    type ListFlowsStream = Answers<proto::Flow>;
    type ListNamesStream = Answers<proto::NameAddress>;
    type TraceStream = Answers<proto::Sighting>;
    type ProbeStream = Answers<proto::Sighting>;
    type WatchFlowsStream = Answers<proto::FlowReports>;

    async fn sync(
        &self,
        call: Call<Streaming<proto::FromAgent>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let mut number = 0;
        self.current.send_modify(|current| {
            *current += 1;
            number = *current;
        });
        let (out, answers) = mpsc::channel(BACKLOG);
        let agent = Agent {
            shared: self.shared.clone(),
            control: self.control.clone(),
            out,
            number,
            current: self.current.subscribe(),
        };
        tokio::spawn(agent.run(call.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn list_flows(
        &self,
        call: Call<proto::FlowFilter>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        let filter = FlowFilter::try_from(call.into_inner())?;
        let (out, flows) = mpsc::channel(BACKLOG);
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            show::flows(&shared, &filter, |flow| out.blocking_send(Ok(flow.into())).is_ok());
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(flows))))
    }

    async fn list_names(
        &self,
        _: Call<proto::ListNamesRequest>,
    ) -> Result<Response<Self::ListNamesStream>, Status> {
        let (answer, names) = oneshot::channel();
        let _ = self.control.send(Request::Names(answer));
        let names = names.await.map_err(|_| Status::unavailable("the dataplane stops"))?;
        Ok(Response::new(Box::pin(futures::stream::iter(names.into_iter().map(Ok)))))
    }

    async fn list_rule_counts(
        &self,
        _: Call<proto::ListRuleCountsRequest>,
    ) -> Result<Response<proto::RuleCounts>, Status> {
        Ok(Response::new(show::rule_counts(&self.shared)))
    }

    async fn watch_flows(
        &self,
        _: Call<proto::WatchFlowsRequest>,
    ) -> Result<Response<Self::WatchFlowsStream>, Status> {
        let batches = ReceiverStream::new(self.shared.accounts.watch());
        let reports = batches.map(|batch| Ok(batch.into()));
        let mut current = self.current.subscribe();
        // The daemon stops.
        let stopped = async move { drop(current.wait_for(|current| *current == u64::MAX).await) };
        Ok(Response::new(Box::pin(futures::StreamExt::take_until(reports, Box::pin(stopped)))))
    }

    async fn get_counters(
        &self,
        _: Call<proto::GetCountersRequest>,
    ) -> Result<Response<proto::Counters>, Status> {
        Ok(Response::new(show::counters(&self.shared)))
    }

    async fn get_cycles(
        &self,
        _: Call<proto::GetCyclesRequest>,
    ) -> Result<Response<proto::Cycles>, Status> {
        Ok(Response::new(show::cycles(&self.shared)))
    }

    async fn get_status(
        &self,
        _: Call<proto::GetStatusRequest>,
    ) -> Result<Response<proto::Status>, Status> {
        Ok(Response::new(show::status(&self.shared)))
    }

    async fn trace(
        &self,
        call: Call<proto::TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        let tapped = Tapped::new(&self.shared, call.into_inner())?;
        let (out, sightings) = mpsc::channel(BACKLOG);
        let mut current = self.current.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = tapped.run(out) => {}
                // The daemon stops.
                _ = current.wait_for(|current| *current == u64::MAX) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(sightings))))
    }

    async fn probe(
        &self,
        call: Call<proto::ProbeRequest>,
    ) -> Result<Response<Self::ProbeStream>, Status> {
        let (out, sightings) = mpsc::channel(BACKLOG);
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(status) = trace::probe(&shared, call.into_inner(), &out) {
                let _ = out.blocking_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(sightings))))
    }
}

/// One agent's stream.
struct Agent {
    shared: Arc<Shared>,
    control: mpsc::UnboundedSender<Request>,
    out: mpsc::Sender<Result<proto::FromDaemon, Status>>,
    number: u64,
    current: watch::Receiver<u64>,
}

impl Agent {
    async fn run(self, mut messages: Streaming<proto::FromAgent>) {
        let (told, mut tell) = mpsc::unbounded_channel();
        let mut session = Session::default();
        let mut current = self.current.clone();
        let number = self.number;
        let ended = loop {
            tokio::select! {
                biased;
                taken_over = replaced(&mut current, number) => {
                    break Some(if taken_over {
                        Status::aborted("another agent has taken over")
                    } else {
                        Status::unavailable("the dataplane stops")
                    });
                }
                Some(message) = tell.recv() => if !self.say(&message).await { break None },
                message = messages.next() => {
                    let Some(Ok(message)) = message else { break None };
                    match self.on(&mut session, message, &told).await {
                        Ok(true) => {}
                        Ok(false) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
        };
        if let Some(status) = ended {
            warn!(reason = status.message(), "the agent's connection ends");
            let _ = self.out.send(Err(status)).await;
        } else {
            info!("the agent is gone; forwarding goes on as it was");
        }
        if *self.current.borrow() == self.number {
            self.shared.update(|view| view.agent = false);
        }
    }

    /// Takes one message; `false` when the agent is not listening any more.
    async fn on(
        &self,
        session: &mut Session,
        message: proto::FromAgent,
        told: &mpsc::UnboundedSender<DaemonMessage>,
    ) -> Result<bool, Status> {
        let step = session.on(AgentMessage::try_from(message)?)?;
        match step {
            Step::Wait => Ok(true),
            Step::Greet(hello) => {
                info!(node = &*hello.node, release = hello.release, "an agent is here");
                self.shared.update(|view| view.agent = true);
                let _ = self.control.send(Request::AgentHere(told.clone()));
                let hello = DaemonHello {
                    version: margay_protocol::VERSION,
                    instance: self.shared.instance,
                    generation: self.shared.view().snapshot.map_or(0, |s| s.generation.into()),
                };
                Ok(self.say(&DaemonMessage::Hello(hello)).await)
            }
            Step::Replace { sequence, state } => {
                let (done, generation) = oneshot::channel();
                let _ = self.control.send(Request::Replace(state, done));
                self.acknowledge(sequence, generation).await
            }
            Step::Apply { sequence, updates } => {
                let (done, generation) = oneshot::channel();
                let _ = self.control.send(Request::Apply(updates, done));
                self.acknowledge(sequence, generation).await
            }
            Step::Stale { sequence } => {
                let reason = "an earlier change was refused: begin again".to_owned();
                Ok(self.say(&DaemonMessage::Refused { sequence, reason }).await)
            }
        }
    }

    async fn acknowledge(
        &self,
        sequence: u64,
        generation: oneshot::Receiver<u32>,
    ) -> Result<bool, Status> {
        let generation =
            generation.await.map_err(|_| Status::unavailable("the dataplane stops"))?;
        let ack = DaemonMessage::Ack { sequence, generation: generation.into() };
        let heard = self.say(&ack).await;
        let _ = self.control.send(Request::Answered);
        Ok(heard)
    }

    async fn say(&self, message: &DaemonMessage) -> bool {
        self.out.send(Ok(message.into())).await.is_ok()
    }
}

/// Waits until another stream counts: whether one has taken over, or the daemon stops.
async fn replaced(current: &mut watch::Receiver<u64>, number: u64) -> bool {
    let changed = current.wait_for(|current| *current != number).await;
    changed.is_ok_and(|current| *current != u64::MAX)
}
