//! Pods' ports as the dataplane has them by default: a tc program at each pod's interface hands all
//! its frames to one veth pair, the trunk, whose far end has the sockets. Ethernet addresses name the
//! port there: the destination that a frame came by, the source that it leaves by.

use margay_xsk::program::{PodProgram, TrunkProgram};

use crate::side::index;

/// The first bytes of an Ethernet address whose others are the index of an interface.
const PREFIX: [u8; 2] = [0x02, 0x4d];

/// One or two pods behind a trunk: the programs, but for that of its far end. They are taken off on
/// drop.
pub(crate) struct Trunk {
    up: PodProgram,
    down: TrunkProgram,
    kernel_end: u32,
    pods: Vec<Pod>,
}

/// A pod's interface, and the Ethernet address that names it.
struct Pod {
    ifindex: u32,
    name: [u8; 6],
}

// === impl Trunk ===

impl Trunk {
    /// Attaches the programs to the trunk's kernel end and to the pods' interfaces.
    pub(crate) fn open(kernel_end: &str, pods: &[&str]) -> anyhow::Result<Self> {
        let kernel_end = index(kernel_end)?;
        let pods = pods.iter().map(|name| Ok(Pod::new(index(name)?)));
        let trunk = Self {
            pods: pods.collect::<anyhow::Result<_>>()?,
            up: PodProgram::load(kernel_end)?,
            // Nothing is handed to the host as though it came from an uplink.
            down: TrunkProgram::load([0; 6])?,
            kernel_end,
        };
        trunk.down.attach(kernel_end)?;
        for pod in &trunk.pods {
            trunk.up.attach(pod.ifindex)?;
        }
        Ok(trunk)
    }

    /// Has a frame leave by the first port that it did not come by.
    pub(crate) fn lead(&self, frame: &mut [u8]) {
        let Some(header) = frame.first_chunk_mut::<12>() else { return };
        let (destination, source) = header.split_at_mut(6);
        if let Some(pod) = self.pods.iter().find(|pod| pod.name != *destination) {
            source.copy_from_slice(&pod.name);
        }
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        let pods = self.pods.iter().map(|pod| self.up.detach(pod.ifindex));
        for error in pods.chain([self.down.detach(self.kernel_end)]).filter_map(Result::err) {
            eprintln!("{error}");
        }
    }
}

// === impl Pod ===

impl Pod {
    fn new(ifindex: u32) -> Self {
        let ([a, b], [c, d, e, f]) = (PREFIX, ifindex.to_be_bytes());
        Self { ifindex, name: [a, b, c, d, e, f] }
    }
}
