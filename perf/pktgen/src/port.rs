//! An interface, in whatever network namespace, with its socket.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, bail};
use margay_xsk::{
    Binder, ChunkSize, Fallback, Pool, Preference, Region, RegionConfig, Socket, SocketOptions,
    UmemOptions,
    program::{PortProgram, XdpMode},
};
use nix::ifaddrs::getifaddrs;
use rustix::{
    net::{AddressFamily, SocketType, netdevice::name_to_index, socket},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::arguments::Xdp;

/// Frames of each port: few enough to stay in the cache, twice what the rings hold.
const CHUNKS: u32 = 8192;

/// An interface and its socket, with packet memory of its own: what is in a frame that was sent
/// stays in it.
pub(crate) struct Port {
    pub(crate) socket: Socket,
    pub(crate) pool: Pool,
    pub(crate) interface: String,
    /// Why the socket is not zero-copy, if it is not.
    pub(crate) fallback: Option<Fallback>,
    /// How XDP runs, if the port receives.
    pub(crate) xdp: Option<XdpMode>,
    program: Option<PortProgram>,
    ifindex: u32,
    /// The namespace of the interface, where it is not that of the process.
    netns: OwnedFd,
}

// === impl Port ===

impl Port {
    /// Binds queue 0 of the interface for frames of up to `frame` bytes. The thread stays in its
    /// namespace.
    pub(crate) fn open(interface: &str, netns: Option<&str>, frame: usize) -> anyhow::Result<Self> {
        let path =
            netns.map_or("/proc/thread-self/ns/net".into(), |name| format!("/run/netns/{name}"));
        let netns = File::open(&path).with_context(|| format!("no network namespace {path}"))?;
        let netns = OwnedFd::from(netns);
        enter(&netns).with_context(|| format!("cannot enter {path}; run as root"))?;
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let ifindex = name_to_index(&any, interface)
            .with_context(|| format!("there is no interface {interface} in {path}"))?;
        let chunk_size = ChunkSize::for_frame(frame)
            .with_context(|| format!("frames of {frame} bytes are too large"))?;
        let region = Region::new(RegionConfig { chunks: CHUNKS, chunk_size, hugepages: true })?;
        let binder = Binder::new(region, UmemOptions::default());
        let bound = binder.bind(interface, 0, Preference::Auto, SocketOptions::default())?;
        Ok(Self {
            socket: bound.socket,
            pool: Pool::new(region, CHUNKS as usize),
            interface: interface.to_owned(),
            fallback: bound.fallback,
            xdp: None,
            program: None,
            ifindex,
            netns,
        })
    }

    /// Has every frame of the interface come to the socket, until the port is dropped.
    pub(crate) fn receive(&mut self, xdp: Xdp) -> anyhow::Result<()> {
        enter(&self.netns)?;
        let program = PortProgram::load()?;
        program.register_socket(&self.socket)?;
        self.socket.fill(&mut self.pool);
        let attached = program.attach_as(self.ifindex, xdp.into())?;
        self.xdp = Some(attached.mode);
        self.program = Some(program);
        Ok(())
    }

    /// The interface's Ethernet address.
    pub(crate) fn mac(&self) -> anyhow::Result<[u8; 6]> {
        enter(&self.netns)?;
        let all = getifaddrs().context("cannot list the interfaces")?;
        let mac = all
            .filter(|entry| entry.interface_name == self.interface)
            .find_map(|entry| entry.address?.as_link_addr()?.addr());
        match mac {
            Some(mac) => Ok(mac),
            None => bail!("{} has no Ethernet address: give --src-mac", self.interface),
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let Some(program) = &self.program else { return };
        let detached = enter(&self.netns).map_err(anyhow::Error::from);
        if let Err(error) = detached.and_then(|()| Ok(program.detach(self.ifindex)?)) {
            eprintln!("{}: {error}", self.interface);
        }
    }
}

/// Moves this thread into a network namespace.
fn enter(netns: &OwnedFd) -> rustix::io::Result<()> {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
}
