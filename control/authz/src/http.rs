//! Which requests of HTTP a rule means.
//!
//! Methods and paths are compared byte by byte, as Calico does: `get` is not `GET`, `/a%62` is not
//! `/ab`, a prefix need not end at a slash. Query and fragment are cut off before. Nothing is
//! normalised here; a proxy that normalises (Envoy: `normalize_path`, `merge_slashes`,
//! `path_with_escaped_slashes_action`) shows what the server will see. Because rules with HTTP
//! only allow, a path that a server might read as another one matches no path at all: one with a
//! segment `.` or `..`, written plainly or escaped.

use margay_compile::{HttpMatch, PathMatch};

use crate::question::HttpRequest;

/// Whether a rule means the request.
pub(crate) fn matches(rule: &HttpMatch, request: &HttpRequest) -> bool {
    let method = |method: &str| method == "*" || method == request.method;
    (rule.methods.is_empty() || rule.methods.iter().any(|m| method(m)))
        && (rule.paths.is_empty() || matches_path(&rule.paths, &request.path))
}

fn matches_path(paths: &[PathMatch], path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // The targets of OPTIONS and CONNECT (RFC 9112 §3.2) are no paths.
    path.starts_with('/')
        && !has_dot_segment(path)
        && paths.iter().any(|expected| match expected {
            PathMatch::Exact(exact) => path == &**exact,
            PathMatch::Prefix(prefix) => path.starts_with(&**prefix),
        })
}

/// Whether a server that unescapes the path, or takes backslashes for slashes, would find a
/// segment `.` or `..` in it.
fn has_dot_segment(path: &str) -> bool {
    let plain = unescaped(path.as_bytes());
    let mut segments = plain.split(|byte| matches!(byte, b'/' | b'\\'));
    // A parameter (RFC 3986 §3.3) does not belong to a segment's name.
    segments.any(|segment| {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    })
}

/// Escapes (RFC 3986 §2.1) replaced once; what is no escape stays.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let escaped = match (byte, after) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(methods: &[&str], paths: Vec<PathMatch>) -> HttpMatch {
        HttpMatch { methods: methods.iter().map(|m| (*m).into()).collect(), paths }
    }

    fn is(rule: &HttpMatch, method: &str, path: &str) -> bool {
        matches(rule, &HttpRequest { method: method.into(), path: path.into() })
    }

    #[test]
    fn methods_are_compared_with_their_case_and_a_star_is_any() {
        let get = rule(&["GET", "HEAD"], vec![]);
        assert!(is(&get, "GET", "/") && is(&get, "HEAD", "*"));
        assert!(!is(&get, "get", "/") && !is(&get, "POST", "/") && !is(&get, "", "/"));
        assert!(is(&rule(&["*"], vec![]), "PURGE", "/") && is(&rule(&[], vec![]), "PURGE", "/"));
    }

    #[test]
    fn paths_are_exact_or_begin_so_and_the_query_does_not_count() {
        let rule = rule(
            &[],
            vec![PathMatch::Exact("/projects/calico".into()), PathMatch::Prefix("/users".into())],
        );
        for path in [
            "/projects/calico",
            "/projects/calico?x=/../y",
            "/projects/calico#top",
            "/users",
            "/users/1",
            "/userspace",
            "/users/a.b/..c/...",
            "/users?",
        ] {
            assert!(is(&rule, "GET", path), "{path}");
        }
        for path in
            ["/projects/calico/", "/projects", "/Users", "/", "", "*", "users", "x:443", "/%75sers"]
        {
            assert!(!is(&rule, "GET", path), "{path}");
        }
    }

    #[test]
    fn a_path_that_may_lead_elsewhere_matches_none() {
        let rule = rule(&[], vec![PathMatch::Prefix("/public".into())]);
        for path in [
            "/public/../admin",
            "/public/./x",
            "/public/..",
            "/public/%2e%2E/admin",
            "/public%2f..%2Fadmin",
            "/public\\..\\admin",
            "/public/..%5cadmin",
            "/public/..;a=b/admin",
        ] {
            assert!(!is(&rule, "GET", path), "{path}");
        }
        assert!(is(&rule, "GET", "/public/%zz%2") && is(&rule, "GET", "/public//x"));
    }
}
