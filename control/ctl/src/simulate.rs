//! `margayctl policy simulate`: the verdict of the very compiler and classifier that decide live
//! traffic, on flows that nobody sends.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::court::flow::{Flow, LineError};
use crate::court::judge::Case;
use crate::court::verdict::Failure;
use crate::court::{self, Court};
use crate::objects::{self, ReadError};
use crate::options::{NoDatastore, Options};

/// Lines that are answered at once: enough that to begin threads for them costs nothing.
const BATCH: usize = 1 << 16;

/// Arguments of `policy simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Flows, one JSON object a line; standard input without it or with -
    #[arg(long, value_name = "FILE")]
    flows: Option<PathBuf>,
    /// Ask host endpoints as well that flows pass on their way (applyOnForward, preDNAT and
    /// doNotTrack policies for forwarded traffic), and tell of them as "passages"
    #[arg(long)]
    forwarded: bool,
}

/// Nothing can be simulated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SimulateError {
    /// An option is missing.
    #[error(transparent)]
    NoDatastore(#[from] NoDatastore),
    /// The datastore cannot be read.
    #[error(transparent)]
    Datastore(#[from] ReadError),
    /// The flows cannot be read.
    #[error("cannot read the flows")]
    Flows(#[source] io::Error),
    /// Standard output.
    #[error("cannot write the verdicts")]
    Write(#[source] io::Error),
}

/// Answers every line with one line.
pub(crate) fn run(options: &Options, args: &Args) -> Result<ExitCode, SimulateError> {
    let input: Box<dyn BufRead> = match &args.flows {
        Some(path) if path.as_os_str() != "-" => {
            Box::new(BufReader::new(File::open(path).map_err(SimulateError::Flows)?))
        }
        _ => Box::new(io::stdin().lock()),
    };
    let compiler = court::compile(objects::read(options.datastore()?, court::KINDS)?);
    let mut court = Court { passages: args.forwarded, ..Court::new(&compiler) };
    answer(&mut court, input, BufWriter::new(io::stdout().lock()))?;
    if court.passed_unasked > 0 {
        tracing::warn!(
            flows = court.passed_unasked,
            "host endpoints that flows pass have policies for forwarded traffic, which were not \
             asked; --forwarded asks them"
        );
    }
    // The process ends here; to take a large world to pieces would take as long as many verdicts.
    std::mem::forget(court);
    std::mem::forget(compiler);
    Ok(ExitCode::SUCCESS)
}

/// Answers the lines in batches, each as soon as it is full.
pub(crate) fn answer(
    court: &mut Court<'_>,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), SimulateError> {
    let mut batch = Vec::new();
    for line in input.split(b'\n') {
        let line = line.map_err(SimulateError::Flows)?;
        let line = String::from_utf8_lossy(&line);
        if line.trim().is_empty() {
            continue;
        }
        batch.push(Flow::parse(&line).map(|flow| court.hear(&flow)));
        if batch.len() == BATCH {
            write(court, std::mem::take(&mut batch), &mut output)?;
        }
    }
    write(court, batch, &mut output)?;
    output.flush().map_err(SimulateError::Write)
}

fn write<'c>(
    court: &mut Court<'c>,
    batch: Vec<Result<Case<'c>, LineError>>,
    output: &mut impl Write,
) -> Result<(), SimulateError> {
    let questions: Vec<_> = batch.iter().flatten().flat_map(Case::questions).collect();
    let mut said = court.jury.decide(&questions).into_iter();
    for case in batch {
        let written = match case {
            Ok(case) => {
                let answer = case.answer(&mut said, court.passages);
                serde_json::to_writer(&mut *output, &answer)
            }
            Err(error) => {
                serde_json::to_writer(&mut *output, &Failure { error: error.to_string() })
            }
        };
        written.map_err(|e| SimulateError::Write(e.into()))?;
        output.write_all(b"\n").map_err(SimulateError::Write)?;
    }
    Ok(())
}
