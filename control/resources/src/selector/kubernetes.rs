//! Kubernetes label selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::expression::Selector;

/// The operator of a `matchExpressions` entry is none of In, NotIn, Exists and DoesNotExist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "matchExpressions[{index}].operator is `{operator}`; use In, NotIn, Exists or DoesNotExist"
)]
pub struct UnknownOperator {
    /// Which entry.
    pub index: usize,
    /// Its operator.
    pub operator: String,
}

// === impl Selector ===

impl Selector {
    /// A Kubernetes selector: the conjunction of its labels, by name, and of its expressions; an
    /// empty one selects everything.
    ///
    /// # Errors
    /// An operator that Kubernetes does not have.
    pub fn from_kubernetes(selector: &LabelSelector) -> Result<Self, UnknownOperator> {
        let labels = selector.match_labels.iter().flatten();
        let mut all =
            labels.fold(Self::all(), |all, (key, value)| all.and(&Self::equals(key, value)));
        for (index, term) in selector.match_expressions.iter().flatten().enumerate() {
            let values = || term.values.iter().flatten().map(String::as_str);
            let condition = match term.operator.as_str() {
                "In" => Self::one_of(&term.key, values()),
                "NotIn" => Self::none_of(&term.key, values()),
                "Exists" => Self::has(&term.key),
                "DoesNotExist" => Self::has(&term.key).negated(),
                operator => {
                    return Err(UnknownOperator { index, operator: operator.to_owned() });
                }
            };
            all = all.and(&condition);
        }
        Ok(all)
    }
}
