"""The suite `rig`: packets a second, and TCP, through devices on veths, in interleaved rounds."""

import json
from dataclasses import dataclass
from pathlib import Path

import suite
from devices import GENERATOR_CPU, Forwarder, Kernel, Margay, SteeredKernel, Testpmd
from shell import measured
from suite import WARM_UP


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    way: str
    size: int = 60
    flows: int = 64
    streams: int = 0
    reverse: bool = False

    @property
    def unit(self):
        return "Gb/s" if self.streams else "Mpps"


CASES = [
    Case("60 bytes, 1 flow", "local", flows=1),
    Case("60 bytes, 64 flows", "local"),
    Case("60 bytes, 10 k flows", "local", flows=10_000),
    Case("512 bytes, 64 flows", "local", size=512),
    Case("1500 bytes, 64 flows", "local", size=1500),
    Case("TCP, 1 stream", "local", streams=1),
    Case("TCP, 4 streams", "local", streams=4),
    Case("VXLAN, 60 bytes, 64 flows", "vxlan"),
    Case("VXLAN, 1400 bytes, 64 flows", "vxlan", size=1400),
    Case("IPIP, 60 bytes, 64 flows", "ipip"),
]


class Suite(suite.Suite):
    """The devices on one worker, one core, beside the yardsticks."""

    name = "rig"
    cases = CASES
    ours = ("margay trunk", "margay native")
    yardsticks = ("forwarder", "kernel", "kernel rps")

    def __init__(self, binaries, scratch, seconds):
        self.pktgen = str(Path(binaries) / "margay-pktgen")
        margays = [Margay(f"margay {kind}", kind, binaries, scratch) for kind in ("trunk", "native")]
        kernel = Kernel()
        yardsticks = [Forwarder(binaries, scratch), kernel, SteeredKernel(kernel)]
        if Testpmd.there():
            yardsticks.append(Testpmd(scratch))
        super().__init__(scratch, seconds, [*margays, *yardsticks])

    def pairs(self):
        """The yardstick itself is held against another's."""
        return [*super().pairs(), ("forwarder", "testpmd")]

    def value(self, device, case):
        return self.tcp(device, case) if case.streams else self.packets(device, case)

    def packets(self, device, case):
        """Sends as fast as the generator can; what arrives is the device's rate."""
        ends = device.ends(case.way)
        if not ends:
            return None
        command = [self.pktgen, "send", "--cpu", GENERATOR_CPU, "--seconds", self.seconds]
        command += ["--warm-up", WARM_UP, "--size", case.size, "--flows", case.flows]
        command += ["--interface", "eth0", "--netns", ends.netns, "--src", ends.src]
        command += ["--dst", ends.dst, "--dst-mac", ends.dst_mac, "--sink-xdp", ends.sink_xdp]
        command += ["--sink-interface", ends.sink_interface, "--sink-netns", ends.sink_netns]
        report = json.loads(measured([str(word) for word in [*command, "-o", "json"]]))
        sent, received = report["sent"], report["received"]
        if not received["packets"]:
            raise RuntimeError(f"{device.name}, {case.name}: nothing arrives")
        return {
            "value": received["packets_per_second"] / 1e6,
            "offered": sent["packets_per_second"] / 1e6,
            "sink_dropped": received["dropped_by_kernel"],
            "late": received["late"],
        }
