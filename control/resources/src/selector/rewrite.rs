//! From the selectors of a policy to selectors of endpoint labels.
//!
//! An endpoint carries, beside its own labels, the name and the labels of its namespace and of its
//! service account under reserved names. So each kind of selector becomes one over the endpoint's
//! labels, and their conjunction is a single selector.

use super::expression::{Expression, Selector};
use super::parse::SelectorError;

/// Names the namespace of an endpoint or a network set.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// Names the orchestrator of an endpoint: `k8s` for every pod.
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";
/// Names the service account of an endpoint.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";
/// Stands before the labels of an endpoint's namespace.
pub const NAMESPACE_LABEL_PREFIX: &str = "pcns.";
/// Stands before the labels of an endpoint's service account.
pub const SERVICE_ACCOUNT_LABEL_PREFIX: &str = "pcsa.";

// === impl Selector ===

impl Selector {
    /// Members of the namespace `name`.
    pub fn in_namespace(name: &str) -> Self {
        Self::equals(NAMESPACE_LABEL, name)
    }

    /// This selector of namespaces, as a selector of their members: `all()` is every member of a
    /// namespace, `global()` is what belongs to none.
    #[must_use]
    pub fn of_namespaces(&self) -> Self {
        let in_any = || Expression::Has(NAMESPACE_LABEL.into());
        Self::new(rewrite(self.expression(), &|expression| match expression {
            Expression::All => in_any(),
            Expression::Global => Expression::Not(Box::new(in_any())),
            other => prefixed(other, NAMESPACE_LABEL_PREFIX),
        }))
    }

    /// This selector of service accounts, as a selector of the endpoints that run under them.
    #[must_use]
    pub fn of_service_accounts(&self) -> Self {
        Self::new(rewrite(self.expression(), &|expression| {
            prefixed(expression, SERVICE_ACCOUNT_LABEL_PREFIX)
        }))
    }

    /// Endpoints of one of the named service accounts (any, if there are no names) that `selector`
    /// picks (any, if it is blank).
    ///
    /// # Errors
    /// `selector` is not one.
    pub fn service_accounts(names: &[String], selector: &str) -> Result<Self, SelectorError> {
        let named = match names {
            [] => Self::all(),
            names => Self::one_of(SERVICE_ACCOUNT_LABEL, names.iter().map(String::as_str)),
        };
        Ok(named.and(&Self::parse(selector)?.of_service_accounts()))
    }
}

/// Replaces the leaves of an expression.
fn rewrite(expression: &Expression, leaf: &impl Fn(&Expression) -> Expression) -> Expression {
    let each = |terms: &[Expression]| terms.iter().map(|t| rewrite(t, leaf)).collect();
    match expression {
        Expression::Not(inner) => Expression::Not(Box::new(rewrite(inner, leaf))),
        Expression::And(terms) => Expression::And(each(terms)),
        Expression::Or(terms) => Expression::Or(each(terms)),
        other => leaf(other),
    }
}

/// A leaf with another label.
fn prefixed(leaf: &Expression, prefix: &str) -> Expression {
    let name = |label: &str| format!("{prefix}{label}").into();
    match leaf {
        Expression::Has(l) => Expression::Has(name(l)),
        Expression::Eq(l, v) => Expression::Eq(name(l), v.clone()),
        Expression::Ne(l, v) => Expression::Ne(name(l), v.clone()),
        Expression::In(l, v) => Expression::In(name(l), v.clone()),
        Expression::NotIn(l, v) => Expression::NotIn(name(l), v.clone()),
        Expression::Contains(l, v) => Expression::Contains(name(l), v.clone()),
        Expression::StartsWith(l, v) => Expression::StartsWith(name(l), v.clone()),
        Expression::EndsWith(l, v) => Expression::EndsWith(name(l), v.clone()),
        other => other.clone(),
    }
}
