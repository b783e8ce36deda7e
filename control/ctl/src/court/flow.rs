//! A line of input: a flow that nobody sends.

use std::net::{IpAddr, SocketAddr};

use margay_resources::v3::Protocol;
use margay_tables::classifier::PacketFacts;
use serde::Deserialize;
use serde_json::Value;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A flow; what does not apply to its protocol, or was left out, is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) src_port: Option<u16>,
    pub(crate) dst_port: Option<u16>,
    /// ICMP type, and code.
    pub(crate) icmp: Option<(u8, Option<u8>)>,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// Not a JSON object.
    #[error("not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but no object.
    #[error("not a JSON object")]
    NoObject,
    /// A field that every flow has is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field holds something else.
    #[error("{field} is {value}, expected {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it holds.
        value: Value,
        /// What it should hold.
        expected: &'static str,
    },
    /// One address is of IPv4, the other of IPv6.
    #[error("src and dst are of different families")]
    Families,
    /// ICMP between IPv6 addresses or the reverse.
    #[error("protocol {0} does not exist between addresses of this family")]
    WrongIcmp(&'static str),
}

/// The line as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    src: Option<Value>,
    dst: Option<Value>,
    protocol: Option<Value>,
    src_port: Option<Value>,
    dst_port: Option<Value>,
    icmp_type: Option<Value>,
    icmp_code: Option<Value>,
}

// === impl Flow ===

impl Flow {
    /// The same flow to a backend of a service.
    pub(crate) fn to(&self, backend: SocketAddr) -> Self {
        Self { dst: backend.ip(), dst_port: Some(backend.port()), ..*self }
    }

    /// The flow that policies are asked about.
    pub(crate) fn of(facts: &PacketFacts) -> Self {
        Self {
            src: facts.src.into(),
            dst: facts.dst.into(),
            protocol: facts.protocol,
            src_port: facts.src_port,
            dst_port: facts.dst_port,
            icmp: facts.icmp,
        }
    }

    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self, LineError> {
        if !line.trim_start().starts_with('{') {
            return Err(LineError::NoObject);
        }
        let line: Line = serde_json::from_str(line)?;
        let src = address("src", line.src)?;
        let dst = address("dst", line.dst)?;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(LineError::Families);
        }
        let protocol = protocol(line.protocol)?;
        match protocol.number() {
            ICMP if src.is_ipv6() => return Err(LineError::WrongIcmp("ICMP")),
            ICMPV6 if src.is_ipv4() => return Err(LineError::WrongIcmp("ICMPv6")),
            _ => {}
        }
        let src_port = port("srcPort", line.src_port)?;
        let dst_port = port("dstPort", line.dst_port)?;
        let kind = byte("icmpType", line.icmp_type)?;
        let code = byte("icmpCode", line.icmp_code)?;
        let (has_ports, protocol) = (protocol.has_ports(), protocol.number());
        let is_icmp = matches!(protocol, ICMP | ICMPV6);
        Ok(Self {
            src,
            dst,
            protocol,
            src_port: src_port.filter(|_| has_ports),
            dst_port: dst_port.filter(|_| has_ports),
            icmp: kind.filter(|_| is_icmp).map(|kind| (kind, code)),
        })
    }
}

fn address(field: &'static str, value: Option<Value>) -> Result<IpAddr, LineError> {
    let value = value.ok_or(LineError::Missing(field))?;
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or(LineError::Field { field, value, expected: "an IP address" })
}

fn protocol(value: Option<Value>) -> Result<Protocol, LineError> {
    let value = value.ok_or(LineError::Missing("protocol"))?;
    let parsed = match &value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    };
    let expected = "TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or a number from 1 to 255";
    parsed.ok_or(LineError::Field { field: "protocol", value, expected })
}

fn port(field: &'static str, value: Option<Value>) -> Result<Option<u16>, LineError> {
    number(field, value, "a number up to 65535")
}

fn byte(field: &'static str, value: Option<Value>) -> Result<Option<u8>, LineError> {
    number(field, value, "a number up to 255")
}

/// Numbers may be written as text.
fn number<T: TryFrom<u64>>(
    field: &'static str,
    value: Option<Value>,
    expected: &'static str,
) -> Result<Option<T>, LineError> {
    let Some(value) = value else { return Ok(None) };
    let number = match &value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    let number = number.and_then(|n| T::try_from(n).ok());
    number.map(Some).ok_or(LineError::Field { field, value, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_text() {
        let a =
            r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":"TCP","srcPort":1,"dstPort":"80"}"#;
        let b = r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"srcPort":"1","dstPort":80}"#;
        let c = r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":"6","srcPort":"1","dstPort":80}"#;
        let flow = Flow::parse(a).unwrap();
        assert_eq!((flow.protocol, flow.src_port, flow.dst_port), (6, Some(1), Some(80)));
        assert_eq!(Flow::parse(b).unwrap(), flow);
        assert_eq!(Flow::parse(c).unwrap(), flow);
    }

    #[test]
    fn what_does_not_apply_is_left_out() {
        let line = r#"{"src":"::1","dst":"::2","protocol":"ICMPv6","dstPort":80,"icmpType":128}"#;
        let flow = Flow::parse(line).unwrap();
        assert_eq!((flow.dst_port, flow.icmp), (None, Some((128, None))));
        let line =
            r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":"UDP","srcPort":null,"icmpType":8}"#;
        let flow = Flow::parse(line).unwrap();
        assert_eq!((flow.src_port, flow.dst_port, flow.icmp), (None, None, None));
    }

    #[test]
    fn a_bad_line_says_what_is_wrong() {
        let table = [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            (r#"{"dst":"10.0.0.2","protocol":"TCP"}"#, "src is missing"),
            (r#"{"src":"10.0.0.1","dst":"10.0.0.2"}"#, "protocol is missing"),
            (r#"{"src":"10.0.0.1","dst":"x","protocol":"TCP"}"#, "dst is \"x\", expected an IP"),
            (r#"{"src":"10.0.0.1","dst":"::1","protocol":"TCP"}"#, "different families"),
            (r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":"tcp"}"#, "protocol is \"tcp\""),
            (r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":256}"#, "protocol is 256"),
            (r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":"ICMPv6"}"#, "does not exist"),
            (r#"{"src":"::1","dst":"::2","protocol":1}"#, "does not exist"),
            (
                r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":"TCP","dstPort":65536}"#,
                "dstPort is",
            ),
            (r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":"TCP","dstPort":-1}"#, "dstPort is"),
            (
                r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":"ICMP","icmpType":"a"}"#,
                "icmpType is",
            ),
        ];
        for (line, expected) in table {
            let error = Flow::parse(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
