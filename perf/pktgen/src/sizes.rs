//! How long the frames are: all alike, or a mix of lengths in turn.

/// Bytes of a simple IMIX, 7:4:1, as Ethernet frames without checksum: IP packets of 40 (with
/// Ethernet's padding), 576 and 1500 bytes.
const IMIX: &str = "60:7,590:4,1514:1";
/// The longest turn of a mix.
const LONGEST: usize = 1000;

/// Lengths of frames, Ethernet header included, checksum not, in the turn in which they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Never empty.
    turn: Vec<usize>,
    /// Whether shorter ones may be made longer without a word: those of a standard mix.
    pub(crate) elastic: bool,
}

// === impl Sizes ===

impl Sizes {
    pub(crate) fn one(size: usize) -> Self {
        Self { turn: vec![size], elastic: false }
    }

    /// Reads `60`, `imix`, or lengths with their weights: `60:7,590:4,1514:1`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "imix" {
            return Self::parse(IMIX).map(|mix| Self { elastic: true, ..mix });
        }
        let number = |text: &str| {
            let positive = text.trim().parse::<usize>().ok().filter(|number| *number > 0);
            positive.ok_or_else(|| format!("{text:?}: write a length, imix, or 60:7,590:4,1514:1"))
        };
        let part = |part: &str| {
            let (size, weight) = part.split_once(':').unwrap_or((part, "1"));
            Ok::<_, String>((number(size)?, number(weight)?))
        };
        let parts = text.split(',').map(part).collect::<Result<Vec<_>, _>>()?;
        let total = parts.iter().fold(0_usize, |sum, (_, weight)| sum.saturating_add(*weight));
        if total > LONGEST {
            return Err(format!("the weights add up to {total}, and {LONGEST} is the most"));
        }
        Ok(Self { turn: spread(&parts, total), elastic: false })
    }

    /// The length of the frame of that number.
    pub(crate) fn of(&self, place: usize) -> usize {
        self.turn.get(place % self.turn.len()).copied().unwrap_or_default()
    }

    /// Frames of a turn.
    pub(crate) fn turn(&self) -> usize {
        self.turn.len()
    }

    pub(crate) fn least(&self) -> usize {
        self.turn.iter().copied().min().unwrap_or_default()
    }

    pub(crate) fn largest(&self) -> usize {
        self.turn.iter().copied().max().unwrap_or_default()
    }

    /// Bytes of a frame in the mean.
    pub(crate) fn mean(&self) -> f64 {
        self.turn.iter().sum::<usize>() as f64 / self.turn.len() as f64
    }

    /// Makes what is shorter than `least` as long as that.
    pub(crate) fn raise(&mut self, least: usize) {
        self.turn.iter_mut().for_each(|size| *size = (*size).max(least));
    }
}

/// Spreads the lengths over the turn as evenly as their weights allow: each place goes to the one
/// that is furthest behind its share.
fn spread(parts: &[(usize, usize)], total: usize) -> Vec<usize> {
    let mut credit = vec![0_i64; parts.len()];
    let mut turn = Vec::with_capacity(total);
    for _ in 0..total {
        for (credit, (_, weight)) in credit.iter_mut().zip(parts) {
            *credit += *weight as i64;
        }
        // The first of those that are equal.
        let best = credit.iter_mut().zip(parts).rev().max_by_key(|(credit, _)| **credit);
        if let Some((credit, (size, _))) = best {
            *credit -= total as i64;
            turn.push(*size);
        }
    }
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imix_is_seven_small_four_middle_and_one_large_frame_spread_over_the_turn() {
        let imix = Sizes::parse("imix").unwrap();
        let count = |size| imix.turn.iter().filter(|other| **other == size).count();
        assert_eq!((count(60), count(590), count(1514), imix.turn()), (7, 4, 1, 12));
        assert!((imix.mean() - 357.833).abs() < 0.001, "{}", imix.mean());
        let longest_run = imix.turn.chunk_by(|a, b| a == b).map(<[_]>::len).max();
        assert!(longest_run <= Some(2), "{:?}", imix.turn);
    }

    #[test]
    fn lengths_come_in_turn_without_an_end() {
        let two = Sizes::parse("100:1,200:2").unwrap();
        assert_eq!([0, 1, 2, 3].map(|place| two.of(place)), [200, 100, 200, 200]);
        assert_eq!((two.least(), two.largest(), Sizes::parse("64").unwrap().of(7)), (100, 200, 64));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "x", "0", "60:0", "60:1,", "60:1000,61:1", "-1"] {
            assert!(Sizes::parse(bad).is_err(), "{bad}");
        }
    }
}
