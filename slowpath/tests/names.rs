//! What was learned of names, and which sets it makes whose members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::{DomainPattern, SetId};
use margay_slowpath::dns::Fact;
use margay_slowpath::dns::names::{Change, Limits, MAX_TTL, MIN_TTL, Membership, Names};
use proptest::prelude::*;

fn fact(name: &str, addr: &str, ttl: u32) -> Fact {
    Fact { name: name.parse().unwrap(), addr: addr.parse().unwrap(), ttl }
}

fn patterns(texts: &[&str]) -> BTreeSet<DomainPattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn set(id: &str) -> SetId {
    id.into()
}

/// What one who heard all changes knows.
#[derive(Debug, Default, PartialEq)]
struct Heard(BTreeMap<(SetId, IpAddr), Membership>);

impl Heard {
    fn hear(&mut self, changes: Vec<Change>) {
        for Change { set, addr, membership } in changes {
            let old = match membership {
                Membership::Gone => self.0.remove(&(set, addr)),
                _ => self.0.insert((set, addr), membership),
            };
            assert_ne!(old, Some(membership), "told twice");
            assert!(old.is_some() || membership != Membership::Gone, "gone, but never told");
        }
    }

    fn words(&self) -> Vec<String> {
        self.0.iter().map(|((set, addr), is)| format!("{set} {addr} {is:?}")).collect()
    }
}

#[test]
fn an_address_is_current_for_its_time_lapsed_while_it_is_used_and_then_gone() {
    let (mut names, mut heard) = (Names::default(), Heard::default());
    heard.hear(names.set_patterns(0, &set("s"), &patterns(&["*.example.com"])));
    let facts = [fact("www.example.com", "192.0.2.1", 60), fact("other.net", "192.0.2.2", 60)];
    heard.hear(names.learn(1_000, &facts));
    assert_eq!(heard.words(), ["s 192.0.2.1 Current"]);
    heard.hear(names.expire(60_999));
    assert_eq!(heard.words(), ["s 192.0.2.1 Current"]);
    // Again, with less time: what was said before stays true.
    heard.hear(names.learn(2_000, &[fact("www.example.com", "192.0.2.1", 10)]));
    heard.hear(names.expire(61_000));
    assert_eq!(heard.words(), ["s 192.0.2.1 Lapsed"]);
    assert_eq!(names.lapsed(), ["192.0.2.1".parse().unwrap()].into());
    heard.hear(names.learn(70_000, &[fact("www.example.com", "192.0.2.1", 60)]));
    assert_eq!(heard.words(), ["s 192.0.2.1 Current"]);
    // It was seen unused while it had lapsed; meanwhile it is current again.
    heard.hear(names.let_go(70_001, &["192.0.2.1".parse().unwrap()].into()));
    assert_eq!(heard.words(), ["s 192.0.2.1 Current"]);
    heard.hear(names.expire(130_000));
    heard.hear(names.let_go(130_001, &names.lapsed()));
    assert_eq!((heard.words(), names.len()), (vec![], 0));
}

#[test]
fn lifetimes_have_a_floor_a_ceiling_and_a_grace() {
    let rows = [
        (0, 0, MIN_TTL),
        (60, 0, 60),
        (60, 30, 90),
        (0, 30, MIN_TTL + 30),
        (u32::MAX, 5, MAX_TTL + 5),
    ];
    for (ttl, grace, expected) in rows {
        let mut names = Names::default();
        names.set_grace(grace);
        names.learn(7_000, &[fact("a.example", "192.0.2.1", ttl)]);
        let until = names.iter().next().unwrap().until;
        assert_eq!(until, 7_000 + u64::from(expected) * 1_000, "{ttl} {grace}");
    }
}

#[test]
fn an_address_of_two_names_belongs_to_both_sets_for_as_long_as_each_name_has_it() {
    let (mut names, mut heard) = (Names::default(), Heard::default());
    heard.hear(names.set_patterns(0, &set("a"), &patterns(&["a.example"])));
    heard.hear(names.set_patterns(0, &set("all"), &patterns(&["*.example"])));
    let facts = [fact("a.example", "192.0.2.1", 20), fact("b.example", "192.0.2.1", 60)];
    heard.hear(names.learn(0, &facts));
    heard.hear(names.expire(20_000));
    assert_eq!(heard.words(), ["a 192.0.2.1 Lapsed", "all 192.0.2.1 Current"]);
    assert!(names.lapsed().is_empty(), "it is current for somebody");
    heard.hear(names.expire(60_000));
    assert_eq!(heard.words(), ["a 192.0.2.1 Lapsed", "all 192.0.2.1 Lapsed"]);
}

#[test]
fn a_set_that_comes_later_finds_what_is_known_and_takes_it_along_when_it_goes() {
    let (mut names, mut heard) = (Names::default(), Heard::default());
    heard.hear(names.learn(0, &[fact("a.example", "192.0.2.1", 60)]));
    assert!(heard.words().is_empty());
    heard.hear(names.set_patterns(1, &set("s"), &patterns(&["a.example"])));
    assert_eq!(heard.words(), ["s 192.0.2.1 Current"]);
    heard.hear(names.set_patterns(2, &set("s"), &patterns(&["b.example"])));
    assert!(heard.words().is_empty());
    heard.hear(names.set_patterns(3, &set("s"), &patterns(&["*.example"])));
    assert_eq!(heard.words(), ["s 192.0.2.1 Current"]);
    heard.hear(names.set_patterns(4, &set("s"), &patterns(&[])));
    assert_eq!((heard.words(), names.len()), (vec![], 1));
    heard.hear(names.expire(60_000));
    assert!(names.is_empty(), "nobody was allowed by it");
}

#[test]
fn what_an_earlier_process_saved_is_learned_again_lapsed_or_not() {
    let (mut old, mut names, mut heard) = (Names::default(), Names::default(), Heard::default());
    old.set_patterns(0, &set("s"), &patterns(&["*.example"]));
    old.learn(0, &[fact("a.example", "192.0.2.1", 20), fact("b.example", "192.0.2.2", 60)]);
    for known in old.iter() {
        names.restore(&known.name, known.addr, known.until);
    }
    heard.hear(names.set_patterns(30_000, &set("s"), &patterns(&["*.example"])));
    assert_eq!(heard.words(), ["s 192.0.2.1 Lapsed", "s 192.0.2.2 Current"]);
    heard.hear(names.clear(30_001));
    assert_eq!((heard.words(), names.len()), (vec![], 0));
}

#[test]
fn what_is_restored_has_the_bounds_of_what_sets_want_until_they_are_there() {
    let limits = Limits { others: 2, addresses: 3, addresses_of_others: 1, ..Limits::default() };
    let (mut names, mut heard) = (Names::new(limits), Heard::default());
    for name in ["a.example", "b.example", "c.net", "d.net", "e.net"] {
        for (last, until) in [(1, 10), (2, 90), (3, 80)] {
            names.restore(&name.parse().unwrap(), ip(last), until);
        }
    }
    // What has lapsed meanwhile is what connections may need.
    heard.hear(names.expire(50));
    heard.hear(names.set_patterns(50, &set("s"), &patterns(&["a.example"])));
    heard.hear(names.set_patterns(50, &set("t"), &patterns(&["b.example"])));
    names.restored();
    let expected = ["192.0.2.1 Lapsed", "192.0.2.2 Current", "192.0.2.3 Current"];
    let of = |set: &str| expected.map(|text| format!("{set} {text}"));
    assert_eq!(heard.words(), [of("s"), of("t")].concat());
    let others = names.iter().filter(|known| known.sets.is_empty());
    let others: Vec<_> = others.map(|known| (known.name.to_string(), known.addr)).collect();
    assert_eq!(others, [("d.net".into(), ip(2)), ("e.net".into(), ip(2))]);
}

#[test]
fn every_bound_holds_and_is_counted() {
    let limits =
        Limits { wanted: 2, others: 2, addresses: 2, addresses_of_others: 1, total: 9, members: 3 };
    let (mut names, mut heard) = (Names::new(limits), Heard::default());
    heard.hear(names.set_patterns(0, &set("s"), &patterns(&["*.example"])));
    for (nth, name) in ["a.example", "b.example", "c.example"].iter().enumerate() {
        heard.hear(names.learn(0, &[fact(name, &format!("192.0.2.{nth}"), 60)]));
    }
    assert_eq!(heard.words(), ["s 192.0.2.0 Current", "s 192.0.2.1 Current"]);
    assert_eq!(names.refused(), 1);
    // Of a name's addresses the one that ends first makes room.
    for (last, ttl) in [(10, 90), (11, 70)] {
        heard.hear(names.learn(0, &[fact("a.example", &format!("192.0.2.{last}"), ttl)]));
    }
    heard.hear(names.expire(1));
    let expected = ["s 192.0.2.1 Current", "s 192.0.2.10 Current", "s 192.0.2.11 Current"];
    assert_eq!((heard.words(), names.refused()), (expected.map(String::from).into(), 2));
    heard.hear(names.learn(0, &[fact("b.example", "192.0.2.12", 90)]));
    assert_eq!((heard.words().len(), names.refused()), (3, 3), "a set's bound");
    for nth in 0..9 {
        heard.hear(names.learn(0, &[fact(&format!("{nth}.net"), "192.0.2.99", 60)]));
    }
    assert_eq!(names.len(), 2 + 2);
    for nth in 0..3 {
        heard.hear(names.learn(0, &[fact("8.net", &format!("192.0.2.{}", 100 + nth), 60 + nth)]));
    }
    assert_eq!(names.iter().filter(|known| known.name.as_str() == "8.net").count(), 1);
}

#[test]
fn all_names_together_have_a_bound_of_their_own() {
    let mut names = Names::new(Limits { total: 2, ..Limits::default() });
    for nth in 0..4 {
        names.learn(0, &[fact(&format!("{nth}.net"), "192.0.2.1", 60)]);
    }
    assert_eq!((names.len(), names.iter().count(), names.refused()), (2, 2, 2));
    names.expire(60_000);
    names.learn(60_000, &[fact("4.net", "192.0.2.1", 60)]);
    assert_eq!((names.len(), names.refused()), (1, 2));
}

proptest! {
    /// Whatever happened before, what was told follows from what is known.
    #[test]
    fn what_was_told_follows_from_names_and_patterns_alone(
        steps in prop::collection::vec((0u8..4, 0u8..4, 0u8..4, 0u32..40), 1..60)
    ) {
        let (mut names, mut heard, mut now) = (Names::default(), Heard::default(), 0);
        let mut wanted: BTreeMap<SetId, BTreeSet<DomainPattern>> = BTreeMap::new();
        let all = ["a.example", "b.example", "*.example", "c.*"];
        for (what, x, y, z) in steps {
            let id = set(["s", "t"][usize::from(x % 2)]);
            let chosen = all.iter().enumerate().filter(|(n, _)| z >> n & 1 == 1);
            let texts: Vec<_> = chosen.map(|(_, text)| *text).collect();
            match what {
                0 => {
                    wanted.insert(id.clone(), patterns(&texts));
                    heard.hear(names.set_patterns(now, &id, &patterns(&texts)));
                }
                1 => {
                    let name = ["a.example", "b.example", "c.example", "c.net"][usize::from(x)];
                    heard.hear(names.learn(now, &[fact(name, &format!("192.0.2.{y}"), z)]));
                }
                2 => {
                    now += u64::from(z) * 500;
                    heard.hear(names.expire(now));
                }
                _ => heard.hear(names.let_go(now, &names.lapsed())),
            }
        }
        heard.hear(names.expire(now));
        let mut expected: BTreeMap<(SetId, IpAddr), Membership> = BTreeMap::new();
        for known in names.iter() {
            let is = if known.until > now { Membership::Current } else { Membership::Lapsed };
            for (id, patterns) in &wanted {
                if patterns.iter().any(|pattern| pattern.matches(&known.name)) {
                    let of = expected.entry((id.clone(), known.addr)).or_insert(is);
                    *of = is.min(*of);
                }
            }
        }
        prop_assert_eq!(heard.0, expected);
    }
}
