//! A change costs what it touches.

use margay_model::Update;

use super::*;

fn rule_from(set: &str) -> Rule {
    let src = EntityMatch { sets: vec![set.into()], ..EntityMatch::default() };
    Rule { src, ..Rule::any(Action::Allow) }
}

fn pod(n: usize, policy: &str) -> Endpoint {
    endpoint(&format!("pod{n}"), vec![tier("one", DefaultAction::Deny, &[policy])], &[])
}

#[test]
fn endpoints_with_the_same_policies_share_one_list() {
    let mut book = PolicyBook::default();
    book.note(&Update::Policy(policy("a", vec![rule_from("s")])));
    let lists: Vec<_> = (0..10).map(|n| book.endpoint(&pod(n, "a"))).collect();
    assert!(lists.iter().all(|list| Arc::ptr_eq(&list.ingress, &lists[0].ingress)));
    assert_eq!(book.work(), Work { policies: 1, lists: 1 });
}

#[test]
fn a_changed_policy_rebuilds_the_lists_that_name_it_and_no_others() {
    let mut book = PolicyBook::default();
    for key in ["a", "b"] {
        book.note(&Update::Policy(policy(key, vec![rule_from("s")])));
    }
    let pods = [pod(0, "a"), pod(1, "b")];
    let before = pods.each_ref().map(|pod| book.endpoint(pod));
    book.note(&Update::Policy(policy("b", vec![rule_from("t")])));
    let after = pods.each_ref().map(|pod| book.endpoint(pod));
    assert!(Arc::ptr_eq(&before[0].ingress, &after[0].ingress));
    assert!(!Arc::ptr_eq(&before[1].ingress, &after[1].ingress));
    assert_eq!(book.work(), Work { policies: 3, lists: 3 });
}

#[test]
fn a_changed_set_rebuilds_nothing_and_is_in_force_in_new_snapshots_only() {
    let mut book = PolicyBook::default();
    book.note(&Update::Policy(policy("a", vec![rule_from("s")])));
    book.note(&Update::Set("s".into(), set([net("10.0.0.1/32")])));
    let list = book.endpoint(&pod(0, "a"));
    let (old, work) = (book.classifier(), book.work());
    let member = |text| vec![net(text)];
    let (add, remove) = (member("10.0.0.9/32"), member("10.0.0.1/32"));
    book.note(&Update::SetMembers { id: "s".into(), add, remove });
    let new = book.classifier();
    let allowed = |classifier: &Classifier, src| {
        classifier.decide(&list, Direction::Ingress, &tcp(src, "10.0.0.2", 1)).allowed()
    };
    assert_eq!((allowed(&old, "10.0.0.1"), allowed(&old, "10.0.0.9")), (true, false));
    assert_eq!((allowed(&new, "10.0.0.1"), allowed(&new, "10.0.0.9")), (false, true));
    assert_eq!(book.work(), work);
}

#[test]
fn what_was_learned_counts_where_a_rule_asks_for_it_and_lapsed_for_what_is_there() {
    let learned = |learned| {
        let dst = EntityMatch { sets: vec!["s".into()], learned, ..EntityMatch::default() };
        Rule { dst, ..Rule::any(Action::Allow) }
    };
    let mut book = PolicyBook::default();
    book.note(&Update::Set("s".into(), set([net("10.0.0.1/32")])));
    // Enough rules for an index, too.
    let others = (0..40).map(|n| rule_from(&format!("other{n}")));
    book.note(&Update::Policy(policy("asks", others.clone().chain([learned(true)]).collect())));
    book.note(&Update::Policy(policy("not", others.chain([learned(false)]).collect())));
    let [asks, not] = ["asks", "not"].map(|key| book.endpoint(&pod(0, key)));
    let new = addr("192.0.2.1");
    let rows = [
        (Standing::Unknown, [false, false]),
        (Standing::Current, [true, true]),
        (Standing::Lapsed, [false, true]),
        (Standing::Current, [true, true]),
        (Standing::Unknown, [false, false]),
    ];
    for (standing, expected) in rows {
        book.note_learned(&"s".into(), new, standing);
        let classifier = book.classifier();
        let allowed = |list, dst, established| {
            let facts = PacketFacts { established, ..tcp("10.9.0.1", dst, 1) };
            classifier.decide(list, Direction::Ingress, &facts).allowed()
        };
        let found = [false, true].map(|established| allowed(&asks, "192.0.2.1", established));
        assert_eq!(found, expected, "{standing:?}");
        assert!(!allowed(&not, "192.0.2.1", true) && allowed(&asks, "10.0.0.1", false));
        // A set that is told anew keeps what was learned.
        book.note(&Update::Set("s".into(), set([net("10.0.0.1/32")])));
    }
}

#[test]
fn an_endpoint_that_changes_its_policies_gets_the_list_of_those() {
    let mut book = PolicyBook::default();
    book.note(&Update::Policy(policy("a", vec![Rule::any(Action::Allow)])));
    book.note(&Update::Policy(policy("b", vec![Rule::any(Action::Deny)])));
    let allowed = |book: &mut PolicyBook, pod: &Endpoint| {
        let list = book.endpoint(pod);
        book.classifier()
            .decide(&list, Direction::Ingress, &tcp("10.0.0.1", "10.0.0.2", 1))
            .allowed()
    };
    for _ in 0..3 {
        assert!(allowed(&mut book, &pod(0, "a")));
        assert!(!allowed(&mut book, &pod(0, "b")));
    }
    book.note(&Update::EndpointGone("pod0".into()));
    assert!(allowed(&mut book, &pod(0, "a")));
}

#[test]
fn what_is_compiled_apart_decides_the_same_and_leaves_the_book_as_it_was() {
    let mut book = PolicyBook::default();
    book.note(&Update::Set("s".into(), set([net("10.0.0.0/8")])));
    book.note(&Update::Policy(policy("a", vec![rule_from("s")])));
    book.note(&Update::Policy(policy("p", vec![Rule::any(Action::Allow)])));
    let tiers = vec![tier("one", DefaultAction::Pass, &["a"])];
    for profiles in [&["p"][..], &["missing"], &[]] {
        let pod = endpoint("pod", tiers.clone(), profiles);
        let work = book.work();
        let apart = book.apart(&pod.tiers, &pod.profiles);
        assert_eq!(book.work(), work);
        let known = book.endpoint(&pod);
        for src in ["10.1.1.1", "11.1.1.1"] {
            let classifier = book.classifier();
            let facts = tcp(src, "1.1.1.1", 80);
            let [apart, known] =
                [&apart, &known].map(|p| classifier.decide(p, Direction::Ingress, &facts));
            assert_eq!(answer(&apart), answer(&known), "{profiles:?} {src}");
        }
    }
}
