//! How fast the processor's own clock goes, by which the times of other benches become cycles.
//!
//! `cargo bench -p margay-tables --bench clock` prints a line `NAME: NUMBER ticks a second`.

use std::thread;
use std::time::{Duration, Instant};

use margay_tables::ticks;

fn main() {
    let (begin, began) = (Instant::now(), ticks());
    thread::sleep(Duration::from_millis(500));
    let (passed, ticks) = (begin.elapsed(), ticks() - began);
    println!("the time stamp counter: {:.0} ticks a second", ticks as f64 / passed.as_secs_f64());
}
