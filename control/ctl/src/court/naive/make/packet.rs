//! What is asked: packets between those whom documents speak of, and strangers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use serde_json::Value;

use super::super::read::Packet;
use super::{PORTS, one, rarely};

/// Whom packets are sent to.
struct Places {
    /// The addresses of pods.
    pods: Vec<IpAddr>,
    /// What pods and slices serve: address, protocol, port.
    served: Vec<(IpAddr, u8, u16)>,
}

/// So many packets, more often than not between two pods of these documents.
pub(crate) fn packets(rng: &mut Rng, documents: &[Value], count: usize) -> Vec<Packet> {
    let pods = documents.iter().filter_map(|d| d["status"]["podIPs"].as_array()).flatten();
    let pods = pods.filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect();
    let places = Places { pods, served: served(documents) };
    (0..count).map(|_| packet(rng, &places)).collect()
}

/// A packet of one of the families.
fn packet(rng: &mut Rng, places: &Places) -> Packet {
    let is_v4 = rng.bool();
    let protocol = match rng.u8(0..20) {
        0..8 => 6,
        8..12 => 17,
        12 | 13 => 132,
        14 => one(rng, &[47, 136, 255]),
        _ if is_v4 => 1,
        _ => 58,
    };
    let has_ports = matches!(protocol, 6 | 17 | 132 | 136);
    let is_icmp = matches!(protocol, 1 | 58);
    let icmp = (one(rng, &[0, 3, 8, 128, 135]), rng.u8(0..3));
    let given = !rarely(rng, 30);
    let packet = Packet {
        src: end(rng, is_v4, &places.pods),
        dst: end(rng, is_v4, &places.pods),
        protocol,
        src_port: Some(port(rng)).filter(|_| has_ports && given),
        dst_port: Some(port(rng)).filter(|_| has_ports && (given || rng.bool())),
        icmp: Some(icmp).filter(|_| is_icmp && given),
    };
    match rng.choice(&places.served) {
        Some(&(dst, protocol, port)) if dst.is_ipv4() == is_v4 && rarely(rng, 2) => {
            let (src_port, dst_port) = (packet.src_port.or(Some(port)), Some(port));
            Packet { dst, protocol, src_port, dst_port, icmp: None, ..packet }
        }
        _ => packet,
    }
}

fn served(documents: &[Value]) -> Vec<(IpAddr, u8, u16)> {
    let ports = |ports: &Value| -> Vec<(u8, u16)> {
        let ports = ports.as_array().into_iter().flatten();
        let ports = ports.map(|port| {
            let protocol = match port["protocol"].as_str() {
                Some("UDP") => 17,
                Some("SCTP") => 132,
                _ => 6,
            };
            let number = port["containerPort"].as_u64().or(port["port"].as_u64());
            (protocol, number.and_then(|n| n.try_into().ok()).unwrap())
        });
        ports.collect()
    };
    let mut served = Vec::new();
    for document in documents {
        let (ips, ports) = match document["kind"].as_str() {
            Some("Pod") => {
                let ips = document["status"]["podIPs"].as_array().unwrap().iter();
                let ips: Vec<_> = ips.map(|ip| &ip["ip"]).collect();
                (ips, ports(&document["spec"]["containers"][0]["ports"]))
            }
            Some("EndpointSlice") => {
                let endpoints = document["endpoints"].as_array().unwrap().iter();
                (endpoints.map(|e| &e["addresses"][0]).collect(), ports(&document["ports"]))
            }
            _ => continue,
        };
        for ip in ips.iter().filter_map(|ip| ip.as_str()?.parse().ok()) {
            served.extend(ports.iter().map(|(protocol, port)| (ip, *protocol, *port)));
        }
    }
    served
}

fn port(rng: &mut Rng) -> u16 {
    if rarely(rng, 10) { rng.u16(1..) } else { one(rng, &PORTS) }
}

fn end(rng: &mut Rng, is_v4: bool, pods: &[IpAddr]) -> IpAddr {
    let pods = pods.iter().filter(|ip| ip.is_ipv4() == is_v4).copied();
    let pod = rng.choice(pods.collect::<Vec<_>>());
    pod.filter(|_| !rarely(rng, 4)).unwrap_or_else(|| address(rng, is_v4))
}

/// An address that is a pod's, a set's, a node's or nobody's.
fn address(rng: &mut Rng, is_v4: bool) -> IpAddr {
    let last = rng.u8(0..14);
    if is_v4 {
        let v4 = match rng.u8(0..12) {
            0 => Ipv4Addr::new(9, 9, 0, last),
            1 => Ipv4Addr::new(172, 20, 0, last % 4),
            2 => Ipv4Addr::new(203, 0, 113, last),
            3 => Ipv4Addr::from(rng.u32(0x0100_0000..0xdfff_ffff)),
            _ => Ipv4Addr::new(10, 0, last % 2, last),
        };
        return v4.into();
    }
    let last = u16::from(last);
    let v6 = match rng.u8(0..12) {
        0 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last),
        1 => Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, last % 4),
        2 => Ipv6Addr::from(rng.u128(..)),
        _ => Ipv6Addr::new(0xfd00, 0, 0, last % 2, 0, 0, 0, last),
    };
    v6.into()
}
