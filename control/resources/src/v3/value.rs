//! Protocols, ports, networks and AS numbers.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An IP protocol by name or by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// By name.
    Name(ProtocolName),
    /// By number, 1–255.
    Number(u8),
}

/// The protocols that have names, which are case-sensitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolName {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// ICMPv6.
    IcmpV6,
    /// SCTP.
    Sctp,
    /// UDP-Lite.
    UdpLite,
}

/// A port, a range of ports, or a port by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// One port, 1–65535.
    Number(u16),
    /// First and last port, both included, the first not above the last. Written `first:last`.
    Range(u16, u16),
    /// The port of that name on the endpoint.
    Name(String),
}

/// A network or an address, with its original text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net {
    text: Box<str>,
    net: IpNet,
}

/// An AS number: a number, or `high.low` as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsNumber(pub u32);

/// The text is not what was expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a protocol.
    #[error("a protocol is TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255")]
    Protocol,
    /// Not a port.
    #[error("a port is a number from 1 to 65535, a range such as 8000:8080, or a name")]
    Port,
    /// A range that ends before it begins.
    #[error("the range ends before it begins; write the lower port first")]
    Range,
    /// Not a network.
    #[error("a network such as 10.0.0.0/8 or fd00::/8, or an address")]
    Net,
    /// Not an AS number.
    #[error("an AS number is a number up to 4294967295, or two up to 65535 with a dot")]
    AsNumber,
}

// === impl ProtocolName ===

impl ProtocolName {
    const ALL: [(Self, &'static str, u8); 6] = [
        (Self::Tcp, "TCP", 6),
        (Self::Udp, "UDP", 17),
        (Self::Icmp, "ICMP", 1),
        (Self::IcmpV6, "ICMPv6", 58),
        (Self::Sctp, "SCTP", 132),
        (Self::UdpLite, "UDPLite", 136),
    ];

    /// As documents spell it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(name, ..)| *name == self).map_or("", |(_, text, _)| text)
    }
}

// === impl Protocol ===

impl Protocol {
    /// TCP by name.
    pub const TCP: Self = Self::Name(ProtocolName::Tcp);
    /// UDP by name.
    pub const UDP: Self = Self::Name(ProtocolName::Udp);
    /// SCTP by name.
    pub const SCTP: Self = Self::Name(ProtocolName::Sctp);

    /// The protocol of a number, by name where it has one.
    pub fn of_number(number: u8) -> Self {
        let name = ProtocolName::ALL.iter().find(|(.., each)| *each == number);
        name.map_or(Self::Number(number), |(name, ..)| Self::Name(*name))
    }

    /// The protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Number(number) => number,
            Self::Name(name) => {
                let found = ProtocolName::ALL.iter().find(|(each, ..)| *each == name);
                found.map_or(0, |(.., number)| *number)
            }
        }
    }

    /// Whether packets of the protocol have ports: TCP, UDP, SCTP and UDP-Lite.
    pub fn has_ports(self) -> bool {
        matches!(self.number(), 6 | 17 | 132 | 136)
    }
}

impl FromStr for Protocol {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some((name, ..)) = ProtocolName::ALL.iter().find(|(_, each, _)| *each == text) {
            return Ok(Self::Name(*name));
        }
        match text.parse() {
            Ok(number @ 1..) => Ok(Self::Number(number)),
            _ => Err(ValueError::Protocol),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_str()),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name.as_str()),
            Self::Number(number) => serializer.serialize_u8(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text(deserializer, ValueError::Protocol)
    }
}

// === impl Port ===

impl FromStr for Port {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let number = |text: &str| match text.parse() {
            Ok(port @ 1..) if digits(text) => Ok(port),
            _ => Err(ValueError::Port),
        };
        if let Some((first, last)) = text.split_once(':') {
            let (first, last) = (number(first)?, number(last)?);
            return if first > last {
                Err(ValueError::Range)
            } else {
                Ok(Self::Range(first, last))
            };
        }
        if digits(text) || text.starts_with('-') {
            return number(text).map(Self::Number);
        }
        let of_name = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let is_name = (1..=128).contains(&text.len()) && text.bytes().all(of_name);
        if is_name { Ok(Self::Name(text.to_owned())) } else { Err(ValueError::Port) }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(port) => port.fmt(f),
            Self::Range(first, last) => write!(f, "{first}:{last}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(port) => serializer.serialize_u16(*port),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text(deserializer, ValueError::Port)
    }
}

// === impl Net ===

impl Net {
    /// The network, without bits beyond its length; an address is a network of one.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// The text as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it was written with a length.
    pub fn has_length(&self) -> bool {
        self.text.contains('/')
    }

    /// Whether it was written without bits beyond its length.
    pub fn is_canonical(&self) -> bool {
        let written: Option<IpNet> = self.text.parse().ok();
        written.is_none_or(|net| net == self.net)
    }

    /// Whether it is of IPv6.
    pub fn is_v6(&self) -> bool {
        matches!(self.net, IpNet::V6(_))
    }
}

impl FromStr for Net {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let net = match text.parse::<IpNet>() {
            Ok(net) => net.trunc(),
            Err(_) => text.parse::<IpAddr>().map(IpNet::from).map_err(|_| ValueError::Net)?,
        };
        Ok(Self { text: text.into(), net })
    }
}

impl From<IpNet> for Net {
    fn from(net: IpNet) -> Self {
        Self { text: net.to_string().into(), net: net.trunc() }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Net {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|e| D::Error::invalid_value(Unexpected::Str(&text), &Mend(e)))
    }
}

// === impl AsNumber ===

impl FromStr for AsNumber {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let half = |t: &str| t.parse::<u16>().map(u32::from).map_err(|_| ValueError::AsNumber);
        match text.split_once('.') {
            Some((high, low)) => Ok(Self(half(high)? << 16 | half(low)?)),
            None => text.parse().map(Self).map_err(|_| ValueError::AsNumber),
        }
    }
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text(deserializer, ValueError::AsNumber)
    }
}

// === reading ===

/// Reads a value that is a number or a text by way of its text.
fn number_or_text<'de, D, T>(deserializer: D, expected: ValueError) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = ValueError>,
{
    struct NumberOrText<T>(ValueError, std::marker::PhantomData<T>);

    impl<T: FromStr<Err = ValueError>> Visitor<'_> for NumberOrText<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Display::fmt(&self.0, f)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(|e| E::invalid_value(Unexpected::Str(text), &Mend(e)))
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
            let text = number.to_string();
            text.parse().map_err(|e| E::invalid_value(Unexpected::Unsigned(number), &Mend(e)))
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
            Err(E::invalid_value(Unexpected::Signed(number), &self))
        }
    }

    deserializer.deserialize_any(NumberOrText(expected, std::marker::PhantomData))
}

/// A [`ValueError`] as what was expected instead.
struct Mend(ValueError);

impl serde::de::Expected for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn a_protocol_is_a_name_or_a_number() {
        assert_eq!(json("\"TCP\""), Ok(Protocol::TCP));
        assert_eq!(json("6"), Ok(Protocol::Number(6)));
        assert_eq!(json("\"6\""), Ok(Protocol::Number(6)));
        for bad in ["0", "256", "-1", "\"tcp\"", "\"\"", "\"0\"", "\"ALL\"", "1.5", "true", "[]"] {
            assert!(json::<Protocol>(bad).is_err(), "{bad}");
        }
        let ports = ["TCP", "UDP", "SCTP", "UDPLite", "6", "136"];
        for (text, expected) in
            ports.map(|p| (p, true)).into_iter().chain(["ICMP", "ICMPv6", "47"].map(|p| (p, false)))
        {
            assert_eq!(text.parse::<Protocol>().unwrap().has_ports(), expected, "{text}");
        }
    }

    #[test]
    fn a_port_is_a_number_a_range_or_a_name() {
        assert_eq!(json("80"), Ok(Port::Number(80)));
        assert_eq!(json("\"80\""), Ok(Port::Number(80)));
        assert_eq!(json("\"1:2\""), Ok(Port::Range(1, 2)));
        assert_eq!(json("\"5:5\""), Ok(Port::Range(5, 5)));
        assert_eq!(json("\"http\""), Ok(Port::Name("http".into())));
        assert_eq!(json("\"8080-tcp\""), Ok(Port::Name("8080-tcp".into())));
        let bad = ["0", "65536", "-1", "\"\"", "\"0\"", "\"2:1\"", "\"1:\"", "\":\"", "\"1:2:3\""];
        for bad in bad.into_iter().chain(["\"a b\"", "\"+5\"", "\"-5\"", "80.5"]) {
            assert!(json::<Port>(bad).is_err(), "{bad}");
        }
        let error = json::<Port>("\"2:1\"").unwrap_err();
        assert!(error.contains("write the lower port first"), "{error}");
    }

    #[test]
    fn a_network_keeps_its_text() {
        let net: Net = json("\"10.1.2.3/8\"").unwrap();
        assert_eq!((net.net().to_string(), net.text()), ("10.0.0.0/8".into(), "10.1.2.3/8"));
        assert!(!net.is_canonical() && net.has_length() && !net.is_v6());
        let address: Net = json("\"fd00::1\"").unwrap();
        assert_eq!(address.net().to_string(), "fd00::1/128");
        assert!(address.is_canonical() && !address.has_length() && address.is_v6());
        for bad in ["\"\"", "\"10.0.0.0/33\"", "\"10.0.0/8\"", "\"ten\"", "5", "\"::1/129\""] {
            assert!(json::<Net>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_as_number_may_be_written_with_a_dot() {
        assert_eq!(json("64512"), Ok(AsNumber(64512)));
        assert_eq!(json("\"1.10\""), Ok(AsNumber(65546)));
        for bad in ["4294967296", "\"65536.1\"", "\"a\"", "-1"] {
            assert!(json::<AsNumber>(bad).is_err(), "{bad}");
        }
    }
}
