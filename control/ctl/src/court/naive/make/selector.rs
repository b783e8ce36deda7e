//! Selectors in all of their spellings.

use fastrand::Rng;

use super::{ACCOUNTS, APPS, NAMESPACES, ROLES, TEAMS, one, rarely};

/// What is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Pods and sets.
    Items,
    Namespaces,
    Accounts,
}

/// A selector.
pub(super) fn selector(rng: &mut Rng, what: What) -> String {
    compound(rng, what, 2)
}

fn compound(rng: &mut Rng, what: What, depth: u8) -> String {
    if depth == 0 {
        return condition(rng, what);
    }
    let inner = |rng: &mut Rng| compound(rng, what, depth - 1);
    match rng.u8(0..10) {
        0 => format!("{} && {}", inner(rng), inner(rng)),
        1 => format!("{}||{}", inner(rng), inner(rng)),
        2 => format!("({} || {}) && {}", inner(rng), inner(rng), inner(rng)),
        3 => format!("!({})", inner(rng)),
        4 => format!("!! {}", condition(rng, what)),
        _ => condition(rng, what),
    }
}

fn condition(rng: &mut Rng, what: What) -> String {
    let (key, values) = subject(rng, what);
    let value = one(rng, &values);
    match rng.u8(0..13) {
        0 => "all()".to_owned(),
        1 => format!("has({key})"),
        2 => format!("!has({key})"),
        3 => format!("{key} != '{value}'"),
        4 => format!("{key} in {{'{value}', \"{}\"}}", one(rng, &values)),
        5 => format!("{key} not in {{ '{value}' , }}"),
        6 => format!("{key} notin {{}}"),
        7 => format!("{key} contains '{}'", part(rng, value)),
        8 => format!("{key} starts with '{}'", part(rng, value)),
        9 => format!("{key} endswith \"{}\"", part(rng, value)),
        _ => format!("{key}=='{value}'"),
    }
}

/// A label and what it may be.
fn subject(rng: &mut Rng, what: What) -> (&'static str, Vec<&'static str>) {
    let of_items = [
        ("app", APPS.to_vec()),
        ("role", ROLES.to_vec()),
        ("example.org/app", APPS.to_vec()),
        ("env", vec!["prod", "test"]),
        ("projectcalico.org/namespace", NAMESPACES.to_vec()),
        ("projectcalico.org/orchestrator", vec!["k8s"]),
        ("projectcalico.org/serviceaccount", ACCOUNTS.to_vec()),
        ("pcns.team", TEAMS.to_vec()),
        ("pcns.projectcalico.org/name", NAMESPACES.to_vec()),
        ("pcsa.role", ROLES.to_vec()),
    ];
    let of_namespaces = [
        ("team", TEAMS.to_vec()),
        ("env", vec!["prod", "test"]),
        ("projectcalico.org/name", NAMESPACES.to_vec()),
        ("kubernetes.io/metadata.name", NAMESPACES.to_vec()),
    ];
    let of_accounts = [("role", ROLES.to_vec()), ("env", vec!["prod", "test"])];
    match what {
        What::Items if !rarely(rng, 4) => one(rng, &of_items[..4]),
        What::Items => one(rng, &of_items),
        What::Namespaces => one(rng, &of_namespaces),
        What::Accounts => one(rng, &of_accounts),
    }
}

fn part(rng: &mut Rng, of: &str) -> String {
    let (from, to) = (rng.usize(0..=of.len()), rng.usize(0..=of.len()));
    of[from.min(to)..from.max(to)].to_owned()
}
