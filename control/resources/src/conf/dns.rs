//! Name servers, as `dnsTrustedServers` writes them.

use std::net::IpAddr;

use margay_model::DnsServer;
use serde_json::Value;

/// The namespace of a service that names none.
const NAMESPACE: &str = "kube-system";
const PORT: u16 = 53;

/// `IP`, `IP:PORT`, `[IPv6]:PORT`, or `k8s-service:[NAMESPACE/]NAME[:PORT]`.
pub(super) fn server(value: &Value) -> Result<DnsServer, String> {
    let text = value.as_str().unwrap_or_default();
    let server = match text.strip_prefix("k8s-service:") {
        Some(service) => of_service(service),
        None => of_address(text),
    };
    server.ok_or_else(|| {
        format!("{value} is neither an address such as 10.0.0.10 nor k8s-service:NAMESPACE/NAME")
    })
}

fn of_service(text: &str) -> Option<DnsServer> {
    let (service, port) = match text.split_once(':') {
        Some((service, port)) => (service, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, PORT),
    };
    let (namespace, name) = service.split_once('/').unwrap_or((NAMESPACE, service));
    let is_name = |text: &str| !text.is_empty() && !text.contains(['/', ' ']);
    let good = is_name(namespace) && is_name(name);
    good.then(|| DnsServer::Service { namespace: namespace.into(), name: name.into(), port })
}

fn of_address(text: &str) -> Option<DnsServer> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Some(DnsServer::Address { addr, port: PORT });
    }
    let (addr, port) = text.rsplit_once(':')?;
    let bare = addr.strip_prefix('[').and_then(|addr| addr.strip_suffix(']'));
    let addr = match bare {
        Some(v6) => IpAddr::V6(v6.parse().ok()?),
        None => IpAddr::V4(addr.parse().ok()?),
    };
    Some(DnsServer::Address { addr, port: port.parse().ok().filter(|port| *port != 0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_addresses_or_services_with_ports_or_without() {
        let address = |addr: &str, port| DnsServer::Address { addr: addr.parse().unwrap(), port };
        let service = |namespace: &str, name: &str, port| DnsServer::Service {
            namespace: namespace.into(),
            name: name.into(),
            port,
        };
        let rows = [
            ("10.0.0.10", address("10.0.0.10", 53)),
            ("10.0.0.10:5353", address("10.0.0.10", 5353)),
            ("fd00::10", address("fd00::10", 53)),
            ("[fd00::10]:5353", address("fd00::10", 5353)),
            ("k8s-service:kube-dns", service("kube-system", "kube-dns", 53)),
            ("k8s-service:dns/coredns", service("dns", "coredns", 53)),
            ("k8s-service:dns/coredns:5353", service("dns", "coredns", 5353)),
        ];
        for (text, expected) in rows {
            assert_eq!(server(&text.into()), Ok(expected), "{text}");
        }
        for bad in
            ["", "dns", "10.0.0.1:0", "10.0.0.1:x", "k8s-service:", "k8s-service:a/", "fd00::1:x"]
        {
            assert!(server(&bad.into()).is_err(), "{bad}");
        }
        assert!(server(&Value::from(53)).is_err());
    }
}
