"""`margayctl trace` and `margayctl capture`: the way of packets that go by, and of those that
nobody sends."""

import json
import subprocess
import time

import pytest
from rig import wait_until

MODE = "vxlan"
ENV = {"WORKERS": "2"}
DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "shut", "namespace": "default"},
    "spec": {"podSelector": {"matchLabels": {"app": "shut"}}, "policyTypes": ["Ingress"]},
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "s", "namespace": "default"},
    "spec": {
        "clusterIP": "10.96.0.9",
        "selector": {"app": "c"},
        "ports": [{"name": "web", "protocol": "UDP", "port": 7, "targetPort": 7}],
    },
}


@pytest.fixture(scope="module")
def pods(rig):
    """Pods a and shut on n1, c on n2, which a service leads to."""
    rig.store.write("docs", [DENY, SERVICE])
    for node, name in (("n1", "a"), ("n1", "shut"), ("n2", "c")):
        rig.pod(node, "default", name, app=name)
    yield {name: addresses[0] for name, addresses in rig.pods.items()}
    rig.books_are_right()


def command(rig, *words):
    socket = f"unix:{rig.run}/n1/margayd.sock"
    return ["ip", "netns", "exec", f"{rig.tag}-n1", rig.bin / "margayctl", "--dataplane", socket, *words]


def trace(rig, *words, while_=lambda: None):
    """The ways that `trace` tells of what goes by meanwhile."""
    child = subprocess.Popen(
        command(rig, "-o", "json", "trace", "--timeout", "5", *words), stdout=subprocess.PIPE, text=True
    )
    time.sleep(0.5)
    while_()
    out, _ = child.communicate(timeout=15)
    assert child.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


def datagram(rig, name, to, port):
    code = f"import socket; socket.socket(2, 2).sendto(b'x', ('{to}', {port}))"
    rig.exec(name, "python3", "-c", code)


def test_a_packet_is_seen_with_its_service_its_rewrite_its_tunnel_and_its_next_packet_as_hit(rig, pods):
    def send():
        for _ in range(2):
            rig.exec("a", "python3", "-c", "import socket\nx = socket.socket(2, 2)\nx.bind(('', 5005))\n"
                     "x.sendto(b'x', ('10.96.0.9', 7))")

    first, second = trace(rig, "--net", "10.96.0.9", "--count", "2", while_=send)
    assert (first["lookup"], second["lookup"]) == ("miss", "hit")
    assert first["service"] == "default/s:7/UDP/IPv4"
    assert first["arriving"]["dst"] == "10.96.0.9" and first["leaving"]["dst"] == pods["c"]
    assert first["route"]["encapsulation"] == "vxlan" and first["route"]["node"] == "n2"
    assert first["fate"] == "forwarded" and first["to"] == "eth0"
    assert "VXLAN 4096" in first["sent"] and f"→ {pods['c']} ttl 63" in first["sent"]


def test_a_dropped_packet_tells_the_policy_that_dropped_it(rig, pods):
    def send():
        datagram(rig, "a", pods["shut"], 9)

    [way] = trace(rig, "--pod", "shut", "--drops", "--count", "1", while_=send)
    assert way["fate"] == "dropped" and way["reason"] == "policy", way
    assert way["flow"]["verdict"] == "deny"


def test_other_packets_are_not_shown_and_not_lost(rig, pods):
    def send():
        assert rig.ping("a", pods["c"], 5)
        datagram(rig, "a", pods["c"], 99)

    [way] = trace(rig, "--protocol", "UDP", "--port", "99", "--count", "1", while_=send)
    assert way["arriving"]["dstPort"] == 99
    rig.conserved("n1")


def test_all_conditions_hold_together(rig, pods):
    def send():
        for name in ("shut", "c"):
            datagram(rig, "a", pods[name], 99)

    [way] = trace(rig, "--pod", "a", "--net", pods["c"], "--port", "99", "--count", "2", while_=send)
    assert way["arriving"]["dst"] == pods["c"]


def test_a_dry_run_changes_nothing(rig, pods):
    before = rig.metrics("n1").samples
    ways = trace(rig, "--dry-run", "--src", pods["a"], "--dst", pods["shut"], "--dport", "80")
    assert [way["fate"] for way in ways] == ["dropped"]
    ways = trace(rig, "--dry-run", "--src", pods["a"], "--dst", "10.96.0.9", "--dport", "7", "--protocol", "UDP")
    assert ways[0]["to"] == "eth0" and ways[0]["leaving"]["dst"] == pods["c"]
    names = ("margay_flow_misses_total", "margay_drops_total", "margay_flows")
    of = lambda samples: [sample for sample in samples if sample[0] in names]
    assert of(rig.metrics("n1").samples) == of(before)


def test_a_capture_is_a_file_that_tshark_reads_with_reasons_beside_drops(rig, pods, tmp_path):
    file = tmp_path / "x.pcapng"
    child = subprocess.Popen(command(rig, "capture", "--pod", "a", "-w", file, "--timeout", "3"))
    time.sleep(0.5)
    assert rig.ping("a", pods["c"])
    datagram(rig, "a", pods["shut"], 9)
    assert child.wait(timeout=10) == 0
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "ip.proto", "-e", "frame.comment"]
    out = subprocess.run(["tshark", "-r", file, *fields], capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in out.stdout.splitlines()]
    assert any(line[0] == "eth0" and "17" in line[1] for line in lines), lines
    assert any("dropped: policy:" in line[2] for line in lines), lines
    assert any("forwarded: eth0, 148 bytes: IPv4" in line[2] for line in lines), lines
    assert not any("no frame" in line[2] for line in lines), lines


def test_what_is_not_there_is_told(rig, pods):
    for words, told in (
        (("--pod", "nobody"), "default/nobody is no pod of this node"),
        (("--from", "eth9"), "eth9 is no port of this node"),
    ):
        done = subprocess.run(command(rig, "trace", *words), capture_output=True, text=True)
        assert done.returncode != 0 and told in done.stderr, done.stderr
    wait_until(lambda: rig.ping("a", pods["c"]), "the workers have let go")
