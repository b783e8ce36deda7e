"""Connections of third parties, and what must not happen to them and to the processes meanwhile."""

import collections
import contextlib
import json

from rig import NODES, wait_until
from scene import OUTSIDE, OUTSIDE_SERVER
from streams import CALM, Streams


@contextlib.contextmanager
def undisturbed(scene, loses_nothing=True, dies=()):
    """Within: connections of bystanders go on, the processes keep their pids, and none panics.

    `loses_nothing`: not one segment is lost. `dies`: the process, as (node, name), that is to.
    """
    rig = scene.rig
    assert rig.ping("client", scene.pods["far"][0], 5)
    pids = {(node, name): rig.pid(node, name) for node in NODES for name in ("daemon", "agent")}
    pids.pop(dies, None)
    streams = Streams(rig)
    watched = [
        streams.open("client", scene.pods["near"][0], name="on the node"),
        streams.open("client", scene.pods["far"][1], name="across"),
        streams.open("client", OUTSIDE[4], OUTSIDE_SERVER, name="to outside"),
    ]
    before = dropped(rig)
    try:
        yield watched
        for stream in watched:
            assert stream.goes_on(), f"{stream.name}: {stream.error or 'silent'}"
            told = f"lost {stream.lost()} segments, stood still for {stream.stall():.2f} s"
            if loses_nothing and (stream.lost() or stream.stall() > CALM):
                drops = {key: n - before[key] for key, n in dropped(rig).items() if n > before[key]}
                raise AssertionError(f"{stream.name} {told}; drops meanwhile: {drops}")
        for (node, name), pid in pids.items():
            assert rig.pid(node, name) == pid and rig.alive(node, name), f"{node}: {name} died"
        for node in NODES:
            assert "panicked" not in rig.log(node, "daemon") + rig.log(node, "agent")
    finally:
        streams.close()


def dropped(rig):
    """Drops so far on both nodes, by node and reason or kernel interface."""
    found = collections.Counter()
    for node in NODES:
        for reason, count in rig.metrics(node).by("margay_drops_total", "reason").items():
            found[node, reason] = count
        for link in json.loads(rig.exec(node, "ip", "-s", "-j", "link")):
            for way in ("rx", "tx"):
                found[node, link["ifname"], way] = link["stats64"][way]["dropped"]
    return found


@contextlib.contextmanager
def counted(rig, reason, at_least, node="n1"):
    """Within: packets are dropped for a reason, and counted."""
    before = rig.metrics(node).drops(reason)
    yield
    enough = lambda: rig.metrics(node).drops(reason) - before >= at_least
    wait_until(enough, f"{at_least} drops of reason {reason} at {node}")
