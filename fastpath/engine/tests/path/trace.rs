//! One packet's way, watched: what is told is what is done.

use margay_engine::trace::{Lookup, Traced};
use margay_engine::{Batch, Fate, Frame};
use margay_model::DropReason;
use margay_model::flow::FlowTuple;

use crate::support::*;

/// Sends a packet in while somebody watches.
fn watched(node: &mut Node, from: margay_engine::PortId, packet: &Ip) -> (Traced, Vec<u8>) {
    let bytes = frame_from(from, packet);
    let mut chunk = [&[0; 256][..], &bytes].concat();
    let (start, len, ingress) = (256, bytes.len(), ingress(from));
    let frame = Frame::new(&mut chunk, start, len, ingress);
    let seen = node.engine.look(&node.snapshot, &frame, &mut Vec::new());
    let mut batch = Batch::default();
    batch.frames.push(frame);
    let traced = node.engine.watch(&node.snapshot, node.now, seen, &mut batch);
    assert_eq!(batch.fates[0], traced.fate);
    (traced, batch.frames[0].bytes().to_vec())
}

fn tuple(src: &str, dst: &str) -> FlowTuple {
    let [src, dst]: [std::net::SocketAddr; 2] = [src, dst].map(|end| end.parse().unwrap());
    FlowTuple {
        src: src.ip(),
        dst: dst.ip(),
        protocol: 6,
        src_port: src.port(),
        dst_port: dst.port(),
    }
}

#[test]
fn a_watched_packet_goes_where_an_unwatched_one_goes() {
    let web = || service("s", 6, "10.96.0.10:80", &["10.65.0.3:8080"]);
    let request = tcp("10.65.0.2:4000", "10.96.0.10:80", SYN);
    let mut unwatched = Node::default();
    unwatched.change(|state| serve(state, web()));
    let expected = unwatched.send(A, &request).by(B);

    let mut node = Node::default();
    node.change(|state| serve(state, web()));
    let (traced, frame) = watched(&mut node, A, &request);
    assert_eq!((traced.fate, frame), (Fate::Forward(B), expected));
    assert_eq!((traced.seen.port, traced.lookup), (Some(A), Lookup::Miss));
    assert_eq!(traced.seen.tuple(), Some(tuple("10.65.0.2:4000", "10.96.0.10:80")));
    assert_eq!(traced.leaving, Some(tuple("10.65.0.2:4000", "10.65.0.3:8080")));
    assert!(traced.flow.is_some_and(|flow| flow.allowed && flow.state == "SYN_SENT"));
    assert!(traced.hop.is_some());

    assert_eq!(watched(&mut node, A, &request).0.lookup, Lookup::Hit);
    node.change(|state| serve(state, service("other", 6, "10.96.0.11:80", &[])));
    assert_eq!(watched(&mut node, A, &request).0.lookup, Lookup::Stale);
}

#[test]
fn a_watched_packet_that_ends_tells_where() {
    let mut node = Node::default();
    let lie = tcp("10.65.0.9:4000", "10.65.0.3:80", SYN);
    let (traced, _) = watched(&mut node, A, &lie);
    assert_eq!((traced.fate, traced.lookup), (Fate::Drop(DropReason::Spoof), Lookup::None));
    assert!(traced.seen.packet.is_none() && traced.flow.is_none());
}
