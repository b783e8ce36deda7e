//! Which name servers are believed: those that the settings trust, by their addresses.

use hashbrown::HashMap;
use margay_model::{DnsServer, Service, ServiceKey, State};
use margay_tables::addr::Addr;

/// The trusted servers as pods ask them; none while no set names domains.
pub(super) fn servers(state: &State) -> HashMap<(Addr, u16), ()> {
    let mut servers = HashMap::new();
    if state.sets.values().all(|set| set.domains.is_empty()) {
        return servers;
    }
    for server in &state.node.settings.dns.trusted {
        match server {
            DnsServer::Address { addr, port } => {
                servers.insert(((*addr).into(), *port), ());
            }
            DnsServer::Service { namespace, name, port } => {
                let prefix: ServiceKey = format!("{namespace}/{name}:").into();
                let services = state.services.range(prefix.clone()..);
                let own = services.take_while(|(key, _)| key.starts_with(&*prefix));
                for (_, service) in own.filter(|(_, service)| service.port == *port) {
                    servers.extend(addresses(service).map(|at| (at, ())));
                }
            }
        }
    }
    servers
}

/// Where a service is asked: at its own addresses, or at its backends directly.
fn addresses(service: &Service) -> impl Iterator<Item = (Addr, u16)> {
    let own = service.addresses().map(|addr| (addr.into(), service.port));
    let Service { cluster_backends, local_backends, kept_backends, .. } = service;
    let backends = cluster_backends.iter().chain(local_backends).chain(kept_backends);
    own.chain(backends.map(|backend| (backend.addr.into(), backend.port)))
}
