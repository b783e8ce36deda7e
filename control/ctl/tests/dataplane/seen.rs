//! What the dataplane that is not one has seen: packets and connections.

use std::sync::Arc;

use etherparse::PacketBuilder;
use margay_model::flow::{FlowCount, FlowTuple, FlowView};
use margay_protocol::proto;
use margay_protocol::proto::sighting::Fate;

/// A SYN of a pod to a service that left through a tunnel.
pub(crate) fn forwarded() -> proto::Sighting {
    let [src, service, backend] = [[10, 65, 0, 2], [10, 96, 0, 10], [10, 65, 1, 9]];
    let tuple = |dst: [u8; 4], dst_port| proto::FlowTuple {
        src: src.into(),
        dst: dst.into(),
        protocol: 6,
        src_port: 4000,
        dst_port,
    };
    let answer = proto::FlowTuple {
        src: backend.into(),
        dst: src.into(),
        protocol: 6,
        src_port: 8080,
        dst_port: 4000,
    };
    let frame = |dst| {
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, 64);
        let mut frame = Vec::new();
        ip.tcp(4000, 80, 1, 100).syn().write(&mut frame, &[]).unwrap();
        frame
    };
    let mut after = Vec::new();
    let outer = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
    let inner = [&[8, 0, 0, 0, 0, 16, 0, 0][..], &frame(backend)].concat();
    outer.udp(50_000, 4789).write(&mut after, &inner).unwrap();
    proto::Sighting {
        time_ns: 1_500_000_000,
        worker: 1,
        generation: 42,
        from: "cali1".into(),
        before: frame(service),
        after,
        arriving: Some(tuple(service, 80)),
        lookup: proto::Lookup::Miss.into(),
        flow: Some(proto::Flow {
            orig: Some(tuple(service, 80)),
            reply: Some(answer),
            state: "SYN_SENT".into(),
            allowed: true,
            egress: Some(proto::RuleHit { policy: "NetworkPolicy/x/out".into(), rule: 3 }),
            ..Default::default()
        }),
        leaving: Some(tuple(backend, 8080)),
        service: "x/web:http".into(),
        hop: Some(proto::Hop {
            interface: "eth0".into(),
            node: "n2".into(),
            encapsulation: "vxlan".into(),
            outer_src: vec![192, 0, 2, 1],
            outer_dst: vec![192, 0, 2, 2],
            mtu: 1450,
            reachable: true,
            ..Default::default()
        }),
        fate: Some(Fate::Forwarded("eth0".into())),
        ..Default::default()
    }
}

/// Six bytes that were no packet.
pub(crate) fn dropped() -> proto::Sighting {
    let (reason, sentence) = ("malformed".into(), "Too short.".into());
    proto::Sighting {
        from: "cali1".into(),
        before: vec![1, 2, 3, 4, 5, 6],
        lookup: proto::Lookup::None.into(),
        fate: Some(Fate::Dropped(proto::Reason { reason, sentence })),
        missed: 7,
        ..Default::default()
    }
}

/// A connection through a service that is allowed, and one that is denied.
pub(crate) fn flows() -> Vec<FlowView> {
    let tuple = |src: &str, dst: &str, protocol, ports: (u16, u16)| FlowTuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol,
        src_port: ports.0,
        dst_port: ports.1,
    };
    let allowed = FlowView {
        orig: tuple("10.0.0.1", "10.96.0.10", 6, (4000, 80)),
        reply: tuple("10.0.0.2", "10.0.0.1", 6, (8080, 4000)),
        orig_count: FlowCount { packets: 5, bytes: 500 },
        reply_count: FlowCount { packets: 4, bytes: 4000 },
        state: "ESTABLISHED",
        idle_ms: 1_250,
        allowed: true,
        denied: None,
        shortcut: true,
        egress: Some((Arc::from("Profile//kns.x"), 0)),
        ingress: None,
        passed: [None, Some((Arc::from("GlobalNetworkPolicy//edge"), 2))],
    };
    let denied = FlowView {
        orig: tuple("fd00::1", "fd00::2", 58, (7, 0)),
        reply: tuple("fd00::2", "fd00::1", 58, (7, 0)),
        reply_count: FlowCount::default(),
        state: "DENIED",
        allowed: false,
        denied: Some(margay_model::DropReason::Policy),
        shortcut: false,
        egress: None,
        passed: [None, None],
        ..allowed.clone()
    };
    vec![allowed, denied]
}
