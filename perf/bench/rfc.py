"""The suite `rfc`: a node as a device under test, by the benchmarks of RFC 2544 and RFC 8219.

`margay-pktgen` has the procedures. Their trials are shorter and fewer here than the RFCs ask for, as its
notes tell, which stand in the results.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import suite
from devices import GENERATOR_CPU
from forwarder import Forwarder, TrunkForwarder, UplinkForwarder
from kernel import Kernel
from margay import Margay
from shell import measured

FLOWS = 64
# How exactly the searches know a rate, and how often latency and bursts are measured.
RESOLUTION, REPEATS = 0.05, 2
# Seconds without a packet that end a trial; the next one begins at once.
SETTLE = 0.3


@dataclass(frozen=True)
class Figure:
    """What a procedure finds at a frame size: where it is in the generator's report."""

    procedure: str
    name: str
    unit: str
    path: tuple
    scale: float = 1

    def of(self, row):
        """The measurement. Where not the device was the limit, it is all that was offered."""
        found = row[self.path[0]]
        value = found
        for step in self.path[1:]:
            value = value[step]
        one = {"value": value * self.scale, "found": found}
        limited = isinstance(found, dict) and not found.get("limited_by_device", True)
        return one | ({"offered": one["value"]} if limited else {})


THROUGHPUT = Figure("throughput", "throughput", "Mpps", ("throughput", "packets_per_second"), 1e-6)
FIGURES = [
    THROUGHPUT,
    Figure("latency", "latency, p50", "µs", ("latency", "p50")),
    Figure("latency", "latency, p99.9", "µs", ("latency", "p99.9")),
    Figure("delay-variation", "delay variation", "µs", ("variation", "pdv")),
    Figure("loss", "loss at the highest rate", "%", ("loss", 0, "lost"), 100),
    Figure("back-to-back", "back to back", "frames", ("back_to_back", "frames")),
]


@dataclass(frozen=True)
class Case:
    """A run of the generator; each figure of each frame size is a row of the table."""

    name: str
    way: str
    standard: str
    procedures: tuple
    # Bytes of the frames, with checksum, and what a tunnel adds.
    sizes: tuple
    overhead: int = 0
    unit: str = THROUGHPUT.unit

    def figures(self):
        return [one for one in FIGURES if one.procedure in self.procedures]


CASES = [
    Case(
        "RFC 2544, pod to pod",
        "local",
        "rfc2544",
        ("throughput", "latency", "loss", "back-to-back"),
        (64, 512, 1518),
    ),
    Case(
        "RFC 8219, pod into VXLAN",
        "vxlan",
        "rfc8219",
        ("throughput", "latency", "delay-variation"),
        (64, 512, 1280),
        overhead=50,
    ),
]


class Suite(suite.Suite):
    """Margay on both kinds of ports, one worker, beside the forwarder on the same ones and the kernel."""

    name = "rfc"
    rounds = 1
    seconds = 1
    cases = CASES

    def __init__(self, binaries, scratch, seconds):
        self.pktgen = str(Path(binaries) / "margay-pktgen")
        devices = [
            # What the workers forward, and nothing that goes past them.
            Margay("margay trunk", "trunk", binaries, scratch, "shortcut = false\n"),
            Margay("margay native", "native", binaries, scratch),
            TrunkForwarder(binaries, scratch),
            UplinkForwarder(binaries, scratch),
            Forwarder(binaries, scratch),
            Kernel(),
        ]
        super().__init__(scratch, seconds, devices)

    def pairs(self):
        """Margay beside a forwarder on the same ports and the kernel."""
        ports = {"margay trunk": "forwarder trunk", "margay native": "forwarder"}
        return [(ours, theirs) for ours, bare in ports.items() for theirs in (bare, "kernel")]

    def value(self, device, case):
        """The generator's report; `value` is the throughput of the smallest frames."""
        ends = device.ends(case.way)
        if not ends:
            return None
        command = [self.pktgen, case.standard, *case.procedures, "--cpu", GENERATOR_CPU]
        command += ["--sizes", ",".join(map(str, case.sizes)), "--overhead", case.overhead]
        command += ["--flows", FLOWS, "--seconds", self.seconds, "--repeats", REPEATS]
        command += ["--resolution", RESOLUTION, "--settle", SETTLE, "--pause", 0]
        words = measured([str(word) for word in [*command, *ends.words(), "-o", "json"]])
        report = json.loads(words)
        rows = {row["size"]: row for row in report["rows"]}
        if missing := set(case.sizes) - set(rows):
            raise RuntimeError(f"{device.name}, {case.name}: not measured: {missing}: {report['notes']}")
        first = THROUGHPUT.of(rows[case.sizes[0]])
        return first | {"rows": rows, "notes": report["notes"]}

    def summary(self, values, cases):
        """A row for each figure of each frame size."""
        return [
            self.figure_row(case, size, one, values[case.name])
            for case in cases
            for size in case.sizes
            for one in case.figures()
        ]

    def figure_row(self, case, size, one, rounds):
        of = {
            name: [one.of(value["rows"][size]) | {"notes": value["notes"]} for value in all_]
            for name, all_ in rounds.items()
        }
        row = self.row_of(f"{case.name}, {size} bytes: {one.name}", one.unit, of)
        # The others are at rates of each device's own.
        return row if one is THROUGHPUT else row | {"ratios": []}
