//! Calico's selector language: which labels an object must carry.
//!
//! ```text
//! or      := and ('||' and)*      and := unary ('&&' unary)*      unary := '!'* primary
//! primary := '(' or ')' | 'all()' | 'global()' | 'has(' L ')' | L op
//! op      := '==' S | '!=' S | 'in' '{' S,… '}' | 'not in' '{' S,… '}'
//!          | 'contains' S | 'starts with' S | 'ends with' S
//! L       := [A-Za-z0-9_./-]{1,512}     S := "…" or '…', without escapes
//! ```
//!
//! Blanks and tabs may stand between words, and are optional in `not in`, `starts with` and
//! `ends with`. A text of nothing but blanks is `all()`. A set may be empty and may end with a
//! comma.
//!
//! - [`token`] cuts a text into words; [`parse`] makes an expression of them.
//! - [`expression`] is the tree, its evaluation and its canonical text.
//! - [`rewrite`] turns the selectors of a policy into selectors of endpoint labels.
//! - [`anchor`] finds what an index of labels can look up, so that matching need not scan.
//! - [`kubernetes`] reads Kubernetes label selectors.

mod token;
mod parse;
mod expression;
mod rewrite;
mod anchor;
mod kubernetes;

pub use anchor::Anchor;
pub use expression::{Expression, Labels, Selector};
pub use kubernetes::UnknownOperator;
pub use parse::{SelectorError, SelectorProblem};
pub use rewrite::{
    NAMESPACE_LABEL, NAMESPACE_LABEL_PREFIX, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL,
    SERVICE_ACCOUNT_LABEL_PREFIX,
};

#[cfg(test)]
mod tests;
