//! Ports and protocols on the command line.

use std::str::FromStr;

use margay_resources::v3::Protocol;

/// A port as it is written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortArg {
    pub(crate) port: PortName,
    pub(crate) protocol: Option<Protocol>,
}

/// A port by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortName {
    Number(u16),
    Name(String),
}

// === impl PortArg ===

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, rest) = text.split_once('/').map_or((text, None), |(p, r)| (p, Some(r)));
        let protocol = rest.map(protocol).transpose()?;
        if port.is_empty() {
            return Err("expected a port, e.g. 80, 53/udp or http".into());
        }
        let port = match port.parse() {
            Ok(0) => return Err("ports begin with 1".into()),
            Ok(number) => PortName::Number(number),
            Err(_) if port.bytes().all(|b| b.is_ascii_digit()) => {
                return Err("ports end with 65535".into());
            }
            Err(_) => PortName::Name(port.to_owned()),
        };
        Ok(Self { port, protocol })
    }
}

/// A protocol in whatever case.
pub(crate) fn protocol(text: &str) -> Result<Protocol, String> {
    let names = ["TCP", "UDP", "SCTP", "UDPLite", "ICMP", "ICMPv6"];
    let name = names.into_iter().find(|name| name.eq_ignore_ascii_case(text));
    name.unwrap_or(text)
        .parse()
        .map_err(|error: margay_resources::v3::ValueError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_or_a_name_perhaps_with_a_protocol() {
        let parse = |text: &str| text.parse::<PortArg>();
        let number = |port, protocol| Ok(PortArg { port: PortName::Number(port), protocol });
        assert_eq!(parse("80"), number(80, None));
        assert_eq!(parse("53/udp"), number(53, Some(Protocol::UDP)));
        assert_eq!(parse("53/17"), number(53, Some(Protocol::Number(17))));
        let named = PortArg { port: PortName::Name("http".into()), protocol: Some(Protocol::TCP) };
        assert_eq!(parse("http/Tcp"), Ok(named));
        for bad in ["", "/tcp", "0", "65536", "80/", "80/xyz", "80/tcp/udp"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
