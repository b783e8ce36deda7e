//! Domain names, and the patterns that policies are written with.
//!
//! Names are those of hosts: labels of letters, digits, `-` and `_` with dots between them, at most
//! 63 bytes each and 253 together (RFC 1035 §2.3.4). They are kept in lower case and without the
//! dot at their end, since case does not count (RFC 4343) and all of them are absolute.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name in bytes, without the dot at its end.
const MAX_NAME: usize = 253;
/// The longest label.
const MAX_LABEL: usize = 63;

/// The name of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Arc<str>);

/// A name, or all names that have one label or more where the pattern has `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern(Arc<str>);

/// Why a text is no name or pattern.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DomainError {
    /// It, or a label of it, is empty.
    #[error("has an empty label: write labels with one dot between them")]
    EmptyLabel,
    /// It is longer than a name can be.
    #[error("has more than {MAX_NAME} characters")]
    TooLong,
    /// A label is longer than one can be.
    #[error("has a label of more than {MAX_LABEL} characters")]
    LabelTooLong,
    /// A character stands in no host's name.
    #[error("has `{0}`: labels are of letters, digits, `-` and `_`")]
    Character(char),
    /// `*` beside other characters of a label.
    #[error("has `*` as a part of a label: it stands for whole labels")]
    PartOfLabel,
    /// `*` twice.
    #[error("has more than one `*`")]
    Wildcards,
}

// === impl DomainName ===

impl DomainName {
    /// The name, in lower case and without the dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        normal(text, label).map(Self)
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl DomainPattern ===

impl DomainPattern {
    /// The pattern in lower case and without the dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one name that it matches; `None` where there may be more.
    pub fn exact(&self) -> Option<DomainName> {
        (!self.0.contains('*')).then(|| DomainName(self.0.clone()))
    }

    /// Whether it matches a name.
    pub fn matches(&self, name: &DomainName) -> bool {
        // What stands before `*` ends with a dot, what stands behind begins with one: whole labels
        // are left between them.
        match self.0.split_once('*') {
            None => self.0 == name.0,
            Some((before, behind)) => {
                name.0.len() > before.len() + behind.len()
                    && name.0.starts_with(before)
                    && name.0.ends_with(behind)
            }
        }
    }
}

impl FromStr for DomainPattern {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let normal = normal(text, |part| if part == "*" { Ok(()) } else { label(part) })?;
        if normal.matches('*').count() > 1 {
            return Err(DomainError::Wildcards);
        }
        Ok(Self(normal))
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn normal(
    text: &str,
    check: impl Fn(&str) -> Result<(), DomainError>,
) -> Result<Arc<str>, DomainError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.len() > MAX_NAME {
        return Err(DomainError::TooLong);
    }
    text.split('.').try_for_each(check)?;
    Ok(text.to_ascii_lowercase().into())
}

fn label(label: &str) -> Result<(), DomainError> {
    let belongs = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match label.chars().find(|c| !belongs(c)) {
        _ if label.is_empty() => Err(DomainError::EmptyLabel),
        Some('*') => Err(DomainError::PartOfLabel),
        Some(other) => Err(DomainError::Character(other)),
        None if label.len() > MAX_LABEL => Err(DomainError::LabelTooLong),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label_or_more_at_its_place() {
        let rows: [(&str, &[&str], &[&str]); 6] = [
            ("example.com", &["example.com", "EXAMPLE.com."], &["www.example.com", "example.co"]),
            (
                "*.example.com",
                &["www.example.com", "www.v6.example.com"],
                &["example.com", "badexample.com", "www.example.com.evil.net"],
            ),
            ("www.*.com", &["www.sun.com", "www.a.b.com"], &["www.com", "wwwx.sun.com"]),
            ("www.example.*", &["www.example.net", "www.example.co.uk"], &["www.example"]),
            ("update.*.example.com", &["update.a.b.example.com"], &["update.example.com"]),
            ("*", &["a", "a.b"], &[]),
        ];
        for (pattern, hits, misses) in rows {
            let pattern: DomainPattern = pattern.parse().unwrap();
            for (names, expected) in [(hits, true), (misses, false)] {
                for name in names {
                    let matched = pattern.matches(&name.parse().unwrap());
                    assert_eq!(matched, expected, "{pattern} {name}");
                }
            }
        }
    }

    #[test]
    fn texts_that_are_no_patterns_say_why() {
        let long = "a".repeat(64);
        let longer = [long.get(1..).unwrap(); 5].join(".");
        let rows = [
            ("", DomainError::EmptyLabel),
            (".", DomainError::EmptyLabel),
            ("a..b", DomainError::EmptyLabel),
            ("a.b..", DomainError::EmptyLabel),
            ("w*.example.com", DomainError::PartOfLabel),
            ("*.*.example.com", DomainError::Wildcards),
            ("a b.com", DomainError::Character(' ')),
            ("bücher.de", DomainError::Character('ü')),
            (&long, DomainError::LabelTooLong),
            (&longer, DomainError::TooLong),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<DomainPattern>(), Err(expected), "{text}");
        }
        assert!("*.example.com".parse::<DomainName>().is_err());
    }
}
