"""The suite `scale`: 250 pods on a node, a million flows, and more flows than there are slots."""

import socket
import struct
import time
from pathlib import Path

import cluster
from answering import Answering
from cluster import TAG, Case
from shell import ip, namespaces

PODS = 250
# Pods that are there from the beginning: one sends, one receives, one answers connections.
FIRST = 3
# What a pod costs without Margay is measured with so many bare namespaces.
BARE = 50
IDLE_SECONDS = 30
SLOTS = 1 << 16
MILLION = 1_000_000

CPU = [Case(f"idle CPU of {name} with 250 pods", "% of a core", aim) for name, aim in
       (("margayd", "≤ 1"), ("the agent", ""))]
MEMORY = [
    Case("memory of a pod: margayd and agent, resident", "KiB"),
    Case("memory of a pod: kernel, beside the bare namespace", "KiB"),
    Case("memory of a pod: both", "KiB", "≤ 1024"),
]
AMONG = Case("a busy pod among 250, 60 bytes, 64 flows", "Mpps", "≥ 0.95 of it alone")
MANY = Case("1 M flows, 60 bytes", "Mpps")
# Of rates, that of the worker is asked for.
CARRIED = "shortcut = false\n"
# What both are held against: a node with two pods, and the same node with a few flows.
ALONE = "alone"
FEW = "1 k flows"
TWICE = "twice as many flows as slots"
DELIVERED = Case(f"{TWICE}: packets that arrive", "%")
EVICTED = Case(f"{TWICE}: evictions, of the packets sent", "%")
LASTING = Case(f"{TWICE}: TCP connections from before that live on, of 20", "connections", "20")
NEW = Case(f"{TWICE}: new TCP connections that succeed, of 20", "connections", "20")


class Echo(Answering):
    """An echo server in a pod."""

    def reply(self, about, peer, data):
        return data


class Suite(cluster.Suite):
    """One worker on a core of its own, as in the suite `rig`."""

    name = "scale"
    rounds = 5
    mode = "none"
    workers = 1
    cases = [*CPU, *MEMORY, AMONG, MANY, DELIVERED, EVICTED, LASTING, NEW]
    ours = ("margay",)
    yardsticks = (ALONE, FEW)

    def up(self):
        super().up()
        for name in ("a", "b", "c"):
            self.rig.pod("n1", "default", name)
        for name in ("d", "e"):
            self.rig.pod("n2", "default", name)
        self.echo = Echo()
        with self.rig.inside("c"):
            self.echo.open(socket.AF_INET, "", 80, None)
        for node in ("n1", "n2"):
            self.prefer_workers(node)

    def down(self):
        if hasattr(self, "echo"):
            self.echo.close()
        for name in namespaces():
            if name.startswith(f"{TAG}-bare"):
                ip(f"netns del {name}")
        super().down()

    def measure(self, rounds, cases, progress):
        values = {}

        def note(case, number, device="margay", **more):
            one = {"value": number, **more}
            noted = values.setdefault(case.name, {}).setdefault(device, [])
            noted.append(one)
            progress(len(noted) - 1, case, device, one)

        for case, number in zip(MEMORY, self.memory_of_pods()):
            note(case, number)
        for case, process in zip(CPU, ("daemon", "agent")):
            note(case, self.idle(process))
        self.configure(CARRIED)
        for node in ("n1", "n2"):
            self.restart(node)
        for _ in range(rounds):
            note(AMONG, self.rate("d", "e", 64), ALONE)
            note(AMONG, self.rate("a", "b", 64))
        self.configure(f"{CARRIED}[flows]\nv4 = {2 * MILLION}\n")
        self.restart()
        for _ in range(rounds):
            note(MANY, self.rate("a", "b", 1000), FEW)
            number = self.rate("a", "b", MILLION, warm_up=4)
            note(MANY, number, flows=self.counted("margay_flows"))
        self.configure(f"{CARRIED}[flows]\nv4 = {SLOTS}\n")
        self.restart()
        drops = self.drops()
        for case, number in zip((DELIVERED, EVICTED, LASTING, NEW), self.pressure()):
            note(case, number)
        values[DELIVERED.name]["margay"][0]["drops"] = {
            reason: count - drops.get(reason, 0) for reason, count in self.drops().items()
        }
        return values

    def rate(self, source, target, flows, warm_up=0.3):
        """Millions of packets a second from one pod to another one of its node."""
        times = "--seconds", self.seconds, "--warm-up", warm_up
        report = self.send(source, target, "--flows", flows, *times)
        return report["received"]["packets_per_second"] / 1e6

    def memory_of_pods(self):
        """KiB of a pod: of our processes, of the kernel beyond a bare namespace, and both."""
        kernel = kernel_memory()
        for number in range(BARE):
            bare(number)
        of_bare = (kernel_memory() - kernel) / BARE
        kernel, resident = kernel_memory(), self.resident()
        more = PODS - FIRST
        self.pods([f"m{number}" for number in range(more)])
        time.sleep(2)
        ours = (self.resident() - resident) / more
        theirs = (kernel_memory() - kernel) / more - of_bare
        return ours, theirs, ours + theirs

    def resident(self):
        """KiB of margayd and agent, as far as their pages are their own (proc_pid_smaps(5))."""
        total = 0
        for process in ("daemon", "agent"):
            rollup = Path(f"/proc/{self.rig.pid('n1', process)}/smaps_rollup")
            total += fields(rollup)["Pss"]
        return total

    def idle(self, process):
        """Percent of a core that a process takes while nothing is sent."""
        # Its own clock (clock_getcpuclockid(3)): /proc has whole ticks, with which timers' work begins.
        clock = ~int(self.rig.pid("n1", process)) << 3 | 2
        before = time.clock_gettime(clock)
        time.sleep(IDLE_SECONDS)
        return (time.clock_gettime(clock) - before) / IDLE_SECONDS * 100

    def pressure(self):
        """What still works while twice as many flows send as the table has slots."""
        old = [self.connect() for _ in range(20)]
        evicted = self.counted("margay_flow_evictions_total")
        report = self.send("a", "b", "--flows", 2 * SLOTS, "--rate", 200_000, "--seconds", 4)
        evicted = self.counted("margay_flow_evictions_total") - evicted
        sent, received = report["sent"]["packets"], report["received"]["packets"]
        lasting = sum(answers(client) for client in old)
        new = sum(answers(self.connect()) for _ in range(20))
        return received / sent * 100, evicted / sent * 100, lasting, new

    def counted(self, name):
        return self.rig.metrics("n1").total(name)

    def drops(self):
        return self.rig.metrics("n1").by("margay_drops_total", "reason")

    def connect(self):
        with self.rig.inside("a"):
            client = socket.socket()
        client.settimeout(3)
        client.connect((self.rig.pods["c"][0], 80))
        return client


def answers(client):
    """Whether what is sent is answered."""
    number = struct.pack("!Q", time.monotonic_ns())
    try:
        client.send(number)
        return client.recv(8) == number
    except OSError:
        return False


def fields(path):
    """The numbers of a file of `Name: value kB` lines."""
    lines = (line.split(":") for line in path.read_text(encoding="ascii").splitlines()[1:])
    return {line[0]: int(line[1].split()[0]) for line in lines if len(line) == 2}


def kernel_memory():
    """KiB that the kernel has for itself, but for what it gives back when asked."""
    found = fields(Path("/proc/meminfo"))
    return sum(found[name] for name in ("SUnreclaim", "Percpu", "KernelStack", "PageTables"))


def bare(number):
    """A namespace with a veth into the node's, as any network plugin would make."""
    name = f"{TAG}-bare{number}"
    ip(f"netns add {name}")
    ip(f"-n {name} link set lo up")
    ip(f"-n {TAG}-n1 link add bare{number} type veth peer name eth0 netns {name}")
    ip(f"-n {TAG}-n1 link set bare{number} up")
    ip(f"-n {name} link set eth0 up")
