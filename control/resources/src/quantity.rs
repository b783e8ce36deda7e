//! Quantities as Kubernetes writes them: `10M`, `1.5Gi`, `2e3`.

/// The number that a quantity stands for, rounded up, within `i128`; `None` where the text is no
/// quantity (`k8s.io/apimachinery/pkg/api/resource`).
pub(crate) fn quantity(text: &str) -> Option<i128> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || fraction.contains('.') {
        return None;
    }
    let mantissa: i128 = digits.parse().unwrap_or(i128::MAX);
    let (binary, decimal) = scale(suffix)?;
    let value = mantissa.saturating_mul(1 << binary);
    let exponent = decimal.saturating_sub_unsigned(u32::try_from(fraction.len()).ok()?);
    let power = 10i128.checked_pow(exponent.unsigned_abs()).unwrap_or(i128::MAX);
    let negative = text.starts_with('-');
    let value = match exponent {
        0.. => value.saturating_mul(power),
        // Up is towards zero below it.
        _ if negative => value / power,
        _ => value / power + i128::from(value % power != 0),
    };
    Some(if negative { -value } else { value })
}

/// The powers of two and of ten that a suffix multiplies by.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("0", 0),
            ("10M", 10_000_000),
            ("1.01k", 1010),
            ("4Gi", 4 << 30),
            ("1.5Ki", 1536),
            ("2e3", 2000),
            ("2E3", 2000),
            ("1E", 10i128.pow(18)),
            ("+5", 5),
            ("-5", -5),
            ("-0.5", 0),
            ("100m", 1),
            ("1500m", 2),
            (".5", 1),
            ("5.", 5),
            ("1e-3", 1),
        ];
        for (text, number) in cases {
            assert_eq!(quantity(text), Some(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none_and_no_number_is_too_large() {
        for text in
            ["", ".", "-", "M", "10K", "10MB", "1.2.3", " 1", "1 ", "ten", "1e", "1ee3", "ä"]
        {
            assert_eq!(quantity(text), None, "{text:?}");
        }
        for text in [&"9".repeat(400), "9e999999999", "9e99"] {
            assert_eq!(quantity(text), Some(i128::MAX), "{text:?}");
        }
        assert_eq!(quantity("1e-999999999"), Some(1));
    }
}
