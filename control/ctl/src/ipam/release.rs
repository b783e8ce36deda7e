//! `margayctl ipam release`.

use std::net::IpAddr;
use std::path::PathBuf;

use margay_ipam::release::Release;
use serde::Deserialize;
use serde_json::json;

use super::Context;
use crate::failure::Failure;
use crate::files::ReadError;
use crate::output::write_structured;

/// Arguments of `ipam release`.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Args {
    /// Give back these addresses, whoever has them
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    ip: Vec<IpAddr>,
    /// Give back everything under this handle
    #[arg(long, value_name = "HANDLE")]
    handle: Option<String>,
    /// Give back what `ipam check -o json` found to be leaked, unless it was assigned anew since
    #[arg(long, value_name = "FILE")]
    from_report: Option<PathBuf>,
}

/// What is read of a report of `ipam check`.
#[derive(Deserialize)]
struct Report {
    findings: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    finding: String,
    allocation: Option<Leak>,
}

#[derive(Deserialize)]
struct Leak {
    ip: IpAddr,
    handle: Option<String>,
    sequence: u64,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let (released, were_free) = if let Some(handle) = &args.handle {
        (context.ipam.release_by_handle(handle).await?, Vec::new())
    } else {
        let leaks = match &args.from_report {
            Some(path) => leaks(path)?,
            None => Vec::new(),
        };
        let any = args.ip.iter().map(|ip| Release { ip: *ip, handle: None, sequence: None });
        let leaked = leaks.iter().map(|leak| Release {
            ip: leak.ip,
            handle: leak.handle.as_deref(),
            sequence: Some(leak.sequence),
        });
        let all: Vec<_> = any.chain(leaked).collect();
        let done = context.ipam.release_ips(&all).await?;
        (done.released, done.were_free)
    };
    let released: Vec<_> = released.iter().map(|allocation| allocation.ip).collect();
    if write_structured(context.form, &json!({"released": released, "wereFree": were_free}))? {
        return Ok(());
    }
    released.iter().for_each(|ip| println!("{ip} released"));
    were_free.iter().for_each(|ip| println!("{ip} was free already"));
    println!("{} released", released.len());
    Ok(())
}

fn leaks(path: &PathBuf) -> Result<Vec<Leak>, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ReadError { path: path.clone(), source })?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|source| Failure::Report { path: path.clone(), source })?;
    let leaked = report.findings.into_iter().filter(|found| found.finding == "leaked");
    Ok(leaked.filter_map(|found| found.allocation).collect())
}
