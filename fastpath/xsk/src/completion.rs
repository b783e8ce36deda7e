//! Completion: chunks of frames that the kernel has sent.

use crate::{Pool, Socket};

impl Socket {
    /// Puts the chunks of sent frames into the pool, and returns their number. To be called before
    /// every [`Socket::tx`]: in copy mode the kernel sends only as many frames as the completion
    /// ring has room for.
    #[inline]
    pub fn complete(&mut self, pool: &mut Pool) -> usize {
        let count = self.completion.available(u32::MAX);
        if count == 0 {
            return 0;
        }
        let mut completed = 0;
        for _ in 0..count {
            let address = self.completion.pop();
            match self.region.locate(address) {
                Some((chunk, _)) if self.lent.remove(chunk) => {
                    pool.give(self.region, chunk);
                    completed += 1;
                }
                _ => self.counters.foreign += 1,
            }
        }
        self.completion.release();
        self.counters.completed += completed as u64;
        completed
    }
}
