//! What outlives the process: a lock, the flow table, the last state.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use margay_model::State;
use margay_tables::flow::{FlowConfig, FlowTable, LayoutError, Region};
use rustix::fs::{FlockOperation, flock};
use tracing::{info, warn};

use crate::sole::patiently;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// A file of it.
    #[error("cannot {operation} {path}")]
    File {
        /// The verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another daemon has it.
    #[error(
        "{path} is in use by another margayd: stop that one, or give this one another --state-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The flow table's sizes.
    #[error("cannot lay out the flow table")]
    Layout(#[source] LayoutError),
}

/// The directory, locked for as long as this lives.
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

// === impl StateDir ===

impl StateDir {
    /// Makes the directory if needed and locks it.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        std::fs::create_dir_all(path).map_err(failed("create", path))?;
        let file = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&file)
            .map_err(failed("open", &file))?;
        patiently(|| flock(&lock, FlockOperation::NonBlockingLockExclusive))
            .map_err(|_| StateDirError::InUse { path: path.into() })?;
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// The flow table that an earlier process left, or a new one.
    pub fn flow_table(&self, config: &FlowConfig) -> Result<FlowTable, StateDirError> {
        let path = self.path.join("flows");
        let bytes = FlowTable::required_bytes(config).map_err(StateDirError::Layout)?;
        let incarnation = boot_id();
        let map = || Region::file(&path, bytes).map_err(failed("map", &path));
        match FlowTable::open(map()?, config, incarnation) {
            Ok(table) => {
                let flows = table.counts().connections;
                info!(flows, generation = table.generation(), "taking over the flow table");
                return Ok(table);
            }
            Err(LayoutError::NoTable) => {}
            Err(reason) => warn!(%reason, "starting with an empty flow table"),
        }
        FlowTable::create(map()?, config, seed(), incarnation).map_err(StateDirError::Layout)
    }

    /// The state that was last in force, if there is one that can be read.
    pub fn load_state(&self) -> Option<State> {
        let path = self.path.join("state");
        let bytes = std::fs::read(&path).ok()?;
        match margay_protocol::decode_state(&bytes) {
            Ok(state) => Some(state),
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot use the saved state");
                None
            }
        }
    }

    /// Saves the state that is in force, whole or not at all.
    pub fn save_state(&self, state: &Arc<State>) -> Result<(), StateDirError> {
        replace(&self.path.join("state"), &margay_protocol::encode_state(state))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Puts a file whole in the place of another.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StateDirError> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).map_err(failed("write", &new))?;
    std::fs::rename(&new, path).map_err(failed("replace", path))
}

/// Whether something is to be saved, and why it could not be, as it was told last.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    due: bool,
    told: Option<String>,
}

// === impl Unsaved ===

impl Unsaved {
    /// Something has changed.
    pub(crate) fn note(&mut self) {
        self.due = true;
    }

    /// Saves what has changed. What fails is tried again at the next call, and told once for each reason.
    pub(crate) fn save(
        &mut self,
        what: &'static str,
        save: impl FnOnce() -> Result<(), StateDirError>,
    ) {
        if !self.due {
            return;
        }
        match save() {
            Ok(()) => {
                self.due = false;
                if self.told.take().is_some() {
                    info!(what, "saved again");
                }
            }
            Err(error) => {
                let why = format!("{error:?}");
                if self.told.replace(why.clone()) != Some(why) {
                    warn!(
                        what,
                        error = &error as &dyn std::error::Error,
                        "not saved, trying again"
                    );
                }
            }
        }
    }
}

fn failed<'p>(
    operation: &'static str,
    path: &'p Path,
) -> impl FnOnce(std::io::Error) -> StateDirError + 'p {
    move |source| StateDirError::File { operation, path: path.into(), source }
}

/// A number for this life of the machine: times in the flow table mean nothing in another.
fn boot_id() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&hex, 16).unwrap_or(1)
}

/// A seed that nobody outside can guess.
pub(crate) fn seed() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => boot_id().rotate_left(17) ^ u64::from(std::process::id()),
    }
}
