"""What is measured: Margay in its two kinds of pod ports, the bare forwarder on both, the kernel.

Each device joins the same ends: a pod that sends, a pod of the same node that receives, and, where
it can, the far end of the node's uplink, behind which the pods of another node are. All of them
exist at once in namespaces of their own, and what is not being measured sleeps.
"""

import json
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from shell import (
    finish,
    inside,
    ip,
    namespaces,
    prefer,
    prefer_workers,
    run,
    start,
    wait_until,
)

PERF = Path(__file__).resolve().parent.parent
# The generator and the sink have the first core, the device under test the second.
GENERATOR_CPU = 0
DEVICE_CPU = 1
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
# The address of perf/bench/service.yaml and perf/kernel/pods.nft.
SERVICE = "10.96.0.11"
# What the pools' encapsulation is for the ways that leave a node or come to it.
TUNNELS = {"vxlan": "vxlan", "from vxlan": "vxlan", "ipip": "ipip"}
# The addresses that pods made here have beside those of IPv4.
SIXTH = {"10.244.9.1": "fd44:9::1", "10.244.9.2": "fd44:9::2"}
FORWARDING = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv6.conf.all.forwarding=1",
)


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
        """The ends of a way (`local`, `local6`, `service`, `vxlan`, `from vxlan`, `ipip`), or None if it
        has none."""
        raise NotImplementedError

    def pods(self, way):
        """The namespaces of two pods that this way connects, and the second one's address."""
        return None

    def encapsulate(self, mode):
        """Makes itself ready for a way between nodes."""


class Margay(Device):
    """A cluster of two nodes made by scripts/rig.

    One worker has a core of its own; several are where the daemon puts them. `kind` is that of the
    pods' ports, trunk unless it is native, and its first letter marks the namespaces.
    """

    # Lines of margayd's configuration that the command line has for all of them, and whether there
    # are policies.
    extra = ()
    policy = True
    # What the pools' encapsulation is.
    mode = "none"

    def __init__(self, name, kind, binaries, scratch, settings="", workers=1):
        self.name = name
        self.kind = "native" if kind == "native" else "trunk"
        self.tag = f"mgp{kind[0]}"
        self.run = Path(f"/run/margay-rig-{self.tag}")
        config = Path(scratch) / f"{self.tag}.toml"
        pinned = f'cpus = "{DEVICE_CPU}"\n' if workers == 1 else ""
        text = f'{pinned}pod-ports = "{self.kind}"\n{settings}'
        lines = [*text.splitlines(), *self.extra]
        # Of two lines with the same key the later one counts.
        keys = {line.partition("=")[0].strip(): line for line in lines}
        config.write_text("\n".join([*keys.values(), ""]), encoding="utf-8")
        self.environment = {
            **os.environ,
            "MARGAY_BIN": str(binaries),
            "MARGAY_RIG_TAG": self.tag,
            "MARGAYD_CONFIG": str(config),
            "WORKERS": str(workers),
        }
        self.addresses = {}

    def rig(self, line):
        return run([str(PERF.parent / "scripts/rig"), *line.split()], env=self.environment)

    def up(self):
        self.rig(f"cold --mode {self.mode}")
        self.lay()
        self.rig("start")
        for node, name, app in [("n1", "a", "client"), ("n1", "b", "server"),
                                ("n2", "c", "server"), ("n2", "d", "client")]:
            result = json.loads(self.rig(f"pod {node} default {name} app={app}"))
            self.addresses[name], self.addresses[f"{name}6"] = (
                one["address"].split("/")[0] for one in result["ips"]
            )
        for document in ["service.yaml", *(["policy.yaml"] if self.policy else [])]:
            hidden = self.run / f"store/.{document}"
            shutil.copy(PERF / "bench" / document, hidden)
            hidden.rename(self.run / "store" / document)
        # The sink swallows what the other node would answer.
        inside(f"{self.tag}-n1", "ping -c 1 -W 2 172.20.0.2")
        mac = inside(f"{self.tag}-n2", "cat /sys/class/net/eth0/address").strip()
        ip(f"-n {self.tag}-n1 neigh replace 172.20.0.2 lladdr {mac} dev eth0 nud permanent")
        prefer_workers(int((self.run / "n1/daemon.pid").read_text(encoding="ascii")))

    def lay(self):
        """Lays the wire; scripts/rig has laid one of frames."""

    def down(self):
        self.rig("down")

    def ends(self, way):
        if TUNNELS.get(way, self.mode) != self.mode:
            return None
        if way == "from vxlan":
            return self.ends_from_vxlan()
        far = way in TUNNELS
        family = "6" if way == "local6" else ""
        there = SERVICE if way == "service" else self.addresses[("c" if far else "b") + family]
        return Ends(
            netns=f"{self.tag}-p-a",
            src=self.addresses["a" + family],
            dst=there,
            dst_mac=GATEWAY_MAC,
            sink_netns=f"{self.tag}-wire" if far else f"{self.tag}-p-b",
            sink_interface="n1" if far else "eth0",
            # Into a pod behind the trunk the kernel redirects past a native program.
            sink_xdp="generic" if self.kind == "trunk" and not far else "native",
        )

    def ends_from_vxlan(self):
        """From a pod of the other node, as its frames come by the wire."""
        node = json.loads((self.run / "store/state/Node/n1.json").read_text(encoding="utf-8"))
        local = self.ends("local")
        return replace(
            local,
            netns=f"{self.tag}-wire",
            interface="n1",
            src=self.addresses["d"],
            dst_mac=inside(f"{self.tag}-n1", "cat /sys/class/net/eth0/address").strip(),
            tunnel=("172.20.0.2", "172.20.0.1", node["spec"]["vxlanTunnelMACAddr"]),
        )

    def encapsulate(self, mode):
        """Changes the pools' encapsulation and gives the nodes the time to follow."""
        if mode == self.mode:
            return
        self.rig(f"pools {mode}")
        self.mode = mode
        time.sleep(1)

    def pods(self, way):
        name = "b" if way == "local" else "c"
        return f"{self.tag}-p-a", f"{self.tag}-p-{name}", self.addresses[name]


class Carried(Margay):
    """Workers carry everything, those of both nodes on the second core; who talks has the first."""

    client_cpu = GENERATOR_CPU

    def __init__(self, name, kind, binaries, scratch, settings=""):
        super().__init__(name, kind, binaries, scratch, f"shortcut = false\n{settings}")


class FarMargay(Margay):
    """Two nodes with VXLAN between them from the beginning, on another wire: pods have the MTU that it
    leaves them."""

    mode = "vxlan"

    def __init__(self, wire, *words, **more):
        super().__init__(*words, **more)
        self.wire = wire
        self.environment["WIRE_MTU"] = str(wire.mtu)

    def up(self):
        super().up()
        for pod in ("a", "c"):
            check_mtu(f"{self.tag}-p-{pod}", self.wire)

    def lay(self):
        if not self.wire.whole:
            return
        nodes = [f"{self.tag}-n{number}" for number in (1, 2)]
        for node in nodes:
            ip(f"-n {node} link del eth0")
        one_veth(*nodes)
        for number, node in enumerate(nodes, 1):
            ip(f"-n {node} addr add 172.20.0.{number}/24 dev eth0")
            ip(f"-n {node} addr add fd20::{number}/64 dev eth0 nodad")
            ip(f"-n {node} link set eth0 up")

    def encapsulate(self, mode):
        """It has VXLAN for good."""

    def pods(self, way):
        return super().pods(way) if way == self.mode else None


class PreferringMargay(Carried):
    """Workers that run the uplink's NAPI, where the kernel lets them; else it has no way."""

    def __init__(self, name, kind, binaries, scratch):
        super().__init__(name, kind, binaries, scratch, "prefer-busy-poll = true\n")
        self.control = f"unix:{self.run}/n1/margayd.sock"
        self.ctl = Path(binaries) / "margayctl"

    def pods(self, way):
        line = [str(self.ctl), "--dataplane", self.control, "-o", "json", "node", "status"]
        chosen = {row["name"]: row["value"] for row in json.loads(run(line))["tuning"]}
        polled = way != "local" and chosen["NAPI of eth0"] == "workers"
        return super().pods(way) if polled else None


class BusyMargay(Carried):
    """One node whose worker polls for ever; stopped while it is not measured.

    The other node is stopped from the beginning: its worker would take the same core.
    """

    def up(self):
        super().up()
        for node in ("n1", "n2"):
            self.signal(node, signal.SIGSTOP)

    def signal(self, node, number):
        pid = self.run / node / "daemon.pid"
        if pid.exists():
            os.kill(int(pid.read_text(encoding="ascii")), number)

    def down(self):
        for node in ("n1", "n2"):
            self.signal(node, signal.SIGCONT)
        super().down()

    def begin(self):
        self.signal("n1", signal.SIGCONT)

    def end(self):
        self.signal("n1", signal.SIGSTOP)

    def encapsulate(self, mode):
        """It has no way between nodes."""

    def pods(self, way):
        return super().pods(way) if way == "local" else None


def softirq_thread(cpu):
    """The process number of a core's ksoftirqd."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        if comm.read_text(encoding="ascii", errors="replace").strip() == f"ksoftirqd/{cpu}":
            return int(comm.parent.name)
    raise RuntimeError(f"there is no ksoftirqd/{cpu}")


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
        mac = inside(netns, "cat /sys/class/net/eth0/address").strip()
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


class Forwarder(Wired):
    """The bare AF_XDP forwarder: touches no header."""

    name = "forwarder"
    tag = "mgpf"

    def __init__(self, binaries, scratch):
        self.binary = str(Path(binaries) / "margay-forwarder")
        self.log = Path(scratch) / f"{self.tag}.log"
        self.process = None

    def up(self):
        super().up()
        self.start()

    def start(self):
        self.process = start(self.command(), self.log)
        wait_until(f"{self.name} attaches its programs", self.attached)
        self.end()

    def command(self):
        ends = ["--in", f"{self.tag[-1]}pa", "--out", f"{self.tag[-1]}pb"]
        inside = ["ip", "netns", "exec", f"{self.tag}-n", self.binary]
        return [*inside, *ends, "--cpu", str(DEVICE_CPU), "-o", "json"]

    def attached(self):
        links = (ip(f"-n {self.tag}-n link show {self.tag[-1]}{pod}") for pod in ("pa", "pb"))
        return all(re.search(r"\bxdp\b", link) for link in links)

    def down(self):
        if self.process:
            self.begin()
            finish(self.process)
        super().down()

    def ends(self, way):
        """What leaves for another node, or comes from there, passes as it is, by a veth like any other."""
        return super().ends("local" if way in ("vxlan", "from vxlan") else way)

    # It polls for ever: while others are measured it is stopped.
    def begin(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        self.process.send_signal(signal.SIGSTOP)


class TrunkForwarder(Forwarder):
    """The same on Margay's default ports: the trunk's programs, and the veth pair as margayd has it."""

    name = "forwarder trunk"
    tag = "mgpo"

    def up(self):
        Wired.up(self)
        node = f"{self.tag}-n"
        one = "numtxqueues 1 numrxqueues 1"
        ip(f"-n {node} link add margay0 address 02:4d:00:00:00:00 arp off {one} type veth"
           f" peer name margay0x {one}")
        for end, joins in [("margay0", "on"), ("margay0x", "off")]:
            inside(node, f"ethtool -K {end} tx off tso off gso on gro {joins}")
            ip(f"-n {node} link set {end} addrgenmode none up")
        self.start()

    def command(self):
        return [*super().command(), "--trunk", "margay0", "margay0x"]

    def attached(self):
        """The second pod's program is the last."""
        return self.has_program("pb")

    def has_program(self, pod):
        filters = f"tc -n {self.tag}-n filter show dev {self.tag[-1]}{pod} ingress"
        return "bpf" in run(filters.split())

    def ends(self, way):
        # As into a pod of Margay's trunk.
        ends = Wired.ends(self, way)
        return ends and replace(ends, sink_xdp="generic")


class UplinkForwarder(TrunkForwarder):
    """From the trunk to an interface with sockets of its own, as from a pod to another node."""

    tag = "mgpu"

    def command(self):
        return [*super().command(), "--uplink"]

    def attached(self):
        return self.has_program("pa")

    def ends(self, way):
        return Wired.ends(self, "local") if way == "vxlan" else None


class Direct(Wired):
    """No device: the generator and the sink at the two ends of one veth. What that costs is in every figure."""

    name = "nothing"
    tag = "mgpz"

    def up(self):
        for name in ("pa", "pb"):
            ip(f"netns add {self.tag}-{name}")
        one_veth(f"{self.tag}-pa", f"{self.tag}-pb")
        for name in ("pa", "pb"):
            ip(f"-n {self.tag}-{name} link set eth0 addrgenmode none up")

    def ends(self, way):
        mac = inside(f"{self.tag}-pb", "cat /sys/class/net/eth0/address").strip()
        ends = super().ends("local6" if way == "local6" else "local")
        return replace(ends, dst_mac=mac)


class Testpmd(Forwarder):
    """DPDK's forwarder over its own AF_XDP driver: what the bare forwarder is held against."""

    name = "testpmd"
    tag = "mgpd"

    def __init__(self, scratch):
        super().__init__("", scratch)

    def ends(self, way):
        return Wired.ends(self, way)

    @staticmethod
    def there():
        """Whether Debian's package dpdk-dev is installed; it is not asked for."""
        return shutil.which("dpdk-testpmd") is not None

    def command(self):
        """Its main thread, on the generator's core, waits for a line that never comes."""
        ends = ["--vdev=net_af_xdp0,iface=dpa", "--vdev=net_af_xdp1,iface=dpb"]
        cores = f"-l {GENERATOR_CPU},{DEVICE_CPU} --main-lcore {GENERATOR_CPU}".split()
        memory = "--no-huge -m 512 --no-pci --file-prefix margay-bench".split()
        forwarding = "--forward-mode=io --auto-start --nb-cores=1".split()
        forwarding += "--no-mlockall --total-num-mbufs=32768".split()
        # Not `ip netns exec`, which hides /sys/fs/bpf.
        where = ["nsenter", f"--net=/run/netns/{self.tag}-n", "dpdk-testpmd"]
        return [*where, *cores, *memory, *ends, "--", *forwarding]


class Kernel(Wired):
    """The kernel: routes, connection tracking, perf/kernel/pods.nft, its own VXLAN.

    By itself it forwards on the core that generates, and the second one idles.
    """

    name = "kernel"
    tag = "mgpk"

    def up(self):
        super().up()
        node = f"{self.tag}-n"
        for setting in FORWARDING:
            inside(node, f"sysctl -qw {setting}")
        for address, end in [("10.244.9.1", "kpa"), ("10.244.9.2", "kpb")]:
            for one in (address, SIXTH[address]):
                ip(f"-n {node} route add {one} dev {end}")
        inside(node, f"nft -f {PERF / 'kernel/pods.nft'}")
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
            " nolearning"
        )
        ip(f"-n {node} link set vxlan0 mtu 1450 up")
        ip(f"-n {node} route add 10.244.8.0/26 via 10.244.8.0 dev vxlan0 onlink")
        ip(f"-n {node} neigh add 10.244.8.0 lladdr 02:00:00:00:08:00 dev vxlan0 nud permanent")
        run(["bridge", "-n", node, *"fdb add 02:00:00:00:08:00 dev vxlan0 dst 172.20.0.2".split()])

    def ends(self, way):
        local, wire = super().ends("local"), f"{self.tag}-wire"
        if way == "service":
            return replace(local, dst=SERVICE)
        if way == "vxlan":
            return replace(local, dst="10.244.8.1", sink_netns=wire, sink_interface="n1")
        if way == "from vxlan":
            outer, inner = (
                inside(f"{self.tag}-n", f"cat /sys/class/net/{name}/address").strip()
                for name in ("eth0", "vxlan0")
            )
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
        for setting in FORWARDING:
            inside(node, f"sysctl -qw {setting}")
        ip(f"-n {node} route add {addresses[pod]} dev k{pod}")
        inside(node, f"nft -f {PERF / 'kernel/pods.nft'}")
        local, remote, far = f"172.20.1.{number}", f"172.20.1.{3 - number}", 3 - number
        mtu = self.wire.mtu - VXLAN
        ip(f"-n {node} link add vxlan0 address 02:00:00:00:08:0{number} type vxlan id 4096"
           f" dstport 4789 local {local} remote {remote} nolearning")
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
