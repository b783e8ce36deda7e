//! A cached decision: 32 bits that stand beside the generation in one word of a flow record.
//!
//! ```text
//! 31     29 28         27 26 25 24 23                    0
//! [ kind   | keep TTL    | side  | - | next hop or reason ]
//! ```

use margay_model::DropReason;

use crate::batch::Side;
use crate::snapshot::AdjacencyId;

/// What is done with every packet of one direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The side that the direction's packets come from; one from elsewhere was not judged.
    pub side: Side,
    /// What is done.
    pub verdict: Verdict,
}

/// Forward or drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave by a next hop.
    Forward {
        /// The next hop.
        hop: AdjacencyId,
        /// Whether the TTL stays: the node is the packet's source or destination.
        keep_ttl: bool,
    },
    /// Drop.
    Drop(DropReason),
}

const FORWARD: u32 = 1 << 29;
const DROP: u32 = 2 << 29;
const KEEP_TTL: u32 = 1 << 28;
const SIDE_SHIFT: u32 = 26;
const NUMBER: u32 = (1 << 24) - 1;

impl Decision {
    /// The 32 bits. A next hop's number has 24 bits: the assembler never gives out more.
    pub fn pack(self) -> u32 {
        let side = (self.side as u32) << SIDE_SHIFT;
        side | match self.verdict {
            Verdict::Forward { hop, keep_ttl } => {
                FORWARD | if keep_ttl { KEEP_TTL } else { 0 } | hop.0 & NUMBER
            }
            Verdict::Drop(reason) => DROP | reason as u32,
        }
    }

    /// The side that the bits say, whatever else they say.
    #[inline]
    pub fn side(bits: u32) -> Option<Side> {
        [Side::Wire, Side::Pod, Side::Host].get((bits >> SIDE_SHIFT & 3) as usize).copied()
    }

    /// What the bits say; `None` for a word that no decision was packed into.
    #[inline]
    pub fn unpack(bits: u32) -> Option<Self> {
        let side = Self::side(bits)?;
        let verdict = match bits & (FORWARD | DROP) {
            FORWARD => {
                Verdict::Forward { hop: AdjacencyId(bits & NUMBER), keep_ttl: bits & KEEP_TTL != 0 }
            }
            DROP => Verdict::Drop(DropReason::from_index(bits as u8)?),
            _ => return None,
        };
        Some(Self { side, verdict })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_survive_packing() {
        for side in [Side::Wire, Side::Pod, Side::Host] {
            for keep_ttl in [false, true] {
                let hop = AdjacencyId(NUMBER);
                let decision = Decision { side, verdict: Verdict::Forward { hop, keep_ttl } };
                assert_eq!(Decision::unpack(decision.pack()), Some(decision));
            }
            for reason in DropReason::ALL {
                let decision = Decision { side, verdict: Verdict::Drop(*reason) };
                assert_eq!(Decision::unpack(decision.pack()), Some(decision));
            }
        }
        assert_eq!(Decision::unpack(0), None);
    }
}
