//! Numbers for rules: 24 bits that a flow record can keep, and the way back to a name.
//!
//! A policy gets blocks of 16 numbers, as many as its rules need, ingress before egress. It keeps
//! them when it changes, so numbers of rules that stay in place stay; blocks that become free are
//! used again as late as possible.

use std::collections::VecDeque;
use std::sync::Arc;

use margay_model::PolicyKey;

use crate::cow::CowVec;

/// From a number to a name. Cloning shares.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleNames {
    blocks: CowVec<Option<Block>>,
}

/// What the numbers of a block mean.
#[derive(Clone, Debug)]
struct Block {
    policy: PolicyKey,
    /// Which of the policy's rules the first number is.
    first: u32,
    /// The places in their document of all the policy's rules, ingress before egress.
    places: Arc<[u32]>,
}

/// Hands the numbers out.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    free: VecDeque<u32>,
}

/// The numbers of one policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    blocks: Vec<u32>,
}

/// The number of no rule at all: neither policy nor profile decided, or one is missing.
pub(super) const NOBODY: u32 = 1;

const BLOCK: u32 = 16;
const MAX_BLOCKS: u32 = (1 << 24) / BLOCK;

// === impl RuleNames ===

impl RuleNames {
    /// The policy and the rule's place in its document.
    pub(super) fn resolve(&self, id: u32) -> Option<(PolicyKey, u32)> {
        let block = self.blocks.get((id / BLOCK) as usize)?.as_ref()?;
        let place = block.places.get((block.first + id % BLOCK) as usize)?;
        Some((block.policy.clone(), *place))
    }
}

// === impl Numbering ===

impl Numbering {
    /// Makes `numbers` fit a policy with rules that have these places in its document.
    pub(super) fn assign(
        &mut self,
        names: &mut RuleNames,
        numbers: &mut Numbers,
        policy: &PolicyKey,
        places: &Arc<[u32]>,
    ) {
        let wanted = places.len().div_ceil(BLOCK as usize);
        while numbers.blocks.len() > wanted {
            if let Some(block) = numbers.blocks.pop() {
                self.give_back(names, block);
            }
        }
        while numbers.blocks.len() < wanted
            && let Some(block) = self.take(names)
        {
            numbers.blocks.push(block);
        }
        for (nth, block) in (0u32..).zip(&numbers.blocks) {
            let (policy, places) = (policy.clone(), places.clone());
            let name = Block { policy, first: nth * BLOCK, places };
            if let Some(slot) = names.blocks.get_mut(*block as usize) {
                *slot = Some(name);
            }
        }
    }

    /// Takes back all numbers of a policy.
    pub(super) fn release(&mut self, names: &mut RuleNames, numbers: Numbers) {
        for block in numbers.blocks {
            self.give_back(names, block);
        }
    }

    fn take(&mut self, names: &mut RuleNames) -> Option<u32> {
        if names.blocks.is_empty() {
            names.blocks.push(None); // Number 0 is none, number 1 [`NOBODY`].
        }
        let fresh = names.blocks.len() as u32;
        if fresh < MAX_BLOCKS {
            names.blocks.push(None);
            return Some(fresh);
        }
        self.free.pop_front()
    }

    fn give_back(&mut self, names: &mut RuleNames, block: u32) {
        if let Some(slot) = names.blocks.get_mut(block as usize) {
            *slot = None;
        }
        self.free.push_back(block);
    }
}

// === impl Numbers ===

impl Numbers {
    /// The number of the policy's nth rule, ingress before egress; 0 when none was left.
    pub(super) fn of(&self, rule: u32) -> u32 {
        let block = self.blocks.get((rule / BLOCK) as usize);
        block.map_or(0, |block| block * BLOCK + rule % BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(ingress: u32, egress: u32) -> Arc<[u32]> {
        (0..ingress).chain(0..egress).collect()
    }

    #[test]
    fn numbers_lead_back_to_their_rules_and_stay_when_a_policy_grows() {
        let (mut names, mut numbering) = (RuleNames::default(), Numbering::default());
        let (mut a, mut b) = (Numbers::default(), Numbers::default());
        numbering.assign(&mut names, &mut a, &"a".into(), &places(3, 30));
        numbering.assign(&mut names, &mut b, &"b".into(), &[7].into());
        let before: Vec<_> = (0..33).map(|rule| a.of(rule)).collect();
        numbering.assign(&mut names, &mut a, &"a".into(), &places(3, 50));
        assert!(before.iter().enumerate().all(|(rule, id)| a.of(rule as u32) == *id));
        assert_eq!(names.resolve(a.of(2)), Some(("a".into(), 2)));
        assert_eq!(names.resolve(a.of(52)), Some(("a".into(), 49)));
        assert_eq!(names.resolve(b.of(0)), Some(("b".into(), 7)));
        assert_eq!((names.resolve(0), names.resolve(NOBODY)), (None, None));
        let copy = names.clone();
        let id = b.of(0);
        numbering.release(&mut names, b);
        assert_eq!((names.resolve(id), copy.resolve(id)), (None, Some(("b".into(), 7))));
    }
}
