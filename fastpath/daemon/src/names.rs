//! Addresses of domain names: learned, in force, shown, and kept over a restart.
//!
//! The memory itself is the slow path's ([`margay_slowpath::dns::names`]); here is what it needs of
//! the daemon: the sets that want names, who still has connections, and a file.
//!
//! The file has the number of `dnsCacheEpoch` in its first line, then a line for each address:
//! seconds since 1970 at which it lapses, address, name. It is written once a second where something changed, whole or not at all; what cannot be read in it
//! is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use margay_engine::Assembler;
use margay_model::{AddressSet, DnsSettings, DomainName, PolicyKey, SetId, State, Update};
use margay_protocol::{FlowFilter, from_address, proto};
use margay_slowpath::dns::Fact;
use margay_slowpath::dns::names::{Change, Membership, Names};
use margay_tables::classifier::Standing;
use margay_worker::clock;
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::show;
use crate::state_dir::{Unsaved, replace};

/// How often connections are looked for whose addresses have lapsed: the flow table is walked.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What the control task knows of names.
pub(crate) struct Learned {
    names: Names,
    /// What is known was learned under this number; `None` where nothing is.
    epoch: Option<u32>,
    file: PathBuf,
    unsaved: Unsaved,
    /// A walk through the flow table: which of the lapsed addresses nobody uses.
    looking: Option<oneshot::Receiver<BTreeSet<IpAddr>>>,
    looked: Instant,
}

// === impl Learned ===

impl Learned {
    /// What the file of an earlier process says; its end goes on where it was.
    pub(crate) fn load(file: PathBuf) -> Self {
        let mut names = Names::default();
        let mut epoch = None;
        if let Ok(text) = std::fs::read_to_string(&file) {
            let (now, unix) = (clock::now_ms(), unix_seconds());
            let (first, rest) = text.split_once('\n').unwrap_or_default();
            epoch = first.parse().ok();
            for (until, addr, name) in rest.lines().filter_map(read_line) {
                // Before boot is as long ago as may be.
                let until = (now + until.saturating_sub(unix).saturating_mul(1_000))
                    .saturating_sub(unix.saturating_sub(until).saturating_mul(1_000));
                names.restore(&name, addr, until);
            }
        }
        Self {
            names,
            epoch,
            file,
            unsaved: Unsaved::default(),
            looking: None,
            looked: Instant::now(),
        }
    }

    /// Notes a change of the state: sets that want names, and settings.
    pub(crate) fn note(&mut self, update: &Update, assembler: &mut Assembler) {
        let now = clock::now_ms();
        let changes = match update {
            Update::Set(id, set) => self.names.set_patterns(now, id, &set.domains),
            Update::SetGone(id) => self.names.set_patterns(now, id, &AddressSet::default().domains),
            Update::Node(node) => {
                let DnsSettings { extra_ttl, epoch, .. } = node.settings.dns;
                self.names.set_grace(extra_ttl);
                let other = self.epoch.replace(epoch).is_some_and(|old| old != epoch);
                if other {
                    self.unsaved.note();
                    self.names.clear(now)
                } else {
                    Vec::new()
                }
            }
            _ => return,
        };
        self.take(changes, assembler);
    }

    /// A whole state has been noted: what an earlier process knew and none of its sets wants is brought
    /// within its bounds.
    pub(crate) fn noted_all(&mut self) {
        self.names.restored();
    }

    /// Learns what an answer said; whether anything is to be put in force.
    pub(crate) fn learn(&mut self, facts: &[Fact], assembler: &mut Assembler) -> bool {
        let changes = self.names.learn(clock::now_ms(), facts);
        self.unsaved.note();
        self.take(changes, assembler)
    }

    /// What time has changed; whether anything is to be put in force. To be called every second.
    pub(crate) fn tick(&mut self, shared: &Arc<Shared>, assembler: &mut Assembler) -> bool {
        let now = clock::now_ms();
        let mut changes = self.names.expire(now);
        if let Some(looking) = &mut self.looking {
            match looking.try_recv() {
                Ok(unused) => {
                    changes.extend(self.names.let_go(now, &unused));
                    self.looking = None;
                }
                Err(oneshot::error::TryRecvError::Closed) => self.looking = None,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
        } else if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            let lapsed = self.names.lapsed();
            self.looking = (!lapsed.is_empty()).then(|| look_for(lapsed, shared.clone()));
        }
        if !changes.is_empty() {
            self.unsaved.note();
        }
        self.take(changes, assembler)
    }

    /// Saves what has changed.
    pub(crate) fn save(&mut self) {
        let Self { names, epoch, file, unsaved, .. } = self;
        unsaved.save("learned addresses", || {
            let (now, unix) = (clock::now_ms(), unix_seconds());
            let mut text = format!("{}\n", epoch.unwrap_or(0));
            for known in names.iter() {
                let until = (unix + known.until.saturating_sub(now).div_ceil(1_000))
                    .saturating_sub(now.saturating_sub(known.until) / 1_000);
                let _ = writeln!(text, "{until} {} {}", known.addr, known.name);
            }
            replace(file, text.as_bytes())
        });
    }

    /// Everything that is known, for people.
    pub(crate) fn show(&self, state: &State) -> Vec<proto::NameAddress> {
        let now = clock::now_ms();
        let policies = policies_by_set(state);
        let used = |set: &SetId, name: &DomainName| {
            let domains = state.sets.get(set).map(|set| &set.domains);
            let matching = domains.into_iter().flatten().filter(|pattern| pattern.matches(name));
            proto::NameUse {
                set: set.to_string(),
                patterns: matching.map(ToString::to_string).collect(),
                policies: policies
                    .get(set)
                    .into_iter()
                    .flatten()
                    .map(ToString::to_string)
                    .collect(),
            }
        };
        let all = self.names.iter().map(|known| proto::NameAddress {
            name: known.name.to_string(),
            address: from_address(known.addr),
            remaining_ms: known.until.saturating_sub(now),
            uses: known.sets.iter().map(|set| used(set, &known.name)).collect(),
        });
        all.collect()
    }

    /// Numbers of names and of what found no room.
    pub(crate) fn numbers(&self) -> (usize, u64) {
        (self.names.len(), self.names.refused())
    }

    fn take(&mut self, changes: Vec<Change>, assembler: &mut Assembler) -> bool {
        for Change { set, addr, membership } in &changes {
            let standing = match membership {
                Membership::Current => Standing::Current,
                Membership::Lapsed => Standing::Lapsed,
                Membership::Gone => Standing::Unknown,
            };
            assembler.note_learned(set, (*addr).into(), standing);
        }
        !changes.is_empty()
    }
}

/// Walks through the flow table for connections to these addresses; those that have none.
fn look_for(
    mut lapsed: BTreeSet<IpAddr>,
    shared: Arc<Shared>,
) -> oneshot::Receiver<BTreeSet<IpAddr>> {
    let (done, unused) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        show::flows(&shared, &FlowFilter::default(), |flow| {
            if flow.allowed {
                // The policy saw the translated destination: the source of answers.
                lapsed.remove(&flow.reply.src);
            }
            !lapsed.is_empty()
        });
        let _ = done.send(lapsed);
    });
    unused
}

/// The policies whose rules ask for what is learned of a set.
fn policies_by_set(state: &State) -> BTreeMap<&SetId, BTreeSet<&PolicyKey>> {
    let mut policies: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for policy in state.policies.values() {
        let asking = policy.egress.iter().filter(|rule| rule.dst.learned);
        for set in asking.flat_map(|rule| &rule.dst.sets) {
            policies.entry(set).or_default().insert(&policy.key);
        }
    }
    policies
}

fn read_line(line: &str) -> Option<(u64, IpAddr, DomainName)> {
    let mut words = line.split(' ');
    let (until, addr, name) = (words.next()?, words.next()?, words.next()?);
    Some((until.parse().ok()?, addr.parse().ok()?, name.parse().ok()?))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
