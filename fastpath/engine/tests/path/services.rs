//! Services: who is sent where, with which source, and how the answers come back.

use margay_engine::{Fate, Why, delivered};
use margay_model::node::ServiceLoops;
use margay_model::{DropReason, Service, TrafficPolicy};
use margay_tables::addr::Tuple;

use crate::support::*;

const CLIENT: &str = "192.0.2.100";

/// Sends a request and its answer. The request leaves by `backend` as `expected`; the answer comes
/// back to `from` as though it were the service's. Hands out the request's source there.
#[track_caller]
fn round(
    node: &mut Node,
    from: margay_engine::PortId,
    request: &Ip,
    to: (margay_engine::PortId, &str),
) -> String {
    let mut frame = node.send(from, request).by(to.0);
    let seen = frame.split_off(14);
    let src = source_of(&seen, request);
    let translated = request.clone().from(&src).to(to.1);
    let lowered = |packet: Ip, keep: bool| if keep { packet } else { packet.ttl(63) };
    let keep = from == HOST || to.0 == HOST;
    assert_eq!(seen, lowered(translated.clone(), keep).bytes());
    let answer = translated.answer();
    let mut frame = node.send(to.0, &answer).by(from);
    assert_eq!(frame.split_off(14), lowered(request.clone().answer(), keep).bytes());
    assert_eq!(node.connections(), 1);
    src
}

/// `ADDR:PORT` that a packet carries as source.
pub(crate) fn source_of(bytes: &[u8], like: &Ip) -> String {
    let (addr, at_port) = match like.src.is_ipv4() {
        true => (std::net::IpAddr::from(<[u8; 4]>::try_from(&bytes[12..16]).unwrap()), 20),
        false => (std::net::IpAddr::from(<[u8; 16]>::try_from(&bytes[8..24]).unwrap()), 40),
    };
    let port = u16::from_be_bytes([bytes[at_port], bytes[at_port + 1]]);
    at(&addr.to_string(), port)
}

fn with(services: impl IntoIterator<Item = Service>) -> Node {
    let mut node = Node::default();
    node.change(|state| services.into_iter().for_each(|s| serve(state, s)));
    node
}

/// A service of TCP on every kind of address.
fn everywhere(backends: &[&str]) -> Service {
    Service {
        external_ips: vec![ip("198.18.0.1")],
        load_balancer_ips: vec![ip("198.18.0.2")],
        node_port: Some(30_080),
        ..service("default/web", 6, "10.96.0.10:80", backends)
    }
}

#[test]
fn a_pod_reaches_a_cluster_address_of_every_protocol_and_sees_it_answer() {
    let [_, b] = pods(true);
    let [a6, b6] = pods(false);
    for (frontend, backend, src) in [
        ("10.96.0.10:80", at(b, 8080), "10.65.0.2:4000"),
        ("[fd96::10]:80", at(b6, 8080), &at(a6, 4000)),
    ] {
        for (protocol, request) in
            [(6, tcp(src, frontend, SYN)), (17, udp(src, frontend)), (132, sctp(src, frontend))]
        {
            let mut node = with([service("s", protocol, frontend, &[&backend])]);
            assert_eq!(round(&mut node, A, &request, (B, &backend)), src, "the source stays");
        }
    }
}

#[test]
fn a_datagram_without_checksum_stays_without() {
    let mut node = with([service("s", 17, "10.96.0.10:80", &["10.65.0.3:53"])]);
    let mut request = udp("10.65.0.2:1", "10.96.0.10:80");
    let Body::Udp { checksum, .. } = &mut request.body else { unreachable!() };
    *checksum = false;
    round(&mut node, A, &request, (B, "10.65.0.3:53"));
}

#[test]
fn same_port_of_another_protocol_is_another_service() {
    let mut node = with([
        service("t", 6, "10.96.0.10:80", &["10.65.0.3:1"]),
        service("u", 17, "10.96.0.10:80", &["10.65.0.4:2"]),
    ]);
    node.send(A, &tcp("10.65.0.2:1", "10.96.0.10:80", SYN)).by(B);
    node.send(A, &udp("10.65.0.2:1", "10.96.0.10:80")).by(N);
    assert_eq!(node.send(A, &sctp("10.65.0.2:1", "10.96.0.10:80")).punted(), Why::Reject);
}

#[test]
fn connections_spread_over_all_backends_and_stay_where_they_are() {
    let backends = ["10.65.0.3:80", "10.65.0.4:80", "10.65.1.7:80", "10.65.2.7:80"];
    let mut node = with([service("s", 17, "10.96.0.10:80", &backends)]);
    let mut first = Vec::new();
    for port in 1..=200 {
        first.push(
            node.send(A, &udp(&at("10.65.0.2", port), "10.96.0.10:80")).frame[30..34].to_vec(),
        );
    }
    let kinds: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(kinds.len(), 4);
    // Another backend moves none of them.
    node.change(|state| {
        serve(
            state,
            service("s", 17, "10.96.0.10:80", &[&backends[..], &["10.65.1.8:80"]].concat()),
        )
    });
    for (port, before) in (1..=200).zip(&first) {
        let frame = node.send(A, &udp(&at("10.65.0.2", port), "10.96.0.10:80")).frame;
        assert_eq!(&frame[30..34], before);
    }
}

#[test]
fn who_is_masqueraded_is_kube_proxys_table() {
    use TrafficPolicy::{Cluster, Local};
    let backend = "10.65.0.3:8080";
    let node_ip = "192.0.2.1:";
    // From, its address, which address, internal and external policy; masqueraded?
    let rows = [
        (A, "10.65.0.2", "10.96.0.10:80", Cluster, Cluster, false),
        (A, "10.65.0.2", "192.0.2.1:30080", Cluster, Cluster, true),
        (A, "10.65.0.2", "198.18.0.1:80", Cluster, Cluster, true),
        (A, "10.65.0.2", "198.18.0.2:80", Cluster, Cluster, true),
        (A, "10.65.0.2", "10.96.0.10:80", Cluster, Local, false),
        (A, "10.65.0.2", "192.0.2.1:30080", Cluster, Local, false),
        (A, "10.65.0.2", "198.18.0.2:80", Cluster, Local, false),
        (A, "10.65.0.2", "10.96.0.10:80", Local, Cluster, false),
        (WIRE, CLIENT, "10.96.0.10:80", Cluster, Cluster, true),
        (WIRE, CLIENT, "10.96.0.10:80", Local, Cluster, true),
        (WIRE, CLIENT, "192.0.2.1:30080", Cluster, Cluster, true),
        (WIRE, CLIENT, "203.0.113.1:30080", Cluster, Cluster, true),
        (WIRE, CLIENT, "198.18.0.1:80", Cluster, Cluster, true),
        (WIRE, CLIENT, "192.0.2.1:30080", Cluster, Local, false),
        (WIRE, CLIENT, "198.18.0.1:80", Cluster, Local, false),
        (WIRE, CLIENT, "198.18.0.2:80", Cluster, Local, false),
    ];
    for (from, client, frontend, internal, external, masqueraded) in rows {
        let mut node = with([Service { internal, external, ..everywhere(&[backend]) }]);
        let request = tcp(&at(client, 5000), frontend, SYN);
        let seen = round(&mut node, from, &request, (B, backend));
        let what = format!("{client} to {frontend} {internal:?} {external:?}: {seen}");
        assert_eq!(seen.starts_with(node_ip), masqueraded, "{what}");
        assert_eq!(seen == at(client, 5000), !masqueraded, "{what}");
        if masqueraded {
            let port: u16 = seen.rsplit(':').next().unwrap().parse().unwrap();
            assert!(port >= 61_000, "{what}: a port of the masquerading range");
        }
    }
}

#[test]
fn pods_are_masqueraded_towards_cluster_addresses_where_all_are() {
    let mut node = with([everywhere(&["10.65.0.3:8080"])]);
    node.change(|state| {
        std::sync::Arc::make_mut(&mut state.node).settings.masquerade_all = true;
    });
    let request = tcp("10.65.0.2:5000", "10.96.0.10:80", SYN);
    let seen = round(&mut node, A, &request, (B, "10.65.0.3:8080"));
    assert!(seen.starts_with("192.0.2.1:"), "{seen}");
    // Without a service in between nobody is.
    let direct = tcp("10.65.0.2:5000", "10.65.0.3:8080", SYN);
    assert_eq!(node.send(A, &direct).by(B), to_pod(B, &direct.ttl(63)));
}

#[test]
fn the_node_itself_reaches_services_with_its_own_address() {
    for frontend in ["10.96.0.10:80", "192.0.2.1:30080", "198.18.0.2:80"] {
        let mut node = with([everywhere(&["10.65.0.3:8080"])]);
        let request = tcp("192.0.2.1:5000", frontend, SYN);
        round(&mut node, HOST, &request, (B, "10.65.0.3:8080"));
    }
}

#[test]
fn a_client_outside_reaches_a_remote_backend_and_its_answer_returns_here() {
    let backend = "10.65.1.9:8080";
    let mut node = with([everywhere(&[backend])]);
    let request = tcp(&at(CLIENT, 5000), "192.0.2.1:30080", SYN);
    let frame = node.send(WIRE, &request).by(WIRE);
    let src = source_of(&frame[14..], &request);
    assert!(src.starts_with("192.0.2.1:6"), "{src}");
    let translated = request.clone().from(&src).to(backend);
    assert_eq!(frame, to_wire(NEAR_MAC, &translated.clone().ttl(63)));
    let frame = node.send(WIRE, &translated.answer()).by(WIRE);
    assert_eq!(frame, to_wire(CLIENT_MAC, &request.answer().ttl(63)));
}

#[test]
fn external_policy_local_uses_this_nodes_backends_and_is_silent_without_one() {
    let local =
        |backends: &[&str]| Service { external: TrafficPolicy::Local, ..everywhere(backends) };
    let mut node = with([local(&["10.65.1.9:1", "10.65.0.3:1", "10.65.2.9:1"])]);
    for port in 1..=50 {
        let request = tcp(&at(CLIENT, port), "192.0.2.1:30080", SYN);
        assert_eq!(node.send(WIRE, &request).by(B), to_pod(B, &request.to("10.65.0.3:1").ttl(63)));
    }
    let mut node = with([local(&["10.65.1.9:1"])]);
    let request = |src: &str| tcp(src, "192.0.2.1:30080", SYN);
    node.send(WIRE, &request("192.0.2.100:1")).dropped(DropReason::NoLocalBackend);
    // A pod or the node is not outside: it may go to any.
    node.send(A, &request("10.65.0.2:1")).by(WIRE);
    node.send(HOST, &request("192.0.2.1:1")).by(WIRE);
    let mut node = with([local(&[])]);
    assert_eq!(node.send(WIRE, &request("192.0.2.100:1")).punted(), Why::Reject);
}

#[test]
fn internal_policy_local_uses_this_nodes_backends_and_is_silent_without_one() {
    let local =
        |backends: &[&str]| Service { internal: TrafficPolicy::Local, ..everywhere(backends) };
    let mut node = with([local(&["10.65.1.9:1", "10.65.0.3:1"])]);
    for port in 1..=50 {
        node.send(A, &tcp(&at("10.65.0.2", port), "10.96.0.10:80", SYN)).by(B);
    }
    let mut node = with([local(&["10.65.1.9:1"])]);
    for (from, src) in [(A, "10.65.0.2:1"), (HOST, "192.0.2.1:1"), (WIRE, "192.0.2.100:1")] {
        node.send(from, &tcp(src, "10.96.0.10:80", SYN)).dropped(DropReason::NoLocalBackend);
    }
    // It is about the cluster address alone.
    node.send(A, &tcp("10.65.0.2:2", "198.18.0.1:80", SYN)).by(WIRE);
    // Nobody serves anywhere: said.
    let mut node = with([local(&[])]);
    assert_eq!(node.send(A, &tcp("10.65.0.2:1", "10.96.0.10:80", SYN)).punted(), Why::Reject);
}

/// An address that was the node's own, or anybody's, before it was a service's: errors about what was
/// sent from it then carry the tuple of what the backend might send.
#[test]
fn an_error_about_what_a_backend_never_said_is_not_told_to_it() {
    let mut node = with([everywhere(&["10.65.0.3:8080"])]);
    let asked = tcp("198.51.100.9:4000", "198.18.0.1:80", SYN);
    let mut frame = node.send(WIRE, &asked).by(B);
    let client = source_of(&frame.split_off(14), &asked);
    let answer = tuple_of(&asked);
    assert_eq!(delivered(node.table, &answer), None);
    let said = tcp("10.65.0.3:8080", &client, SYN | ACK);
    node.send(B, &said).by(WIRE);
    assert_eq!(delivered(node.table, &answer), Some(tuple_of(&said).reversed()));
    // Of a connection that nobody has, or that is denied, nothing has been said either.
    assert_eq!(delivered(node.table, &answer.reversed()), None);
}

fn tuple_of(packet: &Ip) -> Tuple {
    let (src_port, dst_port) = packet.ends();
    let (src, dst, protocol) = (packet.src.into(), packet.dst.into(), packet.protocol());
    Tuple { src, dst, src_port, dst_port, protocol, zone: 0 }
}

#[test]
fn a_service_without_endpoints_is_refused_and_opens_no_flow() {
    let mut node = with([everywhere(&[])]);
    for (from, src) in [(A, "10.65.0.2:1"), (HOST, "192.0.2.1:1"), (WIRE, "192.0.2.100:1")] {
        for frontend in ["10.96.0.10:80", "198.18.0.1:80", "198.18.0.2:80", "192.0.2.1:30080"] {
            let request = tcp(src, frontend, SYN);
            let out = node.send(from, &request);
            assert_eq!(out.frame, frame_from(from, &request));
            assert_eq!(out.punted(), Why::Reject, "{src} {frontend}");
        }
    }
    assert_eq!(node.connections(), 0);
}

#[test]
fn a_wrong_port_on_a_live_address_is_refused_and_an_unallocated_address_is_silent() {
    let mut node = with([everywhere(&["10.65.0.3:8080"])]);
    for frontend in ["10.96.0.10:81", "198.18.0.1:81", "198.18.0.2:443"] {
        assert_eq!(node.send(A, &tcp("10.65.0.2:1", frontend, SYN)).punted(), Why::Reject);
    }
    for dst in ["10.96.0.11:80", "10.96.255.255:80", "[fd96::77]:80"] {
        let src = if dst.starts_with('[') { "[fd00:65::2]:1" } else { "10.65.0.2:1" };
        node.send(A, &tcp(src, dst, SYN)).dropped(DropReason::NoService);
    }
    // A port of the node that is nobody's node port is the node's own business.
    node.send(A, &tcp("10.65.0.2:1", "192.0.2.1:30081", SYN)).by(HOST);
}

#[test]
fn source_ranges_guard_the_load_balancer_addresses_alone() {
    let ranged = Service {
        load_balancer_sources: vec!["192.0.2.96/28".parse().unwrap()],
        ..everywhere(&["10.65.0.3:8080"])
    };
    let mut node = with([ranged]);
    node.send(WIRE, &tcp("192.0.2.100:1", "198.18.0.2:80", SYN)).by(B);
    node.send(WIRE, &tcp("192.0.2.200:1", "198.18.0.2:80", SYN)).dropped(DropReason::SourceRange);
    node.send(A, &tcp("10.65.0.2:1", "198.18.0.2:80", SYN)).dropped(DropReason::SourceRange);
    node.send(HOST, &tcp("192.0.2.1:1", "198.18.0.2:80", SYN)).dropped(DropReason::SourceRange);
    node.send(HOST, &tcp("192.0.2.99:1", "198.18.0.2:80", SYN)).by(B);
    node.send(WIRE, &tcp("192.0.2.200:1", "192.0.2.1:30080", SYN)).by(B);
    node.send(WIRE, &tcp("192.0.2.200:1", "198.18.0.1:80", SYN)).by(B);
}

#[test]
fn an_answer_asks_for_its_client_on_the_nodes_own_network() {
    let service = service("s", 17, "10.96.0.10:80", &["10.65.0.3:8080"]);
    let mut node = with([Service { node_port: Some(30_080), ..service }]);
    let request = udp("192.0.2.77:5", "192.0.2.1:30080");
    let asked = node.send(WIRE, &request).by(B);
    let masked = source_of(&asked[14..], &request);
    // As it comes, it is addressed to the node itself.
    let answer = udp("10.65.0.3:8080", &masked);
    assert!(matches!(node.send(B, &answer).punted(), Why::Neighbour(_)));
    assert_eq!(node.answer_to(B, &answer).unwrap().src, ip("192.0.2.77").into());
}

#[test]
fn node_ports_answer_where_the_settings_say() {
    let mut node = with([everywhere(&["10.65.0.3:8080"])]);
    node.change(|state| {
        let settings = &mut std::sync::Arc::make_mut(&mut state.node).settings;
        settings.node_port_addresses = vec!["203.0.113.0/24".parse().unwrap()];
    });
    node.send(WIRE, &tcp("192.0.2.100:1", "203.0.113.1:30080", SYN)).by(B);
    node.send(WIRE, &tcp("192.0.2.100:2", "192.0.2.1:30080", SYN)).by(HOST);
}

#[test]
fn a_pod_that_is_its_own_backend_hears_from_the_node() {
    for (frontend, backend, src, node_ip) in [
        ("10.96.0.10:80", "10.65.0.2:8080", "10.65.0.2:4000", "192.0.2.1:"),
        ("[fd96::10]:80", "[fd00:65::2]:8080", "[fd00:65::2]:4000", "[2001:db8:1::1]:"),
    ] {
        let mut node = with([service("s", 6, frontend, &[backend])]);
        // Its own policies do not apply to it.
        node.change(|state| isolate(state, "a", Some(vec![]), Some(vec![])));
        let seen = round(&mut node, A, &tcp(src, frontend, SYN), (A, backend));
        assert!(seen.starts_with(node_ip), "{seen}");
    }
}

#[test]
fn two_ways_to_one_backend_with_one_source_port_do_not_mix() {
    let mut node = with([service("s", 6, "10.96.0.10:80", &["10.65.0.3:8080"])]);
    let direct = tcp("10.65.0.2:4000", "10.65.0.3:8080", SYN);
    let by_service = tcp("10.65.0.2:4000", "10.96.0.10:80", SYN);
    assert_eq!(node.send(A, &direct).by(B), to_pod(B, &direct.clone().ttl(63)));
    let frame = node.send(A, &by_service).by(B);
    let src = source_of(&frame[14..], &by_service);
    assert!(src.starts_with("10.65.0.2:") && src != "10.65.0.2:4000", "{src}");
    let other = by_service.clone().from(&src).to("10.65.0.3:8080");
    assert_eq!(node.send(B, &other.answer()).by(A), to_pod(A, &by_service.answer().ttl(63)));
    assert_eq!(node.send(B, &direct.clone().answer()).by(A), to_pod(A, &direct.answer().ttl(63)));
}

#[test]
fn a_backend_in_the_host_network_is_announced_once_and_then_forwarded() {
    let mut node = with([everywhere(&["192.0.2.1:8080"])]);
    let request = tcp(&at(CLIENT, 5000), "192.0.2.1:30080", SYN);
    let out = node.send(WIRE, &request);
    assert_eq!(out.frame, frame_from(WIRE, &request), "as it came: it is run once more");
    assert_eq!(out.punted(), Why::HostFlow);
    let tuple = node.answer_to(WIRE, &request).unwrap();
    assert_eq!((tuple.src_port, tuple.dst_port), (8080, 5000));
    let translated = request.clone().to("192.0.2.1:8080");
    let again = node.again(ingress(WIRE), frame_from(WIRE, &request), false);
    assert_eq!(again.by(HOST), to_host(&translated));
    // The kernel's answer is steered to the host port and leaves as the node port's.
    let frame = node.send(HOST, &translated.answer()).by(WIRE);
    assert_eq!(frame, to_wire(CLIENT_MAC, &request.answer()));
}

#[test]
fn the_node_is_its_own_backend_through_an_address_that_is_nobodys() {
    for (frontend, own, hairpin) in [
        ("10.96.0.10:80", "192.0.2.1", "169.254.77.68:5000"),
        ("[fd96::10]:80", "2001:db8:1::1", "[fd4d:6172:6761:7900::1]:5000"),
    ] {
        let backend = at(own, 6443);
        let mut node = with([service("s", 6, frontend, &[&backend])]);
        let request = tcp(&at(own, 5000), frontend, SYN);
        let seen = round(&mut node, HOST, &request, (HOST, &backend));
        let port = |text: &str| text.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        assert_eq!(seen, hairpin.replace("5000", &port(&seen).to_string()));
    }
}

#[test]
fn the_answer_to_a_connection_of_the_nodes_own_is_its_own_at_whatever_port() {
    let own = Service { external_ips: vec![ip("192.0.2.1")], ..everywhere(&["10.65.0.3:8080"]) };
    for port in [30_080, 80] {
        let mut node = with([own.clone()]);
        let to = at("192.0.2.1", port);
        for flags in [SYN | ACK, ACK] {
            let segment = tcp("198.51.100.9:6443", &to, flags);
            assert_eq!(node.send(WIRE, &segment).by(HOST), to_host(&segment));
        }
        node.send(WIRE, &tcp("198.51.100.9:6444", &to, SYN)).by(B);
    }
}

#[test]
fn the_nodes_word_to_itself_never_reaches_the_wire() {
    let mut node = Node::default();
    for (own, hairpin) in
        [("192.0.2.1:80", "169.254.77.68:9"), ("[2001:db8:1::1]:80", "[fd4d:6172:6761:7900::1]:9")]
    {
        node.send(HOST, &tcp(own, hairpin, ACK)).dropped(DropReason::InvalidState);
    }
}

#[test]
fn a_lost_backend_ends_udp_at_once_and_leaves_tcp_to_itself() {
    let mut node = with([
        service("u", 17, "10.96.0.10:53", &["10.65.0.3:53"]),
        service("t", 6, "10.96.0.10:80", &["10.65.0.3:80"]),
    ]);
    let (query, open) =
        (udp("10.65.0.2:1", "10.96.0.10:53"), tcp("10.65.0.2:1", "10.96.0.10:80", SYN));
    node.send(A, &query).by(B);
    node.send(A, &open).by(B);
    node.change(|state| {
        serve(state, service("u", 17, "10.96.0.10:53", &["10.65.0.4:53"]));
        serve(state, service("t", 6, "10.96.0.10:80", &["10.65.0.4:80"]));
    });
    node.send(A, &query).by(N);
    node.send(A, &tcp("10.65.0.2:1", "10.96.0.10:80", ACK)).by(B);
    // Without any backend nothing is ended, as kube-proxy has it.
    node.change(|state| serve(state, service("u", 17, "10.96.0.10:53", &[])));
    node.send(A, &query).by(N);
}

#[test]
fn udp_that_began_before_there_was_the_service_moves_to_it() {
    let web = |backends: &[&str]| Service { protocol: 17, ..everywhere(backends) };
    for (to, otherwise) in
        [("192.0.2.1:30080", HOST), ("198.18.0.1:80", WIRE), ("198.18.0.2:80", WIRE)]
    {
        let mut node = Node::default();
        let datagram = udp("10.65.0.2:1", to);
        // It comes, goes, and another comes in its place.
        for _ in 0..2 {
            node.send(A, &datagram).by(otherwise);
            node.change(|state| serve(state, web(&["10.65.0.3:8080"])));
            node.send(A, &datagram).by(B);
            node.change(|state| drop(state.services.remove("default/web")));
        }
        assert_eq!(node.connections(), 1);
    }
    // Without any backend nothing is ended, and who is a backend keeps what it has.
    let (mut node, datagram) = (Node::default(), udp("10.65.0.2:1", "192.0.2.1:30080"));
    for backends in [&[][..], &["192.0.2.1:30080"], &["10.65.0.3:8080", "192.0.2.1:30080"]] {
        node.send(A, &datagram).by(HOST);
        node.change(|state| serve(state, web(backends)));
        node.send(A, &datagram).by(HOST);
    }
}

#[test]
fn a_backend_that_drains_or_is_farther_away_keeps_its_udp_clients_until_it_is_gone() {
    let of = |backends: &[&str]| service("u", 17, "10.96.0.10:53", backends);
    let mut node = with([of(&["10.65.0.3:53"])]);
    let old = udp("10.65.0.2:1", "10.96.0.10:53");
    node.send(A, &old).by(B);
    let kept_backends = of(&["10.65.0.3:53"]).cluster_backends;
    node.change(|state| serve(state, Service { kept_backends, ..of(&["10.65.0.4:53"]) }));
    node.send(A, &old).by(B);
    node.send(A, &udp("10.65.0.2:2", "10.96.0.10:53")).by(N);
    node.change(|state| serve(state, of(&["10.65.0.4:53"])));
    node.send(A, &old).by(N);
}

#[test]
fn a_repeated_syn_goes_where_the_first_one_went_whatever_has_changed() {
    let of = |backends: &[&str]| service("s", 6, "10.96.0.10:80", backends);
    let mut node = with([of(&["10.65.0.3:80"])]);
    let syn = tcp("10.65.0.2:1", "10.96.0.10:80", SYN);
    let first = node.send(A, &syn).by(B);
    node.change(|state| serve(state, of(&["10.65.0.4:80"])));
    assert_eq!(node.send(A, &syn).by(B), first);
    assert_eq!(node.connections(), 1);
}

#[test]
fn nobody_is_refused_in_the_name_of_a_pod_that_has_asked_nothing() {
    let external = Service {
        external_ips: vec![ip("198.18.0.1")],
        ..service("s", 6, "10.96.0.10:80", &["10.65.0.3:80"])
    };
    let nobody = service("n", 6, "10.96.0.11:80", &[]);
    let mut node = with([external, nobody]);
    for (to, from) in [
        ("198.18.0.1:81", "10.65.0.2:1"),
        ("10.96.0.11:80", "10.65.0.2:1"),
        ("198.18.0.1:81", "192.0.2.1:1"),
    ] {
        node.send(WIRE, &tcp(from, to, SYN)).dropped(DropReason::Spoof);
    }
}

#[test]
fn an_unallocated_address_is_refused_or_routed_where_felix_says_so() {
    let mut node = Node::default();
    let asks = || [udp("10.65.0.2:1", "10.96.0.99:80"), udp("[fd00:65::2]:1", "[fd96::99]:80")];
    let mut fates = |loops| {
        node.change(|state| {
            std::sync::Arc::make_mut(&mut state.node).settings.service_loops = loops;
        });
        asks().map(|packet| node.send(A, &packet).fate)
    };
    assert_eq!(fates(ServiceLoops::Drop), [Fate::Drop(DropReason::NoService); 2]);
    for fate in fates(ServiceLoops::Reject) {
        assert!(matches!(fate, Fate::Punt(punt) if punt.why == Why::Reject), "{fate:?}");
    }
    assert_eq!(fates(ServiceLoops::Route), [Fate::Forward(WIRE); 2]);
}
