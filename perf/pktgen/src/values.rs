//! Values of the command line that clap does not know.

use std::net::IpAddr;

/// `10.0.0.1`, or the first and the last of a range: `10.0.0.1..10.0.0.9`.
pub(crate) fn source_range(text: &str) -> Result<(IpAddr, IpAddr), String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let parse = |part: &str| part.parse::<IpAddr>().map_err(|error| format!("{part}: {error}"));
    match (parse(first)?, parse(last)?) {
        (first, last) if first.is_ipv4() == last.is_ipv4() && first <= last => Ok((first, last)),
        _ => Err("the first address comes after the last, or is of another family".into()),
    }
}

/// An Ethernet address.
pub(crate) fn mac(text: &str) -> Result<[u8; 6], String> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        *byte = (part.and_then(|part| u8::from_str_radix(part, 16).ok()))
            .ok_or("write an Ethernet address as 02:00:00:00:00:01")?;
    }
    parts.next().map_or(Ok(bytes), |_| Err("an Ethernet address has six bytes".into()))
}

/// A number above zero, and finite.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "write a number above 0".into())
}

/// A number of seconds, which may be zero.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..1e9).contains(number));
    number.ok_or_else(|| "write a number of seconds".into())
}

/// A share: above 0 and below 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    positive(text).ok().filter(|share| *share < 1.0).ok_or("write a share, as 0.01".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_sources_is_two_addresses_of_one_family_in_order() {
        let (first, last) = source_range("10.0.0.1..10.0.0.9").unwrap();
        assert_eq!((first.to_string(), last.to_string()), ("10.0.0.1".into(), "10.0.0.9".into()));
        assert_eq!(source_range("fd00::1").unwrap().0, source_range("fd00::1").unwrap().1);
        for bad in ["10.0.0.2..10.0.0.1", "10.0.0.1..fd00::1", "10.0.0.1..", "x"] {
            assert!(source_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ethernet_address_is_six_bytes() {
        assert_eq!(mac("ee:ee:ee:ee:ee:01").unwrap(), [0xee, 0xee, 0xee, 0xee, 0xee, 1]);
        for bad in ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:+6", "1:2:3:4:5:100"] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        for bad in ["0", "-1", "nan", "inf", ""] {
            assert!(positive(bad).is_err(), "{bad}");
        }
        assert!(seconds("0").is_ok() && seconds("-0.1").is_err() && seconds("nan").is_err());
        assert!(share("0.01").is_ok() && share("1").is_err());
    }
}
