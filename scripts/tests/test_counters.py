"""The daemon's counters against captures of every port, and what /metrics, /liveness and
/readiness say."""

import concurrent.futures
import contextlib
import json
import socket
import time

import pytest
from rig import NODES, port_of, wait_until
from whoami import SILENT, Whoami

MODE = "vxlan"
ENV = {"WORKERS": "2"}
V4, V6 = 0, 1
OUT = ("172.20.0.100", "fd20::100")
NAMES = {
    "margay_rx_packets_total": "port",
    "margay_tx_packets_total": "port",
    "margay_drops_total": "reason",
    "margay_punts_total": "reason",
    "margay_injected_packets_total": "reason",
    "margay_consumed_packets_total": "reason",
    "margay_flows": None,
    "margay_flow_misses_total": None,
    "margay_build_info": None,
}
# What a port's frames of the dataplane are, for captures: what XDP leaves to the kernel and what
# IPv6 stacks say by themselves is not meant. 4789 carries VXLAN, 7 and 30001 are the servers'.
TRAFFIC = "(udp port 4789 or tcp port 7 or udp port 7 or tcp port 30001 or udp port 30001)"


@pytest.fixture(scope="module")
def who(rig):
    """Pods a and b on n1, c on n2, and a service of c's on every node's port 30001."""
    for node, name in (("n1", "a"), ("n1", "b"), ("n2", "c")):
        rig.pod(node, "default", name, app=name)
    ports = [
        {"name": p.lower(), "protocol": p, "port": 7, "targetPort": 7, "nodePort": 30001}
        for p in ("TCP", "UDP")
    ]
    spec = {"type": "NodePort", "clusterIP": "10.96.0.1", "ports": ports, "selector": {"app": "c"}}
    rig.store.write(
        "service", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}
    )
    who = Whoami(rig)
    for place in ("b", "c", "out"):
        who.serve(place, 7, sctp=False)
    who.serve("n1", 7, addresses=["172.20.0.1"], sctp=False)
    wait_until(lambda: who.serves("out", "172.20.0.1", 30001), "the service")
    yield who
    who.close()
    rig.books_are_right()


class Capture:
    """Packets that passed an interface, by direction, counted by tcpdump."""

    def __init__(self, rig, place, interface, inward):
        self.rig, self.inward = rig, inward
        self.dumps = {}
        for way in ("in", "out"):
            file = rig.run / f"{place}-{interface}-{way}.pcap"
            file.unlink(missing_ok=True)
            words = ("tcpdump", "--immediate-mode", "-B16384", "-U", "-s96", "-ni", interface)
            dump = rig.spawn(place, *words, f"-Q{way}", "-w", file, TRAFFIC)
            self.dumps[way] = (file, dump)
        for file, _ in self.dumps.values():
            wait_until(lambda file=file: file.exists() and file.stat().st_size, "tcpdump writes")

    def end(self):
        """Packets towards the dataplane, and out of it."""
        counts = {}
        for way, (file, dump) in self.dumps.items():
            self.rig.end(dump)
            counts[way] = int(self.rig.exec("n1", "tcpdump", "--count", "-r", file).split()[0])
        return (counts["in"], counts["out"]) if self.inward else (counts["out"], counts["in"])


def some_traffic(rig, who):
    """Connections of all ways through n1, whose directions land on different workers."""
    a, b, c = (rig.pods[name][V4] for name in "abc")
    b6, c6 = rig.pods["b"][V6], rig.pods["c"][V6]
    ways = [("a", b, 7), ("a", c, 7), ("a", b6, 7), ("a", c6, 7), ("a", OUT[V4], 7), ("c", b, 7)]
    ways += [("a", "10.96.0.1", 7), ("out", "172.20.0.1", 30001), ("n1", c, 7), ("n1", b, 7)]
    ways += [("a", "172.20.0.1", 7), ("c", b6, 7)]
    for place, to, port in ways:
        for protocol in ("TCP", "UDP"):
            for _ in range(12):
                assert who.ask(place, to, port, protocol, data=bytes(500)) != SILENT, (place, to)


def test_captures_of_all_ports_agree_with_the_counters(rig, who):
    """Seen from the far ends, so that the captures know nothing of the dataplane."""
    some_traffic(rig, who)
    places = {port_of("a"): ("a", "eth0"), port_of("b"): ("b", "eth0")}
    places["eth0"] = ("wire", "n1")
    for node in NODES:
        rig.conserved(node)
    time.sleep(0.3)
    captures = {port: Capture(rig, *place, inward=False) for port, place in places.items()}
    quiet = {node: rig.metrics(node) for node in NODES}
    some_traffic(rig, who)
    time.sleep(0.5)
    after = rig.metrics("n1")
    for port, capture in captures.items():
        towards, outof = capture.end()
        told = [
            after.total(name, port=port) - quiet["n1"].total(name, port=port)
            for name in ("margay_rx_packets_total", "margay_tx_packets_total")
        ]
        # Neighbour discovery and the like may pass meanwhile, which the captures leave out.
        assert towards > 200 and outof > 200
        assert 0 <= told[0] - towards <= 6 and 0 <= told[1] - outof <= 6, (
            port,
            told,
            towards,
            outof,
        )
    workers = after.by("margay_worker_rx_packets_total", "worker")
    assert len(workers) == 2 and min(workers.values()) > 100, "both workers had their part"


def test_books_balance_with_errors_drops_and_fragments(rig, who):
    for v in (V4, V6):
        rig.ping("a", rig.pods["c"][v], 2, 1, "-s", 4000)
        rig.exec("a", "traceroute", "-n", "-q1", "-w1", rig.pods["c"][v])
    who.ask("a", "10.96.0.1", 99)
    who.ask("a", "10.244.200.200", 7, "UDP", within=0.2)
    with rig.inside("a"):
        liar = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with contextlib.closing(liar):
        header = bytes.fromhex("450000140001000040fd0000") + socket.inet_aton("1.2.3.4")
        liar.sendto(header + socket.inet_aton("172.20.0.100"), ("172.20.0.100", 0))
    wait_until(lambda: rig.metrics("n1").drops("spoof") == 1, "the lie is counted")
    rig.books_are_right()


@pytest.mark.parametrize("node", NODES)
def test_the_fixed_names_are_there(rig, who, node):
    status, text = rig.scrape(node)
    assert status == 200
    samples = rig.metrics(node).samples
    for name, label in NAMES.items():
        labels = [has for sample, has, _ in samples if sample == name]
        assert labels, name
        assert label is None or all(label in has for has in labels), name
    for name in NAMES:
        kind = "gauge" if name in ("margay_flows", "margay_build_info") else "counter"
        assert f"# TYPE {name} {kind}\n" in text, name
        assert f"# HELP {name} " in text, name
    ports = {has["port"] for name, has, _ in samples if name == "margay_rx_packets_total"}
    local = {"n1": "ab", "n2": "c"}[node]
    assert ports == {"margay0", "eth0", *(port_of(pod) for pod in local)}


def test_counters_never_fall_and_are_fresh(rig, who):
    seen, stop = [], time.monotonic() + 2
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(some_traffic, rig, who)
        while time.monotonic() < stop or not done.done():
            seen.append(rig.metrics("n1").samples)
            time.sleep(0.02)
        done.result()
    assert len(seen) > 20
    for before, after in zip(seen, seen[1:]):
        last = {(name, *sorted(has.items())): value for name, has, value in after}
        for name, has, value in before:
            if name.endswith("_total"):
                assert last[(name, *sorted(has.items()))] >= value, (name, has)
    # A packet is shown within 100 ms.
    before = rig.metrics("n1").total("margay_rx_packets_total")
    rig.ping("a", rig.pods["b"][V4])
    time.sleep(0.1)
    assert rig.metrics("n1").total("margay_rx_packets_total") >= before + 2


def test_counters_outlive_the_pods_that_they_count(rig, who):
    rig.pod("n1", "default", "brief")
    rig.ping("brief", rig.pods["b"][V4], 3)
    time.sleep(0.15)
    before = rig.metrics("n1")
    rig.unpod("n1", "default", "brief")
    time.sleep(0.3)
    after = rig.metrics("n1")
    for name in ("margay_rx_packets_total", "margay_tx_packets_total", "margay_drops_total"):
        assert after.total(name) >= before.total(name), name
    rig.conserved("n1")


def test_flows_of_a_deleted_pod_are_gone_within_a_second(rig, who):
    rig.pod("n1", "default", "going")
    start = rig.metrics("n1").total("margay_flows")
    held = []
    for _ in range(30):
        with rig.inside("going"):
            held.append(socket.create_connection((rig.pods["b"][V4], 7), timeout=2))
    for port in range(50000, 50030):
        who.ask("going", rig.pods["c"][V6], 7, "UDP", source_port=port)
    wait_until(lambda: rig.metrics("n1").total("margay_flows") >= start + 60, "one a connection")
    assert rig.metrics("n1").total("margay_flows") <= start + 65
    rig.unpod("n1", "default", "going")
    wait_until(
        lambda: rig.metrics("n1").total("margay_flows") <= start + 5, "they are gone", within=1.2
    )
    for one in held:
        one.close()


def test_liveness_and_readiness(rig, who):
    for node in NODES:
        for port in (9101, 9102):
            for path in ("/liveness", "/readiness"):
                assert rig.scrape(node, path, port)[0] == 200, (node, port, path)
        assert rig.scrape(node, "/nothing")[0] == 404
    # Without its agent the daemon goes on with the state that it has; without its daemon the
    # agent lives, but is of no use.
    rig.script("stop", "n2", "agent")
    assert rig.scrape("n2", "/readiness")[0] == 200
    assert who.serves("a", rig.pods["c"][V4], 7)
    rig.script("agent", "n2")
    wait_until(lambda: rig.ready("n2", 9102), "the agent is back")
    rig.script("stop", "n2", "daemon")
    wait_until(lambda: not rig.ready("n2", 9102), "the agent misses its dataplane")
    assert rig.scrape("n2", "/liveness", 9102)[0] == 200
    rig.script("daemon", "n2")
    wait_until(lambda: rig.ready("n2") and rig.ready("n2", 9102), "the daemon is back")
    wait_until(lambda: who.serves("a", rig.pods["c"][V4], 7), "and forwards")


def test_cycles_know_every_packet_and_all_time(rig, who):
    assert rig.ping("a", rig.pods["b"][V4], 3)
    rig.conserved("n1")
    where = f"unix:{rig.run}/n1/margayd.sock"
    words = ("--dataplane", where, "counters", "--cycles", "--seconds")
    ever = json.loads(rig.ctl(*words, 0, "-o", "json"))
    received = rig.metrics("n1").total("margay_worker_rx_packets_total")
    for stage in ("receive", "parse", "decide", "forward"):
        stages = [each for worker in ever["workers"] for each in worker["stages"]]
        packets = [each["packets"] for each in stages if each["stage"] == stage]
        # Between the two questions the pods may have said something by themselves.
        assert len(packets) == 2 and 0 < sum(packets) <= received <= sum(packets) + 10, stage
    now = json.loads(rig.ctl(*words, 0.5, "-o", "json"))
    for worker in now["workers"]:
        cycles = sum(stage["cycles"] for stage in worker["stages"])
        # A worker that sleeps ends a turn every 50 ms.
        assert abs(cycles / now["cyclesPerSecond"] - now["seconds"]) < 0.2
        assert sum(stage["share"] for stage in worker["stages"]) == pytest.approx(1)
