//! How much was done.

use std::ops::Sub;

/// Counts of work since the start of a compiler; they only grow. The difference of two tells what
/// lay between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Comparisons of a selector with an endpoint, a network set or a pod.
    pub selectors_evaluated: u64,
    /// Policies and profiles whose rules were compiled.
    pub policies_compiled: u64,
    /// Endpoints whose tiers were put together.
    pub endpoints_recomputed: u64,
    /// Services whose backends were chosen.
    pub services_compiled: u64,
}

// === impl Work ===

impl Sub for Work {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            selectors_evaluated: self.selectors_evaluated - earlier.selectors_evaluated,
            policies_compiled: self.policies_compiled - earlier.policies_compiled,
            endpoints_recomputed: self.endpoints_recomputed - earlier.endpoints_recomputed,
            services_compiled: self.services_compiled - earlier.services_compiled,
        }
    }
}
