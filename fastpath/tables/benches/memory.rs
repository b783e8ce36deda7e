//! What the dataplane holds of policy: bytes for each rule, and for each member of an address set.
//!
//! `cargo bench -p margay-tables --bench memory` prints a line `NAME: NUMBER bytes` for each.

mod world;

use std::net::IpAddr;
use std::sync::Arc;

use margay_model::{Member, Update};
use margay_tables::PolicyBook;
use peak_alloc::PeakAlloc;
use world::{By, addr, world};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const RULES: u32 = 10_000;
const MEMBERS: u32 = 100_000;

/// Bytes that what is made holds.
fn held<T>(make: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATED.current_usage();
    let made = make();
    (ALLOCATED.current_usage() - before, made)
}

fn main() {
    for by in [By::Set, By::Port, By::Net] {
        let (bytes, _world) = held(|| {
            let (mut book, endpoint) = world(by, RULES);
            (book.endpoint(&endpoint), book.classifier(), book, endpoint)
        });
        println!(
            "a rule by {by:?}: {} bytes ({RULES} of them, each in a policy)",
            bytes / RULES as usize
        );
    }
    let (bytes, _book) = held(|| {
        let mut book = PolicyBook::default();
        let members: Vec<_> =
            (0..MEMBERS).map(|n| Member::Net(IpAddr::from(addr(n)).into())).collect();
        book.note(&Update::Set("everybody".into(), Arc::new(members.into())));
        (book.classifier(), book)
    });
    println!("a member of a set: {} bytes ({MEMBERS} of them)", bytes / MEMBERS as usize);
}
