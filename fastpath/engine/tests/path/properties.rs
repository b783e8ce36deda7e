//! What holds for every packet.

use margay_engine::{Fate, Ingress, PortId};
use margay_model::{Service, State, TrafficPolicy};
use margay_tables::flow::Share;
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::*;

/// Addresses that mean something to the node of the tests, and some that do not.
const V4: [&str; 18] = [
    "10.65.0.2",
    "10.65.0.3",
    "10.65.0.4",
    "10.65.0.9",
    "10.65.0.60",
    "10.65.1.5",
    "10.65.2.5",
    "10.65.3.5",
    "10.96.0.10",
    "10.96.0.11",
    "198.18.0.1",
    "198.18.0.2",
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.100",
    "198.51.100.2",
    "8.8.8.8",
    "169.254.77.68",
];
const V6: [&str; 10] = [
    "fd00:65::2",
    "fd00:65::3",
    "fd00:65::9",
    "fd00:65:0:1::5",
    "fd00:65:0:3::5",
    "fd96::10",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:2::2",
    "2001:4860::8888",
];
const PORTS: [u16; 7] = [0, 53, 80, 4789, 8080, 30_080, 61_000];
const FROM: [PortId; 5] = [HOST, WIRE, A, B, N];

fn services(state: &mut State, policy: TrafficPolicy) {
    let backends = ["10.65.0.2:8080", "10.65.0.3:8080", "10.65.1.5:8080", "192.0.2.1:8080"];
    let backends6 = ["[fd00:65::2]:8080", "[fd00:65:0:3::5]:8080"];
    for protocol in [6, 17, 132] {
        let (external_ips, load_balancer_ips) = (vec![ip("198.18.0.1")], vec![ip("198.18.0.2")]);
        let (internal, external, node_port) = (policy, policy, Some(30_080));
        let four = service(&format!("v4-{protocol}"), protocol, "10.96.0.10:80", &backends);
        let load_balancer_sources = vec!["192.0.2.0/24".parse().unwrap()];
        let six = service(&format!("v6-{protocol}"), protocol, "[fd96::10]:80", &backends6);
        serve(
            state,
            Service {
                external_ips,
                load_balancer_ips,
                load_balancer_sources,
                internal,
                external,
                node_port,
                ..four
            },
        );
        serve(state, Service { internal, external, node_port, ..six });
    }
}

pub(crate) fn busy_node() -> Node {
    let mut node = Node::with_capacity(64);
    node.change(|state| services(state, TrafficPolicy::Cluster));
    node
}

prop_compose! {
    /// Any payload that has a meaning.
    fn body()(
        kind in 0..6,
        ports in (select(&PORTS), select(&PORTS)),
        flags in 0u8..32,
        payload in prop::collection::vec(any::<u8>(), 0..40),
        (icmp, code, rest) in (select(&[0u8, 3, 5, 8, 11, 13, 128, 129, 135, 1, 2]), 0u8..5, any::<[u8; 4]>()),
        checksum: bool,
        protocol in select(&[2u8, 47, 50, 253]),
    ) -> Body {
        match kind {
            0 => Body::Tcp { ports, flags, seq: 7, ack: 0, window: 512, payload },
            1 => Body::Udp { ports, payload, checksum },
            2 => Body::Sctp { ports, payload },
            3 | 4 => Body::Icmp { kind: icmp, code, rest, payload },
            _ => Body::Raw(protocol, payload),
        }
    }
}

prop_compose! {
    /// Any packet that is well formed.
    pub(crate) fn well_formed()(
        v4: bool,
        (s4, d4, s6, d6) in (select(&V4), select(&V4), select(&V6), select(&V6)),
        mut body in body(),
        (ttl, class, dont_fragment) in (select(&[0u8, 1, 2, 64, 255]), any::<u8>(), any::<bool>()),
        options in select(&[0usize, 0, 0, 4, 40]),
    ) -> Ip {
        if let Body::Udp { checksum, .. } = &mut body {
            *checksum |= !v4; // IPv6 has no datagrams without.
        }
        let (src, dst) = if v4 { (ip(s4), ip(d4)) } else { (ip(s6), ip(d6)) };
        Ip { ttl, class, dont_fragment, options: vec![1; if v4 { options } else { 0 }], ..packet(src, dst, body) }
    }
}

/// One thing done to the frame of a good packet.
#[derive(Clone, Debug)]
pub(crate) enum Harm {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Pad(usize),
}

pub(crate) fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), select(&[0u8, 1, 4, 0x0f, 0x40, 0x45, 0x4f, 0x7f, 0x80, 0xfe, 0xff]))
            .prop_map(|(i, b)| Harm::Set(i, b)),
        (at(), 0u8..8).prop_map(|(i, b)| Harm::Flip(i, b)),
        at().prop_map(Harm::Cut),
        (1usize..64).prop_map(Harm::Pad),
    ]
}

pub(crate) fn hurt(frame: &mut Vec<u8>, harm: &Harm) {
    // Harm is done to headers, which is where it hurts.
    let headers = frame.len().min(130);
    match harm {
        _ if frame.is_empty() => {}
        Harm::Set(at, byte) => frame[at.index(headers)] = *byte,
        Harm::Flip(at, bit) => frame[at.index(headers)] ^= 1 << bit,
        Harm::Cut(at) => frame.truncate(at.index(frame.len())),
        Harm::Pad(len) => frame.resize(frame.len() + len, 0xee),
    }
}

/// Mends the checksum of the outermost IPv4 header, so that harm gets behind it.
pub(crate) fn mend(frame: &mut [u8]) {
    if frame.len() < 34 || frame[12..14] != [8, 0] {
        return;
    }
    let end = (14 + usize::from(frame[14] & 15) * 4).clamp(34, frame.len());
    frame[24..26].fill(0);
    let sum = !folded(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// The one's complement sum of 16-bit words.
fn folded(bytes: &[u8]) -> u16 {
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// What every frame that leaves has, wherever it came from.
pub(crate) fn leaves_whole(out: &Out) -> Result<(), TestCaseError> {
    let Fate::Forward(_) = out.fate else { return Ok(()) };
    let ip = &out.frame[14..];
    match out.frame[12..14] {
        [0x08, 0x00] => {
            // Summed as it is: etherparse forgets the reserved flag.
            let header_len = usize::from(ip[0] & 15) * 4;
            prop_assert_eq!(folded(&ip[..header_len]), 0xffff);
            prop_assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len());
        }
        [0x86, 0xdd] => {
            prop_assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])) + 40, ip.len());
        }
        _ => prop_assert!(false, "EtherType {:02x?}", &out.frame[12..14]),
    }
    Ok(())
}

/// `PROPTEST_CASES` asks for more. A failure becomes a test with a name, not a file of seeds.
pub(crate) fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(512), failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes_on_any_port_have_one_fate(
        frames in prop::collection::vec(
            (select(&FROM), prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 1..64),
    ) {
        let mut node = busy_node();
        let frames = frames.into_iter().map(|(from, mut bytes, addressed)| {
            // Half of them name their port and say that they are IP.
            if addressed && bytes.len() > 14 {
                let kind = if bytes[14] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
                bytes[..12].copy_from_slice(&frame_from(from, &udp("10.0.0.1:1", "10.0.0.2:2"))[..12]);
                bytes[12..14].copy_from_slice(&kind);
                mend(&mut bytes);
            }
            (ingress(from), bytes)
        });
        for out in &node.batch(frames.collect()).0 {
            leaves_whole(out)?;
        }
    }

    #[test]
    fn harmed_packets_have_one_fate_and_leave_whole(
        packets in prop::collection::vec(
            (well_formed(), select(&FROM), 0u8..6, any::<u8>(), prop::collection::vec(harm(), 0..4), any::<bool>()),
            1..64),
        isolated: bool,
    ) {
        let mut node = busy_node();
        if isolated {
            node.change(|state| isolate(state, "b", Some(vec![allow_ports(6, 80, 8080)]), Some(vec![])));
        }
        let frames = packets.into_iter().map(|(packet, from, how, class, harms, mended)| {
            let packet = tunneled(&packet, if from == WIRE { how } else { 9 }, class);
            let mut frame = frame_from(from, &packet);
            harms.iter().for_each(|harm| hurt(&mut frame, harm));
            if mended {
                mend(&mut frame);
            }
            (ingress(from), frame)
        });
        for out in &node.batch(frames.collect()).0 {
            leaves_whole(out)?;
        }
    }

    #[test]
    fn good_packets_leave_with_right_checksums_whatever_was_written(
        packets in prop::collection::vec((well_formed(), select(&FROM), 0u8..6, any::<u8>()), 1..64),
        edits in prop::collection::vec(0..5, 0..4),
    ) {
        let mut node = busy_node();
        let edits = edits.into_iter().chain(std::iter::repeat(9));
        for (chunk, edit) in packets.chunks(16).zip(edits) {
            let frames = chunk.iter().map(|(packet, from, how, class)| {
                let packet = tunneled(packet, if *from == WIRE { *how } else { 9 }, *class);
                (ingress(*from), frame_from(*from, &packet))
            });
            for out in node.batch(frames.collect()).0 {
                leaves_whole(&out)?;
                if matches!(out.fate, Fate::Forward(_)) {
                    sums_are_right(&out.frame[14..]);
                }
            }
            edit_something(&mut node, edit);
        }
    }

    #[test]
    fn an_answer_is_translated_exactly_back(
        request in well_formed(),
        from in select(&FROM),
    ) {
        let mut node = busy_node();
        let request = request.ttl(64);
        // A pod's answer to that port would be a tunnel of its own.
        prop_assume!(answerable(from, request.src) && request.ends().0 != 4789);
        let out = node.send(from, &request);
        let Fate::Forward(to) = out.fate else { return Ok(()) };
        let Some(seen) = reread(&out.frame, &request) else { return Ok(()) };
        let lowered = if from == HOST || to == HOST { 64 } else { 63 };
        prop_assert_eq!(&seen.clone().bytes()[..], &out.frame[out.frame.len() - seen.bytes().len()..]);
        let answer = seen.answer();
        // A tunnel's answer comes by the tunnel; it is opened the same way as a bare one.
        let out = node.send(to, &answer);
        let expected = request.answer().ttl(lowered);
        prop_assert!(matches!(out.fate, Fate::Forward(_)), "{:?}", out);
        prop_assert!(out.frame.ends_with(&expected.bytes()), "{:?}\n{:02x?}", expected, out.frame);
        prop_assert_eq!(node.connections(), 1);
    }
}

/// Whether what is sent to an address leaves by the port it came from.
fn answerable(from: PortId, addr: std::net::IpAddr) -> bool {
    let own = [ip("192.0.2.1"), ip("2001:db8:1::1")].contains(&addr);
    let here = local_nets().iter().any(|net| net.contains(&addr));
    let serviced =
        ["10.96.", "198.18.", "fd96:"].iter().any(|net| addr.to_string().starts_with(net));
    match from {
        HOST => own,
        WIRE => !own && !here && !serviced,
        _ => true,
    }
}

fn edit_something(node: &mut Node, which: i32) {
    match which {
        0 => node.change(|state| isolate(state, "a", Some(vec![allow_icmp(8)]), None)),
        1 => node.change(|state| services(state, TrafficPolicy::Local)),
        2 => node.change(|state| drop(state.endpoints.remove("default/n/eth0"))),
        3 => node.now = node.now.wrapping_add(90_000),
        _ => drop(node.engine.forget(ip("10.65.0.3").into())),
    }
    let timeouts = node.snapshot.settings.timeouts;
    for _ in 0..8 {
        node.engine.housekeep(&timeouts, node.now, Share { index: 0, of: 1 });
    }
}

/// The request as it left: with other ends.
pub(crate) fn reread(frame: &[u8], request: &Ip) -> Option<Ip> {
    let whole = request.bytes().len();
    let ip = &frame[frame.len().checked_sub(whole)?..];
    let mut seen = request.clone();
    let transport = whole
        - match &request.body {
            Body::Tcp { payload, .. } => payload.len() + 20,
            Body::Udp { payload, .. } | Body::Icmp { payload, .. } => payload.len() + 8,
            Body::Sctp { payload, .. } => payload.len() + 12,
            Body::Raw(_, payload) => payload.len(),
        };
    let word = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    match request.src.is_ipv4() {
        true => {
            seen.src = <[u8; 4]>::try_from(&ip[12..16]).unwrap().into();
            seen.dst = <[u8; 4]>::try_from(&ip[16..20]).unwrap().into();
            seen.ttl = ip[8];
        }
        false => {
            seen.src = <[u8; 16]>::try_from(&ip[8..24]).unwrap().into();
            seen.dst = <[u8; 16]>::try_from(&ip[24..40]).unwrap().into();
            seen.ttl = ip[7];
        }
    }
    match &mut seen.body {
        Body::Tcp { ports, flags, .. } if *flags & RST == 0 => {
            *ports = (word(transport), word(transport + 2))
        }
        Body::Udp { ports, .. } | Body::Sctp { ports, .. } => {
            *ports = (word(transport), word(transport + 2))
        }
        Body::Icmp { kind, rest, .. } if *kind == if request.src.is_ipv4() { 8 } else { 128 } => {
            rest[..2].copy_from_slice(&word(transport + 4).to_be_bytes())
        }
        _ => return None,
    }
    Some(seen)
}

#[test]
fn batches_of_every_length_are_served_in_order() {
    let mut node = Node::default();
    for len in 0..=margay_engine::BATCH as u16 {
        let frames: Vec<(Ingress, Vec<u8>)> = (0..len)
            .map(|n| (ingress(A), frame_from(A, &udp(&at("10.65.0.2", n), "10.65.0.3:2"))))
            .collect();
        let (outs, _) = node.batch(frames);
        for (n, out) in (0..len).zip(outs) {
            let expected = udp(&at("10.65.0.2", n), "10.65.0.3:2").ttl(63);
            assert_eq!(out.by(B), to_pod(B, &expected));
        }
    }
    assert_eq!(node.connections(), 64);
}
