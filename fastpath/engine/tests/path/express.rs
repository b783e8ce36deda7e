//! What travels express is treated exactly as what does not: the slow path's frames, which never do,
//! are the yardstick.

use margay_engine::{Ingress, PortId};
use margay_model::Dscp;
use margay_tables::flow::FlowWorker;
use proptest::prelude::*;
use proptest::sample::select;

use super::properties::{Harm, busy_node, cases, harm, hurt, mend, reread};
use crate::support::*;

/// Connections that packets are of: who begins them, and with what.
fn connections() -> Vec<(PortId, Ip)> {
    let (a, a6) = (|port| at("10.65.0.2", port), |port| at("fd00:65::2", port));
    vec![
        (A, tcp(&a(1000), "10.65.0.3:80", SYN)),
        (A, udp(&a(1001), "10.65.0.3:53")),
        (A, tcp(&a(1002), "10.96.0.10:80", SYN)),
        (A, udp(&a(1003), "10.96.0.10:80")),
        (A, tcp(&a(1004), "10.65.2.5:80", SYN)),
        (A, udp(&a(1005), "10.65.3.5:80")),
        (A, tcp(&a(1006), "192.0.2.100:443", SYN)),
        (A, tcp(&a(1007), "10.65.0.4:80", SYN)),
        (N, udp("10.65.0.4:1008", "10.96.0.10:80")),
        (HOST, tcp("192.0.2.1:1009", "10.65.0.3:80", SYN)),
        (WIRE, tcp("192.0.2.2:1010", "192.0.2.1:30080", SYN)),
        (WIRE, udp("10.65.1.5:1011", "10.65.0.3:53")),
        (WIRE, tcp("10.65.2.5:1014", "10.65.0.3:80", SYN)),
        (WIRE, udp("10.65.3.5:1015", "10.65.0.3:53")),
        (WIRE, tcp("10.65.3.6:1016", "10.96.0.10:80", SYN)),
        (A, tcp(&a6(1012), "[fd00:65::3]:80", SYN)),
        (A, udp(&a6(1017), "[fd00:65::3]:53")),
        (A, tcp(&a6(1018), "[fd96::10]:80", SYN)),
        (N, udp("[fd00:65::4]:1019", "[fd96::10]:80")),
        (A, tcp(&a6(1020), "[fd00:65:0:3::5]:80", SYN)),
        (A, udp(&a6(1021), "[2001:db8:1::100]:443")),
        (HOST, tcp("[2001:db8:1::1]:1022", "[fd00:65::3]:80", SYN)),
        (WIRE, udp("[fd00:65:0:1::5]:1023", "[fd00:65::3]:53")),
        (WIRE, tcp("[fd00:65:0:3::5]:1024", "[fd00:65::3]:80", SYN)),
        (WIRE, udp("[fd00:65:0:3::6]:1025", "[fd96::10]:80")),
    ]
}

/// One packet of a connection.
#[derive(Clone, Debug)]
struct Step {
    connection: usize,
    answer: bool,
    flags: u8,
    /// How far its sequence number lies from the next one.
    off: i32,
    ttl: u8,
    /// The traffic class of its tunnel's packet.
    class: u8,
    len: usize,
    harms: Vec<Harm>,
    /// Whether the IP header's checksum is right again after the harm.
    mended: bool,
}

prop_compose! {
    fn step()(
        connection in 0..connections().len(),
        answer: bool,
        // PSH and URG among them, and all at once.
        flags in select(&[ACK, ACK, ACK, ACK, ACK | 8, ACK | 32, SYN | ACK, FIN | ACK, RST, 0, 0x3f]),
        off in select(&[0, 0, 0, 0, -1, -20, 1, 100_000]),
        ttl in select(&[64, 64, 64, 2, 1, 0]),
        class in select(&[0, 0, 0, 1, 2, 3]),
        len in select(&[0, 1, 20, 20, 20, 1400, 1460, 1473]),
        harms in prop::collection::vec(harm(), 0..2),
        (harmed, mended) in (0..4, any::<bool>()),
    ) -> Step {
        let harms = if harmed == 0 { harms } else { vec![] };
        Step { connection, answer, flags, off, ttl, class, len, harms, mended }
    }
}

/// A connection on its way: the port and the packet of who began and of who answers, and the sequence
/// numbers that they go on with.
struct Talk {
    ends: [(PortId, Ip); 2],
    next: [u32; 2],
}

// === impl Talk ===

impl Talk {
    /// Begins a connection on both nodes, which agree about it.
    fn begin(nodes: &mut [Node; 2], (from, first): (PortId, Ip)) -> Option<Self> {
        let first = first.numbered(100, 0);
        let frame = frame_from(from, &enclosed(from, &first, 0));
        let out = both(nodes, vec![(ingress(from), frame)]).remove(0);
        let to = out.fate.egress()?;
        let answer = reread(&out.frame, &first)?.answer().numbered(500, 101);
        both(nodes, vec![(ingress(to), frame_from(to, &enclosed(to, &answer, 0)))]);
        Some(Self { ends: [(from, first), (to, answer)], next: [101, 501] })
    }

    fn frame(&mut self, step: &Step) -> (Ingress, Vec<u8>) {
        let from = usize::from(step.answer);
        let (port, packet) = self.ends[from].clone();
        let seq = self.next[from].wrapping_add_signed(step.off);
        if step.off == 0 {
            self.next[from] = seq.wrapping_add(step.len as u32);
        }
        let packet = packet.numbered(seq, self.next[1 - from]).ttl(step.ttl).sized(step.len);
        let tcp = matches!(packet.body, Body::Tcp { .. });
        let mut frame = frame_from(port, &enclosed(port, &packet, step.class));
        if tcp {
            // The last header of it, whatever stands before.
            let at = frame.len() - step.len - 20 + 13;
            frame[at] = step.flags;
        }
        step.harms.iter().for_each(|harm| hurt(&mut frame, harm));
        if step.mended {
            mend(&mut frame);
        }
        (ingress(port), frame)
    }
}

/// The packet in the tunnel that it comes by, if it comes by one.
fn enclosed(from: PortId, packet: &Ip, class: u8) -> Ip {
    let far = |net: &str| from == WIRE && packet.src.to_string().starts_with(net);
    let how = if far("10.65.2.") {
        0
    } else if far("10.65.3.") {
        1
    } else if far("fd00:65:0:3:") {
        2
    } else {
        9
    };
    tunneled(packet, how, class)
}

/// Has frames go through the first node as a worker's batch and through the second one by one, as the
/// slow path's: they end the same.
fn both(nodes: &mut [Node; 2], frames: Vec<(Ingress, Vec<u8>)>) -> Vec<Out> {
    let [express, slow] = nodes;
    let (outs, _) = express.batch(frames.clone());
    for (out, (ingress, frame)) in outs.iter().zip(frames) {
        let other = slow.again(ingress, frame.clone(), false);
        assert_eq!(out.fate, other.fate, "{frame:02x?}");
        assert_eq!(out.frame, other.frame, "{frame:02x?}");
    }
    outs
}

/// All that is known of a node's connections.
fn known(node: &Node) -> Vec<String> {
    let worker = FlowWorker::new(node.table.clone()).unwrap();
    let mut known = Vec::new();
    worker.list(Default::default(), 64, |flow| {
        let words = (flow.conntrack(), flow.peer().conntrack(), flow.last_seen());
        let view = margay_engine::view(&node.snapshot, *flow, node.now);
        known.push(format!("{view:?} {words:x?}"));
    });
    known.sort();
    known
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn packets_end_the_same_whether_they_travel_express_or_not(
        batches in prop::collection::vec((prop::collection::vec(step(), 1..24), 0u8..8), 1..8),
    ) {
        let mut nodes = [busy_node(), busy_node()];
        let mut talks: Vec<_> =
            connections().into_iter().filter_map(|first| Talk::begin(&mut nodes, first)).collect();
        prop_assert!(talks.len() > 22, "{}", talks.len());
        for (steps, edit) in batches {
            let at = |step: &Step| step.connection % talks.len();
            let frames = steps.iter().map(|step| (at(step), step)).collect::<Vec<_>>();
            let frames = frames.into_iter().map(|(talk, step)| talks[talk].frame(step)).collect();
            both(&mut nodes, frames);
            prop_assert_eq!(known(&nodes[0]), known(&nodes[1]));
            nodes.iter_mut().for_each(|node| change(node, edit));
        }
    }
}

/// What may happen between two batches; mostly nothing.
fn change(node: &mut Node, edit: u8) {
    match edit {
        0 => node.change(|state| isolate(state, "b", Some(vec![allow_ports(6, 80, 8080)]), None)),
        1 => node.change(|state| isolate(state, "b", None, None)),
        2 => node.change(|state| {
            let a = state.endpoints.get_mut("default/a/eth0").unwrap();
            std::sync::Arc::make_mut(a).limits.dscp = Dscp::new(46);
        }),
        _ => node.now = node.now.wrapping_add(10),
    }
}
