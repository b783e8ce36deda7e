//! Domain names: whose answers are believed, and what sets name.

use std::collections::BTreeSet;

use margay_model::{DnsServer, DnsSettings, DomainPattern};

use crate::bytes::{address, each, from_address, messages, needed, small};
use crate::error::{At, FieldError, Problem};
use crate::proto;
use crate::proto::dns_server::Server;

impl From<&DnsSettings> for proto::DnsSettings {
    fn from(dns: &DnsSettings) -> Self {
        Self {
            trusted: messages(&dns.trusted),
            extra_ttl: dns.extra_ttl,
            max_hold: dns.max_hold,
            epoch: dns.epoch,
        }
    }
}

impl TryFrom<proto::DnsSettings> for DnsSettings {
    type Error = FieldError;

    fn try_from(dns: proto::DnsSettings) -> Result<Self, FieldError> {
        Ok(Self {
            trusted: each(dns.trusted, "trusted")?,
            extra_ttl: dns.extra_ttl,
            max_hold: dns.max_hold,
            epoch: dns.epoch,
        })
    }
}

impl From<&DnsServer> for proto::DnsServer {
    fn from(server: &DnsServer) -> Self {
        let (server, port) = match server {
            DnsServer::Address { addr, port } => (Server::Address(from_address(*addr)), *port),
            DnsServer::Service { namespace, name, port } => {
                let (namespace, name) = (namespace.to_string(), name.to_string());
                (Server::Service(proto::ServiceName { namespace, name }), *port)
            }
        };
        Self { server: Some(server), port: port.into() }
    }
}

impl TryFrom<proto::DnsServer> for DnsServer {
    type Error = FieldError;

    fn try_from(server: proto::DnsServer) -> Result<Self, FieldError> {
        let port = small(server.port).at("port")?;
        Ok(match needed(server.server, "server")? {
            Server::Address(bytes) => Self::Address { addr: address(&bytes).at("address")?, port },
            Server::Service(service) => Self::Service {
                namespace: service.namespace.into(),
                name: service.name.into(),
                port,
            },
        })
    }
}

/// The patterns of a set.
pub(super) fn patterns(texts: &[String]) -> Result<BTreeSet<DomainPattern>, FieldError> {
    let pattern = |(at, text): (usize, &String)| {
        text.parse().map_err(Problem::Domain).at_index("domains", at)
    };
    texts.iter().enumerate().map(pattern).collect()
}
