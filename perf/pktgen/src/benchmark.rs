//! Benchmarks of a device under test between two interfaces: RFC 2544, and RFC 8219 for tunnels.
//!
//! - [`procedure`]: what can be measured, and the RFCs' own values;
//! - [`bench`]: the two ends and a trial between them; [`search`]: binary search;
//! - [`throughput`], [`latency`], [`loss`], [`bursts`]: the procedures;
//! - [`result`]: the figures.

mod procedure;
mod bench;
mod search;

mod throughput;
mod latency;
mod loss;
mod bursts;

mod result;

pub(crate) use procedure::{Procedure, Standard};
pub(crate) use result::Benchmark;

use std::sync::{Arc, atomic::AtomicBool};

use crate::{arguments::BenchmarkArguments, benchmark::bench::Bench};

/// Bytes of an Ethernet frame's checksum: the RFCs count them, AF_XDP does not.
const FCS: usize = 4;

/// Measures what is asked for at every frame size.
pub(crate) fn benchmark(
    standard: Standard,
    arguments: &BenchmarkArguments,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Benchmark> {
    let procedures = Procedure::chosen(standard, &arguments.procedures)?;
    let mut bench = Bench::open(standard, arguments, stop)?;
    let mut benchmark = Benchmark::new(standard, arguments, &procedures, &bench);
    for size in bench.sizes.clone() {
        let row = bench.row(size, &procedures)?;
        eprintln!("{row}");
        benchmark.rows.push(row);
    }
    benchmark.finish(&bench);
    Ok(benchmark)
}
