"""How soon one changed policy, endpoint or service is in force among ten thousand, and one member of a set
of a hundred thousand.

It is when the first packet is judged by it. What passes between the rename of its file and the
agent's beginning to compile is the datastore's time; the rest is Margay's, a packet every 0.3 ms
included.
"""

import contextlib
import ipaddress
import json
import re
import select
import socket
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cluster
from cluster import wait_until
from documents import calico, rule
from devices import GENERATOR_CPU
from shell import finish, prefer, run, start

# Policies, and services with their slices, beside what changes.
MANY, A_FILE = 10_000, 100
# Members of the set that a rule of `d` asks for; each network set has some of them.
MEMBERS, A_SET = 100_000, 1_000
SERVICE = "10.96.0.10"
CHANGES = {"policy": MANY, "endpoint": MANY, "service": MANY, "member": MEMBERS}
# Ports of the servers: behind the door that opens, and always open.
DOOR, OPEN = 7000, 80
EVERY = 0.0003

COMPILED = re.compile(r"^(\S+Z).* compiled changes=(\d+) busy=([\d.]+)(ns|µs|ms|s) ", re.M)
UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Case(cluster.Case):
    """A row of the table."""

    unit: str = "ms"


def rows(change):
    """The rows of a change: Margay's part, the datastore's, both."""
    what = f"one {change} of {CHANGES[change]:,} changes"
    return [
        Case(f"{what}: in force after the agent has it", aim="≤ 10"),
        Case(f"{what}: datastore"),
        Case(f"{what}: in all"),
    ]


# Turns of the worker: receiving, deciding and sending a batch, and what is done between batches; under so
# many packets a second between two pods, beside those that ask for the change.
LOAD = 200_000
TURNS = {
    f"{LOAD:,} packets a second, {what}: {share:.1%} of the worker's turns are shorter than": share
    for what in ("nothing changes", "things change")
    for share in (0.999, 1.0)
}
# What is longer than any batch, in nanoseconds, and how often each of the changes is made to see it.
LONG, TIMES = 400_000, 10
LONGER = f"{LOAD:,} packets a second: turns of more than 0.4 ms, a second"
TURN_CASES = [Case(name, "µs") for name in TURNS]
LONG_CASES = [Case(f"{LONGER}, {what}", "a second") for what in ("nothing changes", "things change")]
CASES = [*(case for change in CHANGES for case in rows(change)), *TURN_CASES, *LONG_CASES]


class Suite(cluster.Suite):
    """The dataplane of n1; n2 is ended, as it would compile the same on the same cores."""

    mode = "none"
    workers = 1
    # The load is to meet the worker.
    settings = "shortcut = false\n"
    cases = CASES

    def up(self):
        self.rig.env |= {"RUST_LOG": "info,margay_agent::pipeline=debug"}
        super().up()
        rig = self.rig
        for process in ("agent", "daemon"):
            rig.kill("n2", process, 15)
        for name in "abcdef":
            rig.pod("n1", "x", name, app=name)
        for name, make in (("policies", many_policies), ("services", many_services)):
            for first in range(0, MANY, A_FILE):
                documents = [one for n in range(first, first + A_FILE) for one in make(n)]
                rig.store.write(f"{name}{first:05}", documents)
        rig.store.write("members", guarded_by_members())
        for number in range(MEMBERS // A_SET):
            rig.store.write(f"members{number:02}", network_set(number))
        self.servers = {}
        for name in "bcd":
            for port in (DOOR, OPEN):
                with rig.inside(name):
                    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                server.bind(("", port))
                self.servers[name, port] = server
        agent = lambda: rig.metrics("n1", 9102).total("margay_datastore_objects")
        wait_until(lambda: agent() > 3 * MANY, "all documents are read", 60)
        state = lambda: self.told("node", "status")["state"]
        wait_until(lambda: state()["setMembers"] >= MEMBERS, "all members are in force", 60)

    def measure(self, rounds, cases, progress):
        values = {case.name: {"margay": []} for case in CASES}
        for number in range(rounds):
            for change in CHANGES:
                whole, ours = getattr(self, change)()
                for case, seconds in zip(rows(change), (ours, whole - ours, whole)):
                    one = {"value": seconds * 1000}
                    values[case.name]["margay"].append(one)
                    progress(number, case, "margay", one)
        log = Path(self.scratch) / "load.log"
        load = ["--flows", 64, "--rate", LOAD, "--seconds", 1000, "--cpu", GENERATOR_CPU]
        self.prefer_workers()
        sending = start(self.sending("e", "f", *load), log)
        # The agent has to have its time beside it.
        prefer(sending.pid, 10)
        try:
            time.sleep(1)
            busy = self.turns_while(lambda: [getattr(self, c)() for _ in range(TIMES) for c in CHANGES])
            calm = self.turns_while(lambda: time.sleep(busy.seconds))
        finally:
            finish(sending)
        for case, window in zip(TURN_CASES, (calm, calm, busy, busy)):
            one = {"value": quantile(window.turns, TURNS[case.name]) / 1000, "turns": window.turns}
            values[case.name]["margay"].append(one)
            progress(0, case, "margay", one)
        for case, window in zip(LONG_CASES, (calm, busy)):
            value, bound = window.longer_than(LONG)
            one = {"value": value, "nanoseconds": bound, "seconds": window.seconds}
            values[case.name]["margay"].append(one)
            progress(0, case, "margay", one)
        return values

    def turns_while(self, do):
        """The turns that the worker made meanwhile."""
        before, began = self.turns(), time.monotonic()
        do()
        seconds = time.monotonic() - began
        turns = {below: count - before.get(below, 0) for below, count in self.turns().items()}
        return Window(turns, seconds)

    def turns(self):
        """How many turns were shorter than so many nanoseconds, and not than the next fewer."""
        told = self.told("counters", "--cycles", "--seconds", "0")
        return {turn["belowNs"]: turn["turns"] for turn in told["workers"][0]["turns"]}

    def told(self, *words):
        """What margayctl tells of the dataplane."""
        control = f"unix:{self.rig.run / 'n1/margayd.sock'}"
        command = f"{self.binaries}/margayctl --dataplane {control} -o json"
        return json.loads(run([*command.split(), *words]))

    def policy(self):
        """A policy of `b` lets in another port."""
        rule = lambda port: {"ports": [{"protocol": "UDP", "port": port}]}
        closed, opened = (policy("door", "x", {"app": "b"}, rule(port)) for port in (9, DOOR))
        return self.change("door", closed, opened, self.rig.pods["b"][0], DOOR, ("b", DOOR))

    def endpoint(self):
        """The pod `a` gets the label that a policy of `c` asks for."""
        guests = {"from": [{"podSelector": {"matchLabels": {"role": "guest"}}}]}
        self.rig.store.write("guests", policy("guests", "x", {"app": "c"}, guests))
        closed, opened = pod({"app": "a"}), pod({"app": "a", "role": "guest"})
        return self.change("pod-a", closed, opened, self.rig.pods["c"][0], DOOR, ("c", DOOR))

    def service(self):
        """The service's connections go to `c` in place of `b`."""
        self.rig.store.remove("guests")
        before, after = (
            service("one", "x", SERVICE, {"app": name}, "UDP", OPEN, port=OPEN) for name in "bc"
        )
        return self.change("one", before, after, SERVICE, OPEN, ("c", OPEN))

    def member(self):
        """The address of `a` becomes a member of the set that a policy of `d` asks for."""
        before, after = (network_set(0, more) for more in ([], [self.rig.pods["a"][0]]))
        return self.change("members00", before, after, self.rig.pods["d"][0], DOOR, ("d", DOOR))

    def change(self, name, before, after, address, port, arrives):
        """Seconds to the first packet that arrives where none did before.

        From the rename of a document's file, and from the agent's beginning to compile.
        """
        store, server = self.rig.store, self.servers[arrives]
        store.write(name, before)
        time.sleep(0.7)
        drain(server)
        with self.asking(address, port):
            time.sleep(0.1)
            if select.select([server], [], [], 0)[0]:
                raise RuntimeError(f"{name}: packets arrive before the change")
            renamed = time.time()
            store.write(name, after)
            if not select.select([server], [], [], 10)[0]:
                raise RuntimeError(f"{name}: the change is not in force after 10 s")
            arrived = time.time()
        time.sleep(0.1)
        return arrived - renamed, arrived - self.begun(renamed)

    @contextlib.contextmanager
    def asking(self, address, port):
        """Within: `a` sends datagrams, each from another socket: of another connection."""
        ended = threading.Event()

        def ask():
            with self.rig.inside("a"):
                while not ended.wait(EVERY):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                        client.sendto(b"?", (address, port))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(5)

    def begun(self, since):
        """When the agent began to compile the first changes after that time."""
        for stamp, _changes, busy, unit in COMPILED.findall(self.rig.log("n1", "agent")):
            told = datetime.fromisoformat(stamp).timestamp()
            begun = told - float(busy) * UNITS[unit]
            if begun > since:
                return begun
        raise RuntimeError("the agent's log does not tell when it compiled")

    def down(self):
        for server in getattr(self, "servers", {}).values():
            server.close()
        super().down()


@dataclass(frozen=True)
class Window:
    """The turns of some seconds: how many were shorter than so many nanoseconds, and not than the next fewer."""

    turns: dict
    seconds: float

    def longer_than(self, nanoseconds):
        """How many a second were, and than what, as the bounds double: less than twice that."""
        bound = min(below for below in self.turns if below >= nanoseconds)
        return sum(n for below, n in self.turns.items() if below > bound) / self.seconds, bound


def quantile(turns, share):
    """The least bound, in nanoseconds, below which that share of the turns is."""
    wanted, sum_ = share * sum(turns.values()), 0
    for below, count in sorted(turns.items()):
        sum_ += count
        if sum_ >= wanted:
            return below
    return 0


def drain(server):
    """Forgets what has arrived."""
    while select.select([server], [], [], 0)[0]:
        server.recv(16)


def store(folder, name, documents):
    """Puts documents under a name, all at once."""
    hidden = folder / f".{name}.new"
    hidden.write_text("\n---\n".join(map(json.dumps, documents)), encoding="utf-8")
    hidden.rename(folder / f"{name}.yaml")


def policy(name, namespace, labels, *ingress):
    """A NetworkPolicy with these ingress rules."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress"],
            "ingress": list(ingress),
        },
    }


def service(name, namespace, address, labels, protocol, target, port=80):
    """A Service; its endpoints are the pods with the labels, if there are any."""
    ports = [{"protocol": protocol, "port": port, "targetPort": target}]
    spec = {"clusterIP": address, "ports": ports} | ({"selector": labels} if labels else {})
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def pod(labels):
    """The document of the pod `a`."""
    metadata = {"name": "a", "namespace": "x", "labels": labels}
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def many_policies(number):
    """One of the policies that do not change: two rules, of pods elsewhere."""
    peers = [{"podSelector": {"matchLabels": {"app": f"n{number + 1}"}}}]
    ports = [{"protocol": "TCP", "port": 1024 + number}]
    rules = {"from": peers, "ports": ports}, {"ports": [{"protocol": "UDP", "port": 53}]}
    return [policy(f"n{number}", "y", {"app": f"n{number}"}, *rules)]


def many_services(number):
    """One of the services that do not change, and its slice."""
    name, high, low = f"n{number}", number // 256, number % 256
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-1",
            "namespace": "y",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"protocol": "TCP", "port": 80}],
        "endpoints": [{"addresses": [f"10.200.{high}.{low}"], "conditions": {"ready": True}}],
    }
    return [service(name, "y", f"10.96.{100 + high}.{low}", None, "TCP", 80), slice_]


def guarded_by_members():
    """The policy of `d`: it lets in the members of the network sets of its namespace."""
    members = rule("Allow", "UDP", source={"selector": "role == 'member'"})
    of_d = {"selector": "app == 'd'", "types": ["Ingress"], "ingress": [members]}
    return calico("NetworkPolicy", "members", "x", **of_d)


def network_set(number, more=()):
    """One of the network sets, with more members."""
    first = ipaddress.ip_address("100.64.0.0") + number * A_SET
    nets = [*(str(first + member) for member in range(A_SET)), *more]
    return calico("NetworkSet", f"members{number:02}", "x", {"role": "member"}, nets=nets)
