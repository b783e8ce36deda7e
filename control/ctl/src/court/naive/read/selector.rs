//! Calico's language of selectors, read by recursive descent and asked by walking the tree.

use std::collections::BTreeMap;

pub(crate) type Labels = BTreeMap<String, String>;

/// What labels may be asked for.
#[derive(Clone, Debug)]
pub(crate) enum Selector {
    All,
    Global,
    Has(String),
    Is(String, String),
    In(String, Vec<String>),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    Not(Box<Self>),
    Every(Vec<Self>),
    Any(Vec<Self>),
}

struct Reader<'t> {
    rest: &'t str,
}

// === impl Selector ===

impl Selector {
    /// Reads a selector; nothing stands for `all()`.
    pub(crate) fn read(text: &str) -> Self {
        let mut reader = Reader { rest: text.trim_start() };
        if reader.rest.is_empty() {
            return Self::All;
        }
        let read = reader.or();
        assert!(reader.rest.is_empty(), "{text:?} goes on with {:?}", reader.rest);
        read
    }

    /// What the labels themselves say.
    pub(crate) fn picks(&self, labels: &Labels) -> bool {
        self.picks_under("", labels)
    }

    /// What the labels of somebody's namespace say.
    pub(crate) fn picks_namespace_of(&self, labels: &Labels) -> bool {
        self.picks_under("pcns.", labels)
    }

    /// The same of somebody's service account.
    pub(crate) fn picks_account_of(&self, labels: &Labels) -> bool {
        self.picks_under("pcsa.", labels)
    }

    fn picks_under(&self, prefix: &str, labels: &Labels) -> bool {
        let of = |key: &str| labels.get(&format!("{prefix}{key}"));
        let in_namespace = labels.contains_key("projectcalico.org/namespace");
        let about_namespaces = prefix == "pcns.";
        match self {
            Self::All => !about_namespaces || in_namespace,
            Self::Global => !about_namespaces || !in_namespace,
            Self::Has(key) => of(key).is_some(),
            Self::Is(key, value) => of(key) == Some(value),
            Self::In(key, values) => of(key).is_some_and(|has| values.contains(has)),
            Self::Contains(key, part) => of(key).is_some_and(|has| has.contains(part)),
            Self::StartsWith(key, part) => of(key).is_some_and(|has| has.starts_with(part)),
            Self::EndsWith(key, part) => of(key).is_some_and(|has| has.ends_with(part)),
            Self::Not(inner) => !inner.picks_under(prefix, labels),
            Self::Every(inner) => inner.iter().all(|each| each.picks_under(prefix, labels)),
            Self::Any(inner) => inner.iter().any(|each| each.picks_under(prefix, labels)),
        }
    }
}

// === impl Reader ===

impl<'t> Reader<'t> {
    fn or(&mut self) -> Selector {
        let mut parts = vec![self.and()];
        while self.take("||") {
            parts.push(self.and());
        }
        Selector::Any(parts)
    }

    fn and(&mut self) -> Selector {
        let mut parts = vec![self.unary()];
        while self.take("&&") {
            parts.push(self.unary());
        }
        Selector::Every(parts)
    }

    fn unary(&mut self) -> Selector {
        if self.take("!") {
            return Selector::Not(Box::new(self.unary()));
        }
        if self.take("(") {
            let inner = self.or();
            self.need(")");
            return inner;
        }
        let word = self.word();
        match word {
            "all" | "global" if self.take("(") => {
                self.need(")");
                if word == "all" { Selector::All } else { Selector::Global }
            }
            "has" if self.take("(") => {
                let key = self.word().to_owned();
                self.need(")");
                Selector::Has(key)
            }
            key => self.comparison(key.to_owned()),
        }
    }

    fn comparison(&mut self, key: String) -> Selector {
        let not = |inner| Selector::Not(Box::new(inner));
        if self.take("==") {
            return Selector::Is(key, self.text());
        }
        if self.take("!=") {
            return not(Selector::Is(key, self.text()));
        }
        match self.word() {
            "in" => Selector::In(key, self.list()),
            "notin" => not(Selector::In(key, self.list())),
            "not" => {
                self.need("in");
                not(Selector::In(key, self.list()))
            }
            "contains" => Selector::Contains(key, self.text()),
            "startswith" => Selector::StartsWith(key, self.text()),
            "endswith" => Selector::EndsWith(key, self.text()),
            "starts" => {
                self.need("with");
                Selector::StartsWith(key, self.text())
            }
            "ends" => {
                self.need("with");
                Selector::EndsWith(key, self.text())
            }
            other => panic!("{other:?} is no operator"),
        }
    }

    /// A label's name or an operator.
    fn word(&mut self) -> &'t str {
        let inside = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let end = self.rest.find(|c| !inside(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        assert!(!word.is_empty(), "no word before {rest:?}");
        self.rest = rest.trim_start();
        word
    }

    fn text(&mut self) -> String {
        let quote = self.rest.chars().next().filter(|c| "'\"".contains(*c)).expect("no text");
        let (text, rest) = self.rest[1..].split_once(quote).expect("a text without end");
        self.rest = rest.trim_start();
        text.to_owned()
    }

    fn list(&mut self) -> Vec<String> {
        self.need("{");
        let mut texts = Vec::new();
        while !self.take("}") {
            texts.push(self.text());
            if !self.take(",") {
                self.need("}");
                break;
            }
        }
        texts
    }

    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    fn need(&mut self, token: &str) {
        assert!(self.take(token), "no {token:?} before {:?}", self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_the_grammar_says() {
        let labels: Labels =
            [("a", "1"), ("b", "two")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (text, picks) in [
            ("", true),
            ("all()", true),
            ("a == '1' || b == 'x' && b == 'y'", true),
            ("(a == '1' || b == 'x') && b == 'y'", false),
            ("!has(a) || !!has(b)", true),
            ("a in {'2', \"1\",}", true),
            ("a in {}", false),
            ("c != '1' && c not in {'1'} && c notin {}", true),
            ("c in {'1'} || c contains '' || c starts with '' || c endswith ''", false),
            ("b contains 'w' && b startswith 't' && b ends with 'o'", true),
        ] {
            assert_eq!(Selector::read(text).picks(&labels), picks, "{text}");
        }
    }
}
