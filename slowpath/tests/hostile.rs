//! Whatever comes in: nothing panics, the account balances, memory stays bounded; and what is cut
//! can be put together again.

mod support;

use std::net::IpAddr;

use margay_model::flow::FlowTuple;
use margay_model::node::Encap;
use margay_slowpath::packet::IpView;
use margay_slowpath::{Action, Ingress, Injection, Past, Punt, Request, Unreachable};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use support::{POD, ended, injected, no_flows, punt, slow_path, vectors};

/// A change of a packet that keeps most of its structure.
#[derive(Clone, Debug)]
enum Mutation {
    /// One byte anywhere becomes another.
    Byte(Index, u8),
    /// One byte of the headers becomes another.
    Header(Index, u8),
    /// The end is missing.
    Truncate(Index),
    /// Bytes are in the middle that do not belong there.
    Insert(Index, Vec<u8>),
    /// A length field at this even offset says something else.
    Length(Index, u16),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Header(at, byte)),
        1 => any::<Index>().prop_map(Mutation::Truncate),
        1 => (any::<Index>(), vec(any::<u8>(), 1..24)).prop_map(|(at, b)| Mutation::Insert(at, b)),
        1 => (any::<Index>(), any::<u16>()).prop_map(|(at, value)| Mutation::Length(at, value)),
    ]
}

fn mutate(frame: &mut Vec<u8>, mutation: Mutation) {
    if frame.is_empty() {
        return;
    }
    let len = frame.len();
    match mutation {
        Mutation::Byte(at, byte) => frame[at.index(len)] = byte,
        Mutation::Header(at, byte) => frame[at.index(len.min(90))] = byte,
        Mutation::Truncate(at) => frame.truncate(at.index(len)),
        Mutation::Insert(at, bytes) => {
            let at = at.index(len);
            frame.splice(at..at, bytes);
        }
        Mutation::Length(at, value) => {
            let at = at.index(len.min(90)) & !1;
            if let Some(field) = frame.get_mut(at..at + 2) {
                field.copy_from_slice(&value.to_be_bytes());
            }
        }
    }
}

/// A frame: noise, or a vector with some changes.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<_> = vectors().collect();
    let changed = (proptest::sample::select(all), vec(mutation(), 0..4)).prop_map(
        |(mut frame, mutations)| {
            mutations.into_iter().for_each(|m| mutate(&mut frame, m));
            frame
        },
    );
    prop_oneof![1 => vec(any::<u8>(), 0..200), 9 => changed]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        Just(IpAddr::from([192, 0, 2, 254])),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let unreachable = proptest::sample::select(vec![
        Unreachable::Net,
        Unreachable::Host,
        Unreachable::Port,
        Unreachable::Prohibited,
    ]);
    let mtu = prop_oneof![0u16..100, 500u16..1600, any::<u16>()];
    prop_oneof![
        1 => Just(Request::Arp),
        1 => Just(Request::Ndisc),
        1 => Just(Request::TtlExpired),
        1 => any::<u16>().prop_map(|mtu| Request::TooBig { mtu }),
        4 => mtu.prop_map(|mtu| Request::Fragment { egress: 3, mtu }),
        4 => Just(Request::Reassemble),
        1 => unreachable.prop_map(Request::Unreachable),
        1 => Just(Request::Reject),
        1 => Just(Request::ConnectionLimit),
        2 => address().prop_map(|hop| Request::Neighbour { egress: 3, hop }),
        3 => any::<bool>().prop_map(|tunnel| Request::IcmpError { tunnel }),
        1 => (address(), address()).prop_map(|(src, dst)| {
            Request::HostFlow(FlowTuple { src, dst, protocol: 6, src_port: 1, dst_port: 2 })
        }),
        1 => Just(Request::Dhcp),
    ]
}

fn ingress() -> impl Strategy<Value = Ingress> {
    prop_oneof![
        (0u32..4).prop_map(Ingress::Port),
        (0u32..4).prop_map(|port| Ingress::Tunnel(port, Encap::Vxlan)),
        Just(Ingress::Own),
    ]
}

fn any_punt() -> impl Strategy<Value = Punt> {
    let ip_start = prop_oneof![8 => Just(14usize), 1 => Just(34), 1 => Just(64), 1 => 0usize..2000];
    (ingress(), frame(), ip_start, request()).prop_map(|(ingress, frame, ip_start, request)| Punt {
        ingress,
        past: Past::default(),
        frame,
        ip_start,
        request,
    })
}

/// Answers every tuple with something, of either family.
fn some_flow(tuple: &FlowTuple) -> Option<FlowTuple> {
    match tuple.src_port % 4 {
        0 => None,
        1 => Some(FlowTuple { src: IpAddr::from([10, 96, 0, 1]), src_port: 80, ..*tuple }),
        2 => Some(FlowTuple { dst: IpAddr::from([1u8; 16]), dst_port: 9, ..*tuple }),
        _ => Some(*tuple),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_punt_ends_exactly_once_whatever_it_holds(
        punts in vec((any_punt(), 0u64..2000), 1..60),
    ) {
        let mut slow = slow_path();
        let (mut now, mut ends, count) = (0, 0, punts.len());
        for (punt, pause) in punts {
            now += pause;
            ends += ended(&slow.handle(now, punt, &some_flow));
            ends += ended(&slow.tick(now));
        }
        prop_assert_eq!(ends + slow.waiting(), count, "nothing ends twice, nothing is lost");
        ends += ended(&slow.resolved(3, IpAddr::from([192, 0, 2, 254])));
        ends += ended(&slow.port_gone(1));
        ends += ended(&slow.tick(now + 60_000));
        prop_assert_eq!(slow.waiting(), 0);
        prop_assert_eq!(ends, count);
    }

    #[test]
    fn an_answer_is_a_packet_that_reads_as_one(punt in any_punt()) {
        for injection in injected(&slow_path().handle(0, punt.clone(), &some_flow)) {
            if let Injection::Own { packet } = injection
                && !matches!(punt.request, Request::HostFlow(_))
            {
                let view = IpView::parse(&packet);
                prop_assert!(view.is_some_and(|v| v.whole.len() == packet.len()));
            }
        }
    }

    #[test]
    fn what_is_cut_fits_and_becomes_itself_again_in_any_order(
        len in 0usize..9000,
        mtu in 68u16..2000,
        // A list of IPv4 options, some to be copied into each piece, some not.
        options in proptest::sample::select(vec![
            vec![], vec![1, 1, 1, 0], vec![148, 4, 0, 0], vec![7, 7, 4, 0, 0, 0, 0, 0],
            vec![148, 4, 0, 0, 68, 8, 5, 0, 0, 0, 0, 0],
        ]),
        order in any::<proptest::sample::Index>(),
    ) {
        let whole = datagram(len, &options);
        let cut = punt(POD, whole.clone(), Request::Fragment { egress: 3, mtu });
        let pieces = injected(&slow_path().handle(0, cut, &no_flows));
        prop_assert!(!pieces.is_empty());
        let mut frames: Vec<_> = pieces.into_iter().map(sent).collect();
        prop_assert!(frames.iter().all(|f| f.len() <= 14 + usize::from(mtu)));
        if frames.len() == 1 {
            prop_assert_eq!(&frames[0], &whole);
            return Ok(());
        }
        prop_assume!(frames.len() <= 128);
        let turn = order.index(frames.len());
        frames.rotate_left(turn);
        prop_assert_eq!(put_together(frames), vec![whole]);
    }

    #[test]
    fn a_fragment_can_be_cut_again(len in 1500usize..5000, first in 500u16..1400, second in 100u16..480) {
        let whole = datagram(len, &[]);
        let mut pieces = Vec::new();
        let cut = punt(POD, whole.clone(), Request::Fragment { egress: 3, mtu: first });
        for piece in injected(&slow_path().handle(0, cut, &no_flows)).into_iter().map(sent) {
            let again = punt(POD, piece, Request::Fragment { egress: 3, mtu: second });
            pieces.extend(injected(&slow_path().handle(0, again, &no_flows)).into_iter().map(sent));
        }
        prop_assume!(pieces.len() <= 128);
        prop_assert_eq!(put_together(pieces), vec![whole]);
    }

    #[test]
    fn translating_there_and_back_is_identity(frame in related_frame(), port in 1u16.., last in 1u8..) {
        let to = FlowTuple {
            src: IpAddr::from([10, 96, 0, last]),
            dst: IpAddr::from([10, 1, 0, 77]),
            protocol: 0,
            src_port: port,
            dst_port: 4242,
        };
        let seen = std::cell::Cell::new(None);
        let there = |arriving: &FlowTuple| {
            seen.set(Some(*arriving));
            Some(FlowTuple { protocol: arriving.protocol, ..icmp_port(arriving, to) })
        };
        let first = injected(&slow_path().handle(0, punt(POD, frame.clone(), Request::IcmpError { tunnel: false }), &there));
        let Some(Injection::Own { packet }) = first.first() else { return Ok(()) };
        let back = |arriving: &FlowTuple| seen.get().filter(|_| arriving.src == to.src);
        let second = [&frame[..14], packet].concat();
        let second = injected(&slow_path().handle(0, punt(POD, second, Request::IcmpError { tunnel: false }), &back));
        let Some(Injection::Own { packet }) = second.first() else {
            return Err(TestCaseError::fail("not translated back"));
        };
        let mut expected = frame[14..].to_vec();
        // Two hops further; the header checksum follows. The quotation is what must be the same.
        expected.truncate(packet.len());
        prop_assert_eq!(&packet[20..], &expected[20..]);
    }
}

/// An identifier stands in the source port; there is no other.
fn icmp_port(arriving: &FlowTuple, mut to: FlowTuple) -> FlowTuple {
    if arriving.protocol == 1 {
        to.dst_port = 0;
    }
    to
}

/// The vectors that are IPv4 errors about a connection.
fn related_frame() -> impl Strategy<Value = Vec<u8>> {
    let names = ["router_says", "router_says_short", "backend_says", "ping_says"];
    proptest::sample::select(names.map(support::vector).to_vec())
}

fn sent(injection: Injection) -> Vec<u8> {
    match injection {
        Injection::Send { frame, .. } => frame,
        other => panic!("{other:?}"),
    }
}

fn put_together(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut slow = slow_path();
    let actions = frames
        .into_iter()
        .flat_map(|frame| slow.handle(0, punt(POD, frame, Request::Reassemble), &no_flows));
    let whole = actions.filter_map(|action| match action {
        Action::Inject(_, Injection::Again { frame, .. }) => Some(frame),
        _ => None,
    });
    whole.collect()
}

/// A frame with an IPv4 datagram of `len` bytes behind its header.
fn datagram(len: usize, options: &[u8]) -> Vec<u8> {
    let mut builder = etherparse::Ipv4Header::new(
        u16::try_from(len).unwrap(),
        9,
        etherparse::IpNumber(253),
        [10, 1, 0, 5],
        [198, 51, 100, 9],
    )
    .unwrap();
    builder.identification = 0x1234;
    builder.dont_fragment = false;
    builder.options = options.try_into().unwrap();
    builder.set_payload_len(len).unwrap();
    builder.header_checksum = builder.calc_header_checksum();
    let mut frame = support::vector("udp")[..14].to_vec();
    builder.write(&mut frame).unwrap();
    frame.extend((0..len).map(|i| (i * 7 % 251) as u8));
    frame
}
