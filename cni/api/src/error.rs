//! A failure as the CNI specification shapes it ("Section 5: Result Types", Error).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The specification's error codes; 100 and up are a plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

/// An error that a runtime understands: printed on standard output by a plugin, carried over the
/// socket by the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniError {
    /// What kind of failure it is.
    pub code: Code,
    /// What happened, with the name of the variable or key it is about.
    pub msg: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

// === impl Code ===

impl Code {
    /// The `cniVersion` of the configuration is not supported.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container is unknown; the runtime need not clean up.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// An environment variable is missing or wrong.
    pub const BAD_ENVIRONMENT: Self = Self(4);
    /// Input or output failed: a netlink request, a file.
    pub const IO: Self = Self(5);
    /// Something does not decode.
    pub const DECODE: Self = Self(6);
    /// The network configuration is invalid.
    pub const INVALID_CONFIG: Self = Self(7);
    /// Trying again later may help.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// STATUS: an ADD cannot be served.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// STATUS: an ADD cannot be served, and existing containers may have lost connectivity.
    pub const DEGRADED: Self = Self(51);
    /// Ours: CHECK found the attachment otherwise than ADD left it.
    pub const CHECK_FAILED: Self = Self(100);
    /// Ours: the interface that ADD is to make exists.
    pub const INTERFACE_EXISTS: Self = Self(101);
    /// Ours: no address could be had.
    pub const NO_ADDRESS: Self = Self(102);
    /// Ours: plugin and agent are of releases that do not understand each other.
    pub const PROTOCOL_MISMATCH: Self = Self(103);
    /// Ours: GC went on after errors; they are listed.
    pub const GC_INCOMPLETE: Self = Self(104);
}

// === impl CniError ===

impl CniError {
    /// An error with its mend.
    pub fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (CNI error {})", self.msg, self.code.0)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ": {}", self.details) }
    }
}

impl std::error::Error for CniError {}
