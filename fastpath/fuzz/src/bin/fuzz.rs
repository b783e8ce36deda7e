//! libFuzzer on the target that `MARGAY_FUZZ` names; see `scripts/fuzz`.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use margay_fuzz::{Target, mutate, target};

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("MARGAY_FUZZ").unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("MARGAY_FUZZ={name:?} is no target"))
    })
}

fuzz_target!(|data: &[u8]| (chosen().run)(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = fastrand::Rng::with_seed(seed.into());
    // libFuzzer's own mutations know what the code compared bytes with; ours know the records.
    if chosen().grain == 1 || rng.bool() {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut input = data[..size].to_vec();
    mutate::mutate(&mut rng, &mut input, chosen().grain, max_size);
    data[..input.len()].copy_from_slice(&input);
    input.len()
});
