//! What a pod may use of the network, in either direction, and how its packets are marked.

/// A pod's limits; by default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of what comes to the pod.
    pub ingress: Usage,
    /// Of what the pod sends.
    pub egress: Usage,
    /// What packets are marked with that the pod sends out of the cluster.
    pub dscp: Option<Dscp>,
}

/// A differentiated services code point (RFC 2474), 0–63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dscp(u8);

/// The limits of one direction; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bits in time: packets above it wait a little, then they are dropped.
    pub bandwidth: Option<Bandwidth>,
    /// Packets in time: those above it are dropped.
    pub packets: Option<PacketRate>,
    /// TCP connections at a time: those above it are refused.
    pub connections: Option<u32>,
}

/// A token bucket of bits. Frames are counted as the pod sees them, Ethernet header included, as
/// the kernel's `tbf` counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bits a second; 0 lets nothing through.
    pub rate: u64,
    /// Bits that may pass at once after a pause.
    pub burst: u64,
    /// How fast these may pass.
    pub peak: Option<Peak>,
}

/// The second bucket of [`Bandwidth`], through which bursts pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// Bits a second.
    pub rate: u64,
    /// Bytes that may pass at once, at least one full packet.
    pub burst: u32,
}

/// A token bucket of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRate {
    /// Packets a second; 0 lets nothing through.
    pub rate: u32,
    /// Packets that may pass at once after a pause.
    pub burst: u32,
}

// === impl Dscp ===

impl Dscp {
    /// The largest.
    pub const MAX: u8 = 63;

    /// The code point with this number, if there is one.
    pub const fn new(number: u8) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

// === impl Limits ===

impl Limits {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The limits of packets, whatever their connections.
    #[must_use]
    pub fn of_packets(self) -> Self {
        let of_packets = |usage| Usage { connections: None, ..usage };
        Self { ingress: of_packets(self.ingress), egress: of_packets(self.egress), ..self }
    }
}
