"""The suite `rig`: packets a second, and TCP, through devices on veths, in interleaved rounds."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import suite
from devices import GENERATOR_CPU
from forwarder import Direct, Forwarder, Testpmd, TrunkForwarder, UplinkForwarder
from kernel import FlowtableKernel, Kernel, SteeredKernel
from margay import Margay
from shell import watched


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    way: str
    size: int | str = 60
    flows: int = 64
    streams: int = 0
    reverse: bool = False
    # Whether some packets come back in the same connections.
    answered: bool = False

    @property
    def unit(self):
        return "Gb/s" if self.streams else "Mpps"


CASES = [
    Case("60 bytes, 1 flow", "local", flows=1),
    Case("60 bytes, 64 flows", "local"),
    Case("60 bytes, 10 k flows", "local", flows=10_000),
    Case("512 bytes, 64 flows", "local", size=512),
    Case("1500 bytes, 64 flows", "local", size=1500),
    Case("IMIX, 64 flows", "local", size="imix"),
    Case("IPv6, 80 bytes, 64 flows", "local6", size=80),
    Case("60 bytes, 64 flows, answered", "local", answered=True),
    Case("TCP, 1 stream", "local", streams=1),
    Case("service, 60 bytes, 64 flows", "service"),
    Case("VXLAN, 60 bytes, 64 flows", "vxlan"),
    Case("VXLAN, 1400 bytes, 64 flows", "vxlan", size=1400),
    Case("VXLAN, 60 bytes, 64 flows, answered", "vxlan", answered=True),
    Case("service and VXLAN, 60 bytes, 64 flows", "service vxlan"),
    Case("service and VXLAN, 60 bytes, 64 flows, answered", "service vxlan", answered=True),
    Case("out of VXLAN, 60 bytes, 64 flows", "from vxlan", size=110),
    Case("IPIP, 60 bytes, 64 flows", "ipip"),
]


class Suite(suite.Suite):
    """The devices on one worker, one core, beside the yardsticks."""

    name = "rig"
    cases = CASES

    def __init__(self, binaries, scratch, seconds):
        self.pktgen = str(Path(binaries) / "margay-pktgen")
        kernel = Kernel()
        devices = [
            Margay("margay", "s", binaries, scratch),
            # What the workers forward, and nothing that goes past them.
            Margay("margay trunk", "trunk", binaries, scratch, "shortcut = false\n"),
            Margay("margay native", "native", binaries, scratch),
            TrunkForwarder(binaries, scratch),
            UplinkForwarder(binaries, scratch),
            Forwarder(binaries, scratch),
            Direct(),
            kernel,
            SteeredKernel(kernel),
        ]
        if Testpmd.there():
            devices.append(Testpmd(scratch))
        if refusal := FlowtableKernel.refusal():
            print(f"kernel flowtable: not measured, this kernel has none: {refusal}", file=sys.stderr)
        else:
            devices.append(FlowtableKernel())
        super().__init__(scratch, seconds, devices)

    def pairs(self):
        """Margay beside a forwarder on the same ports and the kernel, the forwarders beside theirs."""
        kernels = ("kernel", "kernel rps", "kernel flowtable")
        to = {
            "margay": kernels,
            "margay trunk": ("forwarder trunk", *kernels),
            "margay native": ("forwarder", *kernels),
            "forwarder trunk": ("kernel",),
            "forwarder": ("kernel", "testpmd"),
        }
        return [(ours, theirs) for ours, all_ in to.items() for theirs in all_]

    def summary(self, values, cases):
        """Behind the rates a second those of a second of processor time, both cores together; then, of
        packets, the time that the device adds to what the generator and the sink take by themselves."""
        return [
            *super().summary(values, cases),
            *(self.row_by_cpu(case, values[case.name]) for case in cases),
            *(self.row_of_devices(case, values[case.name]) for case in cases if not case.streams),
        ]

    def row_of_devices(self, case, rounds):
        """Time of both cores that a packet takes, less what it takes with nothing in between: only of those
        that work where the generator does, so that the times add up. There are no ratios of differences."""
        took = {
            name: [sum(one["cpu"]) / one["value"] for one in rounds[name]]
            for name in (Direct.name, "margay", "kernel")
            if name in rounds
        }
        alone = took.pop(Direct.name, [])
        of = {
            name: [{"value": all_ - bare} for all_, bare in zip(times, alone)]
            for name, times in took.items()
        }
        return self.row_of(f"{case.name}, time of the device", "CPU µs", of, pairs=())

    def value(self, device, case):
        return self.tcp(device, case) if case.streams else self.packets(device, case)

    @staticmethod
    def asked(device, case):
        """Whether a device may have something of its own to say about packets."""
        return device.name != "testpmd" or (case.flows == 64 and not case.answered)

    def packets(self, device, case):
        """Sends as fast as the generator can; what arrives is the device's rate."""
        ends = device.ends(case.way)
        if not ends or not self.asked(device, case):
            return None
        command = [self.pktgen, "send", "--cpu", GENERATOR_CPU, "--seconds", self.seconds]
        command += ["--warm-up", self.warm_up, "--size", case.size, "--flows", case.flows]
        command += ends.words()
        # In connections of its own: an answered one stays so, for the kernel's policy too.
        command += ["--answers", ends.xdp, "--dst-port", 5500] if case.answered else []
        words, cpu = watched([str(word) for word in [*command, "-o", "json"]])
        report = json.loads(words)
        sent, received = report["sent"], report["received"]
        if not received["packets"]:
            raise RuntimeError(f"{device.name}, {case.name}: nothing arrives")
        if case.answered and not report["answers"]:
            raise RuntimeError(f"{device.name}, {case.name}: no answer comes back")
        return {
            "value": received["packets_per_second"] / 1e6,
            "offered": sent["packets_per_second"] / 1e6,
            "sink_dropped": received["dropped_by_kernel"],
            "late": received["late"],
            "answers": report["answers"],
            "cpu": cpu,
        }
