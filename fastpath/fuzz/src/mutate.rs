//! How an input becomes another.

use fastrand::Rng;

/// Numbers that decide: bounds, lengths, versions, flags.
const TELLING: [u8; 16] =
    [0, 1, 2, 4, 8, 15, 16, 0x3f, 0x40, 0x45, 0x60, 0x7f, 0x80, 0xf0, 0xfe, 0xff];

/// Changes an input at a few places; it has at most `max` bytes afterwards. Some changes move whole
/// parts of `grain` bytes, so that programs of records stay programs.
pub fn mutate(rng: &mut Rng, input: &mut Vec<u8>, grain: usize, max: usize) {
    for _ in 0..1 + rng.usize(..4) {
        if grain > 1 && rng.bool() { parts(rng, input, grain) } else { bytes(rng, input) }
    }
    input.truncate(max);
}

fn bytes(rng: &mut Rng, input: &mut Vec<u8>) {
    if input.is_empty() {
        return input.push(rng.u8(..));
    }
    let at = rng.usize(..input.len());
    match rng.u8(..8) {
        0 => input[at] = rng.u8(..),
        1 => input[at] = *rng.choice(&TELLING).unwrap_or(&0),
        2 => input[at] ^= 1 << rng.u8(..8),
        3 => input[at] = input[at].wrapping_add(rng.u8(..9)).wrapping_sub(4),
        4 => input.insert(at, rng.u8(..)),
        5 => drop(input.remove(at)),
        6 => input.truncate(at),
        _ => {
            // What stands somewhere means something elsewhere.
            let len = rng.usize(1..=8).min(input.len() - at);
            let part = input[at..at + len].to_vec();
            let to = rng.usize(..=input.len() - len);
            input[to..to + len].copy_from_slice(&part);
        }
    }
}

fn parts(rng: &mut Rng, input: &mut Vec<u8>, grain: usize) {
    let count = input.len() / grain;
    let part = |n: usize| n * grain..(n + 1) * grain;
    if count == 0 {
        return input.extend((0..grain).map(|_| rng.u8(..)));
    }
    let (one, other) = (rng.usize(..count), rng.usize(..count));
    let copy = input[part(one)].to_vec();
    match rng.u8(..5) {
        0 => drop(input.splice(part(other).start..part(other).start, copy)),
        1 => drop(input.drain(part(one))),
        2 => {
            let exchanged = input[part(other)].to_vec();
            input[part(one)].copy_from_slice(&exchanged);
            input[part(other)].copy_from_slice(&copy);
        }
        3 => input[part(other)].copy_from_slice(&copy),
        _ => {
            let new: Vec<u8> = (0..grain).map(|_| rng.u8(..)).collect();
            drop(input.splice(part(one).start..part(one).start, new));
        }
    }
}
