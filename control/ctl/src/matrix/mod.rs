//! `margayctl policy matrix`: who may talk to whom.
//!
//! - [`report`]: groups of pods, and the outcome of each pair;
//! - [`text`]: for a terminal; [`page`]: one page for a browser.

mod report;
mod text;
mod page;

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use margay_compile::Compiler;
use margay_resources::selector::Selector;

use crate::court;
use crate::objects::{self, ReadError};
use crate::options::{Form, NoDatastore, Options};
use crate::output;
use crate::ports::{PortArg, PortName};
use crate::reach::class::{self, Member};
use crate::reach::probe::Probe;
use crate::reach::service::{self, Target};
use crate::reach::survey::{Scope, Survey, TooMany};
use report::Report;

/// Arguments of `policy matrix`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Rows send, columns receive; a group is all pods, or all host endpoints, \
    that policies treat alike. Where a group meets itself, two of its members talk to each other (a \
    pod may always talk to itself). Host endpoints are looked at from other nodes: a node may always \
    talk to its own pods, and what its pods send to it is judged by their egress policies and \
    defaultEndpointToHostAction. Untracked and pre-DNAT policies are left out. \"(outside)\" is an address of nobody, that as few rules as possible name.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Writes one HTML page, which needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Which endpoints and ports are looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct Choice {
    /// Pods (and services) of this namespace; may be given more than once
    #[arg(long, short = 'n')]
    namespace: Vec<String>,
    /// Pods and host endpoints with these labels, in Calico's language, e.g. "app == 'web'"
    #[arg(long, short = 'l', value_parser = Selector::parse)]
    selector: Option<Selector>,
    /// Services too, as receivers: what is said to a client of theirs at their backends
    #[arg(long)]
    services: bool,
    /// One port instead of all, e.g. 80, 53/udp or icmp
    #[arg(long, value_name = "PORT", value_parser = probe)]
    port: Option<Probe>,
    /// Refuse to look at more groups than so many
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    limit: usize,
}

/// There is no matrix.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MatrixError {
    /// An option is missing.
    #[error(transparent)]
    NoDatastore(#[from] NoDatastore),
    /// The datastore cannot be read.
    #[error(transparent)]
    Datastore(#[from] ReadError),
    /// Nobody to look at.
    #[error("no pod with an address of its own is in that choice; margayctl get pods shows them")]
    NoMembers,
    /// Too much to look at.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// A form that a matrix does not have.
    #[error("a matrix has no names: use -o table, json or yaml")]
    Form,
    /// The page.
    #[error("cannot write {}", .path.display())]
    Page {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Standard output.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Draws the matrix.
pub(crate) fn run(options: &Options, args: &Args) -> Result<(), MatrixError> {
    let form = options.form();
    if form == Form::Name {
        return Err(MatrixError::Form);
    }
    let compiler = court::compile(objects::read(options.datastore()?, court::KINDS)?);
    let members = args.choice.members(&compiler);
    if members.is_empty() {
        return Err(MatrixError::NoMembers);
    }
    let services = args.choice.services(&[&compiler]);
    let scope = args.choice.scope(&members, &services);
    let survey = Survey::new(&[&compiler], &scope)?;
    let report = Report::new(&survey, &scope);
    if let Some(path) = &args.html {
        let write = |source| MatrixError::Page { path: path.clone(), source };
        fs::write(path, page::page(&report)).map_err(write)?;
    } else if !output::write_structured(form, &report)? {
        let mut out = BufWriter::new(io::stdout().lock());
        text::write(&mut out, &report)?;
        out.flush()?;
    }
    // The process ends here; to take a large world to pieces would take long.
    std::mem::forget(survey);
    std::mem::forget(compiler);
    Ok(())
}

/// A port, or a protocol without ports.
fn probe(text: &str) -> Result<Probe, String> {
    if let Ok(protocol) = crate::ports::protocol(text)
        && !protocol.has_ports()
        && text.parse::<u8>().is_err()
    {
        return Ok(Probe::of_protocol(protocol.number()));
    }
    let arg: PortArg = text.parse()?;
    let protocol = arg.protocol.map_or(6, |protocol| protocol.number());
    match arg.port {
        PortName::Number(port) => Ok(Probe::of_port(protocol, port)),
        PortName::Name(name) => {
            Err(format!("{name:?} differs from pod to pod: give a number, e.g. 80/tcp, or icmp"))
        }
    }
}

// === impl Choice ===

impl Choice {
    /// The pods and host endpoints that are chosen.
    pub(crate) fn members(&self, compiler: &Compiler) -> Vec<Member> {
        let mut members = class::members(compiler);
        members.retain(|member| {
            let namespace = member.namespace.as_ref();
            (self.namespace.is_empty() || namespace.is_some_and(|n| self.namespace.contains(n)))
                && self.selector.as_ref().is_none_or(|selector| selector.matches(&member.labels))
        });
        members
    }

    /// The services that are chosen.
    pub(crate) fn services(&self, clusters: &[&Compiler]) -> Vec<Target> {
        if !self.services {
            return Vec::new();
        }
        let chosen = |namespace: &str| {
            self.namespace.is_empty() || self.namespace.iter().any(|chosen| chosen == namespace)
        };
        service::targets(clusters, chosen, self.port)
    }

    /// What is to be surveyed.
    pub(crate) fn scope<'a>(&self, members: &'a [Member], services: &'a [Target]) -> Scope<'a> {
        Scope { members, services, port: self.port, limit: self.limit }
    }
}
