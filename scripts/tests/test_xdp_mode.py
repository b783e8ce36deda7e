"""How packets get in: the way that `xdp-mode` names and no other, a running node's connections kept."""

import contextlib
import json
import tempfile

import pytest
from bulk import Bulk
from rig import wait_until

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
