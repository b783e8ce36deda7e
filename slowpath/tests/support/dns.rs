//! DNS messages written by hand, so that the reader is not asked what it has written itself.

use std::net::{IpAddr, SocketAddr};

use margay_model::flow::FlowTuple;
use margay_slowpath::{Punt, Request};

use super::{POD, punt};

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;

/// What a record says.
pub(crate) enum Data {
    Addr(&'static str),
    Alias(&'static str),
    Raw(u16, Vec<u8>),
}

/// A record: owner, seconds, data.
pub(crate) type Record = (&'static str, u32, Data);

fn name(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

pub(crate) fn query(id: u16, asked: &str, kind: u16) -> Vec<u8> {
    message(id, 0x0100, asked, kind, &[])
}

pub(crate) fn answer(id: u16, asked: &str, kind: u16, records: &[Record]) -> Vec<u8> {
    message(id, 0x8180, asked, kind, records)
}

pub(crate) fn message(id: u16, flags: u16, asked: &str, kind: u16, records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [id, flags, 1, records.len() as u16, 0, 0] {
        out.extend(word.to_be_bytes());
    }
    out.extend(name(asked));
    out.extend([kind, 1].map(u16::to_be_bytes).concat());
    for (owner, ttl, data) in records {
        // The name that was asked for stands at 12: pointers are what servers write.
        out.extend(if *owner == asked { vec![0xc0, 12] } else { name(owner) });
        let (kind, bytes) = match data {
            Data::Addr(text) => match text.parse().unwrap() {
                IpAddr::V4(addr) => (A, addr.octets().to_vec()),
                IpAddr::V6(addr) => (AAAA, addr.octets().to_vec()),
            },
            Data::Alias(target) => (CNAME, name(target)),
            Data::Raw(kind, bytes) => (*kind, bytes.clone()),
        };
        out.extend([kind, 1].map(u16::to_be_bytes).concat());
        out.extend(ttl.to_be_bytes());
        out.extend((bytes.len() as u16).to_be_bytes());
        out.extend(bytes);
    }
    out
}

/// A pod's conversation with its server.
pub(crate) fn conversation(protocol: u8, port: u16) -> FlowTuple {
    FlowTuple {
        src: "10.0.0.2".parse().unwrap(),
        dst: "10.96.0.10".parse().unwrap(),
        protocol,
        src_port: port,
        dst_port: 53,
    }
}

/// An IPv4 packet of a conversation around what stands behind its IP header.
fn packet(tuple: &FlowTuple, from_client: bool, payload: Vec<u8>) -> Punt {
    let ends = [SocketAddr::new(tuple.src, 0), SocketAddr::new(tuple.dst, 0)];
    let [src, dst] = if from_client { ends } else { [ends[1], ends[0]] };
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, tuple.protocol, 0, 0]);
    for end in [src, dst] {
        let IpAddr::V4(addr) = end.ip() else { panic!("not IPv4") };
        frame.extend(addr.octets());
    }
    frame.extend(payload);
    let request = Request::Dns { conversation: *tuple, from_client };
    punt(POD, frame, request)
}

fn ports(tuple: &FlowTuple, from_client: bool) -> Vec<u8> {
    let ports = [tuple.src_port, tuple.dst_port];
    let [src, dst] = if from_client { ports } else { [ports[1], ports[0]] };
    [src, dst].map(u16::to_be_bytes).concat()
}

/// A datagram.
pub(crate) fn udp(tuple: &FlowTuple, from_client: bool, message: &[u8]) -> Punt {
    let mut payload = ports(tuple, from_client);
    payload.extend((8 + message.len() as u16).to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(message);
    packet(tuple, from_client, payload)
}

/// A segment with these flags.
pub(crate) fn tcp(tuple: &FlowTuple, from_client: bool, seq: u32, flags: u8, data: &[u8]) -> Punt {
    let mut payload = ports(tuple, from_client);
    payload.extend(seq.to_be_bytes());
    payload.extend([0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    payload.extend(data);
    packet(tuple, from_client, payload)
}

/// A message as it stands in a stream.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}
