//! Instructions of the same, counted by callgrind: the same on a busy machine as on an idle one.
//!
//! `cargo install gungraun-runner --version 0.20.0`, then
//! `cargo bench -p margay-wire --bench instructions`

#![allow(missing_docs, reason = "of what the macros make")]

mod frames;

use std::hint::black_box;

use frames::*;
use gungraun::prelude::*;

fn bytes(len: usize) -> Vec<u8> {
    vec![0x5a; len]
}

#[library_benchmark(setup = bytes)]
#[bench::bytes_20(20)]
#[bench::bytes_64(64)]
#[bench::bytes_1500(1_500)]
fn checksum(bytes: Vec<u8>) -> (u16, Vec<u8>) {
    (sum(black_box(&bytes)), bytes)
}

#[library_benchmark]
#[bench::destination_and_port()]
fn checksum_by_difference() -> u16 {
    mended(black_box(0x1234), black_box([10, 0, 0, 2]))
}

#[library_benchmark(setup = frame)]
#[bench::segment(false)]
fn parse_v4(frame: Vec<u8>) -> (Option<Read<[u8; 4]>>, Vec<u8>) {
    (read_v4(black_box(&frame)), frame)
}

#[library_benchmark(setup = frame)]
#[bench::segment(true)]
fn parse_v6(frame: Vec<u8>) -> (Option<Read<[u8; 16]>>, Vec<u8>) {
    (read_v6(black_box(&frame)), frame)
}

#[library_benchmark]
#[bench::ipip()]
fn encap_ipip() -> [u8; 20] {
    black_box(outer_v4()).emit()
}

#[library_benchmark]
#[bench::vxlan()]
fn encap_vxlan() -> ([u8; 14], [u8; 20], [u8; 16]) {
    vxlan_around(black_box(50_000))
}

library_benchmark_group!(
    name = headers,
    benchmarks = [checksum, checksum_by_difference, parse_v4, parse_v6, encap_ipip, encap_vxlan]
);
main!(library_benchmark_groups = [headers]);
