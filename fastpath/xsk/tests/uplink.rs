//! The pinhole: what is the dataplane's goes to it, the node's own traffic never does.

mod rig;

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::Duration,
};

use margay_xsk::{
    Mode, Pool, Socket, Umem,
    program::{AddressClass, Exchange, HostFlowProgram, SafePort, Uplink, UplinkConfig, XdpMode},
};
use rig::{
    Namespace, Station,
    packet::{V4, ethernet, fragment, icmp, ipv4, ipv6, ports},
    region, veth,
};

const NODE: &str = "192.0.2.1";
const NODE6: &str = "2001:db8::1";
const PEER: &str = "192.0.2.99";
const PEER6: &str = "2001:db8::99";
const POD: &str = "10.244.7.9";
const POD6: &str = "fd00:10::9";
const OUTSIDE: &str = "198.51.100.1";

const ICMP: u8 = 1;
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const ESP: u8 = 50;
const FRAGMENT: u8 = 44;
const HOP_BY_HOP: u8 = 0;
const DESTINATION: u8 = 60;
const ICMP6: u8 = 58;

/// What XDP did with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Redirected,
    Passed,
    Dropped,
}
use Fate::{Dropped, Passed, Redirected};

/// An uplink with the pinhole on it, and the wire behind it.
struct Site {
    node: Namespace,
    uplink: Uplink,
    egress: HostFlowProgram,
    socket: Option<Socket>,
    pool: Pool,
    far: Station,
    /// Last, so that the interfaces outlive the sockets.
    _wire: Namespace,
}

impl Site {
    fn new() -> Self {
        let (node, wire) = (Namespace::new(), Namespace::new());
        veth(&node, "uplink", &wire, "wire");
        let (up, end) = (node.ifindex("uplink"), wire.ifindex("wire"));
        let (near_region, far_region) = (region(512), region(512));
        let mut pool = Pool::new(near_region, 256);
        let (mut uplink, egress) = rig::uplink();
        describe(&mut uplink);
        let socket = node.enter(|| {
            let (umem, queue) = (rig::SMALL_UMEM, 0);
            let (_, mut socket) =
                Umem::open(near_region, Mode::Copy, umem, "uplink", queue, rig::SMALL).unwrap();
            uplink.register_socket(&socket).unwrap();
            assert_eq!(uplink.attach(up).unwrap().mode, XdpMode::Native);
            socket.fill(&mut pool);
            socket
        });
        let far = wire.enter(|| Station::open(far_region, "wire", end));
        Self { node, uplink, egress, socket: Some(socket), pool, far, _wire: wire }
    }

    /// Sends a packet and tells what XDP did with it.
    fn fate(&mut self, packet: &[u8]) -> Fate {
        let before = self.counters();
        self.far.send([packet]);
        for _ in 0..1000 {
            let now = self.counters();
            if now[0] > before[0] {
                let fate = match [now[1] - before[1], now[2] - before[2]] {
                    [1, 0] => Redirected,
                    [0, 1] => Dropped,
                    _ => Passed,
                };
                if self.socket.is_some() {
                    assert_eq!(fate == Redirected, self.receives(packet, fate), "{fate:?}");
                }
                return fate;
            }
            sleep(Duration::from_millis(1));
        }
        panic!("the packet never reached the uplink");
    }

    /// Whether that very packet is in the socket's ring. veth counts a redirected packet before
    /// it flushes it to the socket, so that one is waited for.
    fn receives(&mut self, packet: &[u8], fate: Fate) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        let mut frames = arrayvec::ArrayVec::<_, 4>::new();
        for _ in 0..1000 {
            socket.rx(&mut frames);
            if fate != Redirected || !frames.is_empty() {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        let same = matches!(frames.as_slice(), [frame] if frame.bytes() == packet);
        frames.drain(..).for_each(|frame| self.pool.put(frame));
        socket.fill(&mut self.pool);
        same
    }

    /// The dataplane dies. Its socket lives on for a moment in a child that another test has
    /// forked and that has not executed its program yet.
    fn kill(&mut self) {
        self.socket = None;
        let surely_ours = ipv4(OUTSIDE, POD, V4::of(TCP), &ports(1, 80));
        for _ in 0..1000 {
            if self.fate(&surely_ours) == Dropped {
                return;
            }
            sleep(Duration::from_millis(1));
        }
        panic!("the socket outlives its process");
    }

    /// veth's own counts of XDP on queue 0: packets seen, redirected, dropped.
    fn counters(&self) -> [u64; 3] {
        let text = self.node.exec("ethtool -S uplink");
        ["rx_queue_0_xdp_packets:", "rx_queue_0_xdp_redirect:", "rx_queue_0_xdp_drops:"].map(
            |name| {
                let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
                line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
            },
        )
    }
}

fn describe(uplink: &mut Uplink) {
    let classes = [
        ("10.244.0.0/16", AddressClass::POOL),
        ("fd00:10::/64", AddressClass::POOL),
        ("10.96.0.0/12", AddressClass::SERVICE),
        ("fd00:96::/112", AddressClass::SERVICE),
        ("192.0.2.1/32", AddressClass::NODE),
        ("2001:db8::1/128", AddressClass::NODE),
    ];
    let classes: BTreeMap<_, _> =
        classes.iter().map(|(net, class)| (net.parse().unwrap(), *class)).collect();
    uplink.set_classes(&classes).unwrap();
    uplink.set_ports(&BTreeSet::from([(TCP, 30_080), (UDP, 30_053)])).unwrap();
    let snat_ports = Some(61_000..=65_535);
    uplink
        .set_config(&UplinkConfig { vxlan_port: Some(4789), ipip: true, snat_ports, guard: None })
        .unwrap();
}

#[test]
fn what_is_ours_is_redirected() {
    let mut site = Site::new();
    let tcp = |port| ports(40_000, port);
    for (what, packet) in [
        ("to a pod", ipv4(OUTSIDE, POD, V4::of(TCP), &tcp(80))),
        ("to a pod, IPv6", ipv6(PEER6, POD6, TCP, &tcp(80))),
        ("from a pod elsewhere", ipv4(POD, OUTSIDE, V4::of(UDP), &tcp(53))),
        ("to a service", ipv4(PEER, "10.96.0.10", V4::of(UDP), &tcp(53))),
        ("to a service, IPv6", ipv6(PEER6, "fd00:96::a", UDP, &tcp(53))),
        ("VXLAN", ipv4(PEER, NODE, V4::of(UDP), &tcp(4789))),
        ("VXLAN over IPv6", ipv6(PEER6, NODE6, UDP, &tcp(4789))),
        ("IPIP", ipv4(PEER, NODE, V4::of(IPIP), &[0x45; 20])),
        ("a node port", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(30_080))),
        ("a node port, IPv6", ipv6(PEER6, NODE6, UDP, &tcp(30_053))),
        ("an answer to SNAT", ipv4(OUTSIDE, NODE, V4::of(UDP), &tcp(61_000))),
        ("an answer to SNAT", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(65_535))),
        ("an ICMP error", ipv4(OUTSIDE, NODE, V4::of(ICMP), &icmp(3))),
        ("an echo answer", ipv4(OUTSIDE, NODE, V4::of(ICMP), &icmp(0))),
        ("a timestamp", ipv4(OUTSIDE, NODE, V4::of(ICMP), &icmp(14))),
        ("an ICMPv6 error", ipv6(PEER6, NODE6, ICMP6, &icmp(2))),
        ("behind an extension header", {
            let mut payload = vec![TCP, 0, 1, 4, 0, 0, 0, 0];
            payload.extend(tcp(30_080));
            ipv6(PEER6, NODE6, HOP_BY_HOP, &payload)
        }),
        ("behind eight", {
            let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
            let mut payload = options(DESTINATION).repeat(7);
            payload.extend(options(TCP));
            payload.extend(tcp(30_080));
            ipv6(PEER6, NODE6, DESTINATION, &payload)
        }),
        ("to a pod, behind too many", {
            ipv6(NODE6, POD6, DESTINATION, &[DESTINATION, 0, 1, 4, 0, 0, 0, 0].repeat(12))
        }),
        ("from a pod elsewhere, cut short", ipv4(POD, OUTSIDE, V4::of(UDP), &[0, 53])),
    ] {
        assert_eq!(site.fate(&packet), Redirected, "{what}");
    }
}

#[test]
fn the_nodes_own_traffic_and_what_is_odd_passes() {
    let mut site = Site::new();
    let tcp = |port| ports(40_000, port);
    for (what, packet) in [
        ("ssh", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(22))),
        ("ssh, IPv6", ipv6(PEER6, NODE6, TCP, &tcp(22))),
        ("a node port's number under the other protocol", {
            ipv4(OUTSIDE, NODE, V4::of(UDP), &tcp(30_080))
        }),
        ("below the SNAT range", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(60_999))),
        ("an echo request", ipv4(OUTSIDE, NODE, V4::of(ICMP), &icmp(8))),
        ("a neighbour solicitation", ipv6(PEER6, NODE6, ICMP6, &icmp(135))),
        ("a neighbour solicitation for a pod", ipv6(PEER6, POD6, ICMP6, &icmp(135))),
        ("ARP", ethernet(0x0806, &[0; 28])),
        ("a tag", ethernet(0x8100, &[0, 5, 8, 0, 0x45, 0])),
        ("somebody else's", ipv4(PEER, OUTSIDE, V4::of(TCP), &tcp(80))),
        ("VXLAN for another node", ipv4(PEER, "192.0.2.2", V4::of(UDP), &tcp(4789))),
        ("a header that ends early", ethernet(0x0800, &[0x45, 0, 0, 20])[..30].to_vec()),
        ("too many extension headers", {
            let header = [HOP_BY_HOP, 0, 1, 4, 0, 0, 0, 0];
            ipv6(PEER6, NODE6, HOP_BY_HOP, &header.repeat(8))
        }),
    ] {
        assert_eq!(site.fate(&packet), Passed, "{what}");
    }
}

#[test]
fn later_fragments_follow_the_first() {
    let mut site = Site::new();
    let v4 = |identification, fragment, payload: &[u8]| {
        let fields = V4 { protocol: UDP, identification, fragment };
        ipv4(OUTSIDE, NODE, fields, payload)
    };
    let later = [0x55; 16];
    assert_eq!(site.fate(&v4(1, 1, &later)), Passed, "nothing known of the datagram yet");
    assert_eq!(site.fate(&v4(1, 0x2000, &ports(9, 30_053))), Redirected);
    assert_eq!(site.fate(&v4(1, 1, &later)), Redirected);
    assert_eq!(site.fate(&v4(2, 1, &later)), Passed, "another datagram");
    assert_eq!(site.fate(&v4(5, 0x2000, &ports(9, 30_053))), Redirected);
    assert_eq!(site.fate(&v4(5, 0x2000, &ports(9, 514))), Passed, "a later one of that number");
    assert_eq!(site.fate(&v4(5, 1, &later)), Passed);

    let v6 = |identification, offset, more, payload: &[u8]| {
        let mut all = fragment(UDP, offset, more, identification);
        all.extend(payload);
        ipv6(PEER6, NODE6, FRAGMENT, &all)
    };
    assert_eq!(site.fate(&v6(1, 0, true, &ports(9, 30_053))), Redirected);
    assert_eq!(site.fate(&v6(1, 8, false, &later)), Redirected);

    let echo = |kind, identification, fragment| {
        let fields = V4 { protocol: ICMP, identification, fragment };
        ipv4(OUTSIDE, NODE, fields, &icmp(kind))
    };
    assert_eq!(site.fate(&echo(8, 3, 0x2000)), Passed, "a large echo request");
    assert_eq!(site.fate(&echo(0, 3, 1)), Passed, "what follows it has no type");
    assert_eq!(site.fate(&echo(0, 4, 0x2000)), Redirected, "a large echo answer");
    assert_eq!(site.fate(&echo(0, 4, 1)), Redirected);
    site.kill();
    assert_eq!(site.fate(&echo(0, 4, 2)), Passed, "its dataplane has died");
    assert_eq!(site.fate(&v4(1, 2, &later)), Dropped, "a node port's");
    assert_eq!(site.fate(&v6(2, 8, false, &later)), Passed, "another datagram");
}

#[test]
fn a_dead_dataplane_drops_what_is_surely_ours_and_leaves_the_node_reachable() {
    let mut site = Site::new();
    site.kill();
    let tcp = |port| ports(40_000, port);
    for (what, packet, fate) in [
        ("to a pod", ipv4(OUTSIDE, POD, V4::of(TCP), &tcp(80)), Dropped),
        ("a service", ipv4(OUTSIDE, "10.96.0.1", V4::of(TCP), &tcp(443)), Dropped),
        ("VXLAN", ipv4(PEER, NODE, V4::of(UDP), &tcp(4789)), Dropped),
        ("a node port", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(30_080)), Dropped),
        ("an answer to SNAT", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(61_000)), Dropped),
        ("ssh", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(22)), Passed),
        ("an echo answer", ipv4(OUTSIDE, NODE, V4::of(ICMP), &icmp(0)), Passed),
        ("from a pod elsewhere", ipv4(POD, NODE, V4::of(TCP), &tcp(22)), Passed),
    ] {
        assert_eq!(site.fate(&packet), fate, "{what}");
    }
}

#[test]
fn what_is_said_without_ports_is_ours_while_a_pod_says_it() {
    let mut site = Site::new();
    let exchange = |near: &str, far: &str| Exchange {
        protocol: GRE,
        near: near.parse().unwrap(),
        far: far.parse().unwrap(),
    };
    let v4 = |from, protocol| ipv4(from, NODE, V4::of(protocol), &[0x55; 16]);
    let (ours, others) = (v4(PEER, GRE), [v4(OUTSIDE, GRE), v4(PEER, ESP)]);
    let ours6 = ipv6(PEER6, NODE6, GRE, &[0x55; 16]);
    let piece =
        |at| ipv4(PEER, NODE, V4 { protocol: GRE, identification: 9, fragment: at }, &[1; 16]);
    assert_eq!([site.fate(&ours), site.fate(&ours6)], [Passed, Passed]);
    for (near, far) in [(NODE, PEER), (NODE6, PEER6)] {
        for _ in 0..2 {
            assert!(site.egress.claim(exchange(near, far), 0).unwrap());
        }
    }
    assert_eq!([site.fate(&ours), site.fate(&ours6)], [Redirected, Redirected]);
    assert_eq!([site.fate(&piece(0x2000)), site.fate(&piece(2))], [Redirected, Redirected]);
    for other in others {
        assert_eq!(site.fate(&other), Passed);
    }
    site.kill();
    assert_eq!([site.fate(&ours), site.fate(&ours6)], [Dropped, Dropped], "surely ours");
    site.egress.release(|exchange| exchange.near.is_ipv4()).unwrap();
    assert_eq!([site.fate(&ours), site.fate(&ours6)], [Dropped, Passed]);
}

#[test]
fn classes_and_ports_are_replaced_by_difference() {
    let mut site = Site::new();
    let pod = ipv4(PEER, POD, V4::of(TCP), &ports(1, 80));
    let outside = ipv4(PEER, OUTSIDE, V4::of(TCP), &ports(1, 80));
    let node_port = ipv4(PEER, NODE, V4::of(TCP), &ports(1, 30_080));

    let classes = [("198.51.100.0/24", AddressClass::POOL), ("192.0.2.1/32", AddressClass::NODE)];
    let classes = classes.map(|(net, class)| (net.parse().unwrap(), class));
    site.uplink.set_classes(&BTreeMap::from(classes)).unwrap();
    assert_eq!(site.fate(&pod), Passed, "no longer a pool");
    assert_eq!(site.fate(&outside), Redirected, "now a pool");

    let other_port = ipv4(PEER, NODE, V4::of(TCP), &ports(1, 31_000));
    assert_eq!([site.fate(&node_port), site.fate(&other_port)], [Redirected, Passed]);
    site.uplink.set_ports(&BTreeSet::from([(TCP, 31_000)])).unwrap();
    assert_eq!([site.fate(&node_port), site.fate(&other_port)], [Passed, Redirected]);
}

/// Ethernet source of what has been let in.
const LET_IN: [u8; 6] = [0x06, 7, 8, 9, 10, 11];

fn guard(site: &mut Site) {
    let snat_ports = Some(61_000..=65_535);
    let config = UplinkConfig { vxlan_port: Some(4789), ipip: true, snat_ports, guard: None };
    site.uplink.set_config(&UplinkConfig { guard: Some(LET_IN), ..config }).unwrap();
    let open = |protocol, port, net: Option<&str>| SafePort {
        protocol,
        port,
        net: net.map(|net| net.parse().unwrap()),
    };
    let open = [
        open(TCP, 22, None),
        open(UDP, 68, None),
        open(TCP, 2379, Some("192.0.2.0/24")),
        open(TCP, 2380, Some("2001:db8::/64")),
    ];
    site.uplink.set_failsafes(&open.into()).unwrap();
}

#[test]
fn a_guarded_uplink_leaves_failsafe_ports_and_upkeep_to_the_kernel_dead_or_alive() {
    let mut site = Site::new();
    guard(&mut site);
    let tcp = |port| ports(40_000, port);
    let cases = [
        ("ssh", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(22)), true),
        ("ssh, IPv6", ipv6(PEER6, NODE6, TCP, &tcp(22)), true),
        ("ssh to somebody else", ipv4(OUTSIDE, PEER, V4::of(TCP), &tcp(22)), false),
        (
            "ssh from a pod: the answer is the dataplane's",
            { ipv4(POD, NODE, V4::of(TCP), &tcp(22)) },
            false,
        ),
        ("the number under another protocol", ipv4(OUTSIDE, NODE, V4::of(UDP), &tcp(22)), false),
        ("from where it is open", ipv4(PEER, NODE, V4::of(TCP), &tcp(2379)), true),
        ("from elsewhere", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(2379)), false),
        ("from there by IPv6", ipv6(PEER6, NODE6, TCP, &tcp(2379)), false),
        ("from where it is open, IPv6", ipv6(PEER6, NODE6, TCP, &tcp(2380)), true),
        ("a lease for an address to come", ipv4(PEER, "192.0.2.7", V4::of(UDP), &tcp(68)), true),
        ("another port", ipv4(OUTSIDE, NODE, V4::of(TCP), &tcp(80)), false),
        ("an echo request", ipv4(OUTSIDE, NODE, V4::of(ICMP), &icmp(8)), false),
        ("an echo answer", ipv4(OUTSIDE, NODE, V4::of(ICMP), &icmp(0)), false),
        (
            "an answer that nobody asked for",
            ipv4(OUTSIDE, NODE, V4::of(TCP), &{ ports(6443, 40_000) }),
            false,
        ),
        ("a neighbour solicitation", ipv6(PEER6, NODE6, ICMP6, &icmp(135)), true),
        ("a multicast listener", ipv6(PEER6, "ff02::16", ICMP6, &icmp(143)), true),
        ("IGMP", ipv4(PEER, "224.0.0.1", V4::of(2), &[0x11; 8]), true),
        ("ARP", ethernet(0x0806, &[0; 28]), true),
        ("somebody else's", ipv4(PEER, OUTSIDE, V4::of(TCP), &tcp(80)), false),
        ("somebody else's error", ipv4(PEER, OUTSIDE, V4::of(ICMP), &icmp(3)), true),
        ("a header that ends early", ethernet(0x0800, &[0x45, 0, 0, 20])[..30].to_vec(), false),
        (
            "too many extension headers",
            {
                let header = [HOP_BY_HOP, 0, 1, 4, 0, 0, 0, 0];
                ipv6(PEER6, NODE6, HOP_BY_HOP, &header.repeat(8))
            },
            false,
        ),
    ];
    // To one host, and not to all of a group's.
    let to_one = |(what, mut packet, passes): (&'static str, Vec<u8>, bool)| {
        packet[0] = 2;
        (what, packet, passes)
    };
    let cases = cases.map(to_one);
    for (what, packet, passes) in &cases {
        let fate = if *passes { Passed } else { Redirected };
        assert_eq!(site.fate(packet), fate, "{what}");
    }
    let mut let_in = cases[10].1.clone();
    let_in[6..12].copy_from_slice(&LET_IN);
    assert_eq!(site.fate(&let_in), Passed, "it has been through the dataplane");
    site.kill();
    for (what, packet, passes) in &cases {
        assert_eq!(site.fate(packet), if *passes { Passed } else { Dropped }, "{what}, dead");
    }
}

#[test]
fn fragments_of_a_failsafe_port_follow_the_first() {
    let mut site = Site::new();
    guard(&mut site);
    site.uplink.set_failsafes(&[SafePort { protocol: UDP, port: 53, net: None }].into()).unwrap();
    let piece = |identification, fragment, payload: &[u8]| {
        ipv4(OUTSIDE, NODE, V4 { protocol: UDP, identification, fragment }, payload)
    };
    assert_eq!(site.fate(&piece(1, 1, &[0x55; 16])), Redirected, "nothing known of it yet");
    assert_eq!(site.fate(&piece(1, 0x2000, &ports(9, 53))), Passed);
    assert_eq!(site.fate(&piece(1, 1, &[0x55; 16])), Passed);
    // What is no longer open is closed for the connections that it had, too.
    site.uplink.set_failsafes(&BTreeSet::new()).unwrap();
    assert_eq!(site.fate(&piece(3, 0x4000, &ports(9, 53))), Redirected);
}
