//! The field of a message that is bad, and why.

use std::fmt;

/// A value of a message that stands for nothing in the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FieldError {
    /// Where the value stands.
    pub path: FieldPath,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is needed and not there.
    #[error("is missing")]
    Missing,
    /// A number above the largest that fits.
    #[error("{value} is more than {max}")]
    TooLarge {
        /// The number.
        value: u64,
        /// The largest.
        max: u64,
    },
    /// No such value in the enumeration.
    #[error("{0} is no value of this enumeration")]
    UnknownValue(i32),
    /// An address that is of no family, or not of the one that is wanted.
    #[error("an address of {0} bytes does not belong here")]
    AddressLength(usize),
    /// An Ethernet address of a wrong length.
    #[error("an Ethernet address has 6 bytes, not {0}")]
    MacLength(usize),
    /// A text that is no pattern of domain names.
    #[error("{0}")]
    Domain(#[source] margay_model::DomainError),
    /// The last port of a range is below its first.
    #[error("the last port {last} is below the first {first}")]
    EmptyRange {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
}

/// Names of fields from the outermost message to the value, with the index in repeated ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath {
    /// Innermost first: a path grows outwards while an error travels up.
    segments: Vec<(&'static str, Option<usize>)>,
}

// === impl FieldPath ===

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, index)) in self.segments.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            f.write_str(name)?;
            if let Some(index) = index {
                write!(f, "[{index}]")?;
            }
        }
        Ok(())
    }
}

// === impl FieldError ===

impl From<Problem> for FieldError {
    fn from(problem: Problem) -> Self {
        Self { path: FieldPath::default(), problem }
    }
}

/// Names the field that an error comes from, on its way up.
pub(crate) trait At<T> {
    /// The value came from this field.
    fn at(self, field: &'static str) -> Result<T, FieldError>;
    /// The value came from this place of a repeated field.
    fn at_index(self, field: &'static str, index: usize) -> Result<T, FieldError>;
}

impl<T, E: Into<FieldError>> At<T> for Result<T, E> {
    fn at(self, field: &'static str) -> Result<T, FieldError> {
        self.map_err(|e| within(e, field, None))
    }

    fn at_index(self, field: &'static str, index: usize) -> Result<T, FieldError> {
        self.map_err(|e| within(e, field, Some(index)))
    }
}

fn within(error: impl Into<FieldError>, field: &'static str, index: Option<usize>) -> FieldError {
    let mut error = error.into();
    error.path.segments.push((field, index));
    error
}
