//! Programs outlive who attached them, are replaced in one step, and leave by `detach` only.

mod rig;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use margay_xsk::program::{
    HostFlow, HostFlowProgram, PodProgram, PortProgram, SafePort, TrunkProgram, XdpMode,
};
use rig::{Namespace, Station, region, veth};

const PATIENCE: Duration = Duration::from_secs(5);

/// The number of the XDP program on an interface, as `ip` shows it.
fn xdp_id(namespace: &Namespace, interface: &str) -> Option<u32> {
    let text = namespace.exec(&format!("ip -d link show dev {interface}"));
    let after = text.split("prog/xdp id ").nth(1)?;
    after.split_whitespace().next()?.parse().ok()
}

/// Number of tc programs on one way of an interface.
fn tc_programs(namespace: &Namespace, interface: &str, way: &str) -> usize {
    let text = namespace.exec(&format!("bpftool net show dev {interface}"));
    text.lines().filter(|line| line.contains(&format!("clsact/{way}"))).count()
}

#[test]
fn an_xdp_program_outlives_its_loader_and_gives_way_to_a_successor() {
    let (node, far) = (Namespace::new(), Namespace::new());
    veth(&node, "port", &far, "far");
    let index = node.ifindex("port");

    let first = PortProgram::load(false).unwrap();
    assert_eq!(node.enter(|| first.attach(index)).unwrap().mode, XdpMode::Native);
    let first_id = xdp_id(&node, "port").expect("attached");
    // What kill -9 leaves: no value of ours any more, and every descriptor closed.
    drop(first);
    assert_eq!(xdp_id(&node, "port"), Some(first_id), "still in force");

    let (second, _) = rig::uplink();
    node.enter(|| second.attach(index)).unwrap();
    let second_id = xdp_id(&node, "port").expect("attached");
    assert_ne!(second_id, first_id);

    let (third, _) = rig::uplink();
    node.enter(|| {
        third.attach(index).unwrap();
        second.detach(index).unwrap();
    });
    assert!(xdp_id(&node, "port").is_some(), "a successor's program is left alone");
    node.enter(|| third.detach(index)).unwrap();
    assert_eq!(xdp_id(&node, "port"), None);
}

#[test]
fn a_program_that_runs_the_other_way_gives_way_too() {
    let (node, far) = (Namespace::new(), Namespace::new());
    veth(&node, "port", &far, "far");
    let index = node.ifindex("port");
    let (first, _) = rig::uplink();
    let (second, _) = rig::uplink();
    node.enter(|| {
        for mode in [XdpMode::Native, XdpMode::Generic, XdpMode::Native] {
            assert_eq!(first.attach_as(index, mode).unwrap().mode, mode);
            assert_eq!(second.attach_as(index, mode).unwrap().mode, mode);
        }
        second.detach(index).unwrap();
    });
    assert_eq!(xdp_id(&node, "port"), None);
}

#[test]
fn an_interface_whose_program_cannot_be_replaced_keeps_one() {
    let node = Namespace::new();
    node.ip("link add bridge type bridge");
    let index = node.ifindex("bridge");
    let (first, _) = rig::uplink();
    let (second, _) = rig::uplink();
    node.enter(|| {
        first.attach_as(index, XdpMode::Generic).unwrap();
        second.attach_as(index, XdpMode::Native).unwrap_err();
        assert!(xdp_id(&node, "bridge").is_some(), "it lets nothing in that it did not before");
        assert_eq!(first.attach(index).unwrap().mode, XdpMode::Generic);
        first.detach(index).unwrap();
    });
    assert_eq!(xdp_id(&node, "bridge"), None);
}

#[test]
fn a_tc_program_outlives_its_loader_and_gives_way_to_a_successor() {
    let (node, far) = (Namespace::new(), Namespace::new());
    veth(&node, "port", &far, "far");
    let index = node.ifindex("port");
    node.enter(|| {
        PodProgram::load(1).unwrap().attach(index).unwrap();
        HostFlowProgram::load(1).unwrap().attach(index).unwrap();
    });
    assert_eq!(tc_programs(&node, "port", "ingress"), 1, "still in force");
    assert_eq!(tc_programs(&node, "port", "egress"), 1, "still in force");

    let old = PodProgram::load(1).unwrap();
    let (trunk, hostflow) =
        (TrunkProgram::load([2; 6]).unwrap(), HostFlowProgram::load(1).unwrap());
    node.enter(|| {
        old.attach(index).unwrap();
        trunk.attach(index).unwrap();
        hostflow.attach(index).unwrap();
        old.detach(index).unwrap();
    });
    assert_eq!(tc_programs(&node, "port", "ingress"), 1, "replaced, not added");
    assert_eq!(tc_programs(&node, "port", "egress"), 1, "replaced, not added");
    node.enter(|| {
        trunk.detach(index).unwrap();
        hostflow.detach(index).unwrap();
    });
    assert_eq!(tc_programs(&node, "port", "ingress"), 0);
    assert_eq!(tc_programs(&node, "port", "egress"), 0);
}

#[test]
fn detaching_from_an_interface_that_is_gone_is_no_error() {
    let node = Namespace::new();
    node.enter(|| {
        PortProgram::load(false).unwrap().detach(4711).unwrap();
        TrunkProgram::load([2; 6]).unwrap().detach(4711).unwrap();
    });
}

#[test]
fn attaching_to_an_interface_that_is_gone_names_program_and_interface() {
    let node = Namespace::new();
    let errors = node.enter(|| {
        let xdp = PortProgram::load(false).unwrap().attach(4711).unwrap_err();
        let tc = TrunkProgram::load([2; 6]).unwrap().attach(4711).unwrap_err();
        [xdp.to_string(), tc.to_string()]
    });
    assert_eq!(errors[0], "cannot attach the BPF program port to interface 4711");
    assert_eq!(errors[1], "cannot attach the BPF program trunk to interface 4711");
}

/// A node, 192.0.2.1, with an uplink and a trunk, and what the uplink leads to.
fn wired() -> (Namespace, Namespace) {
    let (node, wire) = (Namespace::new(), Namespace::new());
    veth(&node, "uplink", &wire, "wire");
    node.ip("link add margay0 address 02:4d:00:00:00:00 type veth peer name margay0x");
    for end in ["margay0", "margay0x"] {
        rig::quiet(&node, end);
        node.ip(&format!("link set dev {end} up"));
    }
    node.ip("address add 192.0.2.1/24 dev uplink");
    (node, wire)
}

/// The program on the uplink, and who receives at the far ends of trunk and uplink.
fn stations(node: &Namespace, wire: &Namespace) -> (HostFlowProgram, Station, Station) {
    let trunk = node.ifindex("margay0");
    let (trunk_far, uplink, wire_index) =
        (node.ifindex("margay0x"), node.ifindex("uplink"), wire.ifindex("wire"));
    let program = HostFlowProgram::load(trunk).unwrap();
    let far = node.enter(|| {
        program.attach(uplink).unwrap();
        Station::open(region(512), "margay0x", trunk_far)
    });
    let wire = wire.enter(|| Station::open(region(512), "wire", wire_index));
    (program, far, wire)
}

/// The host sends UDP from two ports; one flow is registered.
#[test]
fn only_registered_flows_of_the_host_leave_by_the_trunk() {
    let (node, wire) = wired();
    node.ip("-6 address add 2001:db8::1/64 dev uplink nodad");
    let (program, mut far, mut wire) = stations(&node, &wire);

    for (from, to) in
        [("192.0.2.1:5000", "192.0.2.9:53"), ("[2001:db8::1]:5000", "[2001:db8::9]:53")]
    {
        let (source, destination): (SocketAddr, SocketAddr) =
            (from.parse().unwrap(), to.parse().unwrap());
        let flow = HostFlow { protocol: 17, source, destination };
        let socket = node.enter(|| UdpSocket::bind(source).unwrap());
        let send = |text: &str| socket.send_to(text.as_bytes(), destination).unwrap();
        send("before");
        assert!(wire.find("before", PATIENCE).is_some(), "{from}: not registered");
        program.add(flow).unwrap();
        send("during");
        let packet = far.find("during", PATIENCE).expect("registered");
        assert_eq!(packet[..6], [0x02, 0x4d, 0, 0, 0, 0], "marked as the host's");
        // A large datagram: the fragments without ports follow the first.
        let large = "x".repeat(4000) + "tail";
        send(&large);
        assert!(far.find("tail", PATIENCE).is_some(), "{from}: later fragments");
        program.remove(flow).unwrap();
        program.remove(flow).unwrap();
        send("after");
        assert!(wire.find("after", PATIENCE).is_some(), "{from}: forgotten");
    }
}

/// A guarded uplink: the host's packets go to the dataplane with the neighbour that the kernel chose;
/// failsafe ports leave by themselves, and their answers come in.
#[test]
fn what_the_host_sends_by_a_guarded_uplink_goes_to_the_trunk() {
    let (node, wire) = wired();
    node.ip("neigh replace 192.0.2.9 lladdr 02:00:00:00:00:09 dev uplink");
    let (program, mut far, mut wire) = stations(&node, &wire);
    let uplink = node.ifindex("uplink");
    let socket = node.enter(|| UdpSocket::bind("192.0.2.1:5000").unwrap());
    let send = |to: &str, text: &str| socket.send_to(text.as_bytes(), to).unwrap();
    program.set_failsafes(&[SafePort { protocol: 17, port: 53, net: None }].into()).unwrap();
    send("192.0.2.9:54", "unguarded");
    assert!(wire.find("unguarded", PATIENCE).is_some());
    program.set_guarded(uplink, true).unwrap();
    send("192.0.2.9:54", "guarded");
    let packet = far.find("guarded", PATIENCE).expect("to the dataplane");
    let [a, b, c, d] = uplink.to_be_bytes();
    assert_eq!(packet[..6], [0x02, 0x4d, a, b, c, d], "the uplink");
    assert_eq!(packet[6..12], [2, 0, 0, 0, 0, 9], "the neighbour");
    send("192.0.2.9:53", "failsafe");
    assert!(wire.find("failsafe", PATIENCE).is_some());
    program.set_guarded(uplink, false).unwrap();
    program.set_guarded(uplink, false).unwrap();
    send("192.0.2.9:54", "again");
    assert!(wire.find("again", PATIENCE).is_some());
}
