//! Kernel parameters below `/proc/sys/net`, which show the calling thread's network namespace.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{KernelError, Result};

/// Reads a parameter without its line end; `None` where the kernel has none of this name.
pub(super) fn read(name: &str) -> Result<Option<String>> {
    let path = path(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KernelError::File { path, source }),
    }
}

/// Writes a parameter unless it has the value already; returns whether it was written.
pub(super) fn write(name: &str, value: &str) -> Result<bool> {
    if read(name)?.as_deref() == Some(value) {
        return Ok(false);
    }
    let path = path(name);
    fs::write(&path, value).map_err(|source| KernelError::File { path, source })?;
    Ok(true)
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(name)
}

/// Ports that the kernel hands to nobody by itself, with what the list said before.
///
/// The old list is remembered in a file, so that a daemon that comes after a crash knows it.
#[derive(Debug)]
pub(super) struct ReservedPorts {
    memory: PathBuf,
}

const RESERVED: &str = "ipv4/ip_local_reserved_ports";
const EPHEMERAL: &str = "ipv4/ip_local_port_range";

// === impl ReservedPorts ===

impl ReservedPorts {
    /// The old list is kept in `state_dir`.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { memory: state_dir.join("reserved-ports") }
    }

    /// Reserves what of these ranges lies in the kernel's own range besides what was reserved before;
    /// returns whether the kernel's list changed.
    pub(super) fn reserve(&self, ports: &[(u16, u16)]) -> Result<bool> {
        let Some(now) = read(RESERVED)? else { return Ok(false) };
        let before = match self.remembered()? {
            Some(before) => before,
            None => now,
        };
        let ephemeral = read(EPHEMERAL)?.unwrap_or_default();
        let ours = ports.iter().filter_map(|ports| overlap(*ports, &ephemeral));
        let ours: Vec<_> = ours.map(|(first, last)| format!("{first}-{last}")).collect();
        if ours.is_empty() {
            return self.release();
        }
        self.remember(&before)?;
        set_list(&format!("{before},{}", ours.join(",")))
    }

    /// Puts the old list back; returns whether the kernel's list changed.
    pub(super) fn release(&self) -> Result<bool> {
        let Some(before) = self.remembered()? else { return Ok(false) };
        let changed = set_list(&before)?;
        fs::remove_file(&self.memory)
            .map_err(|source| KernelError::File { path: self.memory.clone(), source })?;
        Ok(changed)
    }

    fn remembered(&self) -> Result<Option<String>> {
        match fs::read_to_string(&self.memory) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KernelError::File { path: self.memory.clone(), source }),
        }
    }

    /// Written to a new file and renamed, so that a crash leaves the old memory or the new.
    fn remember(&self, list: &str) -> Result<()> {
        if self.remembered()?.as_deref() == Some(list) {
            return Ok(());
        }
        let fresh = self.memory.with_extension("new");
        fs::write(&fresh, format!("{list}\n"))
            .and_then(|()| fs::rename(&fresh, &self.memory))
            .map_err(|source| KernelError::File { path: self.memory.clone(), source })
    }
}

/// Writes the list in the form that the kernel shows (ordered, neighbours joined), so that an equal
/// list is not written again. An empty list is written as a line end.
fn set_list(list: &str) -> Result<bool> {
    let list = normal(list);
    if read(RESERVED)?.is_some_and(|now| normal(&now) == list) {
        return Ok(false);
    }
    let path = path(RESERVED);
    fs::write(&path, format!("{list}\n")).map_err(|source| KernelError::File { path, source })?;
    Ok(true)
}

fn normal(list: &str) -> String {
    let mut ranges: Vec<(u16, u16)> = list.split(',').filter_map(range).collect();
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if u32::from(first) <= u32::from(before.1) + 1 => {
                before.1 = before.1.max(last);
            }
            _ => joined.push((first, last)),
        }
    }
    let text = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    joined.iter().map(text).collect::<Vec<_>>().join(",")
}

fn range(text: &str) -> Option<(u16, u16)> {
    let text = text.trim();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// The part of `ports` inside the kernel's range, which reads "32768\t60999": its end, as long as half
/// of that range at most, or the node could open no connection of its own. Ports before that are used
/// for masquerading unless a process has bound them.
fn overlap(ports: (u16, u16), ephemeral: &str) -> Option<(u16, u16)> {
    let mut words = ephemeral.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (words.next(), words.next()) else { return None };
    let (begin, end) = (ports.0.max(first), ports.1.min(last));
    let half = last.checked_sub(first)? / 2;
    (begin <= end).then(|| (begin.max(end.saturating_sub(half)), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_ordered_and_joined_as_the_kernel_shows_them() {
        assert_eq!(normal(""), "");
        assert_eq!(normal("8080"), "8080");
        assert_eq!(normal(",8080-8080"), "8080");
        assert_eq!(normal("61000-65535,8080,60999"), "8080,60999-65535");
        assert_eq!(normal("1-5,3-4,6"), "1-6");
    }

    #[test]
    fn only_the_overlap_with_the_kernels_range_is_reserved() {
        assert_eq!(overlap((61_000, 65_535), "32768\t60999"), None);
        assert_eq!(overlap((61_000, 65_535), "1024\t65000"), Some((61_000, 65_000)));
        assert_eq!(overlap((61_000, 65_535), "nonsense"), None);
        // Calico's own example of a `natPortRange`.
        assert_eq!(overlap((32_768, 65_000), "32768\t60999"), Some((46_884, 60_999)));
    }
}
