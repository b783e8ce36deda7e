//! From the command line to one flow.

use std::net::IpAddr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use margay_compile::{Compiler, PortView};
use margay_resources::v3::Protocol;

use super::place::{Catalog, Place, PlaceError, ServicePort, What};
use crate::court::flow::Flow;
use crate::ports::{PortArg, PortName, protocol};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Arguments of `policy explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "SRC and DST are NAMESPACE/POD, a pod of the namespace default, an address, \
    or a node; DST may be NAMESPACE/SERVICE. Where a name is several of these, say pod:, svc:, \
    node: or hep: (host endpoint) before it.\n\nWithout PORT and --icmp-type the flow has no port: \
    rules that name one do not match."
)]
pub(crate) struct Args {
    /// Who sends
    #[arg(value_name = "SRC")]
    pub(super) src: String,
    /// Who is sent to
    #[arg(value_name = "DST")]
    pub(super) dst: String,
    /// Port of the destination: a number or a name, with the protocol if it is not TCP, e.g. 53/udp
    pub(super) port: Option<PortArg>,
    /// Protocol, by name (TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6) or number
    #[arg(long, value_parser = protocol)]
    pub(super) protocol: Option<Protocol>,
    /// Port of the source
    #[arg(long, value_name = "N")]
    pub(super) src_port: Option<u16>,
    /// Type of an ICMP or ICMPv6 message
    #[arg(long, value_name = "N", conflicts_with = "port")]
    pub(super) icmp_type: Option<u8>,
    /// Code of an ICMP or ICMPv6 message
    #[arg(long, value_name = "N", requires = "icmp_type")]
    pub(super) icmp_code: Option<u8>,
    /// The family, where both ends have both [default: 4]
    #[arg(long, value_name = "4|6", value_parser = versions())]
    pub(super) ip_version: Option<u8>,
    /// Tell of every policy that does not apply, not only of the nearest
    #[arg(long)]
    pub(super) all: bool,
}

/// No flow can be made of the arguments.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuestionError {
    /// Who an end is.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The ends have no family in common.
    #[error("{src} and {dst} have no addresses of one family{}", wanted(.version))]
    Families {
        /// Source.
        src: String,
        /// Destination.
        dst: String,
        /// The family that was asked for.
        version: Option<u8>,
    },
    /// A name of a port that the destination does not have.
    #[error("{dst} has no port called {name:?}; {}", known(.ports))]
    PortName {
        /// Destination.
        dst: String,
        /// The name.
        name: String,
        /// The names that there are.
        ports: Vec<String>,
    },
    /// A service has several ports.
    #[error("{dst} has several ports, name one: {}", .ports.join(", "))]
    WhichPort {
        /// Destination.
        dst: String,
        /// Its ports.
        ports: Vec<String>,
    },
    /// Two protocols.
    #[error("the port says {port}, --protocol says {option}")]
    Protocols {
        /// Of the port.
        port: Protocol,
        /// Of the option.
        option: Protocol,
    },
    /// A port of a protocol without ports.
    #[error("{0} has no ports; leave PORT out")]
    NoPorts(Protocol),
    /// An ICMP type of another protocol.
    #[error("--icmp-type is of ICMP, not of {0}")]
    NoIcmp(Protocol),
    /// ICMP of the other family.
    #[error("{0} does not exist between addresses of this family")]
    WrongIcmp(Protocol),
}

fn wanted(version: &Option<u8>) -> String {
    version.map(|version| format!(" (IPv{version})")).unwrap_or_default()
}

fn known(ports: &[String]) -> String {
    match ports {
        [] => "its ports have no names".to_owned(),
        ports => format!("it has {}", ports.join(", ")),
    }
}

fn versions() -> impl TypedValueParser<Value = u8> {
    PossibleValuesParser::new(["4", "6"]).try_map(|version| version.parse())
}

// === impl Args ===

impl Args {
    /// The flow that is asked about, and the ends as they were named.
    pub(super) fn flow(
        &self,
        catalog: &Catalog,
        compiler: &Compiler,
    ) -> Result<(Flow, Place, Place), QuestionError> {
        let sources = [What::Pod, What::Node, What::HostEndpoint];
        let src = catalog.find(&self.src, &sources, compiler)?;
        let anyone = [What::Pod, What::Service, What::Node, What::HostEndpoint];
        let dst = catalog.find(&self.dst, &anyone, compiler)?;
        let (from, to) = self.addresses(&src, &dst)?;
        let (protocol, dst_port) = self.target(&dst, to, catalog, compiler)?;
        let number = protocol.number();
        if matches!((number, to.is_ipv4()), (ICMP, false) | (ICMPV6, true)) {
            return Err(QuestionError::WrongIcmp(protocol));
        }
        if dst_port.is_some() && !protocol.has_ports() {
            return Err(QuestionError::NoPorts(protocol));
        }
        if self.icmp_type.is_some() && !matches!(number, ICMP | ICMPV6) {
            return Err(QuestionError::NoIcmp(protocol));
        }
        let flow = Flow {
            src: from,
            dst: to,
            protocol: number,
            src_port: self.src_port.filter(|_| protocol.has_ports()),
            dst_port,
            icmp: self.icmp_type.map(|kind| (kind, self.icmp_code)),
        };
        Ok((flow, src, dst))
    }

    /// One address of each end, of one family: IPv4 where there is a choice.
    fn addresses(&self, src: &Place, dst: &Place) -> Result<(IpAddr, IpAddr), QuestionError> {
        let of = |place: &Place, v4: bool| {
            place.addresses.iter().find(|address| address.is_ipv4() == v4).copied()
        };
        let families = [true, false].into_iter();
        let mut families = families.filter(|v4| self.ip_version.is_none_or(|v| (v == 4) == *v4));
        let found = families.find_map(|v4| of(src, v4).zip(of(dst, v4)));
        found.ok_or_else(|| QuestionError::Families {
            src: src.name.clone(),
            dst: dst.name.clone(),
            version: self.ip_version,
        })
    }

    /// Protocol and port of the destination.
    fn target(
        &self,
        dst: &Place,
        address: IpAddr,
        catalog: &Catalog,
        compiler: &Compiler,
    ) -> Result<(Protocol, Option<u16>), QuestionError> {
        let said = self.said_protocol(address)?;
        let ports = match dst.what {
            What::Service => catalog.ports(&dst.name).to_vec(),
            _ => named_ports(compiler, address),
        };
        let fits =
            |port: &&ServicePort| said.is_none_or(|said| protocol(&port.protocol) == Ok(said));
        let found = match self.port.as_ref().map(|arg| &arg.port) {
            Some(PortName::Name(name)) => {
                let found = ports.iter().filter(fits).find(|port| port.name == *name);
                Some(found.ok_or_else(|| QuestionError::PortName {
                    dst: dst.name.clone(),
                    name: name.clone(),
                    ports: words(&ports),
                })?)
            }
            // What serves UDP alone is not meant to be asked by TCP.
            Some(PortName::Number(number)) if dst.what == What::Service => {
                ports.iter().filter(fits).find(|port| port.port == *number)
            }
            Some(PortName::Number(_)) => None,
            None if dst.what == What::Service && self.icmp_type.is_none() => {
                match &ports.iter().filter(fits).collect::<Vec<_>>()[..] {
                    [port] => Some(*port),
                    [] => None,
                    _ => {
                        let (dst, ports) = (dst.name.clone(), words(&ports));
                        return Err(QuestionError::WhichPort { dst, ports });
                    }
                }
            }
            None => None,
        };
        let number = match (found, self.port.as_ref().map(|arg| &arg.port)) {
            (Some(port), _) => Some(port.port),
            (None, Some(PortName::Number(number))) => Some(*number),
            _ => None,
        };
        let known = said.or_else(|| found.and_then(|port| protocol(&port.protocol).ok()));
        Ok((known.unwrap_or(Protocol::TCP), number))
    }

    /// The protocol that the arguments name.
    fn said_protocol(&self, address: IpAddr) -> Result<Option<Protocol>, QuestionError> {
        let of_port = self.port.as_ref().and_then(|arg| arg.protocol);
        match (of_port, self.protocol) {
            (Some(port), Some(option)) if port != option => {
                Err(QuestionError::Protocols { port, option })
            }
            (None, None) if self.icmp_type.is_some() => {
                let number = if address.is_ipv4() { ICMP } else { ICMPV6 };
                Ok(Some(Protocol::of_number(number)))
            }
            (port, option) => Ok(port.or(option)),
        }
    }
}

/// The named ports of whoever has an address.
fn named_ports(compiler: &Compiler, address: IpAddr) -> Vec<ServicePort> {
    let mut endpoints = compiler.state().endpoints.values();
    let endpoint = endpoints.find(|endpoint| endpoint.addresses.contains(&address));
    let ports = endpoint.map(|endpoint| compiler.named_ports_of(&endpoint.key));
    let port = |port: PortView| ServicePort {
        name: port.name.to_string(),
        protocol: Protocol::of_number(port.protocol).to_string(),
        port: port.port,
    };
    ports.into_iter().flatten().map(port).collect()
}

fn words(ports: &[ServicePort]) -> Vec<String> {
    let word = |port: &ServicePort| match &*port.name {
        "" => format!("{}/{}", port.port, port.protocol),
        name => format!("{name} ({}/{})", port.port, port.protocol),
    };
    ports.iter().map(word).collect()
}
