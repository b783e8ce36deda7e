//! A received packet of several chunks, while they come.

use crate::Frame;

/// What there is of the packet that the last descriptor belonged to.
#[derive(Debug, Default)]
pub(crate) enum Gather {
    /// It was whole.
    #[default]
    Whole,
    /// More is to come.
    Part(Frame),
    /// More is to come, and to be dropped.
    Broken,
}

// === impl Gather ===

impl Gather {
    /// Whether the next descriptor begins a packet.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// Adds what the next descriptor names, `None` if that is no chunk of ours; `more` says that the
    /// packet goes on (`XDP_PKT_CONTD`, af_xdp.rst). Returns the packet once it is whole, or `Err` if
    /// it has ended and is dropped.
    pub(crate) fn add(&mut self, part: Option<Frame>, more: bool) -> Result<Option<Frame>, ()> {
        let packet = match (std::mem::take(self), part) {
            (Self::Whole, Some(part)) => Some(part),
            (Self::Part(mut packet), Some(part)) => packet.append(part).is_ok().then_some(packet),
            (Self::Broken, _) | (_, None) => None,
        };
        match packet {
            Some(packet) if more => {
                *self = Self::Part(packet);
                Ok(None)
            }
            None if more => {
                *self = Self::Broken;
                Ok(None)
            }
            Some(packet) => Ok(Some(packet)),
            None => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pool, Region, RegionConfig};

    const CHUNKS: u32 = 64;

    /// Adds parts of one byte each, the last one without more to come, and returns what came of it.
    fn gathered(gather: &mut Gather, parts: Vec<Option<Frame>>) -> Result<Option<Frame>, ()> {
        let last = parts.len() - 1;
        let mut outcomes: Vec<_> =
            (0..).zip(parts).map(|(number, part)| gather.add(part, number != last)).collect();
        let outcome = outcomes.pop().unwrap();
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(None))));
        outcome
    }

    #[test]
    fn parts_become_a_packet_in_their_order_and_what_is_broken_is_dropped_up_to_its_end() {
        let config = RegionConfig { chunks: CHUNKS, hugepages: false, ..RegionConfig::default() };
        let region = Region::new(config).unwrap();
        let mut pool = Pool::new(region, 64);
        let mut part = |byte: u8| pool.packet(&[byte]);
        let mut gather = Gather::default();

        let whole = gathered(&mut gather, vec![part(1), part(2), part(3)]).unwrap().unwrap();
        assert_eq!(whole.parts().collect::<Vec<_>>().concat(), [1, 2, 3]);
        assert!(gathered(&mut gather, vec![part(1), None, part(3)]).is_err(), "a strange chunk");
        assert!(gathered(&mut gather, vec![None, part(2)]).is_err());
        assert!(gathered(&mut gather, vec![part(1), None]).is_err());
        let most = (0..18).map(&mut part).collect();
        assert_eq!(gathered(&mut gather, most).unwrap().unwrap().packet_len(), 18);
        let endless = (0..40).map(&mut part).collect();
        assert!(gathered(&mut gather, endless).is_err(), "more chunks than a packet has");
        assert!(gather.is_whole());
        let next = gathered(&mut gather, vec![part(9)]).unwrap().unwrap();
        assert_eq!(next.bytes(), [9], "the next one is not harmed");

        assert!(matches!(gather.add(part(1), true), Ok(None)));
        drop((whole, next, gather, pool));
        assert_eq!(region.spare(), CHUNKS as usize, "every chunk is back, once");
    }
}
