//! Which version of the specification a call is held to.

use std::fmt;

use margay_cni_api::{CniError, Code};
use serde_json::{Value, json};

use crate::environment::Verb;

/// A supported version of the CNI specification, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SpecVersion {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

/// All of them, oldest first.
pub(crate) const SUPPORTED: [SpecVersion; 4] =
    [SpecVersion::V0_3_1, SpecVersion::V0_4_0, SpecVersion::V1_0_0, SpecVersion::V1_1_0];

/// The answer to VERSION, which repeats the version that the configuration names.
pub(crate) fn answer(version: &str) -> Value {
    let supported: Vec<_> = SUPPORTED.iter().map(ToString::to_string).collect();
    json!({ "cniVersion": version, "supportedVersions": supported })
}

// === impl SpecVersion ===

impl SpecVersion {
    /// The newest one.
    pub(crate) const LATEST: Self = Self::V1_1_0;

    /// The version that `text` names.
    pub(crate) fn find(text: &str) -> Option<Self> {
        SUPPORTED.into_iter().find(|version| version.as_str() == text)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Whether the version knows the verb.
    pub(crate) fn knows(self, verb: Verb) -> bool {
        match verb {
            Verb::Add | Verb::Del | Verb::Version => true,
            Verb::Check => self >= Self::V0_4_0,
            Verb::Gc | Verb::Status => self >= Self::V1_1_0,
        }
    }

    /// Refuses a verb that the version does not know.
    pub(crate) fn demand(self, verb: Verb) -> Result<(), CniError> {
        if self.knows(verb) {
            return Ok(());
        }
        Err(CniError::new(
            Code::INCOMPATIBLE_VERSION,
            format!("cniVersion {self} has no {verb}"),
            "raise \"cniVersion\" of the network configuration to 1.1.0",
        ))
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
