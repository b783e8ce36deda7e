//! Packets that somebody wants to see: those of the workers, and those that nobody sends.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use margay_engine::snapshot::{HopKey, HopState, Outer, PortKind};
use margay_engine::trace::Lookup;
use margay_engine::{Batch, Counters, Engine, Fate, Frame, Ingress, PortId, Snapshot};
use margay_model::State;
use margay_model::flow::FlowTuple;
use margay_protocol::proto::sighting::Fate as Told;
use margay_protocol::{FlowFilter, from_address, proto};
use margay_tables::flow::{FlowConfig, FlowTable, Region};
use margay_wire::at;
use margay_wire::ethernet::{self, Ethernet, ethertype};
use margay_wire::ipv4::Ipv4;
use margay_wire::ipv6::Ipv6;
use margay_worker::tap::{Filter, Sighting, Tap};
use margay_worker::{Command, clock};
use tokio::sync::mpsc;
use tonic::Status;
use tracing::warn;

use crate::shared::Shared;
use crate::state_dir::seed;

/// How often packets that were seen are fetched.
const FETCH: Duration = Duration::from_millis(10);
/// Frames that one probe may hold.
const PROBE: usize = 65_536;
/// Room around a probe's frame for what the path adds.
const ROOM: usize = 256;

pub(crate) type Out = mpsc::Sender<Result<proto::Sighting, Status>>;

/// A tap that is taken off when nobody looks any more.
pub(crate) struct Tapped {
    tap: Arc<Tap>,
    shared: Arc<Shared>,
}

// === impl Tapped ===

impl Tapped {
    /// Puts a tap on all workers.
    pub(crate) fn new(shared: &Arc<Shared>, request: proto::TraceRequest) -> Result<Self, Status> {
        let limit = if request.limit == 0 { u64::MAX } else { request.limit };
        let tap = Arc::new(Tap::new(filter(shared, request)?, limit));
        tell(shared, |taps| taps.push(tap.clone()));
        Ok(Self { tap, shared: shared.clone() })
    }

    /// Tells what goes by until enough was seen or nobody listens.
    pub(crate) async fn run(self, out: Out) {
        let mut ticks = tokio::time::interval(FETCH);
        loop {
            tokio::select! {
                () = out.closed() => return,
                _ = ticks.tick() => {}
            }
            // In this order: what came before the end was known is fetched behind it.
            let done = self.tap.is_done();
            let state = self.shared.view().state;
            while let Some(sighting) = self.tap.take() {
                let seen = describe(&state, &sighting, self.tap.missed());
                if out.send(Ok(seen)).await.is_err() {
                    return;
                }
            }
            if done {
                return;
            }
        }
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        tell(&self.shared, |taps| taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap)));
    }
}

fn tell(shared: &Shared, change: impl FnOnce(&mut Vec<Arc<Tap>>)) {
    shared.update(|view| {
        change(&mut view.taps);
        let taps: Arc<[_]> = view.taps.as_slice().into();
        // Under the lock, so that all workers hear of changes in their order.
        shared.links.iter().for_each(|link| link.command(Command::Taps(taps.clone())));
        // What takes the shortcut comes back to the workers.
        if let Some(shortcut) = &shared.shortcut
            && let Err(error) = shortcut.hold(!taps.is_empty())
        {
            warn!(%error, "the shortcut keeps what was approved: it will not be seen");
        }
    });
}

fn filter(shared: &Shared, request: proto::TraceRequest) -> Result<Filter, Status> {
    let view = shared.view();
    let port = |name: String| match view.ports.iter().find(|(known, _)| **known == *name) {
        _ if name.is_empty() => Ok(None),
        Some((_, id)) => Ok(Some(*id)),
        None => Err(Status::not_found(format!("{name} is no port of this node"))),
    };
    let proto::TraceRequest { net, protocol, port: l4_port, .. } = request;
    let tuple = proto::FlowFilter { net, protocol, port: l4_port, ..Default::default() };
    let tuple = FlowFilter::try_from(tuple)?;
    let mut nets: Vec<Vec<IpNet>> = tuple.net.into_iter().map(|net| vec![net]).collect();
    if !request.pod.is_empty() {
        let of_pod = |key: &str| key.rsplit_once('/').is_some_and(|(pod, _)| pod == request.pod);
        let pods = view.state.endpoints.values().filter(|pod| of_pod(&pod.key));
        let addresses: Vec<_> = pods.flat_map(|pod| pod.addresses.iter().copied()).collect();
        if addresses.is_empty() {
            return Err(Status::not_found(format!("{} is no pod of this node", request.pod)));
        }
        nets.push(addresses.into_iter().map(IpNet::from).collect());
    }
    Ok(Filter {
        from: port(request.from)?,
        to: port(request.to)?,
        nets,
        protocol: tuple.protocol,
        l4_port: tuple.port,
        drops: request.drops,
    })
}

/// Tells what would become of frames; to be called off the runtime's threads.
pub(crate) fn probe(
    shared: &Shared,
    request: proto::ProbeRequest,
    out: &Out,
) -> Result<(), Status> {
    let view = shared.view();
    let Some(snapshot) = view.snapshot else {
        return Err(Status::unavailable("no state is in force yet"));
    };
    if request.frames.len() > PROBE {
        return Err(Status::invalid_argument(format!("more than {PROBE} frames")));
    }
    let config = FlowConfig { v4: 1 << 17, v6: 1 << 17, participants: 1, denial_share: 2 };
    let unable = || Status::internal("no flow table could be made");
    let bytes = FlowTable::required_bytes(&config).map_err(|_| unable())?;
    let table = FlowTable::create(Region::heap(bytes), &config, seed(), 1);
    let table = Arc::new(table.map_err(|_| unable())?);
    let mut engine = Engine::new(&table, Arc::new(Counters::default())).ok_or_else(unable)?;
    let now = clock::now();
    for frame in request.frames {
        let port = came_from(&snapshot, &frame)?;
        let sighting = sight(&mut engine, &snapshot, now, &frame.bytes, port);
        if out.blocking_send(Ok(describe(&view.state, &sighting, 0))).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The port that a frame of a probe is to come from.
fn came_from(snapshot: &Snapshot, frame: &proto::ProbeFrame) -> Result<PortId, Status> {
    let mut ports = snapshot.ports.iter().flatten();
    if !frame.from.is_empty() {
        let port = ports.find(|port| *port.name == *frame.from);
        let none = || Status::not_found(format!("{} is no port of this node", frame.from));
        return port.map(|port| port.id).ok_or_else(none);
    }
    let source = source(&frame.bytes);
    let is_its = |pod: u32| {
        let pod = snapshot.workload(pod);
        pod.zip(source).is_some_and(|(pod, source)| pod.endpoint.addresses.contains(&source))
    };
    let own = source.is_some_and(|source| snapshot.is_own(source.into()));
    let mut uplink = None;
    for port in ports {
        match port.kind {
            PortKind::Pod(pod) if is_its(pod) => return Ok(port.id),
            PortKind::Host if own => return Ok(port.id),
            PortKind::Uplink => uplink = uplink.or(Some(port.id)),
            _ => {}
        }
    }
    uplink.ok_or_else(|| Status::failed_precondition("this node has no uplink"))
}

/// The source address of a frame's packet.
fn source(frame: &[u8]) -> Option<IpAddr> {
    match Ethernet(at(frame, 0)?).ethertype() {
        ethertype::IPV4 => Some(Ipv4(at(frame, ethernet::LEN)?).src().into()),
        ethertype::IPV6 => Some(Ipv6(at(frame, ethernet::LEN)?).src().into()),
        _ => None,
    }
}

/// Takes one frame through an engine.
fn sight(
    engine: &mut Engine<'_>,
    snapshot: &Arc<Snapshot>,
    now: u32,
    bytes: &[u8],
    port: PortId,
) -> Sighting {
    let mut chunk = vec![0; ROOM];
    chunk.extend_from_slice(bytes);
    // What is for any host on the wire is for this one.
    if let (Some(port), Some(mac)) = (snapshot.port(port), chunk.get_mut(ROOM..ROOM + 6))
        && mac.iter().all(|byte| *byte == 0)
    {
        mac.copy_from_slice(&port.mac);
    }
    let before = chunk.get(ROOM..).unwrap_or_default().to_vec();
    let ingress = Ingress::Port(port);
    let (start, len) = (ROOM, bytes.len());
    let frame = Frame::new(&mut chunk, start, len, ingress);
    let seen = engine.look(snapshot, &frame, &mut Vec::new());
    let mut batch = Batch::default();
    batch.frames.push(frame);
    let traced = engine.watch(snapshot, now, seen, &mut batch);
    let after = batch.frames.first().map(|frame| frame.bytes().to_vec()).unwrap_or_default();
    Sighting { at: SystemTime::now(), worker: 0, before, after, traced, snapshot: snapshot.clone() }
}

/// A sighting in names.
fn describe(state: &State, sighting: &Sighting, missed: u64) -> proto::Sighting {
    let Sighting { at, worker, before, after, traced, snapshot } = sighting;
    let name = |port: PortId| snapshot.port(port).map_or("", |port| &port.name).to_owned();
    let arriving = traced.seen.tuple();
    let asked = match (&traced.flow, &arriving) {
        // Of an answer: what its question was addressed to.
        (Some(flow), Some(_)) if flow.allowed => Some(&flow.orig),
        _ => arriving.as_ref(),
    };
    proto::Sighting {
        time_ns: at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
        worker: *worker as u32,
        generation: snapshot.generation.into(),
        from: traced.seen.port.map(name).unwrap_or_default(),
        before: before.clone(),
        after: after.clone(),
        arriving: arriving.as_ref().map(Into::into),
        tunneled: traced.seen.packet.is_some_and(|packet| packet.tunneled),
        lookup: match traced.lookup {
            Lookup::None => proto::Lookup::None,
            Lookup::Hit => proto::Lookup::Hit,
            Lookup::Stale => proto::Lookup::Stale,
            Lookup::Miss => proto::Lookup::Miss,
        }
        .into(),
        flow: traced.flow.as_ref().map(Into::into),
        leaving: traced.leaving.as_ref().map(Into::into),
        service: asked.and_then(|asked| service(state, snapshot, asked)).unwrap_or_default(),
        hop: traced.hop.and_then(|hop| Some(describe_hop(snapshot, snapshot.adjacency(hop)?))),
        fate: Some(match traced.fate {
            Fate::Forward(port) | Fate::Later(port, _) => Told::Forwarded(name(port)),
            Fate::Drop(reason) => Told::Dropped(proto::Reason {
                reason: reason.name().into(),
                sentence: reason.sentence().into(),
            }),
            Fate::Punt(punt) => {
                let reason = punt.why.reason();
                Told::Punted(proto::Reason {
                    reason: reason.name().into(),
                    sentence: reason.sentence().into(),
                })
            }
        }),
        missed,
    }
}

/// The service that a packet is addressed to.
fn service(state: &State, snapshot: &Snapshot, asked: &FlowTuple) -> Option<String> {
    let node_port = snapshot.is_own(asked.dst.into()).then_some(asked.dst_port);
    let found = state.services.values().find(|service| {
        service.protocol == asked.protocol
            && (service.port == asked.dst_port
                && [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips]
                    .iter()
                    .any(|ips| ips.contains(&asked.dst))
                || node_port.is_some() && service.node_port == node_port)
    });
    found.map(|service| service.key.to_string())
}

fn describe_hop(snapshot: &Snapshot, hop: &margay_engine::snapshot::Adjacency) -> proto::Hop {
    let encapsulation = match hop.outer {
        Outer::None | Outer::Arrival | Outer::Departure => "none",
        Outer::Ipip(_) => "ipip",
        Outer::Vxlan(_) => "vxlan",
    };
    let ends = hop.outer.ends().map(|(src, dst)| (from_address(src), from_address(dst)));
    let (outer_src, outer_dst) = ends.unwrap_or_default();
    proto::Hop {
        interface: snapshot.port(hop.port).map_or("", |port| &port.name).to_owned(),
        neighbour: hop.neighbour.map(|addr| from_address(addr.into())).unwrap_or_default(),
        node: match &hop.key {
            HopKey::Ipip(node) | HopKey::Vxlan(node, _) | HopKey::Direct(node, _) => {
                node.to_string()
            }
            _ => String::new(),
        },
        encapsulation: encapsulation.to_owned(),
        outer_src,
        outer_dst,
        mtu: hop.mtu.into(),
        reachable: hop.state == HopState::Reachable,
    }
}
