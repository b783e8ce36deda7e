"""The kernel doing the same work: on one node, on the second core, with a flowtable, on two nodes."""

from dataclasses import replace
from pathlib import Path

from devices import (
    DEVICE_CPU,
    FRAMES,
    PERF,
    QUEUES,
    SERVICES,
    SIXTH,
    VXLAN,
    Wired,
    check_mtu,
    one_veth,
)
from shell import inside, ip, mac_of, prefer, run

FORWARDING = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv6.conf.all.forwarding=1",
)


def forward(node):
    """Has a namespace's kernel forward, and judge what passes by perf/kernel/pods.nft."""
    for setting in FORWARDING:
        inside(node, f"sysctl -qw {setting}")
    inside(node, f"nft -f {PERF / 'kernel/pods.nft'}")


class Kernel(Wired):
    """The kernel: routes, connection tracking, perf/kernel/pods.nft, its own VXLAN.

    By itself it forwards on the core that generates, and the second one idles.
    """

    name = "kernel"
    tag = "mgpk"

    def up(self):
        super().up()
        node = f"{self.tag}-n"
        forward(node)
        for address, end in [("10.244.9.1", "kpa"), ("10.244.9.2", "kpb")]:
            for one in (address, SIXTH[address]):
                ip(f"-n {node} route add {one} dev {end}")
        self.uplink(node)

    def steer(self, cpus):
        """Receive packet steering: which cores forward what the first pod sends, and what comes by the
        wire; 0 for none."""
        for interface in ("kpa", "eth0"):
            queue = f"/sys/class/net/{interface}/queues/rx-0/rps_cpus"
            inside(f"{self.tag}-n", f"tee {queue}", input=f"{cpus:x}")

    def uplink(self, node):
        ip(f"netns add {self.tag}-wire")
        ip(f"-n {node} link add eth0 type veth peer name n1 netns {self.tag}-wire")
        ip(f"-n {node} link set eth0 up")
        ip(f"-n {self.tag}-wire link set n1 up")
        ip(f"-n {node} addr add 172.20.0.1/24 dev eth0")
        ip(f"-n {node} neigh add 172.20.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent")
        ip(
            f"-n {node} link add vxlan0 type vxlan id 4096 dstport 4789 local 172.20.0.1 dev eth0"
            " nolearning noudpcsum"
        )
        ip(f"-n {node} link set vxlan0 mtu 1450 up")
        ip(f"-n {node} route add 10.244.8.0/26 via 10.244.8.0 dev vxlan0 onlink")
        ip(f"-n {node} neigh add 10.244.8.0 lladdr 02:00:00:00:08:00 dev vxlan0 nud permanent")
        run(["bridge", "-n", node, *"fdb add 02:00:00:00:08:00 dev vxlan0 dst 172.20.0.2".split()])

    def ends(self, way):
        local, wire = super().ends("local"), f"{self.tag}-wire"
        if way == "service":
            return replace(local, dst=SERVICES[way])
        if way in ("vxlan", "service vxlan"):
            there = SERVICES.get(way, "10.244.8.1")
            return replace(local, dst=there, sink_netns=wire, sink_interface="n1")
        if way == "from vxlan":
            outer, inner = (mac_of(f"{self.tag}-n", name) for name in ("eth0", "vxlan0"))
            tunnel = ("172.20.0.2", "172.20.0.1", inner)
            return replace(
                local, netns=wire, interface="n1", src="10.244.8.2", dst_mac=outer, tunnel=tunnel
            )
        return super().ends(way)

    def pods(self, way):
        return (f"{self.tag}-pa", f"{self.tag}-pb", "10.244.9.2") if way == "local" else None


class FlowtableKernel(Kernel):
    """The kernel with perf/kernel/flowtable.nft on top."""

    name = "kernel flowtable"
    tag = "mgpfk"

    @staticmethod
    def refusal():
        """Why this kernel has no flowtables, as it says itself; nothing where it has."""
        table = "add table inet t; add flowtable inet t f { hook ingress priority 0; devices = { lo }; }"
        try:
            run(["unshare", "--net", "nft", table])
        except RuntimeError as error:
            return str(error).partition("Error: ")[2].partition("\n")[0] or str(error)
        return None

    def up(self):
        super().up()
        inside(f"{self.tag}-n", f"nft -f {PERF / 'kernel/flowtable.nft'}")


class SteeredKernel(Kernel):
    """The same kernel and rig, with the forwarding on the second core, as Margay has it."""

    name = "kernel rps"

    def __init__(self, kernel):
        self.kernel = kernel

    def up(self):
        """The kernel's rig is its own."""

    def down(self):
        """The kernel's rig is its own."""

    # Under load it forwards on that core's ksoftirqd, which gets precedence as the others have.
    def begin(self):
        self.kernel.steer(1 << DEVICE_CPU)
        prefer(softirq_thread(DEVICE_CPU))

    def end(self):
        self.kernel.steer(0)
        prefer(softirq_thread(DEVICE_CPU), 0)


class KernelNodes(Wired):
    """The kernel on two nodes: one has the client, the other the server, VXLAN is between them."""

    name = "kernel"

    def __init__(self, letter="n", wire=FRAMES):
        self.tag = f"mgp{letter}k"
        self.wire = wire

    def up(self):
        for number, (pod, other) in enumerate([("pa", "pb"), ("pb", "pa")], 1):
            self.node(number, pod, other)
        self.lay()
        for pod in ("pa", "pb"):
            check_mtu(f"{self.tag}-{pod}", self.wire)

    def node(self, number, pod, other):
        node = f"{self.tag}-n{number}"
        ip(f"netns add {node}")
        ip(f"-n {node} link set lo up")
        addresses = {"pa": "10.244.9.1", "pb": "10.244.9.2"}
        self.pod(pod, addresses[pod], f"n{number}")
        forward(node)
        ip(f"-n {node} route add {addresses[pod]} dev k{pod}")
        local, remote, far = f"172.20.1.{number}", f"172.20.1.{3 - number}", 3 - number
        mtu = self.wire.mtu - VXLAN
        ip(f"-n {node} link add vxlan0 address 02:00:00:00:08:0{number} type vxlan id 4096"
           f" dstport 4789 local {local} remote {remote} nolearning noudpcsum")
        ip(f"-n {node} link set vxlan0 mtu {mtu} up")
        ip(f"-n {node} route add {addresses[other]} via 10.244.8.{far} dev vxlan0 onlink")
        ip(f"-n {node} neigh add 10.244.8.{far} lladdr 02:00:00:00:08:0{far} dev vxlan0 nud permanent")
        ip(f"-n {node} link set k{pod} mtu {mtu}")
        ip(f"-n {self.tag}-{pod} link set eth0 mtu {mtu}")

    def lay(self):
        nodes = [f"{self.tag}-n{number}" for number in (1, 2)]
        if self.wire.whole:
            one_veth(*nodes)
        else:
            self.bridge(nodes)
        for number, node in enumerate(nodes, 1):
            ip(f"-n {node} addr add 172.20.1.{number}/24 dev eth0")
            ip(f"-n {node} link set eth0 up")

    def bridge(self, nodes):
        wire, mtu = f"{self.tag}-wire", self.wire.mtu
        ip(f"netns add {wire}")
        ip(f"-n {wire} link add br0 type bridge mcast_snooping 0")
        ip(f"-n {wire} link set br0 up")
        for number, node in enumerate(nodes, 1):
            end = f"n{number}"
            ip(f"-n {node} link add eth0 {QUEUES} type veth peer name {end} {QUEUES} netns {wire}")
            ip(f"-n {wire} link set {end} master br0 mtu {mtu} up")
            ip(f"-n {node} link set eth0 mtu {mtu}")
            for where, interface in [(node, "eth0"), (wire, end)]:
                inside(where, f"ethtool -K {interface} tx off tso off gso off gro on")

    def ends(self, way):
        return None

    def pods(self, way):
        return (f"{self.tag}-pa", f"{self.tag}-pb", "10.244.9.2") if way == "vxlan" else None


def softirq_thread(cpu):
    """The process number of a core's ksoftirqd."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        if comm.read_text(encoding="ascii", errors="replace").strip() == f"ksoftirqd/{cpu}":
            return int(comm.parent.name)
    raise RuntimeError(f"there is no ksoftirqd/{cpu}")
