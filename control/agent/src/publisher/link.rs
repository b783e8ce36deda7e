//! The connection to the dataplane, again and again.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use margay_protocol::message::{AgentHello, DaemonHello};
use margay_protocol::socket::{self, ConnectError, UnixAddress};
use margay_protocol::{AgentMessage, DaemonMessage, FieldError, VERSION, proto};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{error, info, warn};

use super::outbox::Outbox;
use super::view::View;
use super::{Change, Revision};

/// Messages that wait between the outbox and the socket.
const QUEUE: usize = 256;
/// How long a dataplane may take to greet.
const GREETING: Duration = Duration::from_secs(5);
/// Between two attempts to connect: a restarted dataplane is found quickly, a missing one costs
/// little.
const RETRY: Backoff = Backoff { first: Duration::from_millis(50), last: Duration::from_secs(2) };
/// Between two attempts to have a full state accepted that was refused.
const REFUSED: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(30) };

#[derive(Clone, Copy)]
struct Backoff {
    first: Duration,
    last: Duration,
}

/// Why a connection ended or did not begin.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("margayd ended the connection: {}", .0.message())]
    Status(#[from] tonic::Status),
    #[error("margayd closed the connection")]
    Closed,
    #[error("margayd did not greet within {GREETING:?}")]
    NoGreeting,
    #[error(
        "margayd speaks version {0} of the protocol, this agent version {VERSION}: install the same release of both"
    )]
    Version(u32),
    #[error("margayd sent a bad message: {0}")]
    Field(#[from] FieldError),
    #[error("margayd answered before it greeted")]
    Order,
}

/// A greeted connection.
struct Link {
    out: mpsc::Sender<proto::FromAgent>,
    answers: Streaming<proto::FromDaemon>,
}

/// Publishes until the publisher is dropped.
pub(super) async fn run(
    dataplane: UnixAddress,
    node: Arc<str>,
    mut changes: mpsc::UnboundedReceiver<Change>,
    view: watch::Sender<View>,
) {
    let mut outbox = Outbox::default();
    let mut wait = RETRY.first;
    let mut last_trouble = String::new();
    loop {
        let trouble = match Link::open(&dataplane, &node).await {
            Ok((link, hello)) => {
                info!(
                    instance = hello.instance,
                    generation = hello.generation,
                    "connected to margayd"
                );
                wait = RETRY.first;
                last_trouble.clear();
                outbox.start_over();
                view.send_modify(|v| v.greeted(&hello));
                match link.converse(&mut outbox, &mut changes, &view).await {
                    Ok(()) => return,
                    Err(trouble) => trouble,
                }
            }
            Err(trouble) => trouble,
        };
        let text = trouble.to_string();
        // The same sentence every two seconds helps nobody.
        if text != last_trouble {
            warn!(%dataplane, error = &text, "no connection to margayd, trying again");
            last_trouble.clone_from(&text);
        }
        view.send_modify(|v| v.lost(text));
        if collect_for(wait, &mut outbox, &mut changes).await.is_none() {
            return;
        }
        wait = (wait * 2).min(RETRY.last);
    }
}

/// Takes changes in while there is no dataplane; `None` when there will be no more.
async fn collect_for(
    wait: Duration,
    outbox: &mut Outbox,
    changes: &mut mpsc::UnboundedReceiver<Change>,
) -> Option<()> {
    let deadline = Instant::now() + wait;
    loop {
        tokio::select! {
            () = sleep_until(deadline) => return Some(()),
            change = changes.recv() => outbox.change(change?),
        }
    }
}

// === impl Link ===

impl Link {
    /// Connects, greets and is greeted.
    async fn open(
        dataplane: &UnixAddress,
        node: &Arc<str>,
    ) -> Result<(Self, DaemonHello), LinkError> {
        let mut client = socket::connect(dataplane).await?;
        let (out, queue) = mpsc::channel(QUEUE);
        let hello = AgentMessage::Hello(AgentHello {
            version: VERSION,
            node: node.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        });
        out.try_send((&hello).into()).map_err(|_| LinkError::Closed)?;
        let greeting = async {
            let mut answers = client.sync(ReceiverStream::new(queue)).await?.into_inner();
            match next(&mut answers).await? {
                DaemonMessage::Hello(hello) if hello.version == VERSION => Ok((answers, hello)),
                DaemonMessage::Hello(hello) => Err(LinkError::Version(hello.version)),
                _ => Err(LinkError::Order),
            }
        };
        let (answers, hello) =
            timeout(GREETING, greeting).await.map_err(|_| LinkError::NoGreeting)??;
        Ok((Self { out, answers }, hello))
    }

    /// Sends and listens until the connection ends (an error) or there will be no more changes.
    async fn converse(
        mut self,
        outbox: &mut Outbox,
        changes: &mut mpsc::UnboundedReceiver<Change>,
        view: &watch::Sender<View>,
    ) -> Result<(), LinkError> {
        let mut again: Option<Instant> = None;
        let mut refused_wait = REFUSED.first;
        loop {
            if again.is_none() {
                self.send(outbox, view).await?;
            }
            tokio::select! {
                change = changes.recv() => {
                    let Some(change) = change else { return Ok(()) };
                    outbox.change(change);
                    while let Ok(change) = changes.try_recv() {
                        outbox.change(change);
                    }
                }
                answer = next(&mut self.answers) => match answer? {
                    DaemonMessage::Ack { sequence, generation } => {
                        if let Some(revision) = outbox.acknowledged(sequence) {
                            refused_wait = REFUSED.first;
                            view.send_modify(|v| v.acknowledged(revision, generation, outbox));
                        }
                    }
                    DaemonMessage::Refused { sequence, reason } => {
                        if outbox.is_under_way(sequence) {
                            error!(sequence, reason, "margayd refused the state; its last one stays in force");
                            outbox.start_over();
                            again = Some(Instant::now() + refused_wait);
                            refused_wait = (refused_wait * 2).min(REFUSED.last);
                            view.send_modify(|v| v.refused(reason));
                        }
                    }
                    DaemonMessage::EndpointStatus(status) => {
                        let state = status.down.map_or(Ok(()), Err);
                        view.send_modify(|v| { v.endpoints.insert(status.key, state); });
                    }
                    DaemonMessage::Hello(_) => return Err(LinkError::Order),
                },
                () = until(again) => again = None,
            }
        }
    }

    /// Sends what the outbox has.
    async fn send(&self, outbox: &mut Outbox, view: &watch::Sender<View>) -> Result<(), LinkError> {
        let Some(parcel) = outbox.next() else { return Ok(()) };
        view.send_modify(|v| v.sent(parcel.full, parcel.messages.len()));
        for message in &parcel.messages {
            self.out.send(message.into()).await.map_err(|_| LinkError::Closed)?;
        }
        Ok(())
    }
}

async fn next(answers: &mut Streaming<proto::FromDaemon>) -> Result<DaemonMessage, LinkError> {
    let message = answers.message().await?.ok_or(LinkError::Closed)?;
    Ok(message.try_into()?)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

// === impl View ===

impl View {
    fn greeted(&mut self, hello: &DaemonHello) {
        self.connected = true;
        self.generation = hello.generation;
        self.endpoints.clear();
        self.counts.connections += 1;
    }

    fn lost(&mut self, trouble: String) {
        self.connected = false;
        self.in_force = Revision::default();
        self.endpoints.clear();
        self.trouble = Some(trouble);
    }

    fn sent(&mut self, full: bool, messages: usize) {
        let frame = if full { 2 } else { 1 };
        self.counts.updates += (messages - frame) as u64;
        if full {
            self.counts.full_states += 1;
        } else {
            self.counts.commits += 1;
        }
    }

    fn acknowledged(&mut self, revision: Revision, generation: u64, outbox: &Outbox) {
        self.in_force = revision;
        self.generation = generation;
        self.trouble = None;
        // Only now is it sure that nothing more comes about an endpoint that was removed.
        outbox.forget_gone(&mut self.endpoints);
    }

    fn refused(&mut self, reason: String) {
        self.counts.refusals += 1;
        self.trouble = Some(reason);
    }
}
