//! JSON lines in a file that is followed by others when it is full.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Files besides the one that is written to.
const KEPT: u32 = 3;

/// The file, and its predecessors `FILE.1` (the youngest) to `FILE.3`.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    /// Bytes after which a file is full.
    full: u64,
}

// === impl Files ===

impl Files {
    /// Files of so many bytes each, or one line more.
    pub(super) fn new(path: PathBuf, full: u64) -> Self {
        Self { path, full }
    }

    /// Appends lines, all of which end in a line break.
    pub(super) fn append(&self, lines: &[Vec<u8>]) -> io::Result<()> {
        let (mut out, mut len) = self.open()?;
        for line in lines {
            if len > 0 && len + line.len() as u64 > self.full {
                out.flush()?;
                drop(out);
                self.rotate()?;
                (out, len) = self.open()?;
            }
            out.write_all(line)?;
            len += line.len() as u64;
        }
        out.flush()
    }

    fn open(&self) -> io::Result<(BufWriter<File>, u64)> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        let len = file.metadata()?.len();
        Ok((BufWriter::new(file), len))
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_followed_by_another_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/flows.log");
        let files = Files::new(path.clone(), 10);
        for number in 0..12 {
            files.append(&[format!("line{number:03}\n").into_bytes()]).unwrap();
        }
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(text(&path), "line011\n");
        assert_eq!(text(&files.numbered(1)), "line010\n");
        assert_eq!(text(&files.numbered(3)), "line008\n");
        assert_eq!(std::fs::read_dir(dir.path().join("new")).unwrap().count(), 4);
    }
}
