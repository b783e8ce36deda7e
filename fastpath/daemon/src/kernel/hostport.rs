//! What Margay puts into the kernel, brought to what is wanted and taken back at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use rtnetlink::Handle;

pub use super::trunk::{KERNEL_END, KERNEL_MAC, Trunk, WORKER_END};

use super::sysctl::ReservedPorts;
use super::{Result, connect, routes, rules, trunk};

/// What is wanted of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Queues of the trunk, one for each worker; at least 1.
    pub queues: u32,
    /// MTU of the trunk, in bytes: at least that of the pods.
    pub mtu: u32,
    /// The node's addresses out of the pools.
    pub tunnel_addresses: BTreeSet<IpAddr>,
    /// Ranges whose traffic from the node goes through the dataplane: pools, services.
    pub routes: Vec<HostRoute>,
    /// How the node reaches its own node ports; `None` without services.
    pub node_ports: Option<NodePortAccess>,
    /// First and last port of each range that is the dataplane's on the node's addresses: the kernel
    /// gives none of them to a connection of the node by itself.
    pub reserved_ports: Vec<(u16, u16)>,
}

/// A route to the trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// Destination; bits behind the prefix are ignored.
    pub dst: IpNet,
    /// Address that the node's own packets carry; one of the node's or of `tunnel_addresses`.
    pub source: Option<IpAddr>,
    /// Path MTU, where it is less than the trunk's.
    pub mtu: Option<u32>,
}

/// The node ports, as the node itself reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortAccess {
    /// The node's addresses on which they answer.
    pub addresses: BTreeSet<IpAddr>,
    /// First and last port of each range in use, by IP protocol number.
    pub ports: BTreeMap<u8, Vec<(u16, u16)>>,
}

/// Something that was changed in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was no trunk.
    TrunkCreated,
    /// The trunk had another number of queues.
    TrunkReplaced,
    /// A parameter of the trunk, by its name below `/proc/sys/net`.
    Parameter(String),
    /// MTU, address or state of one end, by its name.
    Link(String),
    /// An address of the trunk, out of a pool or its own.
    AddressAdded(IpAddr),
    /// An address that is no longer wanted.
    AddressRemoved(IpAddr),
    /// A route to the trunk.
    RouteAdded(IpNet),
    /// A route that is no longer wanted.
    RouteRemoved(IpNet),
    /// The rule for the local table has another priority.
    LocalRuleMoved {
        /// The new one.
        priority: u32,
    },
    /// A rule for node ports on an address.
    NodePortRuleAdded(IpAddr),
    /// A rule that is no longer wanted.
    NodePortRuleRemoved,
    /// The list of ports that the kernel hands to nobody.
    ReservedPorts,
}

/// Reconciles the kernel with what is wanted.
#[derive(Debug)]
pub struct HostPort {
    handle: Handle,
    reserved: ReservedPorts,
}

// === impl HostPort ===

impl HostPort {
    /// What must be remembered over a crash is kept in `state_dir`.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn new(state_dir: &Path) -> Result<Self> {
        Ok(Self { handle: connect()?, reserved: ReservedPorts::new(state_dir) })
    }

    /// Brings the kernel to `desired` and returns what it took; a second call in a row changes
    /// nothing. Each thing is tried even if another is refused, and stays done: the next call goes
    /// on from there.
    ///
    /// # Errors
    /// The kernel refuses, or an interface that is not Margay's has a name of the trunk's.
    pub async fn apply(&self, desired: &Desired) -> Result<(Trunk, Vec<Change>)> {
        let mut changes = Vec::new();
        let (queues, mtu) = (desired.queues.max(1), desired.mtu);
        let trunk = trunk::ensure(&self.handle, queues, mtu, &mut changes).await?;
        let index = trunk.kernel.index;
        // Addresses before routes, which name them as sources; routes before rules, which lead to
        // them.
        let mut addresses = desired.tunnel_addresses.clone();
        addresses.insert(trunk::KERNEL_ADDRESS.into());
        let made = routes::ensure_addresses(&self.handle, index, &addresses, &mut changes).await;
        let (main, own) = (routes::MAIN_TABLE, rules::TABLE);
        let wanted = &desired.routes;
        let routed = routes::ensure_routes(&self.handle, index, main, wanted, &mut changes).await;
        let access = desired.node_ports.as_ref();
        let to_node = access.map(own_addresses).unwrap_or_default();
        let looped = routes::ensure_routes(&self.handle, index, own, &to_node, &mut changes).await;
        let ruled = rules::ensure(&self.handle, access, &mut changes).await;
        made.and(routed).and(looped).and(ruled)?;
        if self.reserved.reserve(&desired.reserved_ports)? {
            changes.push(Change::ReservedPorts);
        }
        Ok((trunk, changes))
    }

    /// Leaves the node as it was: rules first, so that the local table rules again, then the trunk
    /// with its routes and addresses, then the ports. Each is tried even if another fails.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn remove(&self) -> Result<()> {
        let rules = rules::ensure(&self.handle, None, &mut Vec::new()).await;
        let trunk = trunk::remove(&self.handle).await;
        let ports = self.reserved.release();
        rules.and(trunk.map(drop)).and(ports.map(drop))
    }
}

/// The routes that node-port rules lead to: to each address by the trunk, from that address.
fn own_addresses(access: &NodePortAccess) -> Vec<HostRoute> {
    let route =
        |addr: &IpAddr| HostRoute { dst: IpNet::from(*addr), source: Some(*addr), mtu: None };
    access.addresses.iter().map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::super::KernelError;
    use super::super::testing::{Elsewhere, in_namespace, run};
    use super::*;

    fn desired() -> Desired {
        let route = |dst: &str, source: &str| HostRoute {
            dst: dst.parse().unwrap(),
            source: Some(source.parse().unwrap()),
            mtu: None,
        };
        Desired {
            queues: 2,
            mtu: 1500,
            tunnel_addresses: ["10.1.0.64", "fd00:1::40"].map(|a| a.parse().unwrap()).into(),
            routes: vec![
                route("10.1.0.0/16", "10.1.0.64"),
                route("10.96.0.0/12", "192.0.2.1"),
                route("fd00:1::/48", "fd00:1::40"),
            ],
            node_ports: Some(NodePortAccess {
                addresses: ["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap()).into(),
                ports: [6, 17].map(|protocol| (protocol, vec![(30_080, 30_081)])).into(),
            }),
            reserved_ports: vec![(61_000, 65_535), (50_051, 50_051)],
        }
    }

    fn node() {
        run("ip link add u0 type veth peer name u1");
        run("ip addr add 192.0.2.1/24 dev u0");
        run("ip addr add 2001:db8::1/64 dev u0 nodad");
        run("ip link set u1 up");
        run("ip link set u0 up");
        run("ip route add default via 192.0.2.254");
    }

    /// All that this module may touch, as the kernel's own tool shows it.
    fn snapshot() -> String {
        [
            "ip rule",
            "ip -6 rule",
            "ip -4 route show table all",
            "ip -6 route show table all",
            "ip -o addr",
            "sysctl net.ipv4.ip_local_reserved_ports net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
            "sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.all.accept_local",
        ]
        .map(run)
        .join("\n")
    }

    #[test]
    fn what_is_wanted_stands_after_one_call_and_a_second_changes_nothing() {
        in_namespace(|| async {
            node();
            let dir = tempfile::tempdir().unwrap();
            let port = HostPort::new(dir.path()).unwrap();
            let (trunk, changes) = port.apply(&desired()).await.unwrap();
            assert!(changes.contains(&Change::TrunkCreated), "{changes:?}");
            assert_eq!((trunk.kernel.rx_queues, trunk.worker.tx_queues), (2, 2));
            assert!(trunk.kernel.up && trunk.kernel.mac == KERNEL_MAC);
            let (_, again) = port.apply(&desired()).await.unwrap();
            assert_eq!(again, [], "a second call changes nothing");

            let link = run("ip -d link show margay0");
            assert!(link.contains("NOARP") && link.contains("addrgenmode none"), "{link}");
            let route = |dst: &str| run(&format!("ip route get {dst}"));
            assert!(route("10.1.5.5").contains("dev margay0 src 10.1.0.64"));
            assert!(route("10.96.0.1").contains("dev margay0 src 192.0.2.1"));
            assert!(route("fd00:1::5").contains("dev margay0"));
            assert!(route("198.51.100.1").contains("dev u0"));
            let node_port = "192.0.2.1 ipproto tcp dport 30080";
            assert!(route(node_port).contains("dev margay0"), "{}", route(node_port));
            assert!(route("192.0.2.1 ipproto tcp dport 22").contains("dev lo"));
            assert!(route("2001:db8::1 ipproto udp dport 30080").contains("dev margay0"));
            assert!(route("2001:db8::1 ipproto udp dport 53").contains("dev lo"));
            let offloads = run("ethtool -k margay0");
            for line in ["tcp-segmentation-offload: off", "tx-checksumming: off"] {
                assert!(offloads.contains(line), "{line}: {offloads}");
            }
            assert!(offloads.contains("generic-receive-offload: on"), "{offloads}");
        });
    }

    #[test]
    fn removal_leaves_the_node_as_it_was_also_after_a_crash() {
        in_namespace(|| async {
            node();
            run("sysctl -qw net.ipv4.ip_local_reserved_ports=8080,9000-9010");
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 65000").unwrap();
            let before = snapshot();
            let dir = tempfile::tempdir().unwrap();
            HostPort::new(dir.path()).unwrap().apply(&desired()).await.unwrap();
            // The first daemon is gone without a word; another comes and stops in order.
            let port = HostPort::new(dir.path()).unwrap();
            let (_, changes) = port.apply(&desired()).await.unwrap();
            assert_eq!(changes, []);
            let reserved = run("sysctl -n net.ipv4.ip_local_reserved_ports");
            assert_eq!(reserved.trim(), "8080,9000-9010,50051,61000-65000");
            port.remove().await.unwrap();
            assert_eq!(snapshot(), before);
            port.remove().await.unwrap();
            assert_eq!(snapshot(), before);
        });
    }

    #[test]
    fn a_leftover_trunk_keeps_its_index_with_any_number_of_queues() {
        in_namespace(|| async {
            node();
            let dir = tempfile::tempdir().unwrap();
            let port = HostPort::new(dir.path()).unwrap();
            let (first, _) = port.apply(&desired()).await.unwrap();
            let wish = Desired { queues: 3, ..desired() };
            let (second, changes) = port.apply(&wish).await.unwrap();
            assert!(changes.contains(&Change::TrunkReplaced));
            assert_eq!(second.kernel.index, first.kernel.index);
            assert_eq!(second.worker.index, first.worker.index);
            assert_eq!(second.worker.rx_queues, 3);
            assert_eq!(port.apply(&wish).await.unwrap().1, []);
        });
    }

    #[test]
    fn routes_and_addresses_follow_what_is_wanted() {
        in_namespace(|| async {
            node();
            let dir = tempfile::tempdir().unwrap();
            let port = HostPort::new(dir.path()).unwrap();
            port.apply(&desired()).await.unwrap();
            let mut wish = desired();
            wish.tunnel_addresses.clear();
            wish.routes.truncate(2);
            wish.routes[0].source = Some("192.0.2.1".parse().unwrap());
            wish.routes[1].mtu = Some(1400);
            wish.node_ports = None;
            port.apply(&wish).await.unwrap();
            assert_eq!(port.apply(&wish).await.unwrap().1, []);
            assert!(run("ip route get 10.1.5.5").contains("src 192.0.2.1"));
            assert!(run("ip route show 10.96.0.0/12").contains("mtu 1400"));
            assert!(!run("ip -6 route").contains("fd00:1::"));
            let addresses = run("ip -o addr show dev margay0");
            assert!(addresses.contains("169.254.77.67") && addresses.lines().count() == 1);
            assert!(run("ip rule").starts_with("0:\tfrom all lookup local"));
        });
    }

    #[test]
    fn a_strangers_interface_of_the_trunks_name_is_an_error_and_stays() {
        in_namespace(|| async {
            run("ip link add margay0 type bridge");
            let dir = tempfile::tempdir().unwrap();
            let port = HostPort::new(dir.path()).unwrap();
            let error = port.apply(&desired()).await.unwrap_err();
            assert!(matches!(error, KernelError::Foreign { name: "margay0" }), "{error}");
            assert!(port.remove().await.is_err());
            run("ip link show margay0");
        });
    }

    /// What leaves the node by the trunk must be ready for a wire: AF_XDP knows neither super-frames
    /// nor checksums left to hardware.
    #[test]
    fn the_kernels_tcp_reaches_the_workers_end_in_segments_with_right_checksums() {
        in_namespace(|| async {
            node();
            let dir = tempfile::tempdir().unwrap();
            HostPort::new(dir.path()).unwrap().apply(&desired()).await.unwrap();
            let there = Elsewhere::with(WORKER_END, "10.1.5.5/32");
            // Plays a worker and a pod: takes the host port's frames and sends answers back to it.
            there.run("ip link set margay0x address 02:4d:00:00:00:00");
            there.run("ip route add 10.1.0.64 dev margay0x");
            there.run("ip neigh add 10.1.0.64 dev margay0x lladdr 02:4d:00:00:00:00 nud permanent");
            let capture = dir.path().join("frames.pcap");
            let pid = there.pid().to_string();
            let spawn = |command: &str| {
                let words = ["--net", "--target", &pid].into_iter().chain(command.split(' '));
                std::process::Command::new("nsenter").args(words).spawn().unwrap()
            };
            let file = capture.display();
            let mut tcpdump =
                spawn(&format!("tcpdump -q -Z root -Q in -s 0 -i margay0x -w {file} tcp"));
            let mut sink = spawn("iperf3 -s -1 -p 5201");
            let listening = || there.run("ss -Hltn").contains(":5201") && capture.exists();
            for _ in 0..100 {
                if listening() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let report = run("iperf3 -c 10.1.5.5 -p 5201 -n 5M");
            assert!(report.contains("iperf Done"), "{report}");
            sink.wait().unwrap();
            run(&format!("kill -INT {}", tcpdump.id()));
            tcpdump.wait().unwrap();

            let lines = run(&format!("tcpdump -nnve -r {file}"));
            assert!(lines.matches("10.1.0.64.").count() > 1000, "too few frames");
            assert!(!lines.contains("incorrect"), "a checksum was left to hardware");
            let lengths = lines.lines().filter_map(|line| {
                line.split(", length ").nth(1)?.split(':').next()?.parse::<usize>().ok()
            });
            assert!(lengths.max().unwrap() <= 1514, "a super-frame");
        });
    }

    /// The answer comes from the node's own address: `accept_local` and a loose `rp_filter`.
    #[test]
    fn a_node_port_of_the_node_itself_goes_out_by_the_trunk_and_the_answer_is_taken() {
        in_namespace(|| async {
            node();
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
            let dir = tempfile::tempdir().unwrap();
            HostPort::new(dir.path()).unwrap().apply(&desired()).await.unwrap();
            let there = Elsewhere::with(WORKER_END, "10.1.5.5/32");
            let answer = "
from scapy.all import *
conf.verb = 0
def turn(f):
    mac = '02:4d:00:00:00:00'
    ip = IP(src='192.0.2.1', dst='192.0.2.1') / UDP(sport=30080, dport=5555) / b'answer'
    assert f[Ether].dst == mac and f[UDP].dport == 30080 and f[IP].src == '192.0.2.1'
    sendp(Ether(dst=mac, src='02:4d:00:00:00:01') / ip, iface='margay0x')
print('ready', flush=True)
sniff(iface='margay0x', filter='udp port 30080', prn=turn, count=1, timeout=20)
";
            let mut worker = std::process::Command::new("nsenter")
                .args(["--net", "--target", &there.pid().to_string()])
                .args(["/usr/bin/python3", "-c", answer])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut ready = [0];
            std::io::Read::read_exact(worker.stdout.as_mut().unwrap(), &mut ready).unwrap();
            let socket = std::net::UdpSocket::bind("192.0.2.1:5555").unwrap();
            socket.connect("192.0.2.1:30080").unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
            let mut buffer = [0; 16];
            // The sniffer may begin a little after its line: the question is asked again.
            let answered = (0..10).any(|_| {
                socket.send(b"question").unwrap();
                socket.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == b"answer")
            });
            worker.wait().unwrap();
            assert!(answered, "no answer");
        });
    }
}
