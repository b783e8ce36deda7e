//! `uplink.bpf.c`: of an uplink's traffic, only what the dataplane needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::{BitOr, RangeInclusive},
};

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags};

use super::{
    Attached, HostFlowProgram, InwardProgram, ProgramError, Shortcut, XdpMode,
    guard::{SAFE_FLOWS, SafePort, set_failsafes},
    inward,
    object::{Loaded, mapped},
    object_file,
    portless::EXCHANGES,
    sockets, xdp,
};
use crate::Socket;

const CLASSES: &str = "classes";
const PORTS: &str = "ports";
const CONFIG: &str = "configs";

/// What kind of address it is, or several kinds at once. The longest prefix that covers an address
/// decides alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressClass(u32);

/// The parts of the decision that are not addresses or ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UplinkConfig {
    /// UDP port on which tunnels end at the node, if they do.
    pub vxlan_port: Option<u16>,
    /// Whether IP-in-IP tunnels end at the node.
    pub ipip: bool,
    /// Ports that translated connections leave with. Must not hold 0.
    pub snat_ports: Option<RangeInclusive<u16>>,
    /// Where the uplink is guarded by a host endpoint: the Ethernet source of frames that have been
    /// let in, which nobody outside may know.
    pub guard: Option<[u8; 6]>,
}

/// The XDP program of an uplink. To the dataplane go: packets from or to a pool address, to a
/// service address, and of those to the node's own addresses tunnels, registered ports, the SNAT
/// range with later fragments, ICMP errors and echo answers. ARP, neighbour discovery, tagged
/// frames and all the rest are the kernel's. Of a guarded uplink all IP packets go to the dataplane
/// but safe ports and what the link itself needs, and are dropped where that is dead.
///
/// One value serves one interface: it has one socket a queue.
#[derive(Debug)]
pub struct Uplink {
    loaded: Loaded,
    classes: BTreeMap<IpNet, AddressClass>,
    ports: BTreeSet<(u8, u16)>,
    /// The ranges of ports that translated connections leave with: of now, and of before.
    snat_ports: [Option<RangeInclusive<u16>>; 2],
    failsafes: BTreeSet<[u8; 24]>,
    multi_buffer: bool,
}

// === impl AddressClass ===

impl AddressClass {
    /// Pods' addresses.
    pub const POOL: Self = Self(1);
    /// Virtual addresses of services.
    pub const SERVICE: Self = Self(2);
    /// The node's own addresses.
    pub const NODE: Self = Self(4);
}

impl BitOr for AddressClass {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

// === impl UplinkConfig ===

impl UplinkConfig {
    /// `struct config` of the program.
    fn to_bytes(&self, former: Option<&RangeInclusive<u16>>) -> [u8; 20] {
        const VXLAN: u32 = 1;
        const IPIP: u32 = 2;
        const GUARD: u32 = 4;
        let enabled = self.vxlan_port.map_or(0, |_| VXLAN)
            | if self.ipip { IPIP } else { 0 }
            | self.guard.map_or(0, |_| GUARD);
        let ends = |ports: Option<&RangeInclusive<u16>>| match ports {
            Some(ports) => [*ports.start(), *ports.end()],
            None => [1, 0],
        };
        let ranges = [ends(self.snat_ports.as_ref()), ends(former)];
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&enabled.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.vxlan_port.unwrap_or(0).to_be_bytes());
        for (field, end) in bytes[6..14].chunks_mut(2).zip(ranges.as_flattened()) {
            field.copy_from_slice(&end.to_ne_bytes());
        }
        bytes[14..].copy_from_slice(&self.guard.unwrap_or_default());
        bytes
    }
}

// === impl Uplink ===

impl Uplink {
    /// Loads the program with empty maps: everything is passed. It shares the connections of safe
    /// ports, and what pods have by protocols without ports, with the program of the other way, and
    /// the passages of the shortcut with that which takes what it admits. With `multi_buffer` it is for
    /// an interface whose packets may be larger than a chunk.
    ///
    /// # Errors
    /// [`ProgramError::Load`].
    pub fn load(
        egress: &HostFlowProgram,
        inward: &InwardProgram,
        multi_buffer: bool,
    ) -> Result<Self, ProgramError> {
        let object = object_file!("uplink");
        let [passages, counts, generation] =
            Shortcut::MAPS.map(|map| (map, inward.loaded().as_ref()));
        let of_egress = [SAFE_FLOWS, EXCHANGES].map(|map| (map, egress.loaded()));
        let shared = [of_egress[0], of_egress[1], passages, counts, generation];
        let constants: [(&str, &[u8]); 2] =
            [(inward::MAC, inward.mac()), (xdp::BUFFERS, &[u8::from(multi_buffer)])];
        let loaded = Loaded::load_with("uplink", object, &constants, &shared, |open| {
            xdp::set_multi_buffer(open, multi_buffer);
        })?;
        let (classes, ports) = (BTreeMap::new(), BTreeSet::new());
        let snat_ports = [None, None];
        let failsafes = BTreeSet::new();
        let mut uplink = Self { loaded, classes, ports, snat_ports, failsafes, multi_buffer };
        uplink.set_config(&UplinkConfig::default())?;
        Ok(uplink)
    }

    /// Whether it is for an interface whose packets may be larger than a chunk.
    #[must_use]
    pub fn is_multi_buffer(&self) -> bool {
        self.multi_buffer
    }

    /// Replaces the classes of addresses. What is new comes before what is old goes, so that no
    /// address that is in both is ever without its class.
    ///
    /// # Errors
    /// [`ProgramError::Map`]; a second call with the same classes then completes what is missing.
    pub fn set_classes(
        &mut self,
        wanted: &BTreeMap<IpNet, AddressClass>,
    ) -> Result<(), ProgramError> {
        let map = self.loaded.map(CLASSES)?;
        let failed = |source| ProgramError::Map { program: "uplink", map: CLASSES, source };
        let wanted: BTreeMap<_, _> =
            wanted.iter().map(|(net, class)| (net.trunc(), *class)).collect();
        for (net, class) in &wanted {
            if self.classes.get(net) != Some(class) {
                map.update(&prefix(net), &class.0.to_ne_bytes(), MapFlags::ANY).map_err(failed)?;
                self.classes.insert(*net, *class);
            }
        }
        let old = self.classes.keys().filter(|net| !wanted.contains_key(net));
        for net in old.copied().collect::<Vec<_>>() {
            map.delete(&prefix(&net)).map_err(failed)?;
            self.classes.remove(&net);
        }
        Ok(())
    }

    /// Replaces the (IP protocol, port) pairs that are ours on the node's own addresses, in the same
    /// manner.
    ///
    /// # Errors
    /// As [`Uplink::set_classes`].
    pub fn set_ports(&mut self, wanted: &BTreeSet<(u8, u16)>) -> Result<(), ProgramError> {
        let map = self.loaded.map(PORTS)?;
        let failed = |source| ProgramError::Map { program: "uplink", map: PORTS, source };
        for pair in wanted.difference(&self.ports.clone()) {
            map.update(&port(*pair), &[1], MapFlags::ANY).map_err(failed)?;
            self.ports.insert(*pair);
        }
        for pair in self.ports.clone().difference(wanted) {
            map.delete(&port(*pair)).map_err(failed)?;
            self.ports.remove(pair);
        }
        Ok(())
    }

    /// Replaces the ports that a guarded uplink lets in by itself.
    ///
    /// # Errors
    /// As [`Uplink::set_classes`].
    pub fn set_failsafes(&mut self, wanted: &BTreeSet<SafePort>) -> Result<(), ProgramError> {
        set_failsafes(&self.loaded, &mut self.failsafes, wanted)
    }

    /// Replaces the configuration. Connections with ports of the range before go on.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn set_config(&mut self, config: &UplinkConfig) -> Result<(), ProgramError> {
        if self.snat_ports[0] != config.snat_ports {
            self.snat_ports.swap(0, 1);
            self.snat_ports[0].clone_from(&config.snat_ports);
        }
        let bytes = config.to_bytes(self.snat_ports[1].as_ref());
        self.loaded
            .map(CONFIG)?
            .update(&0u32.to_ne_bytes(), &bytes, MapFlags::ANY)
            .map_err(|source| ProgramError::Map { program: "uplink", map: CONFIG, source })
    }

    /// Sends the socket's queue to it. Sockets are registered and classes set before the program is
    /// attached, so that a predecessor is replaced without a gap.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn register_socket(&self, socket: &Socket) -> Result<(), ProgramError> {
        sockets::register(&self.loaded, socket)
    }

    /// Attaches it to an interface, in place of whatever XDP program is there.
    ///
    /// # Errors
    /// [`ProgramError::Attach`] if neither native nor generic XDP is possible.
    pub fn attach(&self, ifindex: u32) -> Result<Attached, ProgramError> {
        xdp::attach(&self.loaded, ifindex)
    }

    /// Attaches it in this mode only, in place of whatever XDP program is there.
    ///
    /// # Errors
    /// [`ProgramError::Attach`]. Where a program was there that ran the other way, this one does so now.
    pub fn attach_as(&self, ifindex: u32, mode: XdpMode) -> Result<Attached, ProgramError> {
        xdp::attach_as(&self.loaded, ifindex, mode)
    }

    /// Takes it off again, unless a successor is there already.
    ///
    /// # Errors
    /// [`ProgramError::Detach`].
    pub fn detach(&self, ifindex: u32) -> Result<(), ProgramError> {
        xdp::detach(&self.loaded, ifindex)
    }
}

/// `struct prefix` of the program.
fn prefix(net: &IpNet) -> [u8; 24] {
    let is_v6 = matches!(net.addr(), IpAddr::V6(_));
    let before = if is_v6 { 32 } else { 128 };
    let length = before + u32::from(net.prefix_len());
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..8].copy_from_slice(&u32::from(is_v6).to_ne_bytes());
    bytes[8..].copy_from_slice(&mapped(net.addr()));
    bytes
}

/// `struct port` of the program.
fn port((protocol, number): (u8, u16)) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [protocol, 0, high, low]
}
