"""What is measured, and the ends between which it is: the devices themselves are in margay.py, forwarder.py
and kernel.py.

Each device joins the same ends: a pod that sends, a pod of the same node that receives, and, where
it can, the far end of the node's uplink, behind which the pods of another node are. All of them
exist at once in namespaces of their own, and what is not being measured sleeps.
"""

from dataclasses import dataclass
from pathlib import Path

from shell import inside, ip, mac_of, namespaces

PERF = Path(__file__).resolve().parent.parent
# The generator and the sink have the first core, the device under test the second.
GENERATOR_CPU = 0
DEVICE_CPU = 1
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
# The addresses of perf/bench/service.yaml and perf/kernel/pods.nft: of a pod here, and of one elsewhere.
SERVICES = {"service": "10.96.0.11", "service vxlan": "10.96.0.12"}
# What the pools' encapsulation is for the ways that leave a node or come to it.
TUNNELS = {"vxlan": "vxlan", "service vxlan": "vxlan", "from vxlan": "vxlan", "ipip": "ipip"}
# The addresses that pods made here have beside those of IPv4.
SIXTH = {"10.244.9.1": "fd44:9::1", "10.244.9.2": "fd44:9::2"}


@dataclass(frozen=True)
class Wire:
    """What two nodes have between them, for Margay and the kernel alike.

    A bridge between two veths without offloads, which carries frames of its MTU; or `whole`: one veth
    as the kernel makes it, whose offloads leave super-frames whole.
    """

    mtu: int = 1500
    whole: bool = False


FRAMES, JUMBO, WHOLE = Wire(), Wire(mtu=9000), Wire(whole=True)
# Bytes that VXLAN adds, over IPv4 and over IPv6.
VXLAN, VXLAN6 = 50, 70
# Two queues: the directions of a connection reach different workers.
QUEUES = "numtxqueues 2 numrxqueues 2"


def one_veth(first, second):
    """The eth0 of two nodes are its ends."""
    ip(f"-n {first} link add eth0 {QUEUES} type veth peer name eth0 {QUEUES} netns {second}")


def check_mtu(pod, wire):
    """A pod's packets must be as large as the wire lets them be in VXLAN."""
    mtu = int(inside(pod, "cat /sys/class/net/eth0/mtu"))
    if not wire.mtu - VXLAN6 <= mtu <= wire.mtu - VXLAN:
        raise RuntimeError(f"{pod}: MTU {mtu} on a wire of {wire.mtu}")


@dataclass(frozen=True)
class Ends:
    """Where packets enter, what they look like there, and where they are counted."""

    netns: str
    src: str
    dst: str
    dst_mac: str
    sink_netns: str
    sink_interface: str
    sink_xdp: str
    interface: str = "eth0"
    # How XDP runs where packets enter, for their answers.
    xdp: str = "native"
    # Outer addresses and the inner destination's, of what enters in VXLAN.
    tunnel: tuple = ()

    def words(self):
        """Themselves as options of margay-pktgen."""
        near = ["--interface", self.interface, "--netns", self.netns, "--src", self.src, "--dst", self.dst]
        far = ["--sink-interface", self.sink_interface, "--sink-netns", self.sink_netns]
        named = zip(("--tunnel-src", "--tunnel-dst", "--inner-dst-mac"), self.tunnel)
        outer = ["--tunnel", "vxlan", *(word for pair in named for word in pair)] if self.tunnel else []
        return [*near, "--dst-mac", self.dst_mac, *far, "--sink-xdp", self.sink_xdp, *outer]


class Device:
    """A device under test."""

    name = ""
    tag = ""
    # Between its nodes, where it has two.
    wire = FRAMES
    # The core of those who talk through it, where one is left to them.
    client_cpu = None

    def up(self):
        """Builds it."""

    def down(self):
        """Removes all of it, whatever state it is in."""
        for name in namespaces():
            if name.startswith(f"{self.tag}-"):
                ip(f"netns del {name}")

    def begin(self):
        """Wakes it for a measurement."""

    def end(self):
        """Lets it sleep."""

    def ends(self, way):
        """The ends of a way (`local`, `local6`, `service`, `vxlan`, `service vxlan`, `from vxlan`, `ipip`),
        or None if it has none."""
        raise NotImplementedError

    def pods(self, way):
        """The namespaces of two pods that this way connects, and the second one's address."""
        return None

    def encapsulate(self, mode):
        """Makes itself ready for a way between nodes."""


class Wired(Device):
    """A device between two pods that are made here: the ends `pa` and `pb` of their veths."""

    def pod(self, name, address, node="n"):
        netns, end, node = f"{self.tag}-{name}", f"{self.tag[-1]}{name}", f"{self.tag}-{node}"
        ip(f"netns add {netns}")
        ip(f"-n {netns} link set lo up")
        ip(f"-n {node} link add {end} type veth peer name eth0 netns {netns}")
        ip(f"-n {node} link set {end} address {GATEWAY_MAC}")
        for where, interface in [(netns, "eth0"), (node, end)]:
            ip(f"-n {where} link set {interface} addrgenmode none")
            ip(f"-n {where} link set {interface} up")
        ip(f"-n {netns} addr add {address}/32 dev eth0")
        ip(f"-n {netns} addr add {SIXTH[address]}/128 dev eth0 nodad")
        ip(f"-n {netns} route add 169.254.1.1 dev eth0")
        ip(f"-n {netns} route add default via 169.254.1.1")
        ip(f"-n {netns} neigh add 169.254.1.1 lladdr {GATEWAY_MAC} dev eth0 nud permanent")
        mac = mac_of(netns)
        for one in (address, SIXTH[address]):
            ip(f"-n {node} neigh add {one} lladdr {mac} dev {end} nud permanent")

    def up(self):
        ip(f"netns add {self.tag}-n")
        ip(f"-n {self.tag}-n link set lo up")
        self.pod("pa", "10.244.9.1")
        self.pod("pb", "10.244.9.2")

    def ends(self, way):
        if way not in ("local", "local6"):
            return None
        src, dst = "10.244.9.1", "10.244.9.2"
        return Ends(
            netns=f"{self.tag}-pa",
            src=src if way == "local" else SIXTH[src],
            dst=dst if way == "local" else SIXTH[dst],
            dst_mac=GATEWAY_MAC,
            sink_netns=f"{self.tag}-pb",
            sink_interface="eth0",
            sink_xdp="native",
        )
