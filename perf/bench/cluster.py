"""What the suites share that measure one cluster of Margay's, with the tests' own tools."""

import concurrent.futures
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import suite
from devices import DEVICE_CPU, GATEWAY_MAC, GENERATOR_CPU, Ends
from shell import measured, prefer_workers

TESTS = Path(__file__).resolve().parents[2] / "scripts/tests"
sys.path.append(str(TESTS))

from rig import Rig, wait_until  # noqa: E402  (found by the line above)

TAG = "mgpx"


@dataclass(frozen=True)
class Case:
    """A row of the table. `aim` is what the figure should be, in words."""

    name: str
    unit: str
    aim: str = ""


class Suite(suite.Suite):
    """Two nodes made by scripts/rig. `settings` go into margayd's configuration file."""

    ours = ()
    yardsticks = ()
    mode = "vxlan"
    workers = 2
    settings = ""

    def __init__(self, binaries, scratch, seconds):
        super().__init__(scratch, seconds, [])
        self.binaries = Path(binaries)
        self.config = Path(scratch) / "margayd.toml"
        self.configure(self.settings)
        os.environ |= {
            "MARGAY_RIG_TAG": TAG,
            "MARGAY_BIN": str(binaries),
            "MARGAYD_CONFIG": str(self.config),
            "WORKERS": str(self.workers),
        }
        self.rig = Rig()

    def configure(self, settings):
        """What margayd reads at its next start."""
        pinned = f'cpus = "{DEVICE_CPU}"\n' if self.workers == 1 else ""
        self.config.write_text(pinned + settings, encoding="utf-8")

    def up(self):
        self.rig.up(self.mode)

    def down(self):
        for child in self.rig.children:
            self.rig.end(child)
        self.rig.script("down", check=False)

    def encapsulate(self, way):
        """The mode is that of the suite."""

    def row_of(self, name, unit, rounds, pairs=None):
        row = super().row_of(name, unit, rounds, pairs)
        aims = {case.name: case.aim for case in self.cases}
        return row | ({"aim": aims[name]} if aims.get(name) else {})

    def pods(self, names, node="n1"):
        """Attaches pods, eight at a time."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self.rig.pod(node, "default", name, app="many"), names))

    def restart(self, node="n1"):
        """Ends margayd cleanly and starts it with the settings that are there now."""
        self.rig.kill(node, "daemon", 15)
        self.rig.start(node, "daemon")
        wait_until(lambda: self.rig.ready(node), f"{node} is ready again", 10)
        self.prefer_workers(node)

    def prefer_workers(self, node="n1"):
        prefer_workers(self.rig.pid(node, "daemon"))

    def sending(self, source, target, *more):
        """The generator's command: packets from pod to pod of a node, counted in the second."""
        ends = Ends(
            netns=f"{TAG}-p-{source}",
            src=self.rig.pods[source][0],
            dst=self.rig.pods[target][0],
            dst_mac=GATEWAY_MAC,
            sink_netns=f"{TAG}-p-{target}",
            sink_interface="eth0",
            sink_xdp="generic",
            xdp="generic",
        )
        words = [self.binaries / "margay-pktgen", "send", "-o", "json", *ends.words(), *more]
        return [str(word) for word in words]

    def send(self, source, target, *more):
        """Sends them from a core of its own; the generator's report."""
        return json.loads(measured(self.sending(source, target, "--cpu", GENERATOR_CPU, *more)))


def value(number):
    """A measurement, as the suites keep it."""
    return {"margay": [{"value": number}]}
