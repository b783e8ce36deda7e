//! Sockets and programs: makes the trunk, the uplinks and the pods' interfaces ports, and takes
//! them off again.
//!
//! Order, at start and for each pod: sockets are bound and registered, workers have them, then the
//! program is attached: a frame that is redirected finds its socket. At an uplink the program is
//! first: until it is there the kernel refuses the segments of our connections, and that ends them.
//! Pods' programs stay when their endpoint goes: what an interface without endpoint sends is
//! dropped, not the kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use margay_engine::snapshot::DeviceId;
use margay_model::State;
use margay_worker::{Command, Link};
use margay_xsk::program::{
    HostFlowProgram, InwardProgram, PodProgram, PortProgram, ProgramError, Shortcut, TrunkProgram,
    Uplink, UplinkConfig, XdpMode as Hook,
};
use margay_xsk::{Binder, Mode, Preference, SocketOptions};
use tracing::{info, warn};

use crate::busy_poll::BusyPoll;
use crate::classes::Classes;
use crate::config::{Config, PodPorts, XdpMode};
use crate::kernel::ports::pod_links;
use crate::kernel::{self, KernelView};
use crate::ports::{Attached, TRUNK};
use crate::state_dir::seed;

/// The far end of the trunk, where the sockets are.
pub(crate) const TRUNK_FAR: &str = "margay0x";

/// The largest MTU at which packets come to a program in one buffer, whatever the driver: a veth's takes
/// 3,506 bytes (`veth_xdp_set`), those of cards a little less, some (i40e, ice) are of 3,072.
const ONE_BUFFER: u32 = 3_000;

/// Whether packets of an interface with this MTU may be longer than one buffer.
pub(crate) fn is_jumbo(mtu: u32) -> bool {
    mtu > ONE_BUFFER
}

/// Frames that a pod's own socket keeps ready: hundreds of quiet pods are not to hold all memory.
const POD_READY: u32 = 64;

/// Why an interface cannot become a port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// It is not there.
    #[error("there is no interface {0}")]
    Missing(String),
    /// No socket could be bound to it.
    #[error("cannot bind an AF_XDP socket to {interface}")]
    Bind {
        /// The interface.
        interface: String,
        /// Why not.
        #[source]
        source: margay_xsk::Error,
    },
    /// XDP does not run there in the way that was asked for.
    #[error("no {hook} XDP on {interface}")]
    Hook {
        /// The interface.
        interface: String,
        /// The way.
        hook: Hook,
        /// Why not.
        #[source]
        source: ProgramError,
    },
    /// Its program.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// How an interface's packets get in, for people.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The interface.
    pub name: Arc<str>,
    /// Its index.
    pub ifindex: u32,
    /// Its sockets' queues.
    pub queues: u32,
    /// Whether driver and daemon share packet memory.
    pub zero_copy: bool,
    /// Whether XDP runs on socket buffers.
    pub generic: bool,
    /// Why better modes did not work, in the order they were tried.
    pub fallbacks: Vec<String>,
    /// What came of the wish that workers run an uplink's NAPI; nothing where nobody wishes it.
    pub busy_poll: Option<BusyPoll>,
}

struct UplinkPort {
    program: Uplink,
    entry: Entry,
    device: DeviceId,
}

struct PodPort {
    ifindex: u32,
    device: DeviceId,
    /// The program and way in of a native port.
    native: Option<(PortProgram, Entry)>,
}

/// All sockets and programs of the daemon.
pub(crate) struct Devices {
    binder: Binder,
    links: Arc<[Link]>,
    mode: XdpMode,
    kind: PodPorts,
    /// Whether workers are to run the NAPI of uplinks' queues.
    polls: bool,
    trunk: PortProgram,
    trunk_entry: Entry,
    trunk_up: TrunkProgram,
    trunk_index: u32,
    pod: PodProgram,
    inward: InwardProgram,
    host_flows: Arc<HostFlowProgram>,
    /// Ethernet source of what host endpoints let in.
    arrival: [u8; 6],
    uplinks: BTreeMap<String, UplinkPort>,
    /// Programs of uplinks that vanished: to load one takes longer than a link to come up.
    spare: BTreeMap<String, Uplink>,
    pods: BTreeMap<Arc<str>, PodPort>,
    next: u16,
}

// === impl Devices ===

impl Devices {
    /// Makes the trunk, whose ends have these indexes, the first device.
    pub(crate) fn new(
        binder: Binder,
        links: Arc<[Link]>,
        config: &Config,
        trunk: (&kernel::Link, &kernel::Link),
    ) -> Result<Self, DeviceError> {
        let (near, far) = (trunk.0.index, trunk.1.index);
        let program = PortProgram::load(is_jumbo(trunk.1.mtu))?;
        let queues = links.len() as u32;
        let options = options(&binder, queues);
        let sockets = Sockets { binder: &binder, links: &links, options };
        // A veth copies: asking for more would only cost the owner of the copying UMEM its place.
        let preference = Preference::Only(Mode::Copy);
        let bound = sockets.bind(TRUNK_FAR, DeviceId::TRUNK, 0..queues, preference, |socket| {
            program.register_socket(socket)
        })?;
        let attached = program.attach(far)?;
        let arrival = nobodys_mac();
        let trunk_up = TrunkProgram::load(arrival)?;
        trunk_up.attach(near)?;
        let trunk_entry = entry(TRUNK, near, bound, &attached);
        let pod = PodProgram::load(near)?;
        let inward = InwardProgram::load(nobodys_mac(), &pod)?;
        Ok(Self {
            binder,
            links,
            mode: config.xdp_mode,
            kind: config.pod_ports,
            polls: config.prefer_busy_poll,
            trunk: program,
            trunk_entry,
            trunk_up,
            trunk_index: near,
            pod,
            inward,
            host_flows: Arc::new(HostFlowProgram::load(near)?),
            arrival,
            uplinks: BTreeMap::new(),
            spare: BTreeMap::new(),
            pods: BTreeMap::new(),
            next: 1,
        })
    }

    /// What goes past the workers.
    pub(crate) fn shortcut(&self) -> Shortcut {
        self.pod.shortcut(&self.inward)
    }

    /// Where flows of the host's own backends are registered.
    pub(crate) fn host_flows(&self) -> Arc<HostFlowProgram> {
        self.host_flows.clone()
    }

    /// Makes an interface an uplink.
    pub(crate) fn add_uplink(
        &mut self,
        view: &KernelView,
        name: &str,
        classes: &Classes,
    ) -> Result<(), DeviceError> {
        let link = view.link(name).ok_or_else(|| DeviceError::Missing(name.into()))?;
        let jumbo = is_jumbo(link.mtu);
        let fits = |spare: &Uplink| spare.is_multi_buffer() == jumbo;
        let mut program = match self.spare.remove(name).filter(fits) {
            Some(program) => program,
            None => Uplink::load(&self.host_flows, &self.inward, jumbo)?,
        };
        let device = self.number();
        program.set_classes(&classes.addresses)?;
        program.set_ports(&classes.ports)?;
        self.host_flows.set_failsafes(&classes.failsafes[1])?;
        set_guard(&mut program, &self.host_flows, (name, link.index), classes, self.arrival)?;
        self.inward.attach(link.index)?;
        let only = |hook| {
            let refused = |source| DeviceError::Hook { interface: name.into(), hook, source };
            program.attach_as(link.index, hook).map_err(refused)
        };
        let copy = Preference::Only(Mode::Copy);
        let (attached, preference) = match self.mode {
            XdpMode::Auto => (program.attach(link.index)?, Preference::Auto),
            // It takes native XDP, and says what it lacks better than that does.
            XdpMode::Zerocopy => (program.attach(link.index)?, Preference::Only(Mode::ZeroCopy)),
            XdpMode::Copy => (only(Hook::Native)?, copy),
            XdpMode::Generic => (only(Hook::Generic)?, copy),
        };
        self.host_flows.attach(link.index)?;
        BusyPoll::put_back(name, link.index);
        let mut busy_poll = self.polls.then(|| BusyPoll::new(name, link.index));
        let queues = 0..link.rx_queues.max(1);
        let sockets = self.sockets(options(&self.binder, queues.end));
        let bound = sockets.bind(name, device, queues, preference, |socket| {
            busy_poll.iter_mut().for_each(|busy_poll| busy_poll.ask(socket));
            program.register_socket(socket)
        })?;
        let entry = Entry { busy_poll, ..entry(name, link.index, bound, &attached) };
        info!(
            uplink = name,
            queues = entry.queues,
            zero_copy = entry.zero_copy,
            generic = entry.generic,
            fallbacks = ?entry.fallbacks,
            "uplink attached"
        );
        self.uplinks.insert(name.into(), UplinkPort { program, entry, device });
        Ok(())
    }

    /// Lets go of uplinks that vanished, or that are other interfaces by now. Whether there were any.
    pub(crate) fn forget_uplinks(&mut self, view: &KernelView) -> bool {
        let is_there = |name: &str, uplink: &UplinkPort| {
            view.link(name).is_some_and(|link| link.index == uplink.entry.ifindex)
        };
        let (there, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.uplinks)
            .into_iter()
            .partition(|(name, uplink)| is_there(name, uplink));
        self.uplinks = there;
        let any = !gone.is_empty();
        for (name, UplinkPort { program, entry, device }) in gone {
            warn!(uplink = name, "uplink vanished");
            self.let_go(device);
            if let Err(error) = self.host_flows.set_guarded(entry.ifindex, false) {
                warn!(uplink = name, %error, "the index of an uplink that is gone stays guarded");
            }
            self.spare.insert(name, program);
        }
        any
    }

    /// Whether an interface is an uplink.
    pub(crate) fn is_uplink(&self, interface: &str) -> bool {
        self.uplinks.contains_key(interface)
    }

    /// Binds the queues that uplinks have got since (`ethtool -L`); to be called once a second. The
    /// kernel says how many an interface can have, not how many it has, so binding is the question.
    /// Queues with a socket cannot be taken away: the kernel refuses that. Whether there are new ones.
    pub(crate) fn follow_queues(&mut self, view: &KernelView) -> bool {
        let mut grown = false;
        let Self { binder, links, uplinks, .. } = self;
        let sockets = |options| Sockets { binder, links, options };
        for (name, UplinkPort { program, entry, device }) in uplinks {
            let most = view.link(name).map_or(0, |link| link.rx_queues);
            let mode = if entry.zero_copy { Mode::ZeroCopy } else { Mode::Copy };
            let more = entry.queues..most;
            let busy_poll = &mut entry.busy_poll;
            let register = |socket: &mut margay_xsk::Socket| {
                busy_poll.iter_mut().for_each(|busy_poll| busy_poll.ask(socket));
                program.register_socket(socket)
            };
            let sockets = sockets(options(binder, most));
            match sockets.bind(name, *device, more, Preference::Only(mode), register) {
                Ok(bound) if bound.queues > 0 => {
                    entry.queues += bound.queues;
                    grown = true;
                    info!(uplink = name, queues = entry.queues, "uplink has more queues");
                }
                Ok(_) => {}
                Err(error) => warn!(uplink = name, %error, "cannot use a new queue"),
            }
        }
        grown
    }

    /// Defers the interrupts of uplinks whose NAPI has become known; to be called once a second.
    /// Whether there were any.
    pub(crate) fn follow_busy_polls(&mut self) -> bool {
        let uplinks = self.uplinks.values_mut();
        let polled = uplinks.filter_map(|uplink| uplink.entry.busy_poll.as_mut());
        polled.map(BusyPoll::follow).fold(false, |any, one| any | one)
    }

    /// Tells all uplinks what to redirect.
    pub(crate) fn set_classes(&mut self, classes: &Classes) -> Result<(), DeviceError> {
        self.host_flows.set_failsafes(&classes.failsafes[1])?;
        for (name, UplinkPort { program, entry, .. }) in &mut self.uplinks {
            set_guard(program, &self.host_flows, (name, entry.ifindex), classes, self.arrival)?;
            program.set_ports(&classes.ports)?;
            program.set_classes(&classes.addresses)?;
        }
        Ok(())
    }

    /// Makes the interfaces of endpoints ports as they appear, and lets go of those that vanished.
    /// Returns why an endpoint's interface could not be attached, by interface.
    pub(crate) fn sync_pods(
        &mut self,
        view: &KernelView,
        state: &State,
    ) -> BTreeMap<Arc<str>, String> {
        let vanished: Vec<_> = (self.pods.iter())
            .filter(|(name, pod)| view.link(name).is_none_or(|link| link.index != pod.ifindex))
            .map(|(name, _)| name.clone())
            .collect();
        for name in vanished {
            self.release(&name);
        }
        let mut failed = BTreeMap::new();
        for endpoint in state.endpoints.values() {
            let name = &endpoint.interface;
            let Some(link) = view.link(name) else { continue };
            if self.pods.contains_key(name) {
                continue;
            }
            if let Err(error) = self.add_pod(name, link) {
                warn!(interface = &**name, %error, "cannot attach a pod's interface");
                failed.insert(name.clone(), error.to_string());
            }
        }
        failed
    }

    /// Puts our program in the place of a predecessor's on pods' interfaces without endpoint: what
    /// that one approved is approved no more. To be called once, when those with an endpoint are
    /// ports.
    pub(crate) fn take_over_pods(&mut self, view: &KernelView) {
        for link in pod_links(view) {
            if self.pods.contains_key(&link.name) || !self.pod.has_predecessor(link.index) {
                continue;
            }
            let done = match self.kind {
                PodPorts::Trunk => self.add_pod(&link.name, link),
                PodPorts::Native => self.pod.clear(link.index).map_err(DeviceError::from),
            };
            if let Err(error) = done {
                warn!(interface = &*link.name, %error, "cannot take over a pod's interface");
            }
        }
    }

    /// Takes off what a predecessor that was killed has left on interfaces that are not asked for any
    /// more. To be called once.
    pub(crate) fn leave_former_uplinks(&self, view: &KernelView, wanted: &[String]) {
        let pods: BTreeSet<u32> = pod_links(view).map(|link| link.index).collect();
        for link in view.links.values() {
            let (name, index) = (&*link.name, link.index);
            if wanted.iter().any(|wanted| wanted == name)
                || index == self.trunk_index
                || pods.contains(&index)
                || !self.inward.has_predecessor(index)
            {
                continue;
            }
            BusyPoll::put_back(name, index);
            match self.inward.clear(&self.host_flows, index) {
                Ok(()) => info!(interface = name, "no uplink any more"),
                Err(error) => warn!(interface = name, %error, "a former uplink keeps a program"),
            }
        }
    }

    /// The interfaces that are ports.
    pub(crate) fn attached(&self) -> Vec<Attached> {
        let uplinks = self.uplinks.iter().map(|(name, uplink)| Attached {
            name: name.as_str().into(),
            device: uplink.device,
            uplink: true,
        });
        let pods = self.pods.iter().map(|(name, pod)| Attached {
            name: name.clone(),
            device: pod.device,
            uplink: false,
        });
        uplinks.chain(pods).collect()
    }

    /// Whether the trunk is still there, whatever it is called. What is known of the kernel may be of
    /// before the trunk was made: the kernel itself has the last word.
    pub(crate) fn has_trunk(&self, view: &KernelView) -> bool {
        view.links.contains_key(&self.trunk_index) || kernel::is_there(self.trunk_index)
    }

    /// How packets get in, the trunk first.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let uplinks = self.uplinks.values().map(|uplink| &uplink.entry);
        let native = self.pods.values().filter_map(|pod| Some(&pod.native.as_ref()?.1));
        std::iter::once(&self.trunk_entry).chain(uplinks).chain(native).cloned().collect()
    }

    /// The index of an interface that is a pod's port.
    pub(crate) fn index_of_pod(&self, interface: &str) -> Option<u32> {
        self.pods.get(interface).map(|pod| pod.ifindex)
    }

    /// The interfaces that are pods' ports, with their indices.
    pub(crate) fn pods(&self) -> BTreeMap<Arc<str>, u32> {
        self.pods.iter().map(|(name, pod)| (name.clone(), pod.ifindex)).collect()
    }

    /// Takes all programs off. Sockets end with their workers.
    pub(crate) fn detach_all(&mut self) {
        let uplinks = self.uplinks.values().flat_map(|uplink| {
            let ifindex = uplink.entry.ifindex;
            [
                uplink.program.detach(ifindex),
                self.inward.detach(ifindex),
                self.host_flows.detach(ifindex),
            ]
        });
        let pods = self.pods.values().map(|pod| match &pod.native {
            Some((program, _)) => program.detach(pod.ifindex),
            None => self.pod.detach(pod.ifindex),
        });
        let trunk = [self.trunk_up.detach(self.trunk_index)];
        for error in uplinks.chain(pods).chain(trunk).filter_map(Result::err) {
            warn!(%error, "a program stays attached");
        }
        for (name, uplink) in &self.uplinks {
            BusyPoll::put_back(name, uplink.entry.ifindex);
        }
        // The trunk's far end goes with the trunk.
        let _ = &self.trunk;
    }

    fn add_pod(&mut self, name: &Arc<str>, link: &kernel::Link) -> Result<(), DeviceError> {
        let ifindex = link.index;
        let pod = match self.kind {
            PodPorts::Trunk => {
                self.pod.attach(ifindex)?;
                if link.xdp {
                    self.trunk.clear(ifindex)?;
                }
                PodPort { ifindex, device: DeviceId::TRUNK, native: None }
            }
            PodPorts::Native => self.native_pod(name, link)?,
        };
        self.pods.insert(name.clone(), pod);
        Ok(())
    }

    fn native_pod(&mut self, name: &str, link: &kernel::Link) -> Result<PodPort, DeviceError> {
        let program = PortProgram::load(is_jumbo(link.mtu))?;
        let ifindex = link.index;
        let device = self.number();
        let options = SocketOptions { ready: POD_READY, ..SocketOptions::default() };
        let sockets = self.sockets(options);
        let preference = Preference::Only(Mode::Copy);
        let bound = sockets.bind(name, device, 0..1, preference, |s| program.register_socket(s))?;
        let attached = program.attach(ifindex)?;
        self.pod.clear(ifindex)?;
        let entry = entry(name, ifindex, bound, &attached);
        Ok(PodPort { ifindex, device, native: Some((program, entry)) })
    }

    fn release(&mut self, name: &str) {
        let Some(pod) = self.pods.remove(name) else { return };
        if pod.native.is_some() {
            self.let_go(pod.device);
        }
    }

    /// Ends the sockets of a device.
    fn let_go(&self, device: DeviceId) {
        for link in self.links.iter() {
            link.command(Command::Detach(device));
            link.command(Command::Route(device, None));
        }
    }

    fn number(&mut self) -> DeviceId {
        let (uplinks, pods) = (&self.uplinks, &self.pods);
        next_number(&mut self.next, |device| {
            uplinks.values().any(|uplink| uplink.device == device)
                || pods.values().any(|pod| pod.device == device)
        })
    }

    fn sockets(&self, options: SocketOptions) -> Sockets<'_> {
        Sockets { binder: &self.binder, links: &self.links, options }
    }
}

/// The next number that is nobody's, in turn: one that was let go is in use at workers for a moment.
fn next_number(next: &mut u16, is_taken: impl Fn(DeviceId) -> bool) -> DeviceId {
    loop {
        let device = DeviceId(*next);
        *next = next.wrapping_add(1).max(1);
        if !is_taken(device) {
            return device;
        }
    }
}

/// Guards an uplink, or leaves it to the kernel; ports that are open come before all else is closed.
fn set_guard(
    program: &mut Uplink,
    egress: &HostFlowProgram,
    (name, ifindex): (&str, u32),
    classes: &Classes,
    arrival: [u8; 6],
) -> Result<(), ProgramError> {
    let guarded = classes.guarded.contains(name);
    program.set_failsafes(&classes.failsafes[0])?;
    let guard = guarded.then_some(arrival);
    program.set_config(&UplinkConfig { guard, ..classes.config.clone() })?;
    egress.set_guarded(ifindex, guarded)
}

/// An Ethernet address of one host, locally administered, that nobody can guess.
fn nobodys_mac() -> [u8; 6] {
    let [first, b, c, d, e, f, ..] = seed().to_ne_bytes();
    [first & !1 | 2, b, c, d, e, f]
}

/// An interface's queues begin with an eighth of packet memory between them, so that there is
/// enough for all; the busy ones take more of what is spare.
fn options(binder: &Binder, queues: u32) -> SocketOptions {
    let most = SocketOptions::default();
    let share = binder.region().chunks() / 8 / queues.max(1);
    SocketOptions { ready: share.clamp(POD_READY, most.ready), ..most }
}

/// What is needed to bind an interface's sockets and hand them out.
struct Sockets<'a> {
    binder: &'a Binder,
    links: &'a [Link],
    options: SocketOptions,
}

/// What came of it.
struct Bound {
    queues: u32,
    zero_copy: bool,
    fallbacks: Vec<String>,
}

impl Sockets<'_> {
    /// Binds the queues of an interface and gives queue q to worker q mod N. The kernel reports
    /// more queues than are in use: those that cannot be bound beyond the first are not.
    fn bind(
        &self,
        interface: &str,
        device: DeviceId,
        queues: std::ops::Range<u32>,
        preference: Preference,
        mut register: impl FnMut(&mut margay_xsk::Socket) -> Result<(), ProgramError>,
    ) -> Result<Bound, DeviceError> {
        let mut out = Bound { queues: 0, zero_copy: false, fallbacks: Vec::new() };
        let bound_before = queues.start;
        for queue in queues {
            let mut bound = match self.binder.bind(interface, queue, preference, self.options) {
                Ok(bound) => bound,
                Err(_) if queue > 0 => break,
                Err(source) => {
                    return Err(DeviceError::Bind { interface: interface.into(), source });
                }
            };
            register(&mut bound.socket)?;
            out.queues += 1;
            out.zero_copy = bound.socket.mode() == Mode::ZeroCopy;
            if queue == 0 {
                out.fallbacks.extend(bound.fallback.map(|fallback| fallback.to_string()));
            }
            let worker = queue as usize % self.links.len();
            if let Some(link) = self.links.get(worker) {
                link.command(Command::Attach(device, Box::new(bound.socket)));
            }
        }
        // Who has no queue sends through a worker that has one.
        let owners = ((bound_before + out.queues) as usize).clamp(1, self.links.len());
        for (number, link) in self.links.iter().enumerate().skip(owners) {
            link.command(Command::Route(device, Some(number % owners)));
        }
        Ok(out)
    }
}

fn entry(
    name: &str,
    ifindex: u32,
    bound: Bound,
    attached: &margay_xsk::program::Attached,
) -> Entry {
    let native = attached.fallback.as_ref().map(|reason| format!("no native XDP: {reason}"));
    Entry {
        name: name.into(),
        ifindex,
        queues: bound.queues,
        zero_copy: bound.zero_copy,
        generic: attached.mode == Hook::Generic,
        fallbacks: bound.fallbacks.into_iter().chain(native).collect(),
        busy_poll: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_device_has_the_number_of_another_after_sixty_five_thousand_of_them() {
        let kept = [DeviceId(1), DeviceId(3), DeviceId(u16::MAX)];
        let mut next = u16::MAX - 1;
        let numbers = [(); 3].map(|()| next_number(&mut next, |device| kept.contains(&device)));
        assert_eq!(numbers, [DeviceId(u16::MAX - 1), DeviceId(2), DeviceId(4)]);
    }
}
