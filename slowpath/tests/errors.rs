//! When an error is due and when it is not; read back by etherparse, a second opinion.

mod support;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use margay_model::reason::{DropReason, PuntReason};
use margay_slowpath::{Action, Ingress, Injection, Request, Unreachable};
use support::{POD, ask, drop_reason, injected, no_flows, punt, slow_path, vector};

/// A change of a frame, by offset from the IP header, that makes an error undue.
type Change = (&'static str, &'static [(usize, u8)]);

#[track_caller]
fn is_not_answered(frame: &str, changes: &[Change]) {
    for (what, bytes) in changes {
        let mut frame = vector(frame);
        for (at, value) in *bytes {
            frame[14 + at] = *value;
        }
        let actions = ask(POD, frame, Request::TtlExpired);
        assert_eq!(injected(&actions), [], "{what}");
        assert_eq!(drop_reason(&actions), Some(DropReason::TtlExpired), "{what}");
    }
}

#[test]
fn no_error_answers_what_is_not_one_hosts_packet_to_one_host() {
    is_not_answered(
        "udp",
        &[
            ("a later fragment", &[(7, 1)]),
            ("to multicast", &[(16, 224)]),
            ("to broadcast", &[(16, 255), (17, 255), (18, 255), (19, 255)]),
            ("from nobody", &[(12, 0), (13, 0), (14, 0), (15, 0)]),
            ("from loopback", &[(12, 127)]),
            ("from multicast", &[(12, 230)]),
            ("from a reserved address", &[(12, 250)]),
        ],
    );
    is_not_answered("udp6", &[("to multicast", &[(24, 0xff)]), ("from multicast", &[(8, 0xff)])]);
}

#[test]
fn no_error_answers_an_error_but_one_answers_a_query() {
    // ICMP types of errors and redirects, then of queries.
    for kind in [3, 4, 5, 11, 12] {
        let mut frame = framed("ttl_expired");
        frame[14 + 20] = kind;
        assert_eq!(injected(&ask(POD, frame, Request::TtlExpired)), [], "type {kind}");
    }
    for kind in [0, 8, 13] {
        let mut frame = framed("ttl_expired");
        frame[14 + 20] = kind;
        assert_eq!(injected(&ask(POD, frame, Request::TtlExpired)).len(), 1, "type {kind}");
    }
    for (kind, answers) in [(1, 0), (2, 0), (3, 0), (4, 0), (137, 0), (128, 1), (135, 1)] {
        let mut frame = framed("hop_limit");
        frame[14 + 40] = kind;
        assert_eq!(injected(&ask(POD, frame, Request::TtlExpired)).len(), answers, "type {kind}");
    }
}

fn framed(name: &str) -> Vec<u8> {
    [&vector("udp")[..14], &vector(name)].concat()
}

#[test]
fn no_error_answers_a_frame_to_many() {
    let mut frame = vector("udp");
    frame[0] |= 1;
    assert_eq!(drop_reason(&ask(POD, frame, Request::TtlExpired)), Some(DropReason::TtlExpired));
}

#[test]
fn only_packet_too_big_answers_ipv6_multicast() {
    let mut frame = vector("udp6");
    frame[14 + 24] = 0xff;
    assert_eq!(injected(&ask(POD, frame.clone(), Request::TooBig { mtu: 1300 })).len(), 1);
    let net = Request::Unreachable(Unreachable::Net);
    assert_eq!(drop_reason(&ask(POD, frame, net)), Some(DropReason::NoRoute));
}

#[test]
fn the_nodes_own_packets_have_nobody_to_tell() {
    let actions = ask(Ingress::Own, vector("udp"), Request::TtlExpired);
    assert_eq!(actions, [Action::Dropped(PuntReason::TtlExpired, DropReason::TtlExpired)]);
}

#[test]
fn each_port_has_its_own_budget_of_a_hundred_a_second() {
    let mut slow = slow_path();
    let mut answered = |port, now| {
        let punt = punt(Ingress::Port(port), vector("udp"), Request::TtlExpired);
        !injected(&slow.handle(now, punt, &no_flows)).is_empty()
    };
    assert_eq!((0..150).filter(|_| answered(1, 0)).count(), 100);
    assert_eq!((0..150).filter(|_| answered(2, 0)).count(), 100);
    assert_eq!((0..150).filter(|_| answered(1, 1000)).count(), 100);
}

#[test]
fn a_flood_of_arp_is_bounded_and_counted() {
    let mut slow = slow_path();
    let mut answered = 0;
    for _ in 0..1000 {
        let actions = slow.handle(0, punt(POD, vector("arp_ask"), Request::Arp), &no_flows);
        answered += injected(&actions).len();
        if injected(&actions).is_empty() {
            assert_eq!(drop_reason(&actions), Some(DropReason::RateLimited));
        }
    }
    assert_eq!(answered, 200);
}

#[test]
fn resets_have_no_budget() {
    let mut slow = slow_path();
    let mut reset = || {
        let punt = punt(POD, vector("syn"), Request::Reject);
        injected(&slow.handle(0, punt, &no_flows)).len()
    };
    assert_eq!((0..1000).map(|_| reset()).sum::<usize>(), 1000);
}

#[test]
fn an_mtu_below_what_every_link_takes_is_told_as_the_least() {
    let told = |frame: &str, at: usize| {
        let actions = ask(POD, vector(frame), Request::TooBig { mtu: 10 });
        match injected(&actions).as_slice() {
            [Injection::Own { packet }] => u16::from_be_bytes([packet[at], packet[at + 1]]),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told("udp", 26), 68);
    assert_eq!(told("udp6", 46), 1280);
}

#[test]
fn etherparse_reads_every_answer_and_agrees_with_its_checksums() {
    let mut seen = 0;
    for frame in support::vectors().filter(|f| f.len() > 60 && f[12..14] != [8, 6]) {
        for request in [Request::TtlExpired, Request::TooBig { mtu: 1400 }, Request::Reject] {
            for injection in injected(&ask(POD, frame.clone(), request)) {
                let Injection::Own { packet } = injection else { panic!("{injection:?}") };
                assert_checksums(&packet);
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

fn assert_checksums(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), transport) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), packet.len());
            match transport {
                TransportSlice::Icmpv4(icmp) => {
                    assert!(packet.len() <= 576);
                    let sum = icmp.icmp_type().calc_checksum(icmp.payload());
                    assert_eq!(icmp.checksum(), sum);
                }
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp.calc_checksum_ipv4(header.source, header.destination);
                    assert_eq!(tcp.checksum(), sum.unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
        (NetSlice::Ipv6(ip), transport) => {
            let header = ip.header().to_header();
            match transport {
                TransportSlice::Icmpv6(icmp) => {
                    assert!(packet.len() <= 1280);
                    assert!(icmp.is_checksum_valid(header.source, header.destination));
                }
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp.calc_checksum_ipv6(header.source, header.destination);
                    assert_eq!(tcp.checksum(), sum.unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}
