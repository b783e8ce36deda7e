"""What goes past the workers: bulk connections, and what margayctl says of them."""

import contextlib
import json
import time

from bulk import Bulk
from rig import NODES, wait_until

V4, V6 = 0, 1
SERVICE = {V4: "10.96.0.10", V6: "fd96::10"}
# Where the service's pod listens.
BEHIND = 5299
NODE_PORT = 30080


def service_of(pod, protocol="TCP", node_port=None):
    """A service of a pod at port 80, at a node port too if one is given."""
    more = {"nodePort": node_port} if node_port else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {
            "type": "NodePort" if node_port else "ClusterIP",
            "clusterIPs": list(SERVICE.values()),
            "ipFamilyPolicy": "PreferDualStack",
            "ipFamilies": ["IPv4", "IPv6"],
            "selector": {"name": pod},
            "ports": [{"port": 80, "targetPort": BEHIND, "protocol": protocol} | more],
        },
    }


@contextlib.contextmanager
def bulks(rig, nodes):
    """Opens bulk connections, which end with this; then nothing is left in the nodes' shortcuts.

    Each goes to a port of its own of its target, or to the service's pod by `address` and `port`.
    """
    with contextlib.ExitStack() as all_of_them:
        ports = iter(range(BEHIND + 1, BEHIND + 101))

        def start(source, target, v=V4, address=None, port=None):
            if port:
                one = Bulk(rig, source, target, address, port, BEHIND)
            else:
                one = Bulk(rig, source, target, address or rig.pods[target][v], next(ports))
            all_of_them.callback(one.close)
            return one

        yield start
    for node in nodes:
        nothing = lambda node=node: connections(rig, node) in (0, None)
        wait_until(nothing, "nothing is left in the shortcut")
        rig.conserved(node)


def ask(rig, *words, node="n1"):
    """What margayctl says of a node's dataplane."""
    where = f"unix:{rig.run}/{node}/margayd.sock"
    return json.loads(rig.ctl("--dataplane", where, *words, "-o", "json"))


def connections(rig, node="n1"):
    """How many connections take a node's shortcut; None where there is none."""
    shortcut = ask(rig, "node", "status", node=node)["shortcut"]
    return shortcut and shortcut["connections"]


def flow(rig, one, node="n1"):
    """A bulk connection as `margayctl flows` shows it."""
    found = ask(rig, "flows", "--port", str(one.client_port), "--net", one.address, node=node)
    return found[0] if len(found) == 1 else None


def opened(start):
    """The connection, or None where nobody answers yet."""
    with contextlib.suppress(OSError):
        return start()
    return None


def takes_it(rig, one, node="n1"):
    """Whether a bulk connection takes a node's shortcut."""
    found = flow(rig, one, node)
    return bool(found) and found["shortcut"]


def on_both(rig, one):
    """Whether a connection takes the shortcut of both nodes."""
    return all(takes_it(rig, one, node) for node in NODES)


def encapsulate(rig, mode):
    """Has both nodes use another encapsulation; it is in force when this returns."""
    before = [rig.metrics(node).total("margay_generation") for node in NODES]
    rig.script("pools", mode)
    changed = lambda: all(
        rig.metrics(node).total("margay_generation") > then for node, then in zip(NODES, before)
    )
    # Where the mode is what it was nothing changes.
    with contextlib.suppress(AssertionError):
        wait_until(changed, "", within=1.0)
    time.sleep(0.3)


def frames(rig, node, interface, way):
    """Frames that an interface's port received (`rx`) or sent (`tx`), past the workers or not."""
    return rig.metrics(node).total(f"margay_{way}_packets_total", port=interface)


def by_workers(rig, node="n1"):
    """Frames that a node's workers received."""
    return rig.metrics(node).total("margay_worker_rx_packets_total")


def moved(one):
    """A bulk connection that has moved much within the last moment."""
    return one.goes_on(amount=256 * 65536)


def follows_a_smaller_mtu(rig, one, device, largest):
    """Has a device of n1 take 1400 bytes at most: who sends the bulk connection is told, and its packets
    of `largest` bytes take the shortcut again."""
    told = rig.metrics("n1").total("margay_punts_total", reason="too_big")
    rig.exec("n1", "ip", "link", "set", device, "mtu", 1400)
    try:
        assert one.goes_on(), one.error
        wait_until(
            lambda: rig.metrics("n1").total("margay_punts_total", reason="too_big") > told,
            "the sender is told",
        )
        wait_until(lambda: takes_it(rig, one), "it takes the shortcut again")
        before = flow(rig, one)["origCount"]
        assert moved(one)
        after = flow(rig, one)["origCount"]
        packets, size = (after[key] - before[key] for key in ("packets", "bytes"))
        assert 1200 < size / packets <= largest
    finally:
        rig.exec("n1", "ip", "link", "set", device, "mtu", 1500)
