//! Reads many documents on all cores: a cluster's documents are long, and a process that starts
//! waits for nothing else.

use std::num::NonZero;
use std::panic;
use std::thread;

use crate::documents::{Format, Parsed, Reader};

/// So many documents are worth a thread.
const SHARE: usize = 64;

/// What the reader finds in each text, in the order of the texts.
pub(super) fn read_all(reader: &dyn Reader, texts: &[&str], format: Format) -> Vec<Vec<Parsed>> {
    let read =
        |texts: &[&str]| -> Vec<_> { texts.iter().map(|t| reader.read(t, format)).collect() };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores.min(texts.len() / SHARE);
    if threads < 2 {
        return read(texts);
    }
    thread::scope(|scope| {
        let shares = texts.chunks(texts.len().div_ceil(threads));
        let begun: Vec<_> = shares.map(|share| scope.spawn(move || read(share))).collect();
        let outcome = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        };
        begun.into_iter().flat_map(outcome).collect()
    })
}
