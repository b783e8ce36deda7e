//! What a pod may use of the network, in either direction.

/// A pod's limits; by default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of what comes to the pod.
    pub ingress: Usage,
    /// Of what the pod sends.
    pub egress: Usage,
}

/// The limits of one direction; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bits in time: packets above it wait a little, then they are dropped.
    pub bandwidth: Option<Bandwidth>,
    /// Packets in time: those above it are dropped.
    pub packets: Option<PacketRate>,
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

// === impl Limits ===

impl Limits {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
