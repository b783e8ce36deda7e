"""The suite `tcp`: iperf3 between pods of one node and of two, beside the kernel's own way."""

from dataclasses import dataclass

import suite
from devices import Kernel, KernelNodes, Margay


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    way: str
    streams: int
    reverse: bool = False
    unit: str = "Gb/s"


CASES = [
    Case("one node, 1 stream", "local", 1),
    Case("one node, 8 streams", "local", 8),
    Case("one node, 1 stream, back", "local", 1, reverse=True),
    Case("two nodes by VXLAN, 1 stream", "vxlan", 1),
    Case("two nodes by VXLAN, 8 streams", "vxlan", 8),
    Case("two nodes by VXLAN, 1 stream, back", "vxlan", 1, reverse=True),
]


class Suite(suite.Suite):
    """Margay as it is by default and with the shortcut turned off, and the kernel."""

    name = "tcp"
    cases = CASES
    ours = ("margay", "margay, no shortcut")
    yardsticks = ("kernel",)

    def __init__(self, binaries, scratch, seconds):
        def margay(name, letter, settings):
            return Margay(name, letter, binaries, scratch, settings, workers=2)

        devices = [
            margay("margay", "s", ""),
            margay("margay, no shortcut", "w", "shortcut = false\n"),
            Kernel(),
            KernelNodes(),
        ]
        super().__init__(scratch, seconds, devices)

    def value(self, device, case):
        return self.tcp(device, case)
