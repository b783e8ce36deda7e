"""A hundred pods on one node: they come and go at once, and cost nothing while they are quiet."""

import concurrent.futures
import os
import time

import pytest
from rig import wait_until
from streams import Streams

MODE = "vxlan"
PODS = [f"m{n}" for n in range(100)]
V4, V6 = 0, 1


@pytest.fixture(scope="module")
def streams(rig):
    """Bystanders: connections on the node and across that talk all the time."""
    for node, name in (("n1", "a"), ("n1", "b"), ("n2", "c")):
        rig.pod(node, "default", name)
    echo = Echo(rig)
    echo.serve("b", "c")
    streams = Streams(rig)
    yield streams
    streams.close()
    echo.close()
    rig.books_are_right()


class Echo:
    """Echo servers on port 80 of pods."""

    def __init__(self, rig):
        self.rig = rig
        self.servers = []

    def serve(self, *places):
        """Opens the server of each place, for both families."""
        for place in places:
            words = ("socat", "TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0", "EXEC:cat")
            self.servers.append(self.rig.spawn(place, *words))
            wait_until(lambda: ":80" in self.rig.exec(place, "ss", "-ltn"), f"{place} listens")

    def close(self):
        """Ends them."""
        for server in self.servers:
            self.rig.end(server)


def all_at_once(act, names):
    """Runs `act` for all names, eight at a time; raises what any of them raised."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(act, names))


def undisturbed(watched):
    """Asserts that the bystanders lost nothing and go on."""
    for stream in watched:
        assert stream.goes_on(), f"{stream.name}: {stream.error}"
        assert stream.lost() == 0, f"{stream.name} lost {stream.lost()} segments"


def cpu_seconds(pid):
    """Processor time that a process has taken so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    """Resident memory of a process in MiB."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_hundred_pods_come_at_once_and_bystanders_lose_nothing(rig, streams):
    watched = [streams.open("a", rig.pods["b"][V4]), streams.open("a", rig.pods["c"][V6])]
    before, start = resident(rig.pid("n1", "daemon")), time.monotonic()
    all_at_once(lambda name: rig.pod("n1", "default", name), PODS)
    took = time.monotonic() - start
    undisturbed(watched)
    addresses = [rig.pods[name] for name in PODS]
    for v in (V4, V6):
        assert len({pair[v] for pair in addresses}) == len(PODS), "no address twice"
    all_at_once(lambda name: reached(rig, name), PODS)
    undisturbed(watched)
    more = resident(rig.pid("n1", "daemon")) - before
    print(f"\n100 pods in {took:.1f} s; margayd: {before:.0f} MiB and {more:.1f} MiB for them")
    streams.close(*watched)


def reached(rig, name):
    """Asserts that a pod reaches one of the other node and is reached by one of its own."""
    for source, target in ((name, "c"), ("b", name)):
        for v in (V4, V6):
            assert rig.ping(source, rig.pods[target][v], 1, 5), f"{source} → {target}"


def test_a_hundred_quiet_pods_cost_no_processor(rig, streams):
    assert len(rig.pods) == 103
    # Stacks have said by then what they say at first.
    time.sleep(2)
    pids = {name: rig.pid("n1", name) for name in ("daemon", "agent")}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    time.sleep(5)
    share = {name: (cpu_seconds(pid) - before[name]) / 5 for name, pid in pids.items()}
    memory = {name: f"{resident(pid):.0f} MiB" for name, pid in pids.items()}
    print(f"\nidle with 103 pods, of a core: {share}; resident: {memory}")
    assert share["daemon"] < 0.05 and share["agent"] < 0.05, share


def test_a_hundred_pods_go_at_once_and_bystanders_lose_nothing(rig, streams):
    watched = [streams.open("a", rig.pods["b"][V6]), streams.open("a", rig.pods["c"][V4])]
    all_at_once(lambda name: rig.unpod("n1", "default", name), PODS)
    undisturbed(watched)
    links = rig.exec("n1", "ip", "-o", "link")
    assert links.count("cali") == 2, "their interfaces are gone"
    streams.close(*watched)
