use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use proptest::prelude::*;

use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn a_selector_matches_what_its_operators_say() {
    // Selector, labels that it matches, labels that it does not match (`;` separates sets).
    let table = [
        ("", "; a=b", ""),
        ("  \t ", "; a=b", ""),
        ("all()", "; a=b", ""),
        ("all(  )", "; a=b", ""),
        ("global()", "; a=b", ""),
        ("!all()", "", "; a=b"),
        ("has(a)", "a=b; a=", "; b=a"),
        ("has( my/label-1.x_Y )", "my/label-1.x_Y=1", ""),
        ("a == 'b'", "a=b; a=b c=d", "; a=c; b=b; a=B"),
        ("a == \"b\"", "a=b", "a=c"),
        ("a == ''", "a=", "; a=b"),
        ("a=='b'&&c=='d'", "a=b c=d", "a=b; c=d"),
        ("a != 'b'", "; a=c; a=", "a=b"),
        ("a in {'b', \"c\"}", "a=b; a=c", "; a=d; a="),
        ("a in {'b','c',}", "a=b; a=c", "a=d"),
        ("a in {}", "", "; a=b; a="),
        ("a in{'b'}", "a=b", "a=c"),
        ("a not in {'b'}", "; a=c", "a=b"),
        ("a notin {'b'}", "; a=c", "a=b"),
        ("a not\tin {}", "; a=b", ""),
        ("a contains 'ell'", "a=hello; a=ell", "; a=el"),
        ("a contains ''", "a=; a=x", ""),
        ("a starts with 'he'", "a=hello; a=he", "; a=h; a=the"),
        ("a startswith 'he'", "a=hello", "a=the"),
        ("a ends with 'lo'", "a=hello", "; a=hell"),
        ("a endswith 'lo'", "a=lo", "a=o"),
        ("!has(a)", "; b=a", "a=b"),
        ("!!has(a)", "a=b", ""),
        ("! ! !has(a)", "b=a", "a=b"),
        ("!a == 'b'", "; a=c", "a=b"),
        ("!(a == 'b' || a == 'c')", "; a=d", "a=b; a=c"),
        ("a == 'b' || c == 'd' && e == 'f'", "a=b; c=d e=f", "c=d; e=f"),
        ("(a == 'b' || c == 'd') && e == 'f'", "a=b e=f; c=d e=f", "a=b; c=d"),
        ("a == 'b' && !c == 'd'", "a=b; a=b c=e", "a=b c=d"),
        // Words that are also operators are labels where a label may stand.
        ("in in {'in'}", "in=in", "in=out"),
        ("contains contains 'x'", "contains=xyz", "contains=yz"),
        ("has == 'x'", "has=x", "has=y"),
        ("all == 'x' && global != 'y'", "all=x", "all=x global=y"),
        ("a == 'it\"s'", "a=it\"s", "a=its"),
    ];
    for (text, matching, other) in table {
        let selector = selector(text);
        let reread = Selector::parse(&selector.to_string()).unwrap();
        let all: Vec<&str> = matching.split(';').collect();
        // A column without any set says nothing; the empty set is written beside others.
        for set in all.iter().filter(|_| !matching.is_empty()) {
            assert!(selector.matches(&labels(set)), "{text} should match {set}");
            assert!(reread.matches(&labels(set)), "{selector} should match {set}");
        }
        for set in other.split(';').filter(|_| !other.is_empty()) {
            assert!(!selector.matches(&labels(set)), "{text} should not match {set}");
            assert!(!reread.matches(&labels(set)), "{selector} should not match {set}");
        }
    }
}

#[test]
fn a_bad_selector_is_refused_at_the_word_that_does_not_fit() {
    use SelectorProblem::*;
    let table = [
        ("a", 1, Operator),
        ("a ==", 4, Text),
        ("a == b", 5, Text),
        ("a = 'b'", 2, Expected("==")),
        ("a == 'b", 5, OpenQuote),
        ("a == \"b'", 5, OpenQuote),
        ("a == 'b' c == 'd'", 9, Trailing),
        ("a == 'b' &&", 11, Condition),
        ("a == 'b' & c == 'd'", 9, Expected("&&")),
        ("a == 'b' | c == 'd'", 9, Expected("||")),
        ("(a == 'b'", 9, Expected(")")),
        ("a == 'b')", 8, Trailing),
        ("a in ('b')", 5, Expected("{")),
        ("a in {'b'", 9, Expected("}")),
        ("a in {b}", 6, Expected("}")),
        ("a in {,}", 6, Expected("}")),
        ("a in {'b' 'c'}", 10, Expected("}")),
        ("a starts 'b'", 2, Operator),
        ("a not 'b'", 2, Operator),
        ("a like 'b'", 2, Operator),
        ("has()", 0, Label),
        ("has(a b)", 0, Expected(")")),
        ("all", 3, Operator),
        ("all(x)", 0, Expected(")")),
        ("all ()", 4, Operator),
        ("()", 1, Condition),
        ("!", 1, Condition),
        ("'a' == 'b'", 0, Condition),
        ("a@b == 'c'", 1, Operator),
        ("ü == 'c'", 0, Label),
        ("a == 'b'\n", 8, Label),
    ];
    for (text, at, problem) in table {
        assert_eq!(Selector::parse(text), Err(SelectorError { at, problem }), "{text}");
    }
}

#[test]
fn a_label_name_has_at_most_512_characters() {
    let name = "a".repeat(512);
    assert!(Selector::parse(&format!("has({name})")).is_ok());
    let error = Selector::parse(&format!("has({name}a)")).unwrap_err();
    assert_eq!(error.problem, SelectorProblem::LongLabel);
}

#[test]
fn nesting_is_bounded() {
    let nested = |n: usize| format!("{}has(a){}", "(".repeat(n), ")".repeat(n));
    assert_eq!(selector(&nested(256)), selector("has(a)"));
    assert_eq!(Selector::parse(&nested(257)).unwrap_err().problem, SelectorProblem::TooDeep);
    assert_eq!(
        Selector::parse(&"(".repeat(1 << 20)).unwrap_err().problem,
        SelectorProblem::TooDeep
    );
    assert!(Selector::parse(&format!("{}has(a)", "!".repeat(1 << 20))).is_ok());
}

#[test]
fn the_canonical_text_is_calicos() {
    let table = [
        ("", "all()"),
        ("a=='b'", "a == \"b\""),
        ("a == 'say \"x\"'", "a == 'say \"x\"'"),
        ("a in {'c','b','c'}", "a in {\"b\", \"c\"}"),
        ("a notin {}", "a not in {}"),
        ("a startswith 'b'", "a starts with \"b\""),
        ("!!!has(a)", "!has(a)"),
        ("!(!has(a))", "has(a)"),
        ("has(a)&&has(b)||has(c)", "((has(a) && has(b)) || has(c))"),
        ("((has(a)))", "has(a)"),
    ];
    for (text, canonical) in table {
        assert_eq!(selector(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn a_namespace_selector_becomes_one_of_the_members() {
    let table = [
        ("all()", "has(projectcalico.org/namespace)"),
        ("", "has(projectcalico.org/namespace)"),
        ("global()", "!has(projectcalico.org/namespace)"),
        ("a == 'b' && !has(c)", "(pcns.a == \"b\" && !has(pcns.c))"),
        ("a in {'b'} || a not in {'c'}", "(pcns.a in {\"b\"} || pcns.a not in {\"c\"})"),
        ("a contains 'b' || all()", "(pcns.a contains \"b\" || has(projectcalico.org/namespace))"),
    ];
    for (text, rewritten) in table {
        assert_eq!(selector(text).of_namespaces().to_string(), rewritten, "{text}");
    }
}

#[test]
fn service_accounts_are_matched_by_name_and_by_label_together() {
    let both = |names: &[&str], text| {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        Selector::service_accounts(&names, text).unwrap().to_string()
    };
    assert_eq!(both(&[], ""), "all()");
    assert_eq!(both(&["b", "a"], ""), "projectcalico.org/serviceaccount in {\"a\", \"b\"}");
    assert_eq!(both(&[], "x != 'y'"), "pcsa.x != \"y\"");
    assert_eq!(
        both(&["a"], "has(x)"),
        "(projectcalico.org/serviceaccount in {\"a\"} && has(pcsa.x))"
    );
    assert!(Selector::service_accounts(&[], "x").is_err());
}

#[test]
fn a_conjunction_is_flat_and_leaves_all_out() {
    let a = selector("has(a)");
    assert_eq!(a.and(&Selector::all()), a);
    assert_eq!(Selector::all().and(&a), a);
    assert_eq!(Selector::all().and(&Selector::all()), Selector::all());
    let abc = a.and(&selector("has(b)")).and(&selector("has(c)"));
    assert_eq!(abc, selector("has(a) && has(b) && has(c)"));
    assert_eq!(a.and(&selector("has(b) || has(c)")), selector("has(a) && (has(b) || has(c))"));
    assert_eq!(a.negated().negated(), a);
}

#[test]
fn a_kubernetes_selector_is_the_conjunction_of_its_parts() {
    let term = |key: &str, operator: &str, values: &[&str]| LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(values.iter().map(|&v| v.to_owned()).collect()),
    };
    let of = |labels_: &str, terms: Vec<LabelSelectorRequirement>| LabelSelector {
        match_labels: Some(labels(labels_)),
        match_expressions: Some(terms),
    };
    let read = |s: &LabelSelector| Selector::from_kubernetes(s).map(|s| s.to_string());
    assert_eq!(read(&LabelSelector::default()).unwrap(), "all()");
    assert_eq!(read(&of("b=2 a=1", vec![])).unwrap(), "(a == \"1\" && b == \"2\")");
    let all_four = vec![
        term("a", "In", &["y", "x"]),
        term("b", "NotIn", &["z"]),
        term("c", "Exists", &[]),
        term("d", "DoesNotExist", &[]),
    ];
    assert_eq!(
        read(&of("", all_four)).unwrap(),
        "(a in {\"x\", \"y\"} && b not in {\"z\"} && has(c) && !has(d))"
    );
    let error = read(&of("", vec![term("a", "Exists", &[]), term("b", "Gt", &["1"])])).unwrap_err();
    assert_eq!((error.index, error.operator.as_str()), (1, "Gt"));
}

#[test]
fn anchors_are_what_every_match_satisfies() {
    let show = |text: &str| -> String {
        let Some(anchors) = selector(text).anchors() else { return "scan".to_owned() };
        let each = |a: &Anchor| match a {
            Anchor::Present(l) => l.to_string(),
            Anchor::Value(l, v) => format!("{l}={v}"),
        };
        anchors.iter().map(each).collect::<Vec<_>>().join(" ")
    };
    let table = [
        ("all()", "scan"),
        ("!has(a)", "scan"),
        ("a != 'b'", "scan"),
        ("a not in {'b'}", "scan"),
        ("!all()", ""),
        ("a in {}", ""),
        ("has(a)", "a"),
        ("a contains 'x'", "a"),
        ("a == 'b'", "a=b"),
        ("!a != 'b'", "a=b"),
        ("!(a not in {'b', 'c'})", "a=b a=c"),
        ("a in {'b', 'c'}", "a=b a=c"),
        ("has(a) && b == 'c' && d != 'e'", "b=c"),
        ("has(a) || b == 'c'", "a b=c"),
        ("has(a) || b != 'c'", "scan"),
        ("!(a != 'b' || has(c))", "a=b"),
        ("!(a != 'b' && c != 'd')", "a=b c=d"),
        ("projectcalico.org/orchestrator == 'k8s' && has(a)", "a"),
        ("projectcalico.org/namespace == 'n' && app == 'web'", "app=web"),
        ("projectcalico.org/namespace == 'n' && has(app)", "projectcalico.org/namespace=n"),
    ];
    for (text, anchors) in table {
        assert_eq!(show(text), anchors, "{text}");
    }
}

/// Few labels and values, so that random selectors and random labels meet.
fn any_label() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "in", "has"]).prop_map(str::to_owned)
}

fn any_value() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "x", "xy", "say \"x\"", "it's"]).prop_map(str::to_owned)
}

fn any_expression() -> impl Strategy<Value = Expression> {
    let pair = || (any_label(), any_value());
    let set = || (any_label(), prop::collection::btree_set(any_value(), 0..3));
    let values =
        |s: std::collections::BTreeSet<String>| s.iter().map(|v| v.as_str().into()).collect();
    let leaf = prop_oneof![
        Just(Expression::All),
        any_label().prop_map(|l| Expression::Has(l.into())),
        pair().prop_map(|(l, v)| Expression::Eq(l.into(), v.into())),
        pair().prop_map(|(l, v)| Expression::Ne(l.into(), v.into())),
        pair().prop_map(|(l, v)| Expression::Contains(l.into(), v.into())),
        pair().prop_map(|(l, v)| Expression::StartsWith(l.into(), v.into())),
        pair().prop_map(|(l, v)| Expression::EndsWith(l.into(), v.into())),
        set().prop_map(move |(l, vs)| Expression::In(l.into(), values(vs))),
        set().prop_map(move |(l, vs)| Expression::NotIn(l.into(), values(vs))),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|e| Expression::Not(Box::new(e))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            prop::collection::vec(inner, 2..4).prop_map(Expression::Or),
        ]
    })
}

fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(any_label(), any_value(), 0..4)
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[ab(){}'\",=!&|\\PC ]{0,60}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn the_canonical_text_means_the_same(e in any_expression(), labels in any_labels()) {
        let text = e.to_string();
        let reread = Selector::parse(&text).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert_eq!(e.matches(&labels), reread.matches(&labels), "{}", text);
        // Reading and writing once more changes nothing.
        let canonical = reread.to_string();
        prop_assert_eq!(Selector::parse(&canonical).ok(), Some(reread));
    }

    #[test]
    fn every_match_satisfies_an_anchor(e in any_expression(), labels in any_labels()) {
        let selector = Selector::new(e);
        if let Some(anchors) = selector.anchors() && selector.matches(&labels) {
            let holds = |a: &Anchor| match a {
                Anchor::Present(l) => labels.contains_key(&**l),
                Anchor::Value(l, v) => labels.get(&**l).is_some_and(|have| **have == **v),
            };
            prop_assert!(anchors.iter().any(holds), "{selector}: {anchors:?} for {labels:?}");
        }
    }
}
