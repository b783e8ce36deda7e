"""Devices that touch no header: the bare AF_XDP forwarder on both kinds of ports, DPDK's, and none at all."""

import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

from devices import DEVICE_CPU, GENERATOR_CPU, Wired, one_veth
from shell import finish, inside, ip, mac_of, run, start, wait_until


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
        """What leaves for another node, or comes from there, passes as it is, by a veth like any other; so
        does what goes to a service."""
        return super().ends("local" if way in ("service", "vxlan", "service vxlan", "from vxlan") else way)

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
        ends = Wired.ends(self, "local" if way == "service" else way)
        return ends and replace(ends, sink_xdp="generic", xdp="generic")


class UplinkForwarder(TrunkForwarder):
    """From the trunk to an interface with sockets of its own, as from a pod to another node."""

    tag = "mgpu"

    def command(self):
        return [*super().command(), "--uplink"]

    def attached(self):
        return self.has_program("pa")

    def ends(self, way):
        ends = Wired.ends(self, "local") if way in ("vxlan", "service vxlan") else None
        return ends and replace(ends, xdp="generic")


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
        """Whether Debian's package dpdk-dev is there: an emulated machine has what this one has."""
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
        ends = super().ends("local6" if way == "local6" else "local")
        return replace(ends, dst_mac=mac_of(ends.sink_netns))
