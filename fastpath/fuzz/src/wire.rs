//! Headers: every view that a frame's bytes can be read by.

use margay_wire::ethernet::{self, Ethernet};
use margay_wire::ipv4::{self, Ipv4};
use margay_wire::ipv6::{self, Ipv6};
use margay_wire::transport::{self, TCP_LEN, TcpFacts};
use margay_wire::{at, protocol};

/// Reads a frame as parse does, and compares what both readers understand with etherparse.
pub fn run(frame: &[u8]) {
    let Some(header) = at(frame, 0) else { return };
    let ethertype = Ethernet(header).ethertype();
    let ip = &frame[ethernet::LEN.min(frame.len())..];
    match ethertype {
        ethernet::ethertype::IPV4 => four(ip),
        ethernet::ethertype::IPV6 => six(ip),
        _ => {}
    }
}

fn four(ip: &[u8]) {
    let Some(view) = at(ip, 0).map(Ipv4) else { return };
    let theirs = etherparse::Ipv4HeaderSlice::from_slice(ip);
    let Ok(theirs) = theirs else { return };
    assert_eq!(view.header_len(), theirs.slice().len(), "header length of {ip:02x?}");
    assert_eq!(view.total_len(), theirs.total_len(), "total length of {ip:02x?}");
    assert_eq!(view.src(), theirs.source(), "source of {ip:02x?}");
    assert_eq!(view.dst(), theirs.destination(), "destination of {ip:02x?}");
    assert_eq!(view.protocol(), theirs.protocol().0, "protocol of {ip:02x?}");
    assert_eq!(view.ttl(), theirs.ttl(), "TTL of {ip:02x?}");
    assert_eq!(view.is_fragment(), theirs.is_fragmenting_payload(), "fragment of {ip:02x?}");
    assert_eq!(
        view.fragment_offset(),
        theirs.fragments_offset().value() * 8,
        "fragment offset of {ip:02x?}"
    );
    let header = theirs.to_header();
    // etherparse's sum forgets the reserved flag.
    if ip[6] & 0x80 == 0 {
        let right = header.header_checksum == header.calc_header_checksum();
        // 0xffff is a zero too, in one's complement.
        let zero = matches!(header.header_checksum, 0 | 0xffff);
        let ours = ipv4::checksum_ok(theirs.slice());
        assert!(ours == right || zero, "checksum of {ip:02x?}");
    }
    upper(view.protocol(), &ip[view.header_len()..]);
}

fn six(ip: &[u8]) {
    let Some(view) = at(ip, 0).map(Ipv6) else { return };
    let payload = ipv6::payload(ip);
    let Ok(theirs) = etherparse::Ipv6HeaderSlice::from_slice(ip) else { return };
    assert_eq!(view.src(), theirs.source(), "source of {ip:02x?}");
    assert_eq!(view.dst(), theirs.destination(), "destination of {ip:02x?}");
    assert_eq!(view.payload_len(), theirs.payload_length(), "length of {ip:02x?}");
    assert_eq!(view.hop_limit(), theirs.hop_limit(), "hop limit of {ip:02x?}");
    if let Some(payload) = payload {
        assert!(payload.offset <= ip.len(), "payload of {ip:02x?} begins behind its end");
        upper(payload.protocol, &ip[payload.offset..]);
    }
}

fn upper(number: u8, body: &[u8]) {
    if let Some(header) = at::<TCP_LEN>(body, 0) {
        let facts = TcpFacts::parse(header);
        if let (protocol::TCP, Ok(theirs)) = (number, etherparse::TcpHeaderSlice::from_slice(body))
        {
            assert_eq!(facts.header_len, theirs.slice().len(), "TCP header of {body:02x?}");
            let ports = (theirs.source_port(), theirs.destination_port());
            assert_eq!(at(body, 0).map(transport::ports), Some(ports), "ports of {body:02x?}");
        }
    }
    if let Some(kind) = body.first() {
        let _ = transport::icmp_class(number, *kind);
    }
}
