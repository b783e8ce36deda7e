//! What a Pod's annotations say of what it may use of the network, as Calico reads them.
//!
//! A bad quantity is no limit, one out of bounds is the nearest bound, and a value that makes no sense
//! without another one is none; each of these is told, and none keeps the pod from its network.

use std::collections::BTreeMap;

use crate::quantity::quantity;
use crate::v3::{Dscp, QosControls, QosDirection};

/// Prefix of Calico's annotations.
const CALICO: &str = "qos.projectcalico.org/";
/// Prefix of those of Kubernetes.
const KUBERNETES: &str = "kubernetes.io/";

/// Bounds of a quantity, and how they are written.
struct Bounds(u64, &'static str, u64, &'static str);

const BANDWIDTH: Bounds = Bounds(1000, "1k", 10u64.pow(15), "1P");
const BURST: Bounds = Bounds(1000, "1k", 8 * u32::MAX as u64, "34359738360");
const PEAKRATE: Bounds = Bounds(1010, "1.01k", 1_010 * 10u64.pow(12), "1.01P");
const MINBURST: Bounds = Bounds(1000, "1k", 100_000_000, "100M");
const PACKETS: Bounds = Bounds(1, "1", 10_000, "10k");
const CONNECTIONS: Bounds = Bounds(1, "1", u32::MAX as u64, "4294967295");

/// The burst of a bandwidth that has none, in bits.
pub const DEFAULT_BURST: u64 = 4 << 30;
/// The burst of a packet rate that has none.
pub const DEFAULT_PACKET_BURST: u64 = 5;

/// What is wrong with an annotation, and what is done instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QosError {
    /// It cannot be read.
    #[error(
        "annotation {annotation}: {text:?} is no quantity such as 10M; nothing is limited by it"
    )]
    NoQuantity {
        /// The annotation.
        annotation: String,
        /// What it says.
        text: String,
    },
    /// It is out of bounds.
    #[error("annotation {annotation}: {text:?} is not within {least} and {most}; {taken} is taken")]
    OutOfBounds {
        /// The annotation.
        annotation: String,
        /// What it says.
        text: String,
        /// The smallest value.
        least: &'static str,
        /// The largest value.
        most: &'static str,
        /// The nearer of both.
        taken: &'static str,
    },
    /// It needs another one.
    #[error("annotation {annotation}: makes no sense without {CALICO}{other}; it is ignored")]
    Alone {
        /// The annotation.
        annotation: String,
        /// The one that is missing.
        other: String,
    },
    /// No code point.
    #[error(
        "annotation {annotation}: {text:?} is neither 0 to 63 nor a name such as EF, AF11 or CS1; nothing is marked"
    )]
    NoDscp {
        /// The annotation.
        annotation: String,
        /// What it says.
        text: String,
    },
    /// A peak rate that is none.
    #[error("annotation {annotation}: must be larger than {CALICO}{other}; it is ignored")]
    NoPeak {
        /// The annotation.
        annotation: String,
        /// What it must exceed.
        other: String,
    },
}

/// The annotations, and what was found wrong with them.
struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    errors: Vec<QosError>,
}

/// Whether an annotation is one of those that [`read`] looks at.
pub fn is_about(annotation: &str) -> bool {
    annotation.starts_with(CALICO)
        || matches!(
            annotation.strip_prefix(KUBERNETES),
            Some("ingress-bandwidth" | "egress-bandwidth")
        )
}

/// What a Pod may use by its annotations, and where these are silent by what the container runtime
/// asked for; and what is wrong with the annotations.
pub fn read(
    annotations: &BTreeMap<String, String>,
    runtime: &QosControls,
) -> (QosControls, Vec<QosError>) {
    let mut reader = Reader { annotations, errors: Vec::new() };
    let ingress = reader.direction("ingress", runtime.ingress());
    let egress = reader.direction("egress", runtime.egress());
    let controls = QosControls {
        ingress_bandwidth: ingress.bandwidth,
        egress_bandwidth: egress.bandwidth,
        ingress_burst: ingress.burst,
        egress_burst: egress.burst,
        ingress_peakrate: ingress.peakrate,
        egress_peakrate: egress.peakrate,
        ingress_minburst: ingress.minburst,
        egress_minburst: egress.minburst,
        ingress_packet_rate: ingress.packet_rate,
        egress_packet_rate: egress.packet_rate,
        ingress_packet_burst: ingress.packet_burst,
        egress_packet_burst: egress.packet_burst,
        ingress_max_connections: ingress.max_connections,
        egress_max_connections: egress.max_connections,
        dscp: reader.dscp(runtime),
    };
    (controls, reader.errors)
}

/// What a HostEndpoint's annotations say of its node's packets, and what is wrong with them: nothing but
/// a code point counts there.
pub fn dscp(annotations: Option<&BTreeMap<String, String>>) -> (Option<Dscp>, Vec<QosError>) {
    let Some(annotations) = annotations else { return (None, Vec::new()) };
    let mut reader = Reader { annotations, errors: Vec::new() };
    (reader.dscp(&QosControls::default()), reader.errors)
}

// === impl Reader ===

impl Reader<'_> {
    /// One direction: Calico's annotations go before those of Kubernetes, and these before what the
    /// runtime asked for, whose burst stands beside what Kubernetes says, which names none.
    fn direction(&mut self, name: &str, asked: QosDirection) -> QosDirection {
        let kubernetes = self.number(format!("{KUBERNETES}{name}-bandwidth"), &BANDWIDTH);
        let calico = self.own(name, "Bandwidth", &BANDWIDTH);
        let asked_burst = if calico.is_some() { 0 } else { asked.burst };
        let mut found = QosDirection {
            bandwidth: calico.or(kubernetes).unwrap_or(asked.bandwidth),
            burst: self.own(name, "Burst", &BURST).unwrap_or(asked_burst),
            peakrate: self.own(name, "Peakrate", &PEAKRATE).unwrap_or(asked.peakrate),
            minburst: self.own(name, "Minburst", &MINBURST).unwrap_or(asked.minburst),
            packet_rate: self.own(name, "PacketRate", &PACKETS).unwrap_or(asked.packet_rate),
            packet_burst: self.own(name, "PacketBurst", &PACKETS).unwrap_or(asked.packet_burst),
            max_connections: (self.own(name, "MaxConnections", &CONNECTIONS))
                .unwrap_or(asked.max_connections),
        };
        let QosDirection {
            bandwidth, burst, peakrate, minburst, packet_rate, packet_burst, ..
        } = &mut found;
        self.needs(name, ("Burst", burst), ("Bandwidth", *bandwidth));
        if *peakrate != 0 && (*bandwidth == 0 || *peakrate <= *bandwidth) {
            let annotation = format!("{CALICO}{name}Peakrate");
            self.errors.push(QosError::NoPeak { annotation, other: format!("{name}Bandwidth") });
            *peakrate = 0;
        }
        self.needs(name, ("Minburst", minburst), ("Peakrate", *peakrate));
        self.needs(name, ("PacketBurst", packet_burst), ("PacketRate", *packet_rate));
        found.with_defaults()
    }

    /// A value without which another makes no sense.
    fn needs(&mut self, direction: &str, value: (&str, &mut u64), other: (&str, u64)) {
        if *value.1 == 0 || other.1 != 0 {
            return;
        }
        *value.1 = 0;
        let annotation = format!("{CALICO}{direction}{}", value.0);
        self.errors.push(QosError::Alone { annotation, other: format!("{direction}{}", other.0) });
    }

    fn dscp(&mut self, runtime: &QosControls) -> Option<Dscp> {
        let annotation = format!("{CALICO}dscp");
        let Some(text) = self.annotations.get(&annotation).cloned() else {
            return runtime.dscp.clone();
        };
        let dscp = Dscp::Name(text.clone());
        if dscp.number().is_none() {
            self.errors.push(QosError::NoDscp { annotation, text });
            return None;
        }
        Some(dscp)
    }

    fn own(&mut self, direction: &str, what: &str, bounds: &Bounds) -> Option<u64> {
        self.number(format!("{CALICO}{direction}{what}"), bounds)
    }

    /// What an annotation says, if it is there; 0 if it cannot be read.
    fn number(&mut self, annotation: String, bounds: &Bounds) -> Option<u64> {
        let text = self.annotations.get(&annotation)?.clone();
        let Some(number) = quantity(&text) else {
            self.errors.push(QosError::NoQuantity { annotation, text });
            return Some(0);
        };
        let Bounds(least, least_text, most, most_text) = *bounds;
        let (value, taken) = match number {
            number if number < least.into() => (least, least_text),
            number if number > most.into() => (most, most_text),
            number => return u64::try_from(number).ok(),
        };
        let (least, most) = (least_text, most_text);
        self.errors.push(QosError::OutOfBounds { annotation, text, least, most, taken });
        Some(value)
    }
}

// === impl QosDirection ===

impl QosDirection {
    fn with_defaults(mut self) -> Self {
        if self.bandwidth != 0 && self.burst == 0 {
            self.burst = DEFAULT_BURST;
        }
        if self.packet_rate != 0 && self.packet_burst == 0 {
            self.packet_burst = DEFAULT_PACKET_BURST;
        }
        self
    }
}

#[cfg(test)]
mod tests;
