//! The generator: whole datastores, small and full of coincidences, and packets between those whom
//! they speak of.
//!
//! - [`surroundings`]: namespaces, pods, sets, services, tiers;
//! - [`selector`]: what Calico's policies select by; [`calico`], [`kubernetes`]: policies;
//! - [`packet`]: what is asked.

pub(crate) mod surroundings;
pub(crate) mod selector;
pub(crate) mod calico;
pub(crate) mod kubernetes;
pub(crate) mod packet;

use fastrand::Rng;
use serde_json::Value;

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const APPS: [&str; 3] = ["a", "b", "ab"];
const ROLES: [&str; 3] = ["front", "back", ""];
const TEAMS: [&str; 2] = ["red", "blue"];
const ACCOUNTS: [&str; 3] = ["default", "robot", "clerk"];
const PORT_NAMES: [&str; 3] = ["web", "dns", "admin"];
const PORTS: [u16; 7] = [53, 79, 80, 81, 90, 443, 8080];

/// A datastore's documents.
pub(crate) fn datastore(rng: &mut Rng) -> Vec<Value> {
    let mut documents = surroundings::documents(rng);
    for number in 0..rng.usize(1..14) {
        documents.push(match rng.u8(0..10) {
            0 | 1 => kubernetes::network_policy(rng, number),
            2 => kubernetes::cluster_policy(rng, number),
            3 => calico::staged(rng, number),
            4..=6 => calico::policy(rng, number, true),
            _ => calico::policy(rng, number, false),
        });
    }
    documents
}

fn one<T: Clone>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())].clone()
}

/// True once in so many times.
fn rarely(rng: &mut Rng, times: u8) -> bool {
    rng.u8(0..times) == 0
}

/// A few of what something makes.
fn some<T>(rng: &mut Rng, most: usize, mut make: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    (0..rng.usize(1..=most)).map(|_| make(rng)).collect()
}

/// Sets a field now and then.
fn perhaps(
    rng: &mut Rng,
    times: u8,
    value: &mut Value,
    key: &str,
    make: impl FnOnce(&mut Rng) -> Value,
) {
    if rarely(rng, times) {
        value[key] = make(rng);
    }
}

/// A name that no other policy has. The order of such names as texts is another one than that of
/// their parts.
fn name(rng: &mut Rng, number: usize) -> String {
    format!("{}{number}", one(rng, &["a", "a-", "a.", "b", "b-a", "z"]))
}
