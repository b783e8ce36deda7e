//! Which chunks the kernel holds for one socket.

/// A set of chunk numbers: what was put into a socket's fill and tx rings and has not come back.
///
/// The rings alone do not tell: the kernel takes chunks off the fill ring before it needs them and
/// keeps some on a list of its own. With this record a chunk is made a frame only if it really was
/// lent, and everything comes back when the socket is closed. One bit a chunk: the set of 65,536
/// chunks is 8 KiB and stays in the first-level cache.
#[derive(Debug)]
pub(crate) struct Lent {
    words: Box<[u64]>,
}

// === impl Lent ===

impl Lent {
    /// Nothing lent, of `chunks` chunks.
    pub(crate) fn new(chunks: u32) -> Self {
        Self { words: vec![0; (chunks as usize).div_ceil(64)].into_boxed_slice() }
    }

    /// Notes that the kernel has the chunk.
    #[inline]
    pub(crate) fn insert(&mut self, chunk: u32) {
        if let Some(word) = self.words.get_mut(chunk as usize / 64) {
            *word |= 1 << (chunk % 64);
        }
    }

    /// Notes that the chunk is back; false if it never was lent.
    #[inline]
    pub(crate) fn remove(&mut self, chunk: u32) -> bool {
        let Some(word) = self.words.get_mut(chunk as usize / 64) else { return false };
        let bit = 1 << (chunk % 64);
        let was_lent = *word & bit != 0;
        *word &= !bit;
        was_lent
    }

    /// How many chunks the kernel has.
    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Takes all of them back.
    pub(crate) fn take_all(&mut self) -> Vec<u32> {
        let mut chunks = Vec::with_capacity(self.len());
        for (index, word) in (0u32..).zip(&mut self.words) {
            while *word != 0 {
                chunks.push(index * 64 + word.trailing_zeros());
                *word &= *word - 1;
            }
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_comes_back_once() {
        let mut lent = Lent::new(130);
        for chunk in [0, 63, 64, 129] {
            lent.insert(chunk);
        }
        assert_eq!(lent.len(), 4);
        assert!(lent.remove(64));
        assert!(!lent.remove(64), "a second return is noticed");
        assert!(!lent.remove(1_000), "so is a chunk that does not exist");
        assert_eq!(lent.take_all(), [0, 63, 129]);
        assert_eq!(lent.len(), 0);
    }
}
