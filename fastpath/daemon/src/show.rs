//! What the daemon says of itself: status, counters and flows, for the protocol.

use std::collections::BTreeSet;
use std::sync::Arc;

use margay_engine::PortId;
use margay_engine::meter::{Meter, Stage};
use margay_engine::snapshot::{DeviceId, PortKind};
use margay_model::flow::FlowView;
use margay_model::{DropReason, PuntReason};
use margay_protocol::{FlowFilter, proto};
use margay_tables::flow::{Cursor, FlowWorker};
use margay_worker::{Link, clock};

use crate::busy_poll::BusyPoll;
use crate::devices::Entry;
use crate::ports::Traffic;
use crate::shared::{Origin, Shared, View};

/// Sums over all workers and the slow path.
pub(crate) struct Totals {
    /// Dropped frames by reason.
    pub drops: [u64; DropReason::COUNT],
    /// Punted, injected and consumed frames by reason.
    pub slow: [[u64; PuntReason::COUNT]; 3],
    /// Packets that no flow knew.
    pub misses: u64,
    /// Decisions made anew.
    pub stale: u64,
    /// Connections evicted.
    pub evicted: u64,
    /// Connections that ended by age.
    pub expired: u64,
}

impl Totals {
    /// The sums now.
    pub(crate) fn new(shared: &Shared) -> Self {
        let mut drops = [0; DropReason::COUNT];
        let mut slow = [[0; PuntReason::COUNT]; 3];
        let (mut misses, mut stale, mut evicted, mut expired) = (0, 0, 0, 0);
        for counters in shared.counters() {
            let (d, s) = counters.by_reason();
            drops.iter_mut().zip(d).for_each(|(sum, n)| *sum += n);
            slow.iter_mut().flatten().zip(s.iter().flatten()).for_each(|(sum, n)| *sum += n);
            misses += counters.misses.get();
            stale += counters.stale.get();
            evicted += counters.evicted.get();
            expired += counters.expired.get();
        }
        if let Some(shortcut) = &shared.shortcut
            && let Some(lost) = drops.get_mut(DropReason::Shortcut as usize)
        {
            *lost += shortcut.lost();
        }
        Self { drops, slow, misses, stale, evicted, expired }
    }
}

/// What a number has counted, for whichever interfaces had it: the workers' frames, the slow path's,
/// and those that went past them.
pub(crate) fn counted(shared: &Shared, port: PortId) -> Traffic {
    let past = shared.shortcut.as_ref().map_or([(0, 0); 2], |shortcut| shortcut.traffic(port));
    shared.counters().fold(past, |sum, counters| {
        combine(sum, [counters.rx(port), counters.tx(port)], u64::wrapping_add)
    })
}

/// What each port received and sent; those whose numbers others have got are `gone` together.
pub(crate) fn traffic(shared: &Shared, view: &View) -> Vec<(Arc<str>, Traffic)> {
    let mut ports: Vec<_> = (view.ports.iter())
        .map(|(name, id)| {
            let before = view.given_back.get(id).copied().unwrap_or_default();
            (name.clone(), combine(counted(shared, *id), before, u64::saturating_sub))
        })
        .collect();
    if !view.given_back.is_empty() {
        let sum = |sum, more: &Traffic| combine(sum, *more, u64::wrapping_add);
        ports.push(("gone".into(), view.given_back.values().fold([(0, 0); 2], sum)));
    }
    ports
}

/// Frames that a worker received, on any port.
pub(crate) fn received(link: &Link, view: &View) -> u64 {
    let ids: BTreeSet<PortId> =
        view.ports.iter().map(|(_, id)| *id).chain(view.given_back.keys().copied()).collect();
    ids.into_iter().map(|id| link.counters.rx(id).0).sum()
}

fn combine(a: Traffic, b: Traffic, with: fn(u64, u64) -> u64) -> Traffic {
    let both = |a: (u64, u64), b: (u64, u64)| (with(a.0, b.0), with(a.1, b.1));
    [both(a[0], b[0]), both(a[1], b[1])]
}

/// All counters.
pub(crate) fn counters(shared: &Shared) -> proto::Counters {
    let totals = Totals::new(shared);
    let view = shared.view();
    let ports = traffic(shared, &view).into_iter().map(|(name, traffic)| {
        let [(rx_packets, rx_bytes), (tx_packets, tx_bytes)] = traffic;
        proto::PortCounters { port: name.to_string(), rx_packets, tx_packets, rx_bytes, tx_bytes }
    });
    let [punts, injected, consumed] = &totals.slow;
    proto::Counters {
        ports: ports.collect(),
        drops: (DropReason::ALL.iter().zip(totals.drops))
            .map(|(r, n)| reason(r.name(), r.sentence(), n))
            .collect(),
        punts: by_punt(punts),
        injected: by_punt(injected),
        consumed: by_punt(consumed),
        flow_misses: totals.misses,
        flow_evictions: totals.evicted,
    }
}

/// What the workers do with their time.
pub(crate) fn cycles(shared: &Shared) -> proto::Cycles {
    let (now, elapsed) = (margay_tables::ticks(), shared.started.elapsed());
    let ticks = now.wrapping_sub(shared.started_ticks);
    let workers = shared.links.iter().enumerate().map(|(index, link)| {
        let meters = &link.counters.meters;
        let stages = Stage::ALL.into_iter().map(|stage| {
            let Meter { calls, packets, ticks } = meters.stage(stage);
            proto::StageCycles {
                stage: stage.name().into(),
                calls: calls.get(),
                packets: packets.get(),
                ticks: ticks.get(),
            }
        });
        proto::WorkerCycles {
            index: index as u32,
            stages: stages.collect(),
            turns: meters.turns().collect(),
        }
    });
    proto::Cycles {
        now,
        ticks_per_second: ticks as f64 / elapsed.as_secs_f64(),
        workers: workers.collect(),
        since: shared.started_ticks,
    }
}

/// What rules have decided.
pub(crate) fn rule_counts(shared: &Shared) -> proto::RuleCounts {
    let denials_unremembered = shared.counters().map(|counters| counters.unremembered.get()).sum();
    let counts = shared.accounts.counts().all();
    proto::RuleCounts { counts, flows_lost: shared.accounts.lost().0, denials_unremembered }
}

fn by_punt(numbers: &[u64; PuntReason::COUNT]) -> Vec<proto::ReasonCounter> {
    let all = PuntReason::ALL.iter().zip(numbers);
    all.map(|(r, n)| reason(r.name(), r.sentence(), *n)).collect()
}

fn reason(name: &str, sentence: &str, packets: u64) -> proto::ReasonCounter {
    proto::ReasonCounter { reason: name.into(), packets, sentence: sentence.into() }
}

/// What the daemon is and does.
pub(crate) fn status(shared: &Shared) -> proto::Status {
    let view = shared.view();
    let counts = shared.table.counts();
    proto::Status {
        release: env!("CARGO_PKG_VERSION").into(),
        version: margay_protocol::VERSION,
        instance: shared.instance,
        node: view.state.node.name.to_string(),
        uptime_ms: shared.started.elapsed().as_millis() as u64,
        generation: view.snapshot.as_ref().map_or(0, |s| s.generation.into()),
        agent_connected: view.agent,
        state_origin: match view.origin {
            Origin::None => proto::StateOrigin::Unspecified,
            Origin::Saved => proto::StateOrigin::Saved,
            Origin::Agent => proto::StateOrigin::Agent,
        }
        .into(),
        state: Some(state_counts(&view)),
        workers: workers(shared, &view),
        tuning: tuning(shared, &view),
        ports: ports(&view),
        flow_table: Some(proto::FlowTable {
            capacity: counts.v4_capacity + counts.v6_capacity,
            used: counts.v4 + counts.v6,
            denied: counts.denials,
        }),
        shortcut: shared
            .shortcut
            .as_ref()
            .map(|shortcut| proto::Shortcut { connections: shortcut.connections() as u64 }),
        endpoints_down: (view.endpoints.iter())
            .filter_map(|(key, down)| {
                let reason = down.clone()?;
                Some(proto::EndpointStatus { key: key.to_string(), up: false, reason })
            })
            .collect(),
    }
}

fn state_counts(view: &View) -> proto::StateCounts {
    let state = &view.state;
    proto::StateCounts {
        remotes: state.remotes.len() as u64,
        pools: state.pools.len() as u64,
        sets: state.sets.len() as u64,
        set_members: state.sets.values().map(|set| set.members.len() as u64).sum(),
        policies: state.policies.len() as u64,
        endpoints: state.endpoints.len() as u64,
        routes: state.routes.len() as u64,
        services: state.services.len() as u64,
    }
}

fn workers(shared: &Shared, view: &View) -> Vec<proto::Worker> {
    let numbered = shared.links.iter().zip(&shared.cores).enumerate();
    numbered
        .map(|(index, (link, core))| proto::Worker {
            index: index as u32,
            cpu: core.map(|core| core as u32),
            sleeping: link.is_asleep(),
            packets: received(link, view),
        })
        .collect()
}

fn ports(view: &View) -> Vec<proto::Port> {
    let Some(snapshot) = &view.snapshot else { return Vec::new() };
    snapshot
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let entry = view.entries.iter().find(|entry| entry.name == port.name);
            let info = view.underlay.ports.iter().find(|info| info.id == port.id);
            let (role, endpoint) = match port.kind {
                PortKind::Host => (proto::PortRole::Host, String::new()),
                PortKind::Uplink => {
                    let guard = port.guard.and_then(|index| snapshot.guard(index));
                    let host = guard.map(|guard| host_name(&guard.endpoint.key));
                    (proto::PortRole::Uplink, host.unwrap_or_default())
                }
                PortKind::Orphan => (proto::PortRole::Pod, String::new()),
                PortKind::Pod(index) => (
                    proto::PortRole::Pod,
                    snapshot
                        .workload(index)
                        .map(|w| w.endpoint.key.to_string())
                        .unwrap_or_default(),
                ),
            };
            let behind = port.device == DeviceId::TRUNK;
            proto::Port {
                name: port.name.to_string(),
                ifindex: entry.map(|e| e.ifindex).or(info.map(|i| i.ifindex)).unwrap_or(0),
                role: role.into(),
                kind: if behind { proto::PortKind::Trunk } else { proto::PortKind::Native }.into(),
                mode: entry.map_or(proto::XdpMode::Unspecified, mode).into(),
                queues: entry.map_or(0, |entry| entry.queues),
                fallbacks: entry.map(fallbacks).unwrap_or_default(),
                up: port.kind != PortKind::Orphan,
                endpoint,
            }
        })
        .collect()
}

/// What was chosen at start, and what came of the wish for busy polling since.
fn tuning(shared: &Shared, view: &View) -> Vec<proto::Setting> {
    let polled = view.entries.iter().filter_map(|entry| entry.busy_poll.as_ref());
    let polled: Vec<_> = polled.map(BusyPoll::setting).collect();
    shared.tuning.iter().chain(&polled).map(Into::into).collect()
}

/// How a host endpoint is called among endpoints.
pub(crate) fn host_name(key: &str) -> String {
    format!("HostEndpoint/{key}")
}

fn mode(entry: &Entry) -> proto::XdpMode {
    match (entry.zero_copy, entry.generic) {
        (true, _) => proto::XdpMode::Zerocopy,
        (false, false) => proto::XdpMode::Copy,
        (false, true) => proto::XdpMode::Generic,
    }
}

fn fallbacks(entry: &Entry) -> Vec<proto::ModeFallback> {
    let tried = [proto::XdpMode::Zerocopy, proto::XdpMode::Copy];
    let reasons = entry.fallbacks.iter().zip(tried);
    reasons
        .map(|(reason, mode)| proto::ModeFallback { mode: mode.into(), reason: reason.clone() })
        .collect()
}

/// The flows that a filter wants, to be called off the runtime's threads: it walks the table.
pub(crate) fn flows(shared: &Shared, filter: &FlowFilter, mut each: impl FnMut(&FlowView) -> bool) {
    let Some(snapshot) = shared.view().snapshot else { return };
    // A guest at the table keeps what it looks at from being used again.
    let Some(mut guest) = FlowWorker::new(shared.table.clone()) else { return };
    let now = clock::now();
    let limit = filter.limit.unwrap_or(u32::MAX);
    let past = shared.shortcut.as_ref().map(|shortcut| shortcut.tuples()).unwrap_or_default();
    let mut shown = 0;
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let mut views = Vec::new();
        cursor = guest.list(from, 256, |flow| {
            let mut view = margay_engine::view(&snapshot, *flow, now);
            view.shortcut = past.contains(&view.orig);
            if shown < limit && filter.matches(&view) {
                shown += 1;
                views.push(view);
            }
        });
        // Whoever asked may read slowly, and nobody at the table waits for that.
        guest.sleep();
        if !views.iter().all(&mut each) || shown >= limit {
            return;
        }
        guest.quiesce();
    }
}
