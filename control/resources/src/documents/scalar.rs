//! What a plain word of YAML is: the core schema, YAML 1.2.2 §10.3.2.

use serde_json::{Number, Value};

/// The value of a plain scalar. Numbers that JSON does not have (infinities, integers beyond 64
/// bits) are texts.
pub(super) fn plain(word: &str) -> Value {
    match word {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        word => number(word).map_or_else(|| Value::String(word.to_owned()), Value::Number),
    }
}

fn number(word: &str) -> Option<Number> {
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(octal) = word.strip_prefix("0o") {
        return radix(octal, 8);
    }
    if let Some(hex) = word.strip_prefix("0x") {
        return radix(hex, 16);
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let word = word.strip_prefix('+').unwrap_or(word);
        let unsigned = word.parse::<u64>().map(Number::from);
        return unsigned.or_else(|_| word.parse::<i64>().map(Number::from)).ok();
    }
    if !is_float(digits) {
        return None;
    }
    word.parse().ok().and_then(Number::from_f64)
}

fn radix(digits: &str, radix: u32) -> Option<Number> {
    let all = digits.chars().all(|c| c.is_digit(radix));
    u64::from_str_radix(digits, radix).ok().filter(|_| all).map(Number::from)
}

/// `( '.' [0-9]+ | [0-9]+ ( '.' [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let are_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = !(whole.is_empty() && fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && are_digits(e)
    });
    has_digits && are_digits(whole) && are_digits(fraction) && exponent_fits
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plain_word_is_what_the_core_schema_says() {
        let table = [
            ("", json!(null)),
            ("~", json!(null)),
            ("Null", json!(null)),
            ("nULL", json!("nULL")),
            ("true", json!(true)),
            ("FALSE", json!(false)),
            ("yes", json!("yes")),
            ("on", json!("on")),
            ("0", json!(0)),
            ("-7", json!(-7)),
            ("+7", json!(7)),
            ("007", json!(7)),
            ("0o17", json!(15)),
            ("0xFf", json!(255)),
            ("0x", json!("0x")),
            ("0x+1", json!("0x+1")),
            ("18446744073709551615", json!(u64::MAX)),
            ("18446744073709551616", json!("18446744073709551616")),
            ("-9223372036854775808", json!(i64::MIN)),
            ("1.5", json!(1.5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("-1e3", json!(-1000.0)),
            ("1e", json!("1e")),
            (".", json!(".")),
            ("-", json!("-")),
            (".inf", json!(".inf")),
            ("1e999", json!("1e999")),
            ("10.0.0.0/8", json!("10.0.0.0/8")),
            ("1.2.3", json!("1.2.3")),
            ("1:2", json!("1:2")),
            ("12h", json!("12h")),
        ];
        for (word, value) in table {
            assert_eq!(plain(word), value, "{word}");
        }
    }
}
