//! Where the log goes: to `log_file_path`, or else to standard error.

use std::fs::{self, OpenOptions};

use margay_cni_api::{CniError, Code};

use crate::config::Log;

/// Starts logging. The file is opened for appending, so that plugins that run side by side do not
/// overwrite each other's lines.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn start(log: &Log) -> Result<(), CniError> {
    let Some(level) = log.level else { return Ok(()) };
    let builder =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_target(false);
    // Only the first subscriber of a process counts, and there is one.
    match &log.file {
        None => drop(builder.with_writer(std::io::stderr).try_init()),
        Some(path) => {
            let fail = |error| {
                CniError::new(
                    Code::IO,
                    format!("log_file_path: opening {}: {error}", path.display()),
                    "choose another \"log_file_path\", or leave it out to log to standard error",
                )
            };
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(fail)?;
            }
            let file = OpenOptions::new().append(true).create(true).open(path).map_err(fail)?;
            drop(builder.with_writer(std::sync::Mutex::new(file)).try_init());
        }
    }
    Ok(())
}
