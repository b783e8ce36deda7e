"""A soak: mixed traffic on two nodes for a long time, while pods, services and policies come and go.

    soak.py [--minutes N] [--report FILE]

Actors, each a thread, do one thing over and over and count what went wrong: connections of every kind
live all the time, others are made and ended, datagrams of all sizes are answered, what is denied tries
all the same. Afterwards packets must be conserved, memory flat, every drop explained. Exit code 0 if all
of it is so; the report is JSON.
"""

import argparse
import contextlib
import itertools
import json
import random
import socket
import sys
import threading
import time
from pathlib import Path

from bulk import Bulk
from bystanders import dropped
from documents import policy, port
from rig import NODES, Rig, resident, wait_until
from scene import NODE, NODE_PORT, NODE_SERVER, OUTSIDE, OUTSIDE_SERVER, SERVICE, Scene
from streams import Streams

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "perf/bench"))

import machine  # noqa: E402  (found by the line above)

# Why a packet of this traffic may be dropped; any other reason is a failure.
EXPLAINED = {
    "policy": "the pod `stranger` knocks at a closed door",
    "link_local": "the kernels of pods speak of groups on their own link (MLD)",
    "invalid_state": "an answer of a pod to a connection that ended with the pod at its other end",
    "unknown_port": "a pod spoke before its port was known, or after it was gone",
    "no_route": "somebody still talks to a pod that is gone",
    "port_down": "the same, a moment earlier",
}
# Bytes that a process may grow by between the second and the last quarter of the time; in a short one,
# in which it meets its first pods and policies, more.
GROWTH, GROWTH_AT_FIRST, SHORT = 6 << 20, 24 << 20, 10
# Of all datagrams: what a machine with two cores may lose in the sockets of its programs.
LOST_DATAGRAMS = 1e-3
ERRORS = 5
# Seconds in which a change is in force on a machine that does much else.
IN_FORCE = 5.0
# A service of datagrams.
DATAGRAMS = "10.96.0.11"


def service(name, address, protocol="TCP"):
    """A service of `far`."""
    ports = [{"port": 80, "protocol": protocol}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"clusterIP": address, "selector": {"app": "web"}, "ports": ports},
    }


class Actor(threading.Thread):
    """Does something again and again, with pauses between; keeps count."""

    def __init__(self, name, pause, act, tolerated=0.0):
        super().__init__(name=name, daemon=True)
        self.pause, self.act, self.tolerated = pause, act, tolerated
        self.done = self.failed = 0
        self.late = 0.0
        self.errors = []
        self.ended = threading.Event()
        self.start()

    def run(self):
        while True:
            before = time.monotonic()
            if self.ended.wait(self.pause):
                break
            # What the machine made this thread wait: a question that it took as long for is its own.
            self.late = max(self.late, time.monotonic() - before - self.pause)
            try:
                self.act(self.done)
            except Exception as error:  # noqa: BLE001: whatever it is, it is what the soak looks for
                self.failed += 1
                self.errors = [*self.errors, f"{time.strftime('%X')} {error!r}"][:ERRORS]
            self.done += 1

    def is_good(self):
        return self.failed <= self.tolerated * self.done

    def told(self):
        return {
            "done": self.done,
            "failed": self.failed,
            "errors": self.errors,
            "latest_turn_seconds": round(self.late, 3),
        }


class Traffic:
    """The actors' work."""

    def __init__(self, scene):
        self.scene, self.rig, self.random = scene, scene.rig, random.Random(1)

    def client(self, source, address, kind):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.rig.inside(source):
            client = socket.socket(family, kind)
        # Longer than a busy machine makes a thread of this program wait.
        client.settimeout(10)
        return client

    def asks(self, source, address, number, kind=socket.SOCK_STREAM, size=64):
        """One question, and its answer, which must be the same bytes."""
        data = self.random.randbytes(size)
        with self.client(source, address, kind) as client:
            client.connect((address, number))
            client.send(data)
            heard = b""
            while len(heard) < size:
                try:
                    more = client.recv(65536)
                except TimeoutError:
                    raise TimeoutError(f"connected, and {len(heard)} of {size} bytes back") from None
                if not more:
                    raise ConnectionError(f"closed after {len(heard)} of {size} bytes")
                heard += more
        assert heard == data, "another answer than the question"

    def connects(self, turn):
        """A new connection of some kind."""
        near, far = (self.rig.pods[name][turn % 2] for name in ("near", "far"))
        ways = [
            ("client", SERVICE, 80),
            ("out", NODE[4], NODE_PORT),
            ("n1", far, 80),
            ("client", near, 80),
            ("client", OUTSIDE[4 + 2 * (turn % 2)], OUTSIDE_SERVER),
        ]
        self.asks(*ways[turn % len(ways)])

    def datagrams(self, turn):
        """A datagram of any size up to what is cut into six pieces."""
        targets = [DATAGRAMS, self.rig.pods["near"][turn % 2], self.rig.pods["far"][turn % 2]]
        size = self.random.choice([1, 512, 1400, 1473, 8000])
        self.asks("client", targets[turn % 3], 80, socket.SOCK_DGRAM, size)

    def knocks(self, _turn):
        """What policy denies must not be answered."""
        with self.client("stranger", "0.0.0.0", socket.SOCK_STREAM) as client:
            client.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                client.connect((self.rig.pods["near"][0], 80))
                raise AssertionError("a stranger was let in")

    def moves(self, turn):
        """Bulk for a second, which takes the shortcut."""
        target = ("near", "far")[turn % 2]
        one = Bulk(self.rig, "client", target, self.rig.pods[target][0], 5400 + turn % 100)
        try:
            time.sleep(1)
            assert one.goes_on(), one.error
        finally:
            one.close()

    def pods(self, turn):
        """A pod comes, talks, is talked to, and goes."""
        node, name = NODES[turn % 2], f"comes{turn % 2}"
        self.rig.pod(node, "x", name)
        try:
            self.asks(name, self.rig.pods["near"][0], 80)
            assert self.rig.ping("client", self.rig.pods[name][0], 3), "no echo of a new pod"
        finally:
            self.rig.unpod(node, "x", name)

    def services(self, turn):
        """A service comes, is used, and goes."""
        address, name = f"10.96.1.{turn % 250 + 1}", f"soak-{turn % 10}"
        self.rig.store.write(name, service(name, address))
        wait_until(lambda: self.answers(address), f"{address} answers", IN_FORCE)
        self.rig.store.remove(name)

    def answers(self, address):
        with contextlib.suppress(OSError):
            self.asks("client", address, 80)
            return True
        return False

    def policies(self, turn):
        """The same policy by another name, beside others that concern nobody who talks."""
        friends = {"matchExpressions": [{"key": "role", "operator": "DoesNotExist"}]}
        rules = [{"from": [{"podSelector": friends}]}, {"from": [{"ipBlock": {"cidr": "172.20.0.0/24"}}]}]
        rules.append({"from": [{"ipBlock": {"cidr": "fd20::/64"}}]})
        self.rig.store.write(
            "soak-policies",
            [
                policy(f"door-{turn % 7}", "x", {"door": "closed"}, ingress=rules),
                policy(
                    f"other-{turn % 5}",
                    "x",
                    {"app": "nobody"},
                    ingress=[{"ports": [port(1000 + turn % 500)]}],
                ),
            ],
        )


class Soak:
    """One run."""

    def __init__(self, rig, minutes):
        self.rig, self.minutes = rig, minutes
        self.scene = Scene(rig)
        rig.store.write("datagrams", service("datagrams", DATAGRAMS, "UDP"))
        rig.unpod("n1", "x", "near")
        rig.pod("n1", "x", "near", door="closed")
        self.scene.field.join("near")
        rig.pod("n1", "x", "stranger", role="stranger")
        traffic = Traffic(self.scene)
        traffic.policies(0)
        time.sleep(2)
        self.streams = Streams(rig)
        self.pids = {(node, name): rig.pid(node, name) for node in NODES for name in ("daemon", "agent")}
        self.memory = {pid: [] for pid in self.pids.values()}
        self.dropped = dropped(rig)
        self.flows = []
        self.first = {}
        self.open()
        self.actors = [
            Actor("connections", 0.01, traffic.connects),
            Actor("datagrams", 0.01, traffic.datagrams, LOST_DATAGRAMS),
            Actor("denied connections", 0.2, traffic.knocks),
            Actor("bulk", 4.0, traffic.moves),
            Actor("pods", 0.5, traffic.pods),
            Actor("services", 0.5, traffic.services),
            Actor("policy edits", 0.2, traffic.policies),
        ]

    def open(self):
        """Connections that live from beginning to end."""
        near, far = self.rig.pods["near"], self.rig.pods["far"]
        for source, address, number in [
            ("client", near[0], 80),
            ("client", near[1], 80),
            ("client", far[0], 80),
            ("client", far[1], 80),
            ("client", SERVICE, 80),
            ("n1", far[0], 80),
            ("out", NODE[4], NODE_PORT),
            ("client", OUTSIDE[4], OUTSIDE_SERVER),
            ("client", OUTSIDE[6], OUTSIDE_SERVER),
            ("out", NODE[4], NODE_SERVER),
        ]:
            self.streams.open(source, address, number)

    def run(self):
        """Lets it run; looks every two seconds."""
        end = time.monotonic() + 60 * self.minutes
        for look in itertools.count():
            left = end - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(2, left))
            self.look()
            if look % 30 == 29:
                print(f"{left / 60:.0f} minutes left: {self.line()}", flush=True)
        for actor in self.actors:
            actor.ended.set()
        for actor in self.actors:
            actor.join(30)

    def look(self):
        scrapes = [self.rig.metrics(node) for node in NODES]
        self.flows.append([int(metrics.total("margay_flows")) for metrics in scrapes])
        for node, metrics in zip(NODES, scrapes):
            for reason, count in metrics.by("margay_drops_total", "reason").items():
                self.first.setdefault((node, reason), (time.strftime("%X"), count))
        for pid, sizes in self.memory.items():
            with contextlib.suppress(OSError):
                sizes.append(resident(pid))

    def line(self):
        counts = ", ".join(f"{actor.done} {actor.name}" for actor in self.actors)
        failed = sum(actor.failed for actor in self.actors)
        sizes = [f"{sizes[-1] / 2**20:.0f}" for sizes in self.memory.values()]
        return f"{counts}; {failed} failed; {' '.join(sizes)} MiB"

    def grown(self, pid):
        """How much larger a process is in the last quarter of the time than in the second."""
        sizes = self.memory[pid]
        quarter = max(len(sizes) // 4, 1)
        mean = lambda some: sum(some) / max(len(some), 1)
        return int(mean(sizes[-quarter:]) - mean(sizes[quarter : 2 * quarter]))

    def by_interfaces(self):
        """Frames that the kernel dropped at interfaces which were there all the time."""
        lost = {key: n - self.dropped[key] for key, n in dropped(self.rig).items()}
        kept = {key: n for key, n in lost.items() if len(key) == 3 and n and key in self.dropped}
        return {" ".join(key): n for key, n in kept.items()}

    def report(self):
        """What came of it, and what is wrong with it."""
        wrong = []
        lasting = [stream for stream in self.streams.all if not stream.goes_on()]
        wrong += [f"{stream.name}: {stream.error or 'silent'}" for stream in lasting]
        echoes = sum(stream.echoed for stream in self.streams.all)
        self.streams.close()
        for actor in self.actors:
            if not actor.is_good():
                wrong.append(f"{actor.name}: {actor.failed} of {actor.done} failed: {actor.errors}")
        processes = {}
        for (node, name), pid in self.pids.items():
            grown = self.grown(pid)
            sizes = self.memory[pid]
            processes[f"{node} {name}"] = {"grown": grown, "last": sizes[-1], "most": max(sizes)}
            if self.rig.pid(node, name) != pid or not self.rig.alive(node, name):
                wrong.append(f"{node}: {name} died")
            if "panicked" in self.rig.log(node, name):
                wrong.append(f"{node}: {name} panicked")
            if grown > (GROWTH if self.minutes > SHORT else GROWTH_AT_FIRST):
                wrong.append(f"{node}: {name} grew by {grown >> 20} MiB")
        drops, lost = {}, {}
        for node in NODES:
            try:
                self.rig.conserved(node)
            except AssertionError as error:
                wrong.append(str(error))
            if forwarded := self.rig.kernel_forwarded(node):
                wrong.append(f"{node}: the kernel forwarded {forwarded} packets")
            metrics = self.rig.metrics(node)
            drops[node] = metrics.by("margay_drops_total", "reason")
            lost[node] = metrics.by("margay_rx_lost_packets_total", "reason")
            for reason, count in drops[node].items():
                if reason not in EXPLAINED:
                    when = self.first.get((node, reason))
                    wrong.append(f"{node}: {count:.0f} drops: {reason}, the first {when}")
        return {
            "minutes": self.minutes,
            "wrong": wrong,
            "actors": {actor.name: actor.told() for actor in self.actors},
            "lasting": {"connections": 10, "echoes": echoes},
            "processes": processes,
            "flows": {"most": [max(some) for some in zip(*self.flows)], "last": self.flows[-1]},
            "drops": drops,
            "explained": {r: EXPLAINED[r] for node in NODES for r in drops[node] if r in EXPLAINED},
            "rings": lost,
            "interfaces": self.by_interfaces(),
        }


def main():
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.split(":")[0])
    parser.add_argument("--minutes", type=float, default=20, help="how long (default 20)")
    parser.add_argument("--report", help="file to write the report to; standard output otherwise")
    chosen = parser.parse_args()
    if chosen.minutes <= 0:
        parser.error("--minutes must be positive")
    described = machine.describe(REPOSITORY)
    rig = Rig()
    try:
        rig.up("vxlan", WORKERS="2")
        soak = Soak(rig, chosen.minutes)
        soak.run()
        report = {
            "machine": described,
            "command": f"scripts/soak --minutes {chosen.minutes:g}",
            **soak.report(),
        }
        soak.scene.close()
    finally:
        rig.down()
    text = json.dumps(report, indent=1)
    if chosen.report:
        Path(chosen.report).write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    for wrong in report["wrong"]:
        print(f"wrong: {wrong}", file=sys.stderr)
    sys.exit(1 if report["wrong"] else 0)


if __name__ == "__main__":
    main()
