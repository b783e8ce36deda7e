//! Who there is: pods, network sets, services, nodes, as the documents tell.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::selector::Labels;
use super::{list, text};

/// Everybody whom a rule may speak of.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) items: Vec<Item>,
    pub(crate) services: Vec<Service>,
    pub(crate) nodes: Vec<Node>,
    /// The labels of each namespace.
    namespaces: BTreeMap<String, Labels>,
    /// The labels of each service account, by `NAMESPACE/NAME`.
    accounts: BTreeMap<String, Labels>,
}

/// A pod or a network set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Item {
    pub(crate) nets: Vec<Net>,
    /// The document's own.
    pub(crate) own: Labels,
    pub(crate) namespace_labels: Labels,
    /// As Calico's selectors see them.
    pub(crate) labels: Labels,
    pub(crate) namespace: String,
    /// What a pod has besides.
    pub(crate) pod: Option<Pod>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Pod {
    pub(crate) node: String,
    pub(crate) ports: Vec<NamedPort>,
    /// Where services find it, also if they are the node's.
    pub(crate) addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug)]
pub(crate) struct NamedPort {
    pub(crate) name: String,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// A service by what stands behind it.
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) backends: Vec<(IpAddr, u8, u16)>,
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A network, or an address of full length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    bits: u128,
    length: u32,
    is_v4: bool,
}

// === impl World ===

impl World {
    pub(crate) fn read(documents: &[Value]) -> Self {
        let mut world = Self::default();
        let of = |kind: &'static str| documents.iter().filter(move |d| d["kind"] == kind);
        for document in of("Namespace") {
            world.namespaces.insert(name(document), labels(document));
        }
        for document in of("ServiceAccount") {
            let key = format!("{}/{}", namespace(document), name(document));
            world.accounts.insert(key, labels(document));
        }
        for document in of("Node") {
            let addresses = list(&document["status"]["addresses"]);
            let addresses = addresses.iter().map(|a| address(&a["address"])).collect();
            world.nodes.push(Node { name: name(document), labels: labels(document), addresses });
        }
        world.items = of("Pod").map(|document| world.pod(document)).collect();
        let sets = of("NetworkSet").chain(of("GlobalNetworkSet"));
        let sets: Vec<_> = sets.map(|document| world.set(document)).collect();
        world.items.extend(sets);
        for document in of("Service") {
            let slices: Vec<_> = of("EndpointSlice").filter(|s| is_of(s, document)).collect();
            let service = world.service(document, &slices);
            world.services.push(service);
        }
        world
    }

    /// The pod that has an address.
    pub(crate) fn pod_at(&self, address: IpAddr) -> Option<(&Item, &Pod)> {
        let at = self.items.iter().filter(|item| item.has(address));
        at.filter_map(|item| Some((item, item.pod.as_ref()?))).next()
    }

    /// The node that has an address.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|node| node.addresses.contains(&address))
    }

    fn pod(&self, document: &Value) -> Item {
        let mut item = self.namespaced(document);
        let spec = &document["spec"];
        let account = match text(&spec["serviceAccountName"]) {
            "" => "default",
            name => name,
        };
        for (key, value) in [("orchestrator", "k8s"), ("serviceaccount", account)] {
            item.labels.insert(format!("projectcalico.org/{key}"), value.to_owned());
        }
        let own = self.accounts.get(&format!("{}/{account}", item.namespace));
        for (key, value) in own.into_iter().flatten() {
            item.labels.insert(format!("pcsa.{key}"), value.clone());
        }
        let over = ["Succeeded", "Failed"].contains(&text(&document["status"]["phase"]));
        let ips = list(&document["status"]["podIPs"]).iter().map(|ip| address(&ip["ip"]));
        let addresses: Vec<_> = ips.filter(|_| !over).collect();
        if spec["hostNetwork"] != true {
            item.nets = addresses.iter().map(|ip| Net::read(&ip.to_string())).collect();
        }
        let containers = list(&spec["containers"]).iter();
        let ports = containers.flat_map(|container| list(&container["ports"]));
        let ports = ports.map(|port| NamedPort {
            name: text(&port["name"]).to_owned(),
            protocol: protocol(&port["protocol"]),
            port: number(&port["containerPort"]),
        });
        item.pod = Some(Pod {
            node: text(&spec["nodeName"]).to_owned(),
            ports: ports.collect(),
            addresses,
        });
        item
    }

    fn set(&self, document: &Value) -> Item {
        let mut item = self.namespaced(document);
        item.nets = list(&document["spec"]["nets"]).iter().map(|n| Net::read(text(n))).collect();
        item
    }

    /// An item with what its namespace gives it, if it has one.
    fn namespaced(&self, document: &Value) -> Item {
        let (own, namespace) = (labels(document), namespace(document));
        // What begins like labels of namespaces and service accounts comes from these alone.
        let mut given = own.clone();
        given.retain(|key, _| !key.starts_with("pcns.") && !key.starts_with("pcsa."));
        let mut item = Item { labels: given, own, ..Item::default() };
        if namespace.is_empty() {
            return item;
        }
        let mut given = self.namespaces.get(&namespace).cloned().unwrap_or_default();
        given.insert("kubernetes.io/metadata.name".to_owned(), namespace.clone());
        for (key, value) in &given {
            item.labels.insert(format!("pcns.{key}"), value.clone());
        }
        for key in ["pcns.projectcalico.org/name", "projectcalico.org/namespace"] {
            item.labels.insert(key.to_owned(), namespace.clone());
        }
        Item { namespace_labels: given, namespace, ..item }
    }

    fn service(&self, document: &Value, slices: &[&Value]) -> Service {
        let (namespace, spec) = (namespace(document), &document["spec"]);
        let mut service = Service {
            name: name(document),
            namespace,
            addresses: Vec::new(),
            backends: Vec::new(),
        };
        for slice in slices {
            for endpoint in list(&slice["endpoints"]) {
                for ip in list(&endpoint["addresses"]).iter().map(address) {
                    service.addresses.push(ip);
                    let ports = list(&slice["ports"]).iter();
                    let ports = ports.map(|p| (ip, protocol(&p["protocol"]), number(&p["port"])));
                    service.backends.extend(ports);
                }
            }
        }
        let Some(selector) = spec["selector"].as_object().filter(|_| slices.is_empty()) else {
            return service;
        };
        let here = self.items.iter().filter(|item| item.namespace == service.namespace);
        for (item, pod) in here.filter_map(|item| Some((item, item.pod.as_ref()?))) {
            if !selector.iter().all(|(key, value)| item.own.get(key).is_some_and(|v| value == v)) {
                continue;
            }
            for ip in pod.addresses.iter().copied() {
                service.addresses.push(ip);
                for port in list(&spec["ports"]) {
                    let protocol = protocol(&port["protocol"]);
                    let target = match &port["targetPort"] {
                        Value::String(name) => {
                            let named = pod.ports.iter();
                            let mut named = named.filter(|p| p.protocol == protocol);
                            named.find(|p| p.name == *name).map(|p| p.port)
                        }
                        Value::Null => Some(number(&port["port"])),
                        target => Some(number(target)),
                    };
                    service.backends.extend(target.map(|port| (ip, protocol, port)));
                }
            }
        }
        service
    }
}

fn is_of(slice: &Value, service: &Value) -> bool {
    slice["metadata"]["namespace"] == service["metadata"]["namespace"]
        && slice["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]
}

// === impl Item ===

impl Item {
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.nets.iter().any(|net| net.has(address))
    }
}

// === impl Net ===

impl Net {
    pub(crate) fn read(text: &str) -> Self {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().unwrap();
        let full = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(full, |length| length.parse().unwrap());
        Self { bits: bits(address), length, is_v4: address.is_ipv4() }
    }

    pub(crate) fn is_v4(self) -> bool {
        self.is_v4
    }

    pub(crate) fn has(self, address: IpAddr) -> bool {
        let full = if self.is_v4 { 32 } else { 128 };
        let shift = full - self.length;
        let high = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
        self.is_v4 == address.is_ipv4() && high(self.bits) == high(bits(address))
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

pub(super) fn name(document: &Value) -> String {
    text(&document["metadata"]["name"]).to_owned()
}

/// Empty for what has none.
pub(super) fn namespace(document: &Value) -> String {
    text(&document["metadata"]["namespace"]).to_owned()
}

fn labels(document: &Value) -> Labels {
    let labels = document["metadata"]["labels"].as_object().into_iter().flatten();
    labels.map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
}

fn address(value: &Value) -> IpAddr {
    text(value).parse().unwrap()
}

pub(super) fn number(value: &Value) -> u16 {
    value.as_u64().and_then(|n| n.try_into().ok()).unwrap()
}

/// A protocol by name or number; TCP where none is given.
pub(super) fn protocol(value: &Value) -> u8 {
    match value {
        Value::Null => 6,
        Value::Number(number) => number.as_u64().and_then(|n| n.try_into().ok()).unwrap(),
        name => match text(name) {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            "UDPLite" => 136,
            "ICMP" => 1,
            "ICMPv6" => 58,
            number => number.parse().unwrap(),
        },
    }
}
