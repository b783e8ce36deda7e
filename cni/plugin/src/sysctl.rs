//! Writing below `/proc/sys/net`, which shows the namespace of the calling thread.

use std::fs;
use std::io;
use std::path::Path;

/// Sets `/proc/sys/net/<key>`; false when the kernel has no such knob (IPv6 compiled out or
/// switched off at boot).
pub(crate) fn set(key: &str, value: &str) -> io::Result<bool> {
    let path = Path::new("/proc/sys/net").join(key);
    match fs::write(&path, value) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("writing {value} to {}: {error}", path.display()),
        )),
    }
}
