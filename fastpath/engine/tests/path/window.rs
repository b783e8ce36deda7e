//! Segments that no end has sent: dropped where they are translated, and a reset always.

use margay_engine::{PortId, shortcut, view};
use margay_model::DropReason;
use margay_tables::addr::Tuple;

use crate::services::source_of;
use crate::support::*;

/// The first sequence numbers of the opener and of the other end.
const OWN: u32 = 5_000_000;
const OTHER: u32 = 3_000_000_000;

/// A connection of pod a in which a has sent up to `own`, and the other end up to `other`.
struct Connection {
    node: Node,
    there: Ip,
    back: Ip,
    far: PortId,
}

// === impl Connection ===

impl Connection {
    /// To pod b as it is.
    fn plain(v4: bool) -> Self {
        let [a, b] = pods(v4);
        let there = tcp(&at(a, 40_000), &at(b, 8080), ACK).body_of(vec![]);
        let back = there.clone().answer();
        Self { node: Node::default(), there, back, far: B }.open()
    }

    /// To pod b as a service's backend.
    fn translated() -> Self {
        let mut node = Node::default();
        node.change(|state| serve(state, service("web", 6, "10.96.0.10:80", &["10.65.0.3:8080"])));
        let there = tcp("10.65.0.2:40000", "10.96.0.10:80", ACK).body_of(vec![]);
        let back = there.clone().to("10.65.0.3:8080").answer();
        Self { node, there, back, far: B }.open()
    }

    fn open(mut self) -> Self {
        self.send(SYN, OWN - 1, 0).by(self.far);
        self.answer(SYN | ACK, OTHER - 1, OWN).by(A);
        self.send(ACK, OWN, OTHER).by(self.far);
        self.answer(ACK, OTHER, OWN).by(A);
        self
    }

    fn send(&mut self, flags: u8, seq: u32, ack: u32) -> Out {
        let packet = with_flags(&self.there, flags).numbered(seq, ack);
        self.node.send(A, &packet)
    }

    fn answer(&mut self, flags: u8, seq: u32, ack: u32) -> Out {
        let packet = with_flags(&self.back, flags).numbered(seq, ack);
        self.node.send(self.far, &packet)
    }

    fn tuple(&self) -> Tuple {
        let Ip { src, dst, .. } = self.there;
        let (src_port, dst_port) = self.there.ends();
        Tuple { src: src.into(), dst: dst.into(), src_port, dst_port, protocol: 6, zone: 0 }
    }

    fn state(&self) -> &'static str {
        let (table, tuple) = (self.node.table, self.tuple());
        let flow = table.lookup(&tuple, table.hash(&tuple)).unwrap();
        view(&self.node.snapshot, flow, self.node.now).state
    }
}

fn with_flags(packet: &Ip, flags: u8) -> Ip {
    let mut packet = packet.clone();
    if let Body::Tcp { flags: own, .. } = &mut packet.body {
        *own = flags;
    }
    packet
}

#[test]
fn a_reset_from_outside_the_window_is_dropped_and_the_connection_goes_on() {
    for mut connection in
        [Connection::plain(true), Connection::plain(false), Connection::translated()]
    {
        for off in [1 << 20, 1 << 31, u32::MAX - (1 << 20)] {
            connection.send(RST, OWN.wrapping_add(off), 0).dropped(DropReason::TcpReset);
            connection.answer(RST, OTHER.wrapping_add(off), 0).dropped(DropReason::TcpReset);
            connection
                .answer(RST | ACK, OTHER, OWN.wrapping_add(off))
                .dropped(DropReason::TcpReset);
        }
        connection.send(ACK, OWN, OTHER).by(B);
        connection.answer(ACK, OTHER, OWN).by(A);
        assert_eq!(connection.state(), "ESTABLISHED");
        connection.node.conserved();
    }
}

#[test]
fn a_reset_of_the_next_byte_ends_the_connection_and_one_within_the_window_is_the_receivers_to_judge()
 {
    for mut connection in [Connection::plain(true), Connection::translated()] {
        connection.answer(RST, OTHER + 100, 0).by(A);
        assert_eq!(connection.state(), "ESTABLISHED");
        connection.answer(RST, OTHER, 0).by(A);
        assert_eq!(connection.state(), "RESET");
    }
}

#[test]
fn data_from_outside_the_window_is_dropped_where_it_is_translated_and_teaches_nothing() {
    let mut connection = Connection::translated();
    connection.send(ACK, OWN + (1 << 21), OTHER).dropped(DropReason::TcpWindow);
    connection.answer(ACK, OTHER - (1 << 21), OWN).dropped(DropReason::TcpWindow);
    connection.answer(ACK, OTHER + 1, OWN + (1 << 21)).dropped(DropReason::TcpWindow);
    // Within: a retransmission, a keep-alive, a segment that overtook another.
    for seq in [OWN - 100, OWN - 1, OWN + 500] {
        connection.send(ACK, seq, OTHER).by(B);
    }
    let mut plain = Connection::plain(true);
    plain.send(ACK, OWN + (1 << 21), OTHER).by(B);
    plain.send(RST, OWN + (1 << 21), 0).dropped(DropReason::TcpReset);
    connection.node.conserved();
}

#[test]
fn a_syn_in_a_connection_reaches_the_other_end_and_changes_nothing_by_itself() {
    for mut connection in [Connection::plain(true), Connection::translated()] {
        connection.send(SYN, 77, 0).by(B);
        assert_eq!(connection.state(), "ESTABLISHED");
        // An end that has the connection still challenges, and the other one resets it.
        let mut alive = connection;
        alive.answer(ACK, OTHER, OWN).by(A);
        alive.send(RST, OWN, 0).by(B);
        assert_eq!(alive.state(), "RESET");
        alive.send(SYN, 77, 0).by(B);
        assert_eq!(alive.state(), "SYN_SENT");
        alive.answer(SYN | ACK, 900, 78).by(A);
        alive.send(ACK, 78, 901).by(B);
        assert_eq!(alive.state(), "ESTABLISHED");
        alive.node.conserved();
    }
}

#[test]
fn an_end_that_forgot_a_connection_may_refuse_or_accept_a_new_one_in_its_place() {
    for begins in [Connection::plain as fn(bool) -> Connection, |_| Connection::translated()] {
        let mut refused = begins(true);
        refused.send(SYN, 77, 0).by(B);
        refused.answer(RST | ACK, 0, 78).by(A);
        let mut accepted = begins(true);
        accepted.send(SYN, 77, 0).by(B);
        accepted.answer(SYN | ACK, 900, 78).by(A);
        assert_eq!(accepted.state(), "SYN_SENT");
        accepted.send(ACK, 78, 901).by(B);
        accepted.answer(ACK, 901, 78).by(A);
        assert_eq!(accepted.state(), "ESTABLISHED");
        // Nothing is known of its windows.
        accepted.send(ACK, 1 << 30, 901).by(B);
    }
}

#[test]
fn what_was_not_seen_from_its_beginning_or_goes_past_the_workers_is_not_held_against_a_window() {
    let mut amid = Connection::translated();
    amid.node.now = amid.node.now.wrapping_add(1);
    let tuple = amid.tuple();
    assert!(shortcut::take(amid.node.table, &tuple));
    amid.send(ACK, OWN + (1 << 30), OTHER).by(B);
    amid.answer(ACK, OTHER + (1 << 25), OWN + (1 << 30)).by(A);
    amid.send(RST, OWN + 1, 0).by(B);
    assert_eq!(amid.state(), "RESET");

    let mut node = Node::default();
    node.change(|state| serve(state, service("web", 6, "10.96.0.10:80", &["10.65.0.3:8080"])));
    let request = tcp("10.65.0.2:40000", "10.96.0.10:80", ACK);
    let seen = node.send(A, &request.clone().numbered(OWN, 1)).by(B);
    assert_eq!(source_of(&seen[14..], &request), "10.65.0.2:40000");
    node.send(A, &request.clone().numbered(OWN + (1 << 30), 1)).by(B);
    let answer = request.to("10.65.0.3:8080").answer();
    node.send(B, &answer.clone().numbered(7, 9)).by(A);
    node.send(B, &answer.numbered(7 + (1 << 29), 99)).by(A);
    node.conserved();
}

#[test]
fn a_connection_that_is_gone_cannot_be_taken() {
    let connection = Connection::plain(true);
    let nobodys = Tuple { src_port: 1, ..connection.tuple() };
    assert!(!shortcut::take(connection.node.table, &nobodys));
}
