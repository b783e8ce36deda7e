//! Flow logs: what becomes of connections, named, aggregated, and written.
//!
//! The dataplane reports flows by addresses and rules. Here they get the names of pods, nodes,
//! network sets and services; all flows of an interval that share a key become one line, which goes
//! into a file, to a collector of OpenTelemetry, or both. Everything is bounded: what there is no
//! room for is dropped and counted, and nobody waits for a file or a collector that is slow.
//!
//! - [`names`]: who has an address; [`entry`]: what a line tells apart and counts; [`from_report`]:
//!   from a report to entries; [`buffer`]: the interval;
//! - [`file`] and [`otlp`]: where lines go;
//! - [`FlowLog`]: the task.

mod names;
mod entry;
mod from_report;
mod buffer;
mod file;
mod otlp;

use std::future::pending;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use margay_protocol::proto;
use margay_protocol::socket::{self, UnixAddress};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Streaming;
use tracing::{debug, info, warn};

use buffer::Buffer;
use entry::Line;
use file::Files;
pub(crate) use names::Names;
use otlp::Collector;

/// Keys of one interval.
const KEYS: usize = 1 << 14;
/// Bytes of one file.
const FILE: u64 = 64 << 20;
/// Between two attempts to reach the dataplane.
const RETRY: Duration = Duration::from_secs(1);
/// How long a dataplane may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where flow logs go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    /// A file of JSON lines.
    pub file: Option<PathBuf>,
    /// A collector that speaks OTLP over gRPC.
    pub collector: Option<tonic::transport::Uri>,
}

/// What the pipeline says to the flow log.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    names: Arc<Mutex<Names>>,
    interval: watch::Sender<Duration>,
}

/// What was done, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Lines that were handed out.
    pub(crate) lines: AtomicU64,
    /// Reports for which there was no room.
    pub(crate) dropped: AtomicU64,
    /// Reports that the dataplane could not hand over.
    pub(crate) lost: AtomicU64,
    /// Lines that no file or collector took.
    pub(crate) unwritten: AtomicU64,
}

/// The task.
pub(crate) struct FlowLog {
    node: Arc<str>,
    dataplane: UnixAddress,
    feed: Feed,
    interval: watch::Receiver<Duration>,
    files: Option<Arc<Files>>,
    collector: Option<Collector>,
    counts: Arc<Counts>,
    buffer: Buffer,
    since: Timestamp,
    begun: Instant,
}

type Reports = Streaming<proto::FlowReports>;

// === impl Destinations ===

impl Destinations {
    /// Whether anybody wants flow logs.
    pub(crate) fn any(&self) -> bool {
        self.file.is_some() || self.collector.is_some()
    }
}

// === impl Feed ===

impl Default for Feed {
    fn default() -> Self {
        let interval = watch::Sender::new(Duration::from_secs(300));
        Self { names: Arc::default(), interval }
    }
}

impl Feed {
    /// Everything that has a name.
    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the time between two flushes.
    pub(crate) fn set_interval(&self, interval: Duration) {
        self.interval.send_if_modified(|old| std::mem::replace(old, interval) != interval);
    }
}

// === impl FlowLog ===

impl FlowLog {
    /// A flow log of the node whose dataplane this is.
    pub(crate) fn new(
        node: Arc<str>,
        dataplane: UnixAddress,
        destinations: &Destinations,
        feed: Feed,
    ) -> Self {
        let file = |path: &PathBuf| Arc::new(Files::new(path.clone(), FILE));
        let counts = Arc::<Counts>::default();
        let collector =
            |uri: &tonic::transport::Uri| Collector::new(uri.clone(), &node, counts.clone());
        Self {
            files: destinations.file.as_ref().map(file),
            collector: destinations.collector.as_ref().map(collector),
            interval: feed.interval.subscribe(),
            node,
            dataplane,
            feed,
            counts,
            buffer: Buffer::new(KEYS),
            since: Timestamp::now(),
            begun: Instant::now(),
        }
    }

    /// What it has done.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Runs until the future is dropped.
    pub(crate) async fn run(mut self) {
        let mut reports = None;
        let mut lost = 0;
        let mut retry = Instant::now();
        loop {
            let interval = *self.interval.borrow_and_update();
            tokio::select! {
                () = sleep_until(self.begun + interval) => self.flush().await,
                changed = self.interval.changed() => if changed.is_err() { pending::<()>().await },
                () = sleep_until(retry), if reports.is_none() => {
                    (reports, lost) = (self.connect().await, 0);
                    retry = Instant::now() + RETRY;
                }
                news = next(&mut reports) => match news {
                    Some(news) => {
                        self.counts.lost.fetch_add(news.lost.saturating_sub(lost), Relaxed);
                        lost = news.lost.max(lost);
                        self.take(&news.reports);
                    }
                    None => {
                        info!("the dataplane reports no flows any more");
                        reports = None;
                    }
                },
            }
        }
    }

    async fn connect(&self) -> Option<Reports> {
        let mut client = match timeout(PATIENCE, socket::connect(&self.dataplane)).await {
            Ok(Ok(client)) => client,
            Ok(Err(_)) | Err(_) => return None,
        };
        let call = client.watch_flows(proto::WatchFlowsRequest {});
        match timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => {
                debug!("the dataplane reports flows");
                Some(answer.into_inner())
            }
            Ok(Err(status)) => {
                warn!(%status, "the dataplane does not report flows");
                sleep(PATIENCE).await;
                None
            }
            Err(_) => None,
        }
    }

    fn take(&mut self, reports: &[proto::FlowReport]) {
        let names = self.feed.names();
        for report in reports {
            for (key, stats) in from_report::entries(report, &names) {
                self.buffer.add(key, stats);
            }
        }
    }

    /// Hands out what has come since the last time.
    async fn flush(&mut self) {
        let (since, now) = (self.since, Timestamp::now());
        (self.since, self.begun) = (now, Instant::now());
        let (flows, dropped) = self.buffer.take();
        self.counts.dropped.fetch_add(dropped, Relaxed);
        if dropped > 0 {
            warn!(dropped, "more kinds of flows than the flow log has room for in one interval");
        }
        if flows.is_empty() {
            return;
        }
        let [start_time, end_time] = [since, now].map(|time| time.to_string());
        let mut lines = Vec::with_capacity(flows.len());
        for (key, stats) in &flows {
            let (start_time, end_time, node) = (&*start_time, &*end_time, &*self.node);
            let line = Line { start_time, end_time, node, key, stats: *stats };
            if let Ok(mut line) = serde_json::to_vec(&line) {
                line.push(b'\n');
                lines.push(line);
            }
        }
        let number = lines.len() as u64;
        self.counts.lines.fetch_add(number, Relaxed);
        if let Some(collector) = &self.collector
            && !collector.send(&flows, since, now)
        {
            self.counts.unwritten.fetch_add(number, Relaxed);
        }
        if let Some(files) = self.files.clone() {
            let path = files.path().to_owned();
            let written = tokio::task::spawn_blocking(move || files.append(&lines)).await;
            if let Ok(Err(error)) = written {
                self.counts.unwritten.fetch_add(number, Relaxed);
                warn!(path = %path.display(), %error, "the flow log cannot be written");
            }
        }
    }
}

async fn next(reports: &mut Option<Reports>) -> Option<proto::FlowReports> {
    match reports {
        Some(stream) => stream.message().await.ok().flatten(),
        None => pending().await,
    }
}
