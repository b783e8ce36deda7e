"""How packets get in: the way that `xdp-mode` names and no other, a running node's connections kept."""

import contextlib
import json
import signal
import tempfile

import pytest
from bulk import Bulk
from rig import port_of, wait_until

MODE = "vxlan"
PORT = 7300


@pytest.fixture(scope="module")
def pods(rig):
    """Pods a on n1, and c on n2, that have spoken."""
    for node, name in (("n1", "a"), ("n2", "c")):
        rig.pod(node, "default", name)
    for address in rig.pods["c"]:
        wait_until(lambda: rig.ping("a", address), f"a reaches c at {address}")
    yield rig.pods
    rig.books_are_right()


def attached(rig):
    """How XDP runs on n1's uplink, by the kernel."""
    (link,) = json.loads(rig.exec("n1", "ip", "-j", "link", "show", "eth0"))
    return {1: "native", 2: "generic"}[link["xdp"]["mode"]]


def told(rig):
    """The mode of n1's uplink and what was tried before it, by `margayctl node status`."""
    dataplane = f"unix:{rig.run}/n1/margayd.sock"
    status = json.loads(rig.ctl("--dataplane", dataplane, "node", "status", "-o", "json"))
    (port,) = (port for port in status["ports"] if port["name"] == "eth0")
    return port["mode"], [fallback["mode"] for fallback in port["fallbacks"]]


def test_a_mode_is_taken_at_the_next_start_and_connections_go_on(rig, pods):
    assert (attached(rig), told(rig)) == ("native", ("copy", ["zerocopy"]))
    with contextlib.closing(Bulk(rig, "a", "c", pods["c"][0], PORT)) as bulk:
        for mode, hook in (("generic", "generic"), ("copy", "native")):
            with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
                config.write(f'xdp-mode = "{mode}"\n')
                config.flush()
                rig.start_as_child("n1", "daemon", "--config", config.name)
                wait_until(lambda: rig.ready("n1"), f"n1 is ready, {mode}", within=10)
            assert (attached(rig), told(rig)) == (hook, (mode, []))
            for address in pods["c"]:
                wait_until(lambda: rig.ping("a", address), f"a reaches {address}, {mode}")
                assert rig.ping("a", address, 20, 1, "-i", "0.01", "-s", "1300")
            assert bulk.goes_on(), f"the connection, {mode}"


def programs(rig, interface):
    """What is attached to an interface of n1."""
    (link,) = json.loads(rig.exec("n1", "ip", "-j", "link", "show", interface))
    filters = [
        rig.exec("n1", "tc", "filter", "show", "dev", interface, way) for way in ("ingress", "egress")
    ]
    return ["xdp"] * ("xdp" in link) + [words for words in filters if words]


def test_what_a_killed_daemon_left_is_gone_where_its_successor_does_not_want_it(rig, pods):
    rig.exec("n1", "ip", "link", "add", "eth9", "up", "type", "veth", "peer", "name", "eth9x")
    port = port_of("a")

    def passes(what):
        wait_until(lambda: rig.ready("n1"), f"n1 is ready, {what}", within=10)
        for address in pods["c"]:
            wait_until(lambda: rig.ping("a", address), f"a reaches {address}, {what}")

    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write('pod-ports = "native"\n')
        config.flush()
        native = ("--config", config.name)
        try:
            rig.start_as_child("n1", "daemon", "--uplink", "eth9", *native)
            passes("two uplinks and native pods")
            assert len(programs(rig, "eth9")) == 3 and programs(rig, port) == ["xdp"]
            rig.kill("n1", "daemon")
            assert len(programs(rig, "eth9")) == 3
            rig.start("n1", "daemon")
            passes("one uplink and the trunk")
            assert programs(rig, "eth9") == [] and "xdp" not in programs(rig, port)
            rig.start_as_child("n1", "daemon", *native, sig=signal.SIGKILL)
            passes("native pods")
            assert programs(rig, port) == ["xdp"]
        finally:
            rig.kill("n1", "daemon", signal.SIGTERM)
            rig.start("n1", "daemon")
            rig.exec("n1", "ip", "link", "del", "eth9")
    passes("as it was")
