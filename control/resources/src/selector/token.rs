//! Words of a selector.

use super::parse::{SelectorError, SelectorProblem};

/// A word with the byte offset at which it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) at: usize,
}

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Label(&'a str),
    Text(&'a str),
    Has(&'a str),
    All,
    Global,
    Eq,
    Ne,
    In,
    NotIn,
    Contains,
    StartsWith,
    EndsWith,
    Not,
    And,
    Or,
    OpenParen,
    CloseParen,
    OpenBrace,
    CloseBrace,
    Comma,
    End,
}

/// The longest name of a label.
const MAX_LABEL: usize = 512;

/// Cuts `text` into words; the last one is always [`Kind::End`].
///
/// A word directly after a label is an operator, so that labels may be called `in` or `contains`.
pub(super) fn tokenize(text: &str) -> Result<Vec<Token<'_>>, SelectorError> {
    let mut scan = Scan { text, at: 0 };
    let mut tokens: Vec<Token<'_>> = Vec::new();
    loop {
        scan.skip_blanks();
        let at = scan.at;
        let after_label = matches!(tokens.last(), Some(Token { kind: Kind::Label(_), .. }));
        let kind = scan.next(after_label).map_err(|problem| SelectorError { at, problem })?;
        tokens.push(Token { kind, at });
        if kind == Kind::End {
            return Ok(tokens);
        }
    }
}

/// A position in a text.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

// === impl Scan ===

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// Steps over `word` if it comes next.
    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn next(&mut self, after_label: bool) -> Result<Kind<'a>, SelectorProblem> {
        let Some(first) = self.rest().chars().next() else { return Ok(Kind::End) };
        match first {
            '(' => self.sign("(", Kind::OpenParen),
            ')' => self.sign(")", Kind::CloseParen),
            '{' => self.sign("{", Kind::OpenBrace),
            '}' => self.sign("}", Kind::CloseBrace),
            ',' => self.sign(",", Kind::Comma),
            '=' => self.sign("==", Kind::Eq),
            '!' if self.rest().starts_with("!=") => self.sign("!=", Kind::Ne),
            '!' => self.sign("!", Kind::Not),
            '&' => self.sign("&&", Kind::And),
            '|' => self.sign("||", Kind::Or),
            '"' | '\'' => self.quoted(first),
            _ if after_label => self.operator(),
            _ => self.name(),
        }
    }

    fn sign(&mut self, sign: &'static str, kind: Kind<'a>) -> Result<Kind<'a>, SelectorProblem> {
        self.take(sign).then_some(kind).ok_or(SelectorProblem::Expected(sign))
    }

    fn quoted(&mut self, quote: char) -> Result<Kind<'a>, SelectorProblem> {
        let body = self.rest().get(1..).unwrap_or_default();
        let end = body.find(quote).ok_or(SelectorProblem::OpenQuote)?;
        self.at += end + 2;
        Ok(Kind::Text(body.get(..end).unwrap_or_default()))
    }

    fn operator(&mut self) -> Result<Kind<'a>, SelectorProblem> {
        if self.take("contains") {
            return Ok(Kind::Contains);
        }
        if self.take("in") {
            return Ok(Kind::In);
        }
        let two_words = [
            ("not", "in", Kind::NotIn),
            ("starts", "with", Kind::StartsWith),
            ("ends", "with", Kind::EndsWith),
        ];
        for (first, second, kind) in two_words {
            if self.take(first) {
                self.skip_blanks();
                return self.take(second).then_some(kind).ok_or(SelectorProblem::Operator);
            }
        }
        Err(SelectorProblem::Operator)
    }

    fn name(&mut self) -> Result<Kind<'a>, SelectorProblem> {
        if self.take("has(") {
            self.skip_blanks();
            let label = self.label()?;
            return self.close(Kind::Has(label));
        }
        if self.take("all(") {
            return self.close(Kind::All);
        }
        if self.take("global(") {
            return self.close(Kind::Global);
        }
        self.label().map(Kind::Label)
    }

    fn close(&mut self, kind: Kind<'a>) -> Result<Kind<'a>, SelectorProblem> {
        self.skip_blanks();
        self.sign(")", kind)
    }

    fn label(&mut self) -> Result<&'a str, SelectorProblem> {
        let rest = self.rest();
        let of_label = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let label = rest.get(..rest.find(|c| !of_label(c)).unwrap_or(rest.len()));
        match label.unwrap_or_default() {
            "" => Err(SelectorProblem::Label),
            label if label.len() > MAX_LABEL => Err(SelectorProblem::LongLabel),
            label => {
                self.at += label.len();
                Ok(label)
            }
        }
    }
}
