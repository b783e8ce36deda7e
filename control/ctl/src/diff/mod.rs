//! `margayctl policy diff`: what documents would change if they were applied.
//!
//! - [`edit`]: the datastore's content with the documents applied or removed;
//! - [`flows`]: connections seen lately, before and after; pairs of endpoints are
//!   [`crate::reach`]'s;
//! - [`guards`]: host endpoints that come and go;
//! - [`report`]: what changes, and how it is told.

mod edit;
mod flows;
mod guards;
mod report;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::court;
use crate::failure::{Failure, with_sources};
use crate::matrix::Choice;
use crate::objects::{self, ReadError};
use crate::options::{Form, NoDatastore, Options};
use crate::output;
use crate::reach::class;
use crate::reach::survey::{Survey, TooMany};
use report::Report;

/// Something changes.
const CHANGES: u8 = 1;
/// It is not known what changes.
const FAILED: u8 = 2;

/// Arguments of `policy diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 if no verdict changes, 1 if some do, 2 if that cannot be \
    told.\n\nCompared are all pairs of pods and host endpoints on all ports, and the connections that margayd has seen \
    lately, where it can be reached (--dataplane). Of addresses outside the cluster one is compared that \
    no rule names. Documents that name no namespace and live in one \
    are of the namespace default.")]
pub(crate) struct Args {
    /// Files of YAML or JSON documents, folders of such files, or - for standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Look into the folders of folders too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// What would change if the objects of the documents were deleted
    #[arg(long)]
    delete: bool,
    /// Do not ask margayd for connections
    #[arg(long)]
    no_flows: bool,
    #[command(flatten)]
    choice: Choice,
}

/// It is not known what changes.
#[derive(Debug, thiserror::Error)]
enum DiffError {
    /// An option is missing.
    #[error(transparent)]
    NoDatastore(#[from] NoDatastore),
    /// The datastore cannot be read.
    #[error(transparent)]
    Datastore(#[from] ReadError),
    /// The documents.
    #[error(transparent)]
    Documents(Box<Failure>),
    /// A document that cannot be compiled.
    #[error(transparent)]
    Document(#[from] margay_resources::ResourceError),
    /// Too much to look at.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// A form that changes do not have.
    #[error("changes have no names: use -o table, json or yaml")]
    Form,
    /// Standard output.
    #[error(transparent)]
    Write(#[from] io::Error),
}

impl From<Failure> for DiffError {
    fn from(failure: Failure) -> Self {
        Self::Documents(Box::new(failure))
    }
}

/// Tells what would change; the exit code tells whether anything does.
pub(crate) fn run(options: &Options, args: &Args) -> ExitCode {
    match compare(options, args) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(CHANGES),
        Err(error) => {
            eprintln!("margayctl: {}", with_sources(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// Whether anything changes.
fn compare(options: &Options, args: &Args) -> Result<bool, DiffError> {
    let form = options.form();
    if form == Form::Name {
        return Err(DiffError::Form);
    }
    let documents = edit::documents(&args.files, args.recursive)?;
    let today = objects::read(options.datastore()?, court::KINDS)?;
    let edited = edit::edited(&today, documents, args.delete);
    let (before, after) = (court::compile(today), court::compile(edited));
    let mut members = args.choice.members(&before);
    let others = class::members(&after);
    members.retain(|member| {
        let found = others.binary_search_by(|other| other.key.cmp(&member.key));
        let other = found.ok().and_then(|at| others.get(at));
        other.is_some_and(|other| other.addresses == member.addresses)
    });
    let clusters = [&before, &after];
    let services = args.choice.services(&clusters);
    let scope = args.choice.scope(&members, &services);
    let survey = Survey::new(&clusters, &scope)?;
    let flows = if args.no_flows { None } else { Some(flows::compare(options, clusters)) };
    let report = Report::new(&survey, &scope, guards::changes(clusters), flows);
    match tell(form, &report) {
        // Whoever read the output has seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        told => told?,
    }
    let changes = report.changes();
    // The process ends here; to take large worlds to pieces would take long.
    std::mem::forget(survey);
    std::mem::forget((before, after));
    Ok(changes)
}

fn tell(form: Form, report: &Report) -> io::Result<()> {
    if !output::write_structured(form, report)? {
        let mut out = BufWriter::new(io::stdout().lock());
        report.write(&mut out)?;
        out.flush()?;
    }
    Ok(())
}
