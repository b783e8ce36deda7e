//! Conversations with name servers: what is believed, what is held back, and until when.

mod support;

use margay_model::flow::FlowTuple;
use margay_model::reason::{DnsReading, PuntReason};
use margay_slowpath::dns::Fact;
use margay_slowpath::{Action, Injection, Past, Punt, SlowPath};
use proptest::prelude::*;
use support::dns::{A, AAAA, Data, Record, answer, conversation, framed, message, query, tcp, udp};
use support::{ended, injected, no_flows, slow_path};

const UDP: u8 = 17;
const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;
const RST: u8 = 4;

fn take(slow: &mut SlowPath, now: u64, punt: Punt) -> Vec<Action> {
    slow.handle(now, punt, &no_flows)
}

/// What was learned, with the ticket.
fn learned(actions: &[Action]) -> Option<(u64, Vec<Fact>)> {
    actions.iter().find_map(|action| match action {
        Action::Learn { ticket, facts } => Some((*ticket, facts.clone())),
        _ => None,
    })
}

fn readings(actions: &[Action]) -> Vec<DnsReading> {
    let readings = actions.iter().filter_map(|action| match action {
        Action::Read(reading) => Some(*reading),
        _ => None,
    });
    readings.collect()
}

fn facts(rows: &[(&str, &str, u32)]) -> Vec<Fact> {
    let mut facts: Vec<_> = (rows.iter())
        .map(|(name, addr, ttl)| Fact {
            name: name.parse().unwrap(),
            addr: addr.parse().unwrap(),
            ttl: *ttl,
        })
        .collect();
    facts.sort();
    facts
}

fn asked(slow: &mut SlowPath, tuple: &FlowTuple, id: u16, name: &str, kind: u16) {
    let actions = take(slow, 0, udp(tuple, true, &query(id, name, kind)));
    assert_eq!(readings(&actions), [DnsReading::Question]);
    assert_eq!((injected(&actions).len(), ended(&actions)), (1, 1), "a question goes on at once");
}

/// What an answer to a question teaches.
fn taught(name: &str, kind: u16, records: &[Record]) -> Vec<Fact> {
    let (mut slow, tuple) = (slow_path(), conversation(UDP, 40_000));
    asked(&mut slow, &tuple, 7, name, kind);
    let actions = take(&mut slow, 0, udp(&tuple, false, &answer(7, name, kind, records)));
    let mut facts = learned(&actions).map(|(_, facts)| facts).unwrap_or_default();
    facts.sort();
    facts
}

#[test]
fn an_answer_waits_until_its_addresses_are_in_force() {
    let (mut slow, tuple) = (slow_path(), conversation(UDP, 40_000));
    asked(&mut slow, &tuple, 7, "www.example.com", A);
    let records = [("www.example.com", 300, Data::Addr("192.0.2.1"))];
    let reply = udp(&tuple, false, &answer(7, "www.example.com", A, &records));
    let actions = take(&mut slow, 1, reply.clone());
    let (ticket, taught) = learned(&actions).expect("addresses");
    assert_eq!(taught, facts(&[("www.example.com", "192.0.2.1", 300)]));
    assert_eq!((injected(&actions).len(), ended(&actions), slow.waiting()), (0, 0, 1));
    let actions = slow.learned(ticket);
    let again = Injection::Again {
        ingress: reply.ingress,
        frame: reply.frame,
        past: Past { reassembled: false, read: true },
    };
    let expected = [Action::Inject(PuntReason::Dns, again), Action::Consumed(PuntReason::Dns)];
    assert_eq!(actions, expected);
    assert_eq!((slow.learned(ticket), slow.waiting()), (vec![], 0));
}

#[test]
fn an_answer_is_held_back_no_longer_than_the_settings_say() {
    let (mut slow, tuple) = (slow_path(), conversation(UDP, 40_000));
    asked(&mut slow, &tuple, 7, "a.example", A);
    let records = [("a.example", 1, Data::Addr("192.0.2.1"))];
    let reply = answer(7, "a.example", A, &records);
    let (ticket, _) = learned(&take(&mut slow, 10, udp(&tuple, false, &reply))).unwrap();
    assert_eq!(slow.tick(3_009), []);
    let actions = slow.tick(3_010);
    assert_eq!(readings(&actions), [DnsReading::Late]);
    assert_eq!((injected(&actions).len(), ended(&actions)), (1, 1));
    assert_eq!(slow.learned(ticket), [], "it has gone on already");
    // More than may be held go on at once, and teach all the same.
    let many = (0..1_025).map(|_| take(&mut slow, 4_000, udp(&tuple, false, &reply)));
    let last = many.last().unwrap();
    assert_eq!(readings(&last), [DnsReading::Answer, DnsReading::Unheld]);
    assert!(learned(&last).is_some() && ended(&last) == 1);
}

#[test]
fn only_the_question_that_was_asked_is_answered() {
    let records = || [("a.example", 60, Data::Addr("192.0.2.1"))];
    let tuple = conversation(UDP, 40_000);
    let other = conversation(UDP, 40_001);
    let rows: [(FlowTuple, Vec<u8>, DnsReading); 7] = [
        (tuple, answer(7, "A.Example", A, &records()), DnsReading::Answer),
        (tuple, answer(8, "a.example", A, &records()), DnsReading::Unasked),
        (tuple, answer(7, "b.example", A, &records()), DnsReading::Unasked),
        (tuple, answer(7, "a.example", AAAA, &records()), DnsReading::Unasked),
        (other, answer(7, "a.example", A, &records()), DnsReading::Unasked),
        // Name error; cut short.
        (tuple, message(7, 0x8183, "a.example", A, &records()), DnsReading::Other),
        (tuple, message(7, 0x8380, "a.example", A, &records()), DnsReading::Other),
    ];
    for (at, message, expected) in rows {
        let mut slow = slow_path();
        asked(&mut slow, &tuple, 7, "a.example", A);
        let actions = take(&mut slow, 0, udp(&at, false, &message));
        assert_eq!(readings(&actions), [expected], "{message:02x?}");
        assert_eq!(learned(&actions).is_some(), expected == DnsReading::Answer);
        assert_eq!(ended(&actions) == 0, expected == DnsReading::Answer, "the rest goes on");
    }
    let mut slow = slow_path();
    asked(&mut slow, &tuple, 7, "a.example", A);
    slow.tick(30_001);
    let late = take(&mut slow, 30_001, udp(&tuple, false, &answer(7, "a.example", A, &records())));
    assert_eq!(readings(&late), [DnsReading::Unasked]);
    // Nobody asked in the other direction.
    let backwards = take(&mut slow, 0, udp(&tuple, true, &answer(7, "a.example", A, &records())));
    assert_eq!(readings(&backwards), [DnsReading::Other]);
}

#[test]
fn aliases_lead_from_the_name_asked_for_to_its_addresses_and_nothing_else_counts() {
    let chain: &[Record] = &[
        // In any order.
        ("cdn.example", 20, Data::Addr("192.0.2.2")),
        ("www.example", 300, Data::Alias("edge.Example")),
        ("cdn.example", 90, Data::Addr("192.0.2.1")),
        ("edge.example", 60, Data::Alias("cdn.example")),
        ("bank.example", 60, Data::Addr("198.51.100.1")),
    ];
    let expected = facts(&[
        ("cdn.example", "192.0.2.1", 90),
        ("edge.example", "192.0.2.1", 60),
        ("www.example", "192.0.2.1", 60),
        ("cdn.example", "192.0.2.2", 20),
        ("edge.example", "192.0.2.2", 20),
        ("www.example", "192.0.2.2", 20),
    ]);
    assert_eq!(taught("www.example", A, chain), expected);
    let v6: &[Record] = &[("a.example", 9, Data::Addr("2001:db8::1"))];
    assert_eq!(taught("a.example", AAAA, v6), facts(&[("a.example", "2001:db8::1", 9)]));
    let nothing: [&[Record]; 5] = [
        &[("a.example", 9, Data::Alias("b.example")), ("b.example", 9, Data::Alias("a.example"))],
        &[("a.example", 9, Data::Alias("a.example"))],
        &[("b.example", 9, Data::Addr("192.0.2.1"))],
        &[("a.example", 9, Data::Raw(A, vec![1, 2, 3]))],
        &[("a.example", 9, Data::Raw(16, b"\x04text".to_vec()))],
    ];
    for records in nothing {
        assert_eq!(taught("a.example", A, records), []);
    }
    let negative: &[Record] = &[("a.example", 1 << 31, Data::Addr("192.0.2.1"))];
    assert_eq!(taught("a.example", A, negative), facts(&[("a.example", "192.0.2.1", 0)]));
}

#[test]
fn messages_in_a_stream_are_read_however_they_are_cut() {
    let ask = framed(&query(7, "a.example", A));
    let records = [("a.example", 60, Data::Addr("192.0.2.1"))];
    let reply = framed(&answer(7, "a.example", A, &records));
    for cut in 1..reply.len() {
        // In order, and the second part first.
        for swapped in [false, true] {
            let (mut slow, tuple) = (slow_path(), conversation(TCP, 40_000));
            take(&mut slow, 0, tcp(&tuple, true, 99, SYN, &[]));
            take(&mut slow, 0, tcp(&tuple, false, u32::MAX - 3, SYN | ACK, &[]));
            take(&mut slow, 0, tcp(&tuple, true, 100, ACK, &ask));
            let first = u32::MAX - 2;
            let parts = [
                tcp(&tuple, false, first, ACK, &reply[..cut]),
                tcp(&tuple, false, first.wrapping_add(cut as u32), ACK, &reply[cut..]),
            ];
            let order = if swapped { [1, 0] } else { [0, 1] };
            let early = take(&mut slow, 0, parts[order[0]].clone());
            assert_eq!((learned(&early), ended(&early)), (None, 1), "{cut} {swapped}");
            // What came once more adds nothing.
            take(&mut slow, 0, parts[order[0]].clone());
            let whole = take(&mut slow, 0, parts[order[1]].clone());
            let taught = learned(&whole).map(|(_, facts)| facts);
            assert_eq!(taught, Some(facts(&[("a.example", "192.0.2.1", 60)])), "{cut} {swapped}");
            assert_eq!(slow.waiting(), 1);
        }
    }
}

#[test]
fn a_stream_whose_beginning_was_not_seen_is_not_believed() {
    let (mut slow, tuple) = (slow_path(), conversation(TCP, 40_000));
    let segment = |seq, flags, data: &[u8]| tcp(&tuple, true, seq, flags, data);
    let unread = take(&mut slow, 0, segment(5, ACK, &framed(&query(7, "a.example", A))));
    assert_eq!((readings(&unread), ended(&unread)), (vec![DnsReading::Malformed], 1));
    take(&mut slow, 0, segment(0, SYN, &[]));
    take(&mut slow, 0, segment(1, RST, &[]));
    let after = take(&mut slow, 0, segment(1, ACK, &framed(&query(7, "a.example", A))));
    assert_eq!(readings(&after), [DnsReading::Malformed]);
}

proptest! {
    /// Whatever a server or a pod sends, it goes on once, or waits and goes on then.
    #[test]
    fn no_message_is_lost_or_makes_it_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        begin in 0usize..3,
        from_client: bool,
        stream: bool,
    ) {
        let (mut slow, tuple) = (slow_path(), conversation(if stream { TCP } else { UDP }, 40_000));
        let records = [("a.example", 60, Data::Addr("192.0.2.1"))];
        match begin {
            0 => {}
            1 => bytes.splice(0..0, answer(7, "a.example", A, &records)).for_each(drop),
            // A good beginning, whose records are noise.
            _ => bytes.splice(0..0, answer(7, "a.example", A, &[])).for_each(drop),
        }
        if begin == 2 && let Some(count) = bytes.get_mut(7) {
            *count = 3;
        }
        let punts = if stream {
            vec![
                tcp(&tuple, true, 0, SYN, &[]),
                tcp(&tuple, false, 0, SYN | ACK, &[]),
                tcp(&tuple, true, 1, ACK, &framed(&query(7, "a.example", A))),
                tcp(&tuple, from_client, 1, ACK, &framed(&bytes)),
            ]
        } else {
            vec![udp(&tuple, true, &query(7, "a.example", A)), udp(&tuple, from_client, &bytes)]
        };
        let count = punts.len();
        let mut ends = 0;
        for punt in punts {
            let actions = take(&mut slow, 0, punt);
            ends += ended(&actions);
            prop_assert_eq!(injected(&actions).len(), ended(&actions));
        }
        ends += ended(&slow.tick(10_000));
        prop_assert_eq!((ends, slow.waiting()), (count, 0));
    }
}
