"""The suite `tcp`: iperf3 between pods of one node and of two, beside the kernel's own way."""

from dataclasses import dataclass

import suite
from devices import FRAMES, JUMBO, WHOLE, Wire
from kernel import Kernel, KernelNodes
from margay import FarMargay, Margay


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    way: str
    streams: int
    reverse: bool = False
    wire: Wire = FRAMES
    unit: str = "Gb/s"


CASES = [
    Case("one node, 1 stream", "local", 1),
    Case("one node, 8 streams", "local", 8),
    Case("one node, 1 stream, back", "local", 1, reverse=True),
    Case("one node, 8 streams, back", "local", 8, reverse=True),
    Case("two nodes by VXLAN, 1 stream", "vxlan", 1),
    Case("two nodes by VXLAN, 8 streams", "vxlan", 8),
    Case("two nodes by VXLAN, 1 stream, back", "vxlan", 1, reverse=True),
    Case("two nodes by VXLAN, 8 streams, back", "vxlan", 8, reverse=True),
    Case("two nodes by VXLAN, one veth, 1 stream", "vxlan", 1, wire=WHOLE),
    Case("two nodes by VXLAN, one veth, 8 streams", "vxlan", 8, wire=WHOLE),
    Case("two nodes by VXLAN, MTU 9000, 1 stream", "vxlan", 1, wire=JUMBO),
    Case("two nodes by VXLAN, MTU 9000, 8 streams", "vxlan", 8, wire=JUMBO),
]


class Suite(suite.Suite):
    """Margay as it is by default and with the shortcut turned off, and the kernel."""

    name = "tcp"
    cases = CASES
    ours = ("margay", "margay, no shortcut")
    yardsticks = ("kernel",)

    def __init__(self, binaries, scratch, seconds):
        def margay(letter, settings="", wire=None):
            name = "margay, no shortcut" if settings else "margay"
            words = name, letter, binaries, scratch, settings
            return FarMargay(wire, *words, workers=2) if wire else Margay(*words, workers=2)

        off = "shortcut = false\n"
        devices = [
            margay("s"),
            margay("w", off),
            # Without the shortcut frames are of the MTU whatever the wire.
            margay("v", wire=WHOLE),
            margay("j", wire=JUMBO),
            margay("y", off, wire=JUMBO),
            Kernel(),
            KernelNodes(),
            KernelNodes("v", WHOLE),
            KernelNodes("j", JUMBO),
        ]
        super().__init__(scratch, seconds, devices)

    def summary(self, values, cases):
        """Behind the rates those of a second of processor time, and what was sent twice."""
        return [
            *super().summary(values, cases),
            *(self.row_by_cpu(case, values[case.name]) for case in cases),
            *(self.row_of_retransmits(case, values[case.name]) for case in cases),
        ]

    def row_of_retransmits(self, case, rounds):
        """What was sent again, of all that arrived; there are no ratios of next to nothing."""
        of = {
            name: [{"value": 100 * one["retransmits"] * one["mss"] / one["bytes"]} for one in all_]
            for name, all_ in rounds.items()
        }
        return self.row_of(f"{case.name}, sent again", "%", of, pairs=())

    def value(self, device, case):
        return self.tcp(device, case) if device.wire == case.wire else None
