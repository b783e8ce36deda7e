//! Who `SRC` and `DST` are: pods, services, nodes, host endpoints by name, or addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use margay_compile::Compiler;
use margay_resources::Resource;

/// Names that differ by more than a third of their letters are not what was meant.
const NEAR: usize = 3;
/// So many names are suggested.
const SUGGESTIONS: usize = 3;

/// What names there are.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Pods, with the reason why one has no address of its own.
    pods: BTreeMap<String, Option<&'static str>>,
    services: BTreeMap<String, Vec<ServicePort>>,
    nodes: BTreeSet<String>,
    hosts: BTreeSet<String>,
}

/// A port of a service as its document has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePort {
    pub(super) name: String,
    /// As documents spell it.
    pub(super) protocol: String,
    pub(super) port: u16,
}

/// Somebody with addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) what: What,
    /// Namespace and name, or the address.
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// What sort of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Address,
    Pod,
    Service,
    Node,
    HostEndpoint,
}

/// Nobody is called so, or more than one is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// Nobody.
    #[error("there is no {sorts} {name:?}{}", suggestion(.near))]
    Unknown {
        /// What was looked for.
        sorts: &'static str,
        /// The name.
        name: String,
        /// What was perhaps meant.
        near: Vec<String>,
    },
    /// Several.
    #[error("{name:?} is more than one thing: say {}", .forms.join(" or "))]
    Ambiguous {
        /// The name.
        name: String,
        /// What to write.
        forms: Vec<String>,
    },
    /// Nothing to send to or from.
    #[error("{what} has no address: {why}")]
    NoAddress {
        /// Who.
        what: String,
        /// Why.
        why: &'static str,
    },
}

fn suggestion(near: &[String]) -> String {
    match near {
        [] => "; margayctl get pods --all-namespaces shows the pods".to_owned(),
        near => format!("; did you mean {}?", near.join(" or ")),
    }
}

// === impl What ===

impl What {
    const NAMED: [Self; 4] = [Self::Pod, Self::Service, Self::Node, Self::HostEndpoint];

    /// What names of the sort begin with where it has to be said.
    fn prefix(self) -> &'static str {
        match self {
            Self::Address => "ip:",
            Self::Pod => "pod:",
            Self::Service => "svc:",
            Self::Node => "node:",
            Self::HostEndpoint => "hep:",
        }
    }

    /// The noun.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Node => "node",
            Self::HostEndpoint => "host endpoint",
        }
    }

    /// The full name of what a person calls so: pods and services live in namespaces.
    fn full(self, name: &str) -> String {
        let namespaced = matches!(self, Self::Pod | Self::Service);
        if namespaced && !name.contains('/') { format!("default/{name}") } else { name.to_owned() }
    }
}

// === impl Catalog ===

impl Catalog {
    /// The names in a datastore.
    pub(super) fn new(resources: &[Resource]) -> Self {
        let mut catalog = Self::default();
        for resource in resources {
            catalog.note(resource);
        }
        catalog
    }

    fn note(&mut self, resource: &Resource) {
        let name = format!("{}/{}", resource.namespace(), resource.name());
        match resource {
            Resource::Pod(pod) => {
                let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
                let on_host = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
                let why = match phase {
                    Some("Succeeded" | "Failed") => Some("it has ended"),
                    _ if on_host => Some("it uses its node's network; ask about the node"),
                    _ => None,
                };
                self.pods.insert(name, why);
            }
            Resource::WorkloadEndpoint(endpoint) => {
                let name = format!("{}/{}", resource.namespace(), endpoint.spec.pod);
                self.pods.entry(name).or_default();
            }
            Resource::Service(service) => {
                let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
                let ports = ports.filter_map(|port| {
                    Some(ServicePort {
                        name: port.name.clone().unwrap_or_default(),
                        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                        port: u16::try_from(port.port).ok()?,
                    })
                });
                self.services.insert(name, ports.collect());
            }
            Resource::KubernetesNode(_) | Resource::Node(_) => {
                self.nodes.insert(resource.name().to_owned());
            }
            Resource::HostEndpoint(_) => {
                self.hosts.insert(resource.name().to_owned());
            }
            _ => {}
        }
    }

    /// The ports of a service.
    pub(super) fn ports(&self, service: &str) -> &[ServicePort] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// Finds whom a person means.
    pub(super) fn find(
        &self,
        text: &str,
        sorts: &[What],
        compiler: &Compiler,
    ) -> Result<Place, PlaceError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let name = address.to_string();
            return Ok(Place { what: What::Address, name, addresses: vec![address] });
        }
        let said = What::NAMED.into_iter().find(|what| text.starts_with(what.prefix()));
        let name = said.map_or(text, |what| text.trim_start_matches(what.prefix()));
        let sorts: Vec<_> =
            sorts.iter().copied().filter(|what| said.is_none_or(|said| said == *what)).collect();
        let found: Vec<_> =
            sorts.iter().filter(|what| self.has(**what, &what.full(name))).collect();
        match found[..] {
            [what] => self.place(*what, what.full(name), compiler),
            [] => Err(PlaceError::Unknown {
                sorts: looked_for(&sorts),
                name: name.to_owned(),
                near: self.near(name, &sorts),
            }),
            ref several => Err(PlaceError::Ambiguous {
                name: name.to_owned(),
                forms: several.iter().map(|w| format!("{}{}", w.prefix(), w.full(name))).collect(),
            }),
        }
    }

    fn has(&self, what: What, name: &str) -> bool {
        match what {
            What::Address => false,
            What::Pod => self.pods.contains_key(name),
            What::Service => self.services.contains_key(name),
            What::Node => self.nodes.contains(name),
            What::HostEndpoint => self.hosts.contains(name),
        }
    }

    fn names(&self, what: What) -> Box<dyn Iterator<Item = &String> + '_> {
        match what {
            What::Address => Box::new(std::iter::empty()),
            What::Pod => Box::new(self.pods.keys()),
            What::Service => Box::new(self.services.keys()),
            What::Node => Box::new(self.nodes.iter()),
            What::HostEndpoint => Box::new(self.hosts.iter()),
        }
    }

    fn place(&self, what: What, name: String, compiler: &Compiler) -> Result<Place, PlaceError> {
        let state = compiler.state();
        let of_endpoints = |prefix: String| -> Vec<IpAddr> {
            let own = with_prefix(&state.endpoints, &prefix);
            own.flat_map(|(_, endpoint)| endpoint.addresses.iter().copied()).collect()
        };
        let (addresses, why): (Vec<IpAddr>, _) = match what {
            What::Address => (Vec::new(), ""),
            What::Pod => {
                let why = self.pods.get(&name).copied().flatten();
                let why = why.unwrap_or("its status.podIPs is empty, and no endpoint is its own");
                (of_endpoints(format!("{name}/")), why)
            }
            What::HostEndpoint => {
                (of_endpoints(format!("/{name}/")), "give it expectedIPs, or ask about its node")
            }
            What::Node => {
                let addresses = compiler.node_addresses().filter(|(node, _)| ***node == *name);
                (addresses.map(|(_, address)| address).collect(), "its Node object names none")
            }
            What::Service => {
                let prefix = format!("{name}:");
                let own = with_prefix(&state.services, &prefix);
                let mut addresses: Vec<_> =
                    own.flat_map(|(_, service)| service.cluster_ips.iter().copied()).collect();
                addresses.dedup();
                (addresses, "a headless or external service is its pods; ask about one of them")
            }
        };
        if addresses.is_empty() {
            return Err(PlaceError::NoAddress { what: format!("{} {name}", what.word()), why });
        }
        Ok(Place { what, name, addresses })
    }

    /// The names that are most like it: those in other namespaces first.
    fn near(&self, name: &str, sorts: &[What]) -> Vec<String> {
        let mut near: Vec<(usize, String)> = Vec::new();
        for what in sorts {
            let wanted = what.full(name);
            let bare = name.rsplit('/').next().unwrap_or(name);
            for known in self.names(*what) {
                let elsewhere = known.rsplit('/').next() == Some(bare);
                let distance = match strsim::osa_distance(&wanted, known) {
                    _ if elsewhere => 0,
                    distance if distance <= bare.chars().count().div_ceil(NEAR) => distance,
                    _ => continue,
                };
                near.push((distance, format!("{}{known}", what.prefix())));
            }
        }
        near.sort();
        near.truncate(SUGGESTIONS);
        near.into_iter().map(|(_, name)| name).collect()
    }
}

/// The entries whose keys begin so.
fn with_prefix<'m, V>(
    map: &'m BTreeMap<Arc<str>, V>,
    prefix: &'m str,
) -> impl Iterator<Item = (&'m Arc<str>, &'m V)> {
    let from = map.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
    from.take_while(move |(key, _)| key.starts_with(prefix))
}

fn looked_for(sorts: &[What]) -> &'static str {
    match sorts {
        [what] => what.word(),
        sorts if sorts.contains(&What::Service) => "pod, service, node or host endpoint",
        _ => "pod, node or host endpoint",
    }
}
