//! A cached decision: 32 bits that stand beside the generation in one word of a flow record.
//!
//! ```text
//! 31     29 28         27 26 25         24 23                    0
//! [ kind   | keep TTL    | side  | read along | - | next hop      ]    forward
//! [ kind   | -           | side  | -   23 epoch 8 | reason        ]    drop
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
        /// Whether the slow path reads the packets before they go on.
        read_along: bool,
    },
    /// Drop.
    Drop {
        /// Why.
        reason: DropReason,
        /// What was known of domain names then: [`crate::Snapshot::names_epoch`]. With what was
        /// learned since, it may be allowed.
        epoch: u16,
    },
}

const FORWARD: u32 = 1 << 29;
const DROP: u32 = 2 << 29;
const KEEP_TTL: u32 = 1 << 28;
const READ_ALONG: u32 = 1 << 25;
const EPOCH_SHIFT: u32 = 8;
const SIDE_SHIFT: u32 = 26;
const NUMBER: u32 = (1 << 24) - 1;

impl Decision {
    /// The 32 bits. A next hop's number has 24 bits: the assembler never gives out more.
    pub fn pack(self) -> u32 {
        let side = (self.side as u32) << SIDE_SHIFT;
        side | match self.verdict {
            Verdict::Forward { hop, keep_ttl, read_along } => {
                let flag = |given, bit| if given { bit } else { 0 };
                let flags = flag(keep_ttl, KEEP_TTL) | flag(read_along, READ_ALONG);
                FORWARD | flags | hop.0 & NUMBER
            }
            Verdict::Drop { reason, epoch } => {
                DROP | u32::from(epoch) << EPOCH_SHIFT | reason as u32
            }
        }
    }

    /// Whether the bits say to drop by less than is known of domain names now.
    #[inline]
    pub fn may_be_pardoned(bits: u32, epoch: u16) -> bool {
        bits & (FORWARD | DROP) == DROP && (bits >> EPOCH_SHIFT) as u16 != epoch
    }

    /// The next hop of a side's packets, and whether the TTL stays, if the bits say to forward them at
    /// once.
    #[inline]
    pub fn onward(bits: u32, side: Side) -> Option<(AdjacencyId, bool)> {
        let wanted = FORWARD | (side as u32) << SIDE_SHIFT;
        let onward = bits & !(KEEP_TTL | NUMBER) == wanted;
        onward.then_some((AdjacencyId(bits & NUMBER), bits & KEEP_TTL != 0))
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
            FORWARD => Verdict::Forward {
                hop: AdjacencyId(bits & NUMBER),
                keep_ttl: bits & KEEP_TTL != 0,
                read_along: bits & READ_ALONG != 0,
            },
            DROP => Verdict::Drop {
                reason: DropReason::from_index(bits as u8)?,
                epoch: (bits >> EPOCH_SHIFT) as u16,
            },
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
            for flags in 0..4 {
                let (keep_ttl, read_along) = (flags & 1 != 0, flags & 2 != 0);
                let hop = AdjacencyId(NUMBER);
                let verdict = Verdict::Forward { hop, keep_ttl, read_along };
                let decision = Decision { side, verdict };
                assert_eq!(Decision::unpack(decision.pack()), Some(decision));
                assert!(!Decision::may_be_pardoned(decision.pack(), 7));
                let onward = Decision::onward(decision.pack(), side);
                assert_eq!(onward, (!read_along).then_some((hop, keep_ttl)));
                let other = if side == Side::Pod { Side::Host } else { Side::Pod };
                assert_eq!(Decision::onward(decision.pack(), other), None);
            }
            for (reason, epoch) in DropReason::ALL.iter().flat_map(|r| [(*r, 0), (*r, u16::MAX)]) {
                let decision = Decision { side, verdict: Verdict::Drop { reason, epoch } };
                let bits = decision.pack();
                assert_eq!(Decision::unpack(bits), Some(decision));
                assert_eq!(Decision::onward(bits, side), None);
                assert!(!Decision::may_be_pardoned(bits, epoch));
                assert!(Decision::may_be_pardoned(bits, epoch.wrapping_add(1)));
            }
        }
        assert_eq!(Decision::unpack(0), None);
    }
}
