//! The kept corpus, and inputs made of it that are the same each time, through every target.
//!
//! `MARGAY_FUZZ_SECONDS` (3) is how long each target is tried at most, beyond its corpus;
//! `MARGAY_FUZZ_INPUTS` (4,000) how many inputs are made for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use margay_fuzz::{TARGETS, Target, mutate, target};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// The kept inputs in the order of their names.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(folder(target)).expect("a folder for each target");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
}

/// Runs one input; a panic names what to run again.
fn run(target: &Target, input: &[u8], of: &str) {
    let ended = std::panic::catch_unwind(|| (target.run)(input));
    if let Err(panic) = ended {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{} fails on an input made of {of}: {hex}", target.name);
        std::panic::resume_unwind(panic);
    }
}

/// The corpus, then inputs made of it.
fn replay(name: &str) {
    let target = target(name).expect("a target");
    let mut inputs = corpus(target);
    assert!(!inputs.is_empty(), "nothing is kept for {name}");
    for (path, input) in &inputs {
        run(target, input, &path.display().to_string());
    }
    let made = number("MARGAY_FUZZ_INPUTS", 4_000);
    let until = Instant::now() + Duration::from_secs(number("MARGAY_FUZZ_SECONDS", 3));
    let mut rng = Rng::with_seed(number("PROPTEST_RNG_SEED", 1));
    for _ in 0..made {
        if Instant::now() > until {
            break;
        }
        let (path, base) = &inputs[rng.usize(..inputs.len())];
        let (path, mut input) = (path.clone(), base.clone());
        mutate::mutate(&mut rng, &mut input, target.grain, 1024);
        run(target, &input, &path.display().to_string());
        // Some go on from where they are, so that changes add up.
        if rng.u8(..8) == 0 {
            let place = rng.usize(..inputs.len());
            inputs[place].1 = input;
        }
    }
}

macro_rules! replayed {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target));
        }
    )*};
}

replayed! {
    wire arp_nd fragments icmp_errors dns updates state documents cni_config cni_request takeover path
}

#[test]
fn every_target_is_replayed_and_the_corpus_is_small() {
    let sizes = TARGETS
        .iter()
        .map(|target| corpus(target).iter().map(|(_, input)| input.len()).sum::<usize>());
    let all: usize = sizes.sum();
    assert!(all < 500_000, "{all} bytes are kept");
    assert_eq!(TARGETS.len(), 12, "the list above has all of them");
}
