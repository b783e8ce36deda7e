//! Cuts a YAML file into its documents, so that each is read, cached and rewritten by itself.
//!
//! YAML 1.2 §9.1.2: a line that begins with `---` (followed by white space or nothing) is a marker
//! wherever it stands, also in the middle of a block scalar, hence no parser is needed to find it.

/// One document of a file, with the marker and the comments that precede it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    /// The text; the texts of all chunks together are the file.
    pub(super) text: &'a str,
    /// Lines of the file before the first of this text.
    pub(super) lines_before: usize,
}

/// Cuts `text` into its documents; comments and directives stay with the document they precede.
pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut begin, mut begin_line) = (0, 0);
    let (mut at, mut has_content) = (0, false);
    for (line_number, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line, "---") {
            if has_content {
                chunks.push(Chunk { text: &text[begin..at], lines_before: begin_line });
                (begin, begin_line) = (at, line_number);
            }
            // Whether something stands on the marker's own line or an empty document follows: the
            // next marker ends this document in either case.
            has_content = true;
        } else if is_marker(line, "...") {
            let end = at + line.len();
            chunks.push(Chunk { text: &text[begin..end], lines_before: begin_line });
            (begin, begin_line, has_content) = (end, line_number + 1, false);
        } else if !is_prelude(line) {
            has_content = true;
        }
        at += line.len();
    }
    if begin < text.len() {
        chunks.push(Chunk { text: &text[begin..], lines_before: begin_line });
    }
    chunks
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.trim_start() != rest || rest.is_empty())
}

/// Blank lines, comments and directives.
fn is_prelude(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(usize, &str)> {
        split(text).into_iter().map(|c| (c.lines_before, c.text)).collect()
    }

    #[test]
    fn documents_are_cut_at_markers_and_know_their_first_line() {
        let expected = vec![(0, "a: 1\n"), (1, "---\nb: 2\n"), (3, "--- {c: 3}\n"), (4, "---\n")];
        assert_eq!(texts("a: 1\n---\nb: 2\n--- {c: 3}\n---\n"), expected);
    }

    #[test]
    fn comments_and_directives_belong_to_the_document_that_follows() {
        assert_eq!(texts("# why\n%YAML 1.2\n---\na: 1\n").len(), 1);
        assert_eq!(texts("a: 1\n...\n# why\n---\nb: 1\n").len(), 2);
    }

    #[test]
    fn what_only_looks_like_a_marker_cuts_nothing() {
        assert_eq!(texts("a: |\n  ---\n  text\n----\n---x: 1\n").len(), 1);
    }

    #[test]
    fn the_chunks_together_are_the_file() {
        for text in
            ["", "\n", "---", "---\n---\n", "a\r\n---\r\nb", "...\n...\n", "é: 1\n---\nü: 2"]
        {
            let joined: String = split(text).iter().map(|c| c.text).collect();
            assert_eq!(joined, text);
        }
    }
}
