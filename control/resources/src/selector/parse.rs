//! From words to an expression.

use std::sync::Arc;

use super::expression::{Expression, Selector, set_of};
use super::token::{Kind, Token, tokenize};

/// Parentheses may nest this deep, so that a hostile text cannot exhaust the stack.
const MAX_DEPTH: usize = 256;

/// Why a text is not a selector, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {}: {problem}", .at + 1)]
pub struct SelectorError {
    /// Byte offset of the word that does not fit.
    pub at: usize,
    /// What is wrong with it.
    pub problem: SelectorProblem,
}

/// What is wrong with a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorProblem {
    /// A sign is missing.
    #[error("expected `{0}`")]
    Expected(&'static str),
    /// A quotation does not end.
    #[error("the quoted text has no closing quote")]
    OpenQuote,
    /// Neither a label nor anything else that may begin a condition.
    #[error(
        "expected a condition such as `app == 'web'`, `has(app)`, `app in {{'a', 'b'}}` or `all()`"
    )]
    Condition,
    /// A name was expected.
    #[error("expected a label name (letters, digits, `_`, `.`, `/`, `-`)")]
    Label,
    /// A label's name is too long.
    #[error("the label name is longer than 512 characters")]
    LongLabel,
    /// No operator after a label.
    #[error(
        "expected an operator after the label: `==`, `!=`, `in`, `not in`, `contains`, \
         `starts with` or `ends with`"
    )]
    Operator,
    /// No quoted text after an operator.
    #[error("expected a text in quotes")]
    Text,
    /// Words after the end.
    #[error("expected `&&`, `||` or the end")]
    Trailing,
    /// Nested too deeply.
    #[error("parentheses are nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

// === impl Selector ===

impl Selector {
    /// Reads a selector; a blank text is `all()`.
    ///
    /// # Errors
    /// The first word that does not fit, by its byte offset.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let tokens = tokenize(text)?;
        let mut parser = Parser { tokens: &tokens, depth: 0 };
        if parser.peek() == Kind::End {
            return Ok(Self::all());
        }
        let expression = parser.or()?;
        if parser.peek() == Kind::End {
            Ok(Self::new(expression))
        } else {
            Err(parser.wrong(SelectorProblem::Trailing))
        }
    }
}

/// The words that are left; the last one is never consumed.
struct Parser<'t, 'a> {
    tokens: &'t [Token<'a>],
    depth: usize,
}

// === impl Parser ===

impl<'a> Parser<'_, 'a> {
    fn peek(&self) -> Kind<'a> {
        self.tokens.first().map_or(Kind::End, |t| t.kind)
    }

    fn advance(&mut self) {
        if let [_, rest @ ..] = self.tokens
            && !rest.is_empty()
        {
            self.tokens = rest;
        }
    }

    fn wrong(&self, problem: SelectorProblem) -> SelectorError {
        SelectorError { at: self.tokens.first().map_or(0, |t| t.at), problem }
    }

    fn expect(&mut self, kind: Kind<'a>, sign: &'static str) -> Result<(), SelectorError> {
        if self.peek() != kind {
            return Err(self.wrong(SelectorProblem::Expected(sign)));
        }
        self.advance();
        Ok(())
    }

    fn or(&mut self) -> Result<Expression, SelectorError> {
        let mut terms = vec![self.and()?];
        while self.peek() == Kind::Or {
            self.advance();
            terms.push(self.and()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expression::Or(terms) })
    }

    fn and(&mut self) -> Result<Expression, SelectorError> {
        let mut terms = vec![self.unary()?];
        while self.peek() == Kind::And {
            self.advance();
            terms.push(self.unary()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expression::And(terms) })
    }

    fn unary(&mut self) -> Result<Expression, SelectorError> {
        let mut negated = false;
        while self.peek() == Kind::Not {
            self.advance();
            negated = !negated;
        }
        let expression = self.primary()?;
        Ok(match expression {
            expression if !negated => expression,
            Expression::Not(inner) => *inner,
            expression => Expression::Not(Box::new(expression)),
        })
    }

    fn primary(&mut self) -> Result<Expression, SelectorError> {
        let expression = match self.peek() {
            Kind::All => Expression::All,
            Kind::Global => Expression::Global,
            Kind::Has(label) => Expression::Has(label.into()),
            Kind::Label(label) => {
                self.advance();
                return self.condition(label.into());
            }
            Kind::OpenParen => {
                self.advance();
                return self.group();
            }
            _ => return Err(self.wrong(SelectorProblem::Condition)),
        };
        self.advance();
        Ok(expression)
    }

    fn group(&mut self) -> Result<Expression, SelectorError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.wrong(SelectorProblem::TooDeep));
        }
        self.depth += 1;
        let expression = self.or()?;
        self.depth -= 1;
        self.expect(Kind::CloseParen, ")")?;
        Ok(expression)
    }

    fn condition(&mut self, label: Arc<str>) -> Result<Expression, SelectorError> {
        let operator = self.peek();
        let of_text: fn(Arc<str>, Arc<str>) -> Expression = match operator {
            Kind::Eq => Expression::Eq,
            Kind::Ne => Expression::Ne,
            Kind::Contains => Expression::Contains,
            Kind::StartsWith => Expression::StartsWith,
            Kind::EndsWith => Expression::EndsWith,
            Kind::In | Kind::NotIn => {
                self.advance();
                let values = self.set()?;
                return Ok(match operator {
                    Kind::In => Expression::In(label, values),
                    _ => Expression::NotIn(label, values),
                });
            }
            _ => return Err(self.wrong(SelectorProblem::Operator)),
        };
        self.advance();
        Ok(of_text(label, self.text()?))
    }

    fn text(&mut self) -> Result<Arc<str>, SelectorError> {
        let Kind::Text(text) = self.peek() else {
            return Err(self.wrong(SelectorProblem::Text));
        };
        self.advance();
        Ok(text.into())
    }

    /// A set literal, sorted and without repetitions.
    fn set(&mut self) -> Result<Vec<Arc<str>>, SelectorError> {
        self.expect(Kind::OpenBrace, "{")?;
        let mut values = Vec::new();
        while let Kind::Text(value) = self.peek() {
            values.push(value);
            self.advance();
            if self.peek() != Kind::Comma {
                break;
            }
            self.advance();
        }
        self.expect(Kind::CloseBrace, "}")?;
        Ok(set_of(values))
    }
}
