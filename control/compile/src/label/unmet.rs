//! Why a selector does not select.

use std::sync::Arc;

use margay_resources::selector::{Expression as Tree, Labels as _};

use super::Labels;

/// A condition of a selector that labels do not fulfil.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The condition.
    pub term: String,
    /// The label that it looks at, with the value that the endpoint has; `None` where the condition
    /// looks at several labels.
    pub label: Option<(Arc<str>, Option<Arc<str>>)>,
}

/// The first condition that labels do not fulfil; `None` if they fulfil all.
pub(crate) fn unmet(term: &Tree, labels: &Labels) -> Option<Unmet> {
    if term.matches(labels) {
        return None;
    }
    match term {
        Tree::And(terms) => terms.iter().find_map(|term| unmet(term, labels)),
        Tree::Has(l)
        | Tree::Eq(l, _)
        | Tree::Ne(l, _)
        | Tree::In(l, _)
        | Tree::NotIn(l, _)
        | Tree::Contains(l, _)
        | Tree::StartsWith(l, _)
        | Tree::EndsWith(l, _) => Some(Unmet {
            term: term.to_string(),
            label: Some((l.clone(), labels.label(l).map(Into::into))),
        }),
        Tree::All | Tree::Global | Tree::Not(_) | Tree::Or(_) => {
            Some(Unmet { term: term.to_string(), label: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use margay_resources::selector::Selector;

    use super::*;

    fn of(selector: &str) -> Option<Unmet> {
        let labels = [("app", "web"), ("env", "prod")].map(|(k, v)| (k.into(), v.into()));
        let labels: Labels = labels.into_iter().collect();
        unmet(Selector::parse(selector).unwrap().expression(), &labels)
    }

    #[test]
    fn of_a_conjunction_the_first_condition_that_fails_is_named_with_the_label() {
        assert_eq!(of("app == 'web' && has(env)"), None);
        let label = Some(("env".into(), Some("prod".into())));
        let term = "env == \"test\"".into();
        assert_eq!(of("app == 'web' && env == 'test' && has(x)"), Some(Unmet { term, label }));
        let missing = of("has(colour) && app == 'db'").unwrap();
        assert_eq!(missing.label, Some(("colour".into(), None)));
    }

    #[test]
    fn a_condition_on_several_labels_is_named_as_a_whole() {
        let found = of("app == 'web' && (app == 'db' || env == 'test')").unwrap();
        assert_eq!(found.term, "(app == \"db\" || env == \"test\")");
        assert_eq!(found.label, None);
        assert_eq!(of("!has(app)").unwrap().term, "!has(app)");
    }
}
