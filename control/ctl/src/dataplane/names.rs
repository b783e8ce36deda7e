//! `margayctl dns`: which addresses names have resolved to, as the dataplane has learned it from
//! answers to pods.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use margay_model::{DomainName, DomainPattern, SetId};
use margay_protocol::{DEFAULT_SOCKET, proto};
use serde::Serialize;
use tracing::warn;

use super::flows::address;
use super::{connect, in_time};
use crate::failure::{Failure, with_sources};
use crate::options::{Form, Options};
use crate::output::{Table, write_structured};

/// Arguments of `dns`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only names that this matches: a name, or a pattern such as *.example.com
    #[arg(long, value_name = "PATTERN")]
    name: Option<DomainPattern>,
    /// Only names that have or had this address
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Names that no policy wants too
    #[arg(long)]
    all: bool,
}

/// An address of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Learned {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    /// Seconds for which new connections to it are allowed; with 0 it has lapsed, and those that
    /// are there may go on.
    pub(crate) remaining_seconds: u64,
    /// What names it in policies.
    pub(crate) patterns: BTreeSet<String>,
    pub(crate) policies: BTreeSet<String>,
    #[serde(skip)]
    pub(crate) sets: BTreeSet<SetId>,
}

/// What is known of names, for those who decide on flows that nobody sends.
#[derive(Debug, Default)]
pub(crate) struct Known {
    by_address: BTreeMap<IpAddr, Vec<Learned>>,
}

/// Lists what was learned.
pub(super) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let mut names = ask(options).await?;
    names.retain(|learned| args.wants(learned));
    let form = options.form();
    if form == Form::Name {
        let mut out = BufWriter::new(io::stdout().lock());
        for name in names.iter().map(|learned| &learned.name).collect::<BTreeSet<_>>() {
            writeln!(out, "{name}")?;
        }
        return Ok(out.flush()?);
    }
    if !write_structured(form, &names)? {
        write(&mut BufWriter::new(io::stdout().lock()), &names)?;
    }
    Ok(())
}

async fn ask(options: &Options) -> Result<Vec<Learned>, Failure> {
    let mut client = connect(options).await?;
    let mut answer = in_time(client.list_names(proto::ListNamesRequest {})).await??.into_inner();
    let mut names = Vec::new();
    while let Some(learned) = answer.message().await? {
        names.push(Learned::try_from(learned)?);
    }
    Ok(names)
}

fn write(out: &mut impl Write, names: &[Learned]) -> io::Result<()> {
    let mut table = Table::new(["NAME", "ADDRESS", "ALLOWED FOR", "BY", "POLICIES"]);
    for learned in names {
        let words = |words: &BTreeSet<String>| match words.is_empty() {
            true => "-".to_owned(),
            false => words.iter().map(String::as_str).collect::<Vec<_>>().join(","),
        };
        table.push(vec![
            learned.name.clone(),
            learned.address.to_string(),
            match learned.remaining_seconds {
                0 => "lapsed".to_owned(),
                seconds => format!("{seconds}s"),
            },
            words(&learned.patterns),
            words(&learned.policies),
        ]);
    }
    table.write(out)?;
    out.flush()
}

// === impl Args ===

impl Args {
    fn wants(&self, learned: &Learned) -> bool {
        let matches = |pattern: &DomainPattern| {
            learned.name.parse::<DomainName>().is_ok_and(|name| pattern.matches(&name))
        };
        (self.all || !learned.sets.is_empty())
            && self.name.as_ref().is_none_or(matches)
            && self.address.is_none_or(|address| address == learned.address)
    }
}

// === impl Learned ===

impl TryFrom<proto::NameAddress> for Learned {
    type Error = Failure;

    fn try_from(learned: proto::NameAddress) -> Result<Self, Failure> {
        let collect = |part: fn(&proto::NameUse) -> &Vec<String>| {
            learned.uses.iter().flat_map(part).cloned().collect()
        };
        Ok(Self {
            address: address(&learned.address)?,
            remaining_seconds: Duration::from_millis(learned.remaining_ms + 999).as_secs(),
            patterns: collect(|used| &used.patterns),
            policies: collect(|used| &used.policies),
            sets: learned.uses.iter().map(|used| used.set.as_str().into()).collect(),
            name: learned.name,
        })
    }
}

// === impl Known ===

impl Known {
    /// What a dataplane knows: the one that is named, or the usual one if there is one. Without
    /// it nothing is known, and said why.
    pub(crate) fn of(options: &Options) -> Self {
        if options.dataplane.is_none() && !Path::new(DEFAULT_SOCKET).exists() {
            return Self::default();
        }
        let mut by_address: BTreeMap<_, Vec<_>> = BTreeMap::new();
        match crate::wait(ask(options)) {
            Ok(names) => {
                for learned in names {
                    by_address.entry(learned.address).or_default().push(learned);
                }
            }
            Err(error) => {
                let error = with_sources(&error);
                warn!(error, "the dataplane does not say which addresses names have");
            }
        }
        Self { by_address }
    }

    /// Sets and the addresses that they have by names.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&SetId, IpAddr)> {
        let current = self.by_address.values().flatten().filter(|l| l.remaining_seconds > 0);
        current.flat_map(|learned| learned.sets.iter().map(|set| (set, learned.address)))
    }

    /// The names by which an address belongs to a set; the set's current ones first.
    pub(crate) fn names(&self, set: &SetId, address: IpAddr) -> Vec<&Learned> {
        let all = self.by_address.get(&address).into_iter().flatten();
        let mut names: Vec<_> = all.filter(|learned| learned.sets.contains(set)).collect();
        names.sort_by_key(|learned| std::cmp::Reverse(learned.remaining_seconds));
        names
    }
}
