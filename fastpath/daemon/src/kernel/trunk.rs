//! The trunk: the veth pair that carries the host's own traffic and the frames of pods.
//!
//! `margay0` is the kernel's end, with routes and addresses; workers hold AF_XDP sockets on every
//! queue of `margay0x`. A trunk that a dead daemon left is taken over as it is: programs on the pods'
//! interfaces redirect to its index.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use margay_model::node::Mac;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::hostport::Change;
use super::view::Link;
use super::{KernelError, Result, decode, errno, features, refused, sysctl};

/// Name of the kernel's end.
pub const KERNEL_END: &str = "margay0";
/// Name of the workers' end.
pub const WORKER_END: &str = "margay0x";
/// Ethernet address of the kernel's end: port number 0 behind the trunk's prefix `02:4d`.
pub const KERNEL_MAC: Mac = Mac([0x02, 0x4d, 0, 0, 0, 0]);
/// Link-local address of the kernel's end. Nobody sends to it: an interface without any address is
/// held against `rp_filter` as if the filter were strict (kernel: `__fib_validate_source`), and the
/// node's answers to itself would be lost.
pub(super) const KERNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 67);
/// Ethernet address of the workers' end. Nobody sends to it; it is fixed so that the trunk is
/// recognised.
pub(super) const WORKER_MAC: Mac = Mac([0x02, 0x4d, 0xff, 0xff, 0xff, 0xff]);

/// `EINVAL`: among others, a larger MTU than the interface takes.
const INVALID: i32 = 22;
/// `ENODEV`: no such interface.
const NO_DEVICE: i32 = 19;

/// Offloads of both ends. Without these the kernel segments super-frames and completes checksums
/// before a frame reaches the workers (generic segmentation stays: it is done late, in software).
/// A veth hands frames to its peer's GRO only where the sender's segmentation is off.
const OFFLOADS: &[(&str, bool)] = &[
    ("tx-checksum-ip-generic", false),
    ("tx-checksum-sctp", false),
    ("tx-tcp-segmentation", false),
    ("tx-tcp-ecn-segmentation", false),
    ("tx-tcp-accecn-segmentation", false),
    ("tx-tcp-mangleid-segmentation", false),
    ("tx-tcp6-segmentation", false),
    ("tx-sctp-segmentation", false),
    ("tx-udp-segmentation", false),
    ("tx-gso-list", false),
    ("tx-vlan-hw-insert", false),
    ("tx-vlan-stag-hw-insert", false),
];
/// Frames are joined again where the kernel's stack receives them, and not where workers do.
const JOIN: &str = "rx-gro";

/// Both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// `margay0`.
    pub kernel: Link,
    /// `margay0x`.
    pub worker: Link,
}

/// Makes the trunk, or makes the one that is there right.
///
/// # Errors
/// The kernel refuses, or an interface that is not ours has one of the names.
pub(super) async fn ensure(
    handle: &Handle,
    queues: u32,
    mtu: u32,
    changes: &mut Vec<Change>,
) -> Result<Trunk> {
    let mut found = find(handle).await?;
    if let Some(trunk) = found.take_if(|t| !has_queues(t, queues)) {
        // The same indexes again: programs and rules that name them stay right.
        delete(handle, &trunk).await?;
        create(handle, queues, Some((trunk.kernel.index, trunk.worker.index))).await?;
        changes.push(Change::TrunkReplaced);
    } else if found.is_none() {
        create(handle, queues, None).await?;
        changes.push(Change::TrunkCreated);
    }
    let gone = || KernelError::NoInterface { name: KERNEL_END.to_owned() };
    let trunk = match found {
        Some(trunk) => trunk,
        None => find(handle).await?.ok_or_else(gone)?,
    };
    match set_up(handle, &trunk, mtu, changes).await {
        // A predecessor's program, for packets of one buffer, is still there and bounds the MTU.
        Err(KernelError::Request { source, .. }) if errno(&source) == Some(INVALID) => {
            delete(handle, &trunk).await?;
            create(handle, queues, Some((trunk.kernel.index, trunk.worker.index))).await?;
            changes.push(Change::TrunkReplaced);
            set_up(handle, &trunk, mtu, changes).await?;
        }
        done => done?,
    }
    find(handle).await?.ok_or_else(gone)
}

/// Takes the trunk away; returns whether there was one.
pub(super) async fn remove(handle: &Handle) -> Result<bool> {
    match find(handle).await? {
        Some(trunk) => delete(handle, &trunk).await.map(|()| true),
        None => Ok(false),
    }
}

/// The trunk that is there.
pub(super) async fn find(handle: &Handle) -> Result<Option<Trunk>> {
    let kernel = link(handle, KERNEL_END).await?;
    let worker = link(handle, WORKER_END).await?;
    match (kernel, worker) {
        (None, None) => Ok(None),
        (Some(kernel), Some(worker)) if is_ours(&kernel, &worker) => {
            Ok(Some(Trunk { kernel, worker }))
        }
        (Some(_), _) => Err(KernelError::Foreign { name: KERNEL_END }),
        (None, Some(_)) => Err(KernelError::Foreign { name: WORKER_END }),
    }
}

/// A daemon that died between making the pair and giving it addresses has left a pair without them;
/// the names and the pairing are enough.
fn is_ours(kernel: &Link, worker: &Link) -> bool {
    kernel.veth && worker.veth && kernel.peer == Some(worker.index)
}

fn has_queues(trunk: &Trunk, queues: u32) -> bool {
    let has = |link: &Link| link.rx_queues == queues && link.tx_queues == queues;
    has(&trunk.kernel) && has(&trunk.worker)
}

async fn link(handle: &Handle, name: &str) -> Result<Option<Link>> {
    let mut found = handle.link().get().match_name(name).execute();
    match found.try_next().await {
        Ok(message) => Ok(message.as_ref().and_then(decode::link)),
        Err(error) if errno(&error) == Some(NO_DEVICE) => Ok(None),
        Err(error) => Err(refused("look up", name)(error)),
    }
}

async fn create(handle: &Handle, queues: u32, indexes: Option<(u32, u32)>) -> Result<()> {
    let end = |mut message: LinkMessage, mac: Mac| {
        message.attributes.push(LinkAttribute::NumTxQueues(queues));
        message.attributes.push(LinkAttribute::NumRxQueues(queues));
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        message
    };
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new().name(WORKER_END.to_owned());
    let mut veth = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(KERNEL_END.to_owned())
        .arp(false);
    if let Some((kernel, worker)) = indexes {
        veth = veth.index(kernel);
        peer = peer.index(worker);
    }
    let peer = end(peer.build(), WORKER_MAC);
    let veth = veth.set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    let request = handle.link().add(end(veth.build(), KERNEL_MAC));
    request.execute().await.map_err(refused("create", KERNEL_END))
}

async fn delete(handle: &Handle, trunk: &Trunk) -> Result<()> {
    let done = handle.link().del(trunk.kernel.index).execute().await;
    done.map_err(refused("delete", KERNEL_END))
}

/// Parameters first, then up: an interface that comes up with IPv6 defaults makes itself an address.
async fn set_up(handle: &Handle, trunk: &Trunk, mtu: u32, changes: &mut Vec<Change>) -> Result<()> {
    for (name, value) in parameters() {
        if sysctl::read(&name)?.is_some() && sysctl::write(&name, value)? {
            changes.push(Change::Parameter(name));
        }
    }
    for (link, mac) in [(&trunk.kernel, KERNEL_MAC), (&trunk.worker, WORKER_MAC)] {
        features::set(link.index, OFFLOADS).await?;
        features::set(link.index, &[(JOIN, link.index == trunk.kernel.index)]).await?;
        let mut message = LinkUnspec::new_with_index(link.index);
        let right = link.mtu == mtu && link.mac == mac && link.up;
        if right {
            continue;
        }
        if link.mtu != mtu {
            message = message.mtu(mtu);
        }
        if link.mac != mac {
            message = message.address(mac.0.to_vec());
        }
        if link.index == trunk.kernel.index {
            message = message.arp(false);
        }
        let request = handle.link().set(message.up().build());
        request.execute().await.map_err(refused("set up", &link.name))?;
        changes.push(Change::Link(link.name.to_string()));
    }
    Ok(())
}

/// The effective `rp_filter` is the greater of the interface's and of `all`, so 2 (loose) on the
/// interface holds whatever `all` says; `accept_local` counts if either is set. Thus nothing but
/// the trunk's own parameters is touched (kernel: `Documentation/networking/ip-sysctl.rst`).
fn parameters() -> Vec<(String, &'static str)> {
    let v4 = |end: &str, name: &str| format!("ipv4/conf/{end}/{name}");
    let v6 = |end: &str, name: &str| format!("ipv6/conf/{end}/{name}");
    vec![
        (v4(KERNEL_END, "rp_filter"), "2"),
        (v4(KERNEL_END, "accept_local"), "1"),
        (v6(KERNEL_END, "addr_gen_mode"), "1"),
        (v6(KERNEL_END, "accept_ra"), "0"),
        (v6(KERNEL_END, "autoconf"), "0"),
        (v6(KERNEL_END, "accept_dad"), "0"),
        (v6(WORKER_END, "disable_ipv6"), "1"),
    ]
}
