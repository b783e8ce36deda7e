//! What can be measured, and what the RFCs say of it.

use clap::ValueEnum;
use serde::Serialize;

/// A measurement of RFC 2544 §26 or RFC 8219 §7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Procedure {
    /// The highest rate at which nothing is lost
    Throughput,
    /// Time under way at that rate
    Latency,
    /// How the time under way varies at that rate (RFC 8219 only)
    DelayVariation,
    /// What is lost at rates from the highest down
    Loss,
    /// The longest burst of which nothing is lost
    BackToBack,
    /// All of the RFC's
    All,
}

/// Which RFC's frame sizes and procedures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Standard {
    #[serde(rename = "RFC 2544")]
    Rfc2544,
    #[serde(rename = "RFC 8219")]
    Rfc8219,
}

// === impl Procedure ===

impl Procedure {
    /// What is asked for, in the order in which one needs the other.
    pub(crate) fn chosen(standard: Standard, asked: &[Self]) -> anyhow::Result<Vec<Self>> {
        let known: Vec<_> =
            [Self::Throughput, Self::Latency, Self::DelayVariation, Self::Loss, Self::BackToBack]
                .into_iter()
                .filter(|one| *one != Self::DelayVariation || standard == Standard::Rfc8219)
                .collect();
        anyhow::ensure!(
            asked.iter().all(|one| *one == Self::All || known.contains(one)),
            "delay variation is RFC 8219's: margay-pktgen rfc8219 delay-variation"
        );
        let all = asked.contains(&Self::All);
        Ok(known.into_iter().filter(|one| all || asked.contains(one)).collect())
    }

    /// Seconds of a trial (RFC 2544 §24, §26.2, §26.4; RFC 8219 §7.3).
    pub(crate) fn seconds(self) -> f64 {
        match self {
            Self::Latency => 120.0,
            Self::BackToBack => 2.0,
            _ => 60.0,
        }
    }

    /// How often it is measured (RFC 2544 §26.2, §26.4; RFC 8219 §7.2, §7.3).
    pub(crate) fn repeats(self) -> u32 {
        match self {
            Self::Latency | Self::DelayVariation => 20,
            Self::BackToBack => 50,
            _ => 1,
        }
    }
}

// === impl Standard ===

impl Standard {
    /// Frame sizes for Ethernet, with checksum (RFC 2544 §9.1, RFC 8219 §5.1).
    pub(crate) fn sizes(self) -> &'static [usize] {
        match self {
            Self::Rfc2544 => &[64, 128, 256, 512, 1024, 1280, 1518],
            Self::Rfc8219 => {
                &[64, 128, 256, 512, 768, 1024, 1280, 1518, 1522, 2048, 4096, 8192, 9216]
            }
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rfc2544 => "RFC 2544",
            Self::Rfc8219 => "RFC 8219",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_comes_before_what_needs_it() {
        let asked = [Procedure::Latency, Procedure::Throughput];
        let chosen = Procedure::chosen(Standard::Rfc2544, &asked).unwrap();
        assert_eq!(chosen, [Procedure::Throughput, Procedure::Latency]);
    }

    #[test]
    fn delay_variation_is_of_the_rfc_for_tunnels_only() {
        assert!(Procedure::chosen(Standard::Rfc2544, &[Procedure::DelayVariation]).is_err());
        let all = |standard| Procedure::chosen(standard, &[Procedure::All]).unwrap().len();
        assert_eq!((all(Standard::Rfc2544), all(Standard::Rfc8219)), (4, 5));
    }
}
