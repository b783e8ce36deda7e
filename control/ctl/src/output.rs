//! How results are written.

use std::io::{self, Write};

use serde::Serialize;

use crate::options::Form;

/// Rows below a header, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

// === impl Table ===

impl Table {
    /// A table without rows.
    pub(crate) fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self { header: header.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row, which has as many cells as the header.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Whether it has no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the table; nothing follows the last cell of a line.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let widths: Vec<usize> = (self.header.iter().enumerate())
            .map(|(i, title)| {
                cells(i).map(|c| c.chars().count()).max().unwrap_or(0).max(title.len())
            })
            .collect();
        let header: Vec<String> = self.header.iter().map(ToString::to_string).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = padded.collect::<Vec<_>>().join("   ");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Writes a value to standard output if the form is one for programs; whether it is.
pub(crate) fn write_structured(form: Form, value: &impl Serialize) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match form {
        Form::Json => write_json(&mut out, value).map(|()| true),
        Form::Yaml => write_yaml(&mut out, value).map(|()| true),
        Form::Table | Form::Wide | Form::Name => Ok(false),
    }
}

/// Writes a value as indented JSON and a newline.
pub(crate) fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Writes a value as a YAML document.
pub(crate) fn write_yaml(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_yaml_ng::to_writer(out, value).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_tail() {
        let mut table = Table::new(["NAME", "X", "LAST"]);
        table.push(vec!["a-long-name".into(), "ü".into(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME          X   LAST\na-long-name   ü\n");
    }
}
