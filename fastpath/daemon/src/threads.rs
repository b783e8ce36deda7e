//! The workers' threads, each pinned to its core.

use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};

use anyhow::Context;
use core_affinity::CoreId;
use margay_worker::cycle::StartError;
use margay_worker::{Setup, Worker};
use tokio::sync::mpsc;

/// All workers.
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Numbers of those that have ended.
    lost: mpsc::UnboundedReceiver<usize>,
}

/// Says that a worker's thread ends, also where it panics.
struct Ending {
    number: usize,
    tell: mpsc::UnboundedSender<usize>,
}

// === impl Workers ===

impl Workers {
    /// Starts one for each core (or place that is none in particular), alike in all else.
    pub(crate) fn start(cores: &[Option<usize>], alike: &Setup) -> anyhow::Result<Self> {
        let (tell, lost) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for (number, core) in cores.iter().enumerate() {
            let setup = Setup { number, core: core.map(|id| CoreId { id }), ..alike.clone() };
            // Made on its own thread: it pins itself first, so that its memory is near its core.
            let (made, ready) = channel::<Result<(), StartError>>();
            let work = move || match Worker::new(setup) {
                Ok(worker) => {
                    let _ = made.send(Ok(()));
                    worker.run();
                }
                Err(error) => {
                    let _ = made.send(Err(error));
                }
            };
            threads.push(spawn(number, tell.clone(), work)?);
            ready.recv().context("a worker died at start")??;
        }
        Ok(Self { threads, lost })
    }

    /// Waits until a worker ends: its number. For ever where there is none.
    pub(crate) async fn lost(&mut self) -> usize {
        match self.lost.recv().await {
            Some(number) => number,
            None => std::future::pending().await,
        }
    }

    /// Waits for the ends of all threads; those that panicked have said so.
    pub(crate) fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// A thread that says its number when it ends.
fn spawn(
    number: usize,
    tell: mpsc::UnboundedSender<usize>,
    work: impl FnOnce() + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let ending = Ending { number, tell };
    let named = Builder::new().name(format!("margay-worker-{number}"));
    let thread = named.spawn(move || {
        let _ending = ending;
        work();
    });
    thread.context("cannot start a worker's thread")
}

// === impl Ending ===

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.tell.send(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_is_lost() {
        let (tell, lost) = mpsc::unbounded_channel();
        let (go, told) = channel::<()>();
        let works = spawn(0, tell.clone(), move || told.recv().unwrap_or_default()).unwrap();
        let panics = spawn(1, tell, || panic!("as a worker might")).unwrap();
        let mut workers = Workers { threads: vec![works, panics], lost };
        assert_eq!(workers.lost().await, 1);
        drop(go);
        assert_eq!(workers.lost().await, 0);
        workers.join();
    }
}
