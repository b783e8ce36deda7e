//! What texts may look like.

use std::collections::BTreeSet;
use std::net::IpAddr;

use margay_model::DomainPattern;

use crate::duration;
use crate::field::Report;
use crate::selector::{Expression, Selector};

/// The longest selector.
const MAX_SELECTOR: usize = 1024;

/// A name of one part: RFC 1123 with lower-case letters only, at most 63 characters.
pub(super) fn is_dns_label(text: &str) -> bool {
    let of_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(of_label)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A name of parts with dots between them, at most 253 characters. As in Kubernetes the parts may
/// be longer than those of real DNS names.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    let of_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(of_part)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// The name of a label or an annotation: a name of at most 63 characters, perhaps after a prefix
/// and `/`.
pub(super) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_label_name(name),
        None => is_label_name(text),
    }
}

/// The value of a label: as a name, or empty.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

fn is_label_name(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && text.starts_with(edge)
        && text.ends_with(edge)
}

/// The name of a port: RFC 6335 in lower case.
pub(super) fn is_port_name(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=15).contains(&text.len())
        && text.bytes().all(inside)
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// The name of an interface; `wildcard` allows `*` inside.
pub(super) fn is_interface(text: &str, wildcard: bool) -> bool {
    let inside =
        |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b) || (wildcard && b == b'*');
    (1..=15).contains(&text.len()) && text.bytes().all(inside)
}

/// Checks a domain name, or a pattern of them.
pub(super) fn domain(report: &mut Report<'_>, text: &str) {
    if let Err(error) = text.parse::<DomainPattern>() {
        report.wrong(format!("`{text}` {error}"));
    }
}

/// An Ethernet address.
pub(super) fn is_mac(text: &str) -> bool {
    let is_byte = |part: &str| part.len() == 2 && u8::from_str_radix(part, 16).is_ok();
    text.split(':').count() == 6 && text.split(':').all(is_byte)
}

/// `aa:nn` of 16 bits each, or `aa:nn:mm` of 32 bits each.
pub(super) fn is_community(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let digits = parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    digits
        && match parts.len() {
            2 => parts.iter().all(|p| p.parse::<u16>().is_ok()),
            3 => parts.iter().all(|p| p.parse::<u32>().is_ok()),
            _ => false,
        }
}

/// Checks a selector that may not contain `global()`; an empty one is fine.
pub(super) fn selector(report: &mut Report<'_>, key: &str, text: &str) {
    if let Some(selector) = parsed(report, key, text)
        && mentions_global(selector.expression())
    {
        report.wrong_at(key, "global() may only stand in the namespaceSelector of a rule");
    }
}

/// Checks a selector of namespaces in a rule: `global()` may stand there, alone.
pub(super) fn rule_namespaces(report: &mut Report<'_>, key: &str, text: &str) {
    if let Some(selector) = parsed(report, key, text)
        && mentions_global(selector.expression())
        && *selector.expression() != Expression::Global
    {
        report.wrong_at(key, "global() cannot be combined with other conditions");
    }
}

fn parsed(report: &mut Report<'_>, key: &str, text: &str) -> Option<Selector> {
    if text.chars().count() > MAX_SELECTOR {
        report.wrong_at(key, format!("is longer than {MAX_SELECTOR} characters"));
    }
    match Selector::parse(text) {
        Ok(selector) => Some(selector),
        Err(error) => {
            report.wrong_at(key, format!("`{text}` is not a selector: {error}"));
            None
        }
    }
}

fn mentions_global(expression: &Expression) -> bool {
    match expression {
        Expression::Global => true,
        Expression::Not(inner) => mentions_global(inner),
        Expression::And(terms) | Expression::Or(terms) => terms.iter().any(mentions_global),
        _ => false,
    }
}

/// Checks that a text, if there is one, is one of several words.
pub(super) fn one_of(report: &mut Report<'_>, key: &str, text: Option<&str>, words: &[&str]) {
    if let Some(text) = text.filter(|text| !text.is_empty() && !words.contains(text)) {
        report.wrong_at(key, format!("`{text}` is none of {}", words.join(", ")));
    }
}

/// Checks that a number, if there is one, lies in a range.
pub(super) fn within(
    report: &mut Report<'_>,
    key: &str,
    number: Option<i64>,
    least: i64,
    most: i64,
) {
    if let Some(number) = number.filter(|number| !(least..=most).contains(number)) {
        report.wrong_at(key, format!("{number} is not between {least} and {most}"));
    }
}

/// Checks that a text, if it is not empty, is a duration.
pub(super) fn duration(report: &mut Report<'_>, key: &str, text: &str) {
    if !text.is_empty() && duration::parse(text).is_none() {
        report.wrong_at(key, format!("`{text}` is not a duration such as 30s or 5m"));
    }
}

/// Checks that a text, if it is not empty, is an address; of IPv6 or IPv4 if `v6` says so.
pub(super) fn address(report: &mut Report<'_>, key: &str, text: &str, v6: Option<bool>) {
    let address = text.parse::<IpAddr>().ok();
    let fits = address.is_some_and(|a| v6.is_none_or(|v6| a.is_ipv6() == v6));
    if !text.is_empty() && !fits {
        let family = v6.map_or("IP", |v6| if v6 { "IPv6" } else { "IPv4" });
        report.wrong_at(key, format!("`{text}` is not an {family} address"));
    }
}

/// Checks that a text, if it is not empty, is the name of an object.
pub(super) fn object_name(report: &mut Report<'_>, key: &str, text: &str) {
    if !text.is_empty() && !is_dns_subdomain(text) {
        report.wrong_at(key, not_a_name(text));
    }
}

pub(super) fn not_a_name(text: &str) -> String {
    let why = if text.len() > 253 { "is longer than 253 characters" } else { "is not a name" };
    format!(
        "`{text}` {why}; use lower-case letters, digits, `-` and `.`, with a letter or digit at \
         both ends of each part"
    )
}

/// Whether something occurs twice, and what.
pub(super) fn repeated<T: Ord + Copy>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().find(|item| !seen.insert(*item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_allows() {
        let long = "a".repeat(64);
        for (text, label, subdomain) in [
            ("a", true, true),
            ("web-1", true, true),
            ("a.b-c.d", false, true),
            (long.as_str(), false, true),
            ("", false, false),
            ("A", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("a..b", false, false),
            (".a", false, false),
            ("a.-b", false, false),
            ("a_b", false, false),
            ("é", false, false),
        ] {
            assert_eq!((is_dns_label(text), is_dns_subdomain(text)), (label, subdomain), "{text}");
        }
        assert!(is_dns_subdomain(&"a".repeat(253)) && !is_dns_subdomain(&"a".repeat(254)));
    }

    #[test]
    fn label_names_may_have_a_prefix() {
        for good in ["a", "A_b.c-d", "app.kubernetes.io/name", "x/y", &"a".repeat(63)] {
            assert!(is_qualified_name(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "_a", "a_", "A.io/x", "a b", &"a".repeat(64)] {
            assert!(!is_qualified_name(bad), "{bad}");
        }
        assert!(is_label_value("") && is_label_value("A.b_c-1") && !is_label_value("a/b"));
    }

    #[test]
    fn port_names_have_a_letter_and_at_most_fifteen_characters() {
        for good in ["http", "8080-tcp", "a", "a-b-c"] {
            assert!(is_port_name(good), "{good}");
        }
        for bad in ["", "80", "HTTP", "-a", "a-", "a--b", "a_b", "abcdefghijklmnop"] {
            assert!(!is_port_name(bad), "{bad}");
        }
    }

    #[test]
    fn communities_have_two_short_or_three_long_numbers() {
        for good in ["0:0", "65535:65535", "1:2:4294967295"] {
            assert!(is_community(good), "{good}");
        }
        for bad in ["", "1", "65536:1", "1:2:4294967296", "1:2:3:4", "1:", "a:b", "+1:2"] {
            assert!(!is_community(bad), "{bad}");
        }
    }

    #[test]
    fn ethernet_addresses_have_six_bytes() {
        assert!(is_mac("ee:EE:01:23:45:67"));
        for bad in
            ["", "ee:ee:ee:ee:ee", "ee-ee-ee-ee-ee-ee", "gg:ee:ee:ee:ee:ee", "+e:ee:ee:ee:ee:e"]
        {
            assert!(!is_mac(bad), "{bad}");
        }
    }
}
