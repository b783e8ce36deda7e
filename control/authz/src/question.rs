//! What a proxy asks.

use std::net::IpAddr;

use margay_tables::PacketFacts;

use crate::proto::attribute_context::Peer;
use crate::proto::socket_address::Protocol;
use crate::proto::{AttributeContext, SocketAddress};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A connection, and a request on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What packets show of the connection.
    pub facts: PacketFacts,
    /// Who is asked.
    pub destination: IpAddr,
    /// Who the client has proven to be.
    pub source_principal: Principal,
    /// Who the server has proven to be.
    pub destination_principal: Principal,
    /// The request; `None` where only the connection is asked about.
    pub http: Option<HttpRequest>,
}

/// A request of HTTP, as the proxy saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Its method.
    pub method: String,
    /// Its path with the query, if there is one.
    pub path: String,
}

/// Who an end of a connection has proven to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Principal {
    /// The connection is in plain text, or nobody asked.
    #[default]
    None,
    /// `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME`: a service account. What the trust domain may
    /// be is the proxy's business, which has verified the certificate.
    Account {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Labels that the proxy tells of it, ordered by key.
        labels: Vec<(String, String)>,
    },
    /// Something else.
    Other,
}

/// The question is none that policy could answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// There is nothing in it.
    #[error("the question has no attributes")]
    Empty,
    /// An end has no IP address.
    #[error("the {0} has no IP address")]
    NoAddress(End),
    /// An address is none.
    #[error("the address of the {end} is {text:?}, which is no IP address")]
    Address {
        /// Whose.
        end: End,
        /// What was written.
        text: String,
    },
    /// A port is none.
    #[error("the port of the {end} is {port}")]
    Port {
        /// Whose.
        end: End,
        /// What was written.
        port: u32,
    },
    /// A protocol other than TCP and UDP.
    #[error("transport protocol {0} is neither TCP nor UDP")]
    Protocol(i32),
    /// One address is of IPv4, the other of IPv6.
    #[error("source and destination are of different families")]
    Families,
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Who asks.
    Source,
    /// Who is asked.
    Destination,
}

// === impl Question ===

impl TryFrom<AttributeContext> for Question {
    type Error = QuestionError;

    fn try_from(attributes: AttributeContext) -> Result<Self, QuestionError> {
        let (source, src) = end(attributes.source, End::Source)?;
        let (destination, dst) = end(attributes.destination, End::Destination)?;
        let (src_addr, src_port) = place(&src, End::Source)?;
        let (dst_addr, dst_port) = place(&dst, End::Destination)?;
        if src_addr.is_ipv4() != dst_addr.is_ipv4() {
            return Err(QuestionError::Families);
        }
        let protocol = match Protocol::try_from(dst.protocol) {
            Ok(Protocol::Tcp) => TCP,
            Ok(Protocol::Udp) => UDP,
            Err(_) => return Err(QuestionError::Protocol(dst.protocol)),
        };
        let (src, dst) = (src_addr.into(), dst_addr.into());
        Ok(Self {
            facts: PacketFacts {
                src,
                dst,
                src_port,
                dst_port,
                protocol,
                icmp: None,
                established: false,
            },
            destination: dst_addr,
            source_principal: Principal::of(source),
            destination_principal: Principal::of(destination),
            http: attributes
                .request
                .and_then(|request| request.http)
                .map(|http| HttpRequest { method: http.method, path: http.path }),
        })
    }
}

fn end(peer: Option<Peer>, end: End) -> Result<(Peer, SocketAddress), QuestionError> {
    let mut peer = peer.ok_or(QuestionError::NoAddress(end))?;
    let address = peer.address.take().and_then(|address| address.socket_address);
    Ok((peer, address.ok_or(QuestionError::NoAddress(end))?))
}

/// An address and a port. IPv4 in IPv6 (RFC 4291 §2.5.5.2), as sockets for both families show it,
/// is IPv4; no port, or zero, is none.
fn place(address: &SocketAddress, end: End) -> Result<(IpAddr, Option<u16>), QuestionError> {
    let text = &address.address;
    let parsed = text.parse::<IpAddr>();
    let parsed = parsed.map_err(|_| QuestionError::Address { end, text: text.clone() })?;
    let port = address.port_value;
    let port = u16::try_from(port).map_err(|_| QuestionError::Port { end, port })?;
    Ok((parsed.to_canonical(), Some(port).filter(|port| *port != 0)))
}

// === impl Principal ===

impl Principal {
    fn of(peer: Peer) -> Self {
        if peer.principal.is_empty() {
            return Self::None;
        }
        let Some((namespace, name)) = account(&peer.principal) else { return Self::Other };
        let mut labels: Vec<_> = peer.labels.into_iter().collect();
        labels.sort_unstable();
        Self::Account { namespace: namespace.to_owned(), name: name.to_owned(), labels }
    }
}

/// Namespace and name of the service account that a SPIFFE ID names.
fn account(principal: &str) -> Option<(&str, &str)> {
    let mut parts = principal.strip_prefix("spiffe://")?.split('/');
    let [domain, ns, namespace, sa, name] = std::array::from_fn(|_| parts.next().unwrap_or(""));
    let whole = [domain, namespace, name].iter().all(|part| !part.is_empty());
    (whole && ns == "ns" && sa == "sa" && parts.next().is_none()).then_some((namespace, name))
}

// === impl End ===

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Address;

    fn peer(address: &str, port: u32) -> Option<Peer> {
        let address = SocketAddress { address: address.into(), port_value: port, protocol: 0 };
        let address = Address { socket_address: Some(address) };
        Some(Peer { address: Some(address), ..Peer::default() })
    }

    fn ask(source: Option<Peer>, destination: Option<Peer>) -> Result<Question, QuestionError> {
        AttributeContext { source, destination, request: None }.try_into()
    }

    #[test]
    fn ipv4_in_ipv6_is_ipv4_and_port_zero_is_none() {
        let question = ask(peer("::ffff:10.0.0.1", 0), peer("10.0.0.2", 80)).unwrap();
        let expected: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(question.facts.src, expected.into());
        assert_eq!((question.facts.src_port, question.facts.dst_port), (None, Some(80)));
    }

    #[test]
    fn what_cannot_be_judged_says_why() {
        let mut udp_9 = peer("10.0.0.2", 80);
        if let Some(Peer { address: Some(Address { socket_address: Some(a) }), .. }) = &mut udp_9 {
            a.protocol = 9;
        }
        let good = || peer("10.0.0.1", 1);
        for (source, destination, expected) in [
            (None, good(), "the source has no IP address"),
            (good(), Some(Peer::default()), "the destination has no IP address"),
            (peer("/run/x", 0), good(), "the address of the source is \"/run/x\""),
            (good(), peer("10.0.0.2", 65_536), "the port of the destination is 65536"),
            (good(), peer("2001:db8::1", 80), "different families"),
            (good(), udp_9, "transport protocol 9"),
        ] {
            let error = ask(source, destination).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_a_whole_spiffe_id_of_a_service_account_is_one() {
        assert_eq!(account("spiffe://cluster.local/ns/shop/sa/web"), Some(("shop", "web")));
        for other in [
            "cluster.local/ns/shop/sa/web",
            "spiffe:///ns/shop/sa/web",
            "spiffe://x/ns//sa/web",
            "spiffe://x/ns/shop/sa/",
            "spiffe://x/ns/shop/sa/web/more",
            "spiffe://x/ns/shop/sa/web/",
            "spiffe://x/shop/web",
            "spiffe://x/sa/shop/ns/web",
            "CN=web",
        ] {
            assert_eq!(account(other), None, "{other}");
        }
    }
}
