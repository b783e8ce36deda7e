"""The suite `restart`: margayd, or the agent, is killed under load and started again; connections live."""

import json
import signal
import time
from pathlib import Path

import cluster
from cluster import TAG, Case, wait_until
from devices import GATEWAY_MAC
from scene import NODE, NODE_PORT, OUTSIDE, SERVICE, Scene
from shell import finish, start
from streams import Pulse, Streams

# Beside the three pods that talk, on the node whose daemon dies; and flows, of datagrams.
PODS, FLOWS, RATE = 247, 100_000, 20_000
# How long nobody forwards before the new process is executed.
DEAD = 0.2
# How long nobody tells the dataplane anything; connections are made meanwhile.
ALONE = 1

TCP = {
    "TCP on the node": ("client", "near", 80),
    "TCP across nodes": ("client", "far", 80),
    "TCP to a service": ("client", SERVICE, 80),
    "TCP from outside to a node port": ("out", NODE[4], NODE_PORT),
    "TCP to outside through SNAT": ("client", OUTSIDE[4], 8080),
}
FIRST = "from exec to the first answer across nodes"
LOST = f"connections lost, of {len(TCP)} of TCP"
FLOWS_LOST = f"flows of datagrams lost, of {FLOWS:,}"
AGENT_SILENCE = "agent killed: longest silence of a connection"
AGENT_LOST = "agent killed: connections lost"
AGENT_REFUSED = "agent killed: new connections that fail"
AGENT_PACKETS = f"agent killed: packets lost, at {RATE:,} a second"


class Suite(cluster.Suite):
    """Each round is one death. TCP's own patience (200 ms and doubled) is part of its silence."""

    name = "restart"
    rounds = 3
    dataplane = [
        Case(FIRST, "ms", "≤ 1000"),
        *(Case(f"{name}: longest silence", "ms") for name in TCP),
        Case(LOST, "connections", "0"),
        Case(FLOWS_LOST, "flows", "0"),
    ]
    agent = [
        Case(AGENT_SILENCE, "ms"),
        Case(AGENT_LOST, "connections", "0"),
        Case(AGENT_REFUSED, "connections", "0"),
        Case(AGENT_PACKETS, "packets", "0"),
    ]
    cases = dataplane + agent

    def up(self):
        super().up()
        self.scene = Scene(self.rig)
        self.pods([f"m{number}" for number in range(PODS)])
        self.streams = Streams(self.rig)
        log = Path(self.scratch) / "flood.log"
        self.load = start(self.flood(), log)
        try:
            wait_until(self.flooded, f"{FLOWS} flows are there", 60)
        except AssertionError as error:
            flows = self.rig.metrics("n1").total("margay_flows")
            words = log.read_text(encoding="utf-8")
            raise RuntimeError(f"{error}, only {flows:.0f}; margay-pktgen: {words}") from error
        self.prefer_workers()

    def flood(self):
        """Datagrams of many flows to the server near by, which answers."""
        near, client = self.rig.pods["near"][0], self.rig.pods["client"][0]
        words = f"{self.binaries}/margay-pktgen send --interface eth0 --netns {TAG}-p-client"
        words += f" --src {client} --dst {near} --dst-mac {GATEWAY_MAC} --dst-port 80"
        return f"{words} --flows {FLOWS} --rate {RATE} --seconds 100000".split()

    def flooded(self):
        return self.rig.metrics("n1").total("margay_flows") >= FLOWS

    def down(self):
        if hasattr(self, "load"):
            finish(self.load)
            self.streams.close()
            self.scene.close()
        super().down()

    def measure(self, rounds, cases, progress):
        values = {case.name: {"margay": []} for case in self.cases}
        for some, death in ((self.dataplane, self.death), (self.agent, self.death_of_agent)):
            for number in range(rounds if any(case in cases for case in some) else 0):
                found = death()
                for case in some:
                    one = {"value": found[case.name]}
                    values[case.name]["margay"].append(one)
                    progress(number, case, "margay", one)
        return values

    def open(self, name, more=""):
        """A connection of that kind."""
        source, target, port = TCP[name]
        address = self.rig.pods[target][0] if target in self.rig.pods else target
        self.streams.open(source, address, port, name=more + name)

    def death(self):
        """One death; the figures by their cases."""
        for name in TCP:
            self.open(name)
        pulse = Pulse(self.rig, "client", self.rig.pods["far"][0])
        time.sleep(0.5)
        for stream in self.streams.all:
            stream.calm()
        self.rig.kill("n1", "daemon", signal.SIGKILL)
        time.sleep(DEAD)
        executed = time.monotonic()
        self.rig.start("n1", "daemon")
        alive = {stream.name: stream.goes_on(10) for stream in self.streams.all}
        _outage, ended = pulse.stop()
        found = {FIRST: (ended - executed) * 1000, LOST: list(alive.values()).count(False)}
        for stream in list(self.streams.all):
            found[f"{stream.name}: longest silence"] = stream.longest * 1000
            self.streams.close(stream)
        wait_until(lambda: self.rig.ready("n1"), "n1 is ready again", 10)
        self.prefer_workers()
        # A packet of every flow has come since: who does not know one has made it anew.
        time.sleep(FLOWS / RATE)
        found[FLOWS_LOST] = self.rig.metrics("n1").total("margay_flow_misses_total")
        return found

    def death_of_agent(self):
        """The agent's death; of a flood as before, between other pods, every packet is counted."""
        finish(self.load)
        for name in TCP:
            self.open(name)
        log = Path(self.scratch) / "counted.log"
        log.unlink(missing_ok=True)
        some = ["--flows", FLOWS, "--rate", RATE, "--answers", "generic", "--seconds", 100_000]
        self.load = start(self.sending("m0", "m1", *some), log)
        time.sleep(FLOWS / RATE)
        for stream in self.streams.all:
            stream.calm()
        self.rig.kill("n1", "agent", signal.SIGKILL)
        time.sleep(ALONE)
        refused = self.open_new()
        self.rig.start("n1", "agent")
        wait_until(lambda: self.rig.ready("n1", 9102), "the agent of n1 is ready again", 30)
        alive = [stream.goes_on(10) for stream in self.streams.all]
        finish(self.load)
        flood = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
        lost = flood["received"]["lost"] + sum(stream.lost() for stream in self.streams.all)
        silence = max(stream.stall() for stream in self.streams.all)
        self.streams.close(*self.streams.all)
        return {
            AGENT_SILENCE: silence * 1000,
            AGENT_LOST: alive.count(False),
            AGENT_REFUSED: refused,
            AGENT_PACKETS: lost,
        }

    def open_new(self):
        """How many connections cannot be made, of one of each kind."""
        refused = 0
        for name in TCP:
            try:
                self.open(name, "new: ")
            except (OSError, AssertionError):
                refused += 1
        return refused
