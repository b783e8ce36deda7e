"""The suite `rig`: packets a second, and TCP, through devices on veths, in interleaved rounds."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import figures
from devices import GENERATOR_CPU, Forwarder, Kernel, Margay, SteeredKernel
from shell import busy, finish, inside, measured, start, wait_until

# Of every measurement left out at its beginning: flows are made, rings fill.
WARM_UP = 0.3
OURS = ("margay trunk", "margay native")
YARDSTICKS = ("forwarder", "kernel", "kernel rps")


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    way: str
    size: int = 60
    flows: int = 64
    streams: int = 0

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


class Suite:
    """Builds the devices, measures every case with each of them in every round."""

    name = "rig"

    def __init__(self, binaries, scratch, seconds):
        self.pktgen = str(Path(binaries) / "margay-pktgen")
        self.scratch = scratch
        self.seconds = seconds
        self.margays = [Margay(kind, binaries, scratch) for kind in ("trunk", "native")]
        kernel = Kernel()
        yardsticks = [Forwarder(binaries, scratch), kernel, SteeredKernel(kernel)]
        self.devices = [*self.margays, *yardsticks]

    def up(self):
        for device in self.devices:
            device.up()

    def down(self):
        for device in self.devices:
            try:
                device.down()
            except (OSError, RuntimeError) as error:
                print(f"{device.name}: {error}")

    def measure(self, rounds, cases, progress):
        """All values: case → device → list of measurements, one a round."""
        values = {case.name: {} for case in cases}
        for number in range(rounds):
            for way in dict.fromkeys(case.way for case in cases):
                self.encapsulate(way)
                for case in (case for case in cases if case.way == way):
                    # Who comes first changes from round to round.
                    shift = number % len(self.devices)
                    for device in self.devices[shift:] + self.devices[:shift]:
                        value = self.one(device, case)
                        if value:
                            values[case.name].setdefault(device.name, []).append(value)
                            progress(number, case, device.name, value)
        return values

    def encapsulate(self, way):
        for margay in self.margays:
            margay.encapsulate("none" if way == "local" else way)

    def one(self, device, case):
        before, began = busy(), time.monotonic()
        device.begin()
        try:
            value = self.tcp(device, case) if case.streams else self.packets(device, case)
        finally:
            device.end()
        if value:
            seconds = time.monotonic() - began
            value["cpu"] = [round((b - a) / seconds, 3) for a, b in zip(before, busy())]
        return value

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

    def tcp(self, device, case):
        """iperf3 from pod to pod."""
        pods = device.pods()
        if not pods:
            return None
        client, server, address = pods
        log = Path(self.scratch) / "iperf3.log"
        serving = start(["ip", "netns", "exec", server, "iperf3", "-s", "-1"], log)
        try:
            wait_until("iperf3 listens", lambda: ":5201" in inside(server, "ss -Htln"))
            line = f"iperf3 -J -c {address} -t {self.seconds} -O {WARM_UP} -P {case.streams}"
            report = json.loads(measured(["ip", "netns", "exec", client, *line.split()]))
        finally:
            finish(serving)
        end = report["end"]
        return {
            "value": end["sum_received"]["bits_per_second"] / 1e9,
            "retransmits": end["sum_sent"].get("retransmits"),
        }


def summary(values, cases):
    """Rows of medians and ratios."""
    rows = []
    for case in cases:
        measured_ = {name: [v["value"] for v in all_] for name, all_ in values[case.name].items()}
        ratios = [
            {"of": ours, "to": theirs, **figures.ratio(measured_[ours], measured_[theirs])}
            for ours in OURS
            for theirs in YARDSTICKS
            if ours in measured_ and theirs in measured_
        ]
        rows.append(
            {
                "case": case.name,
                "unit": case.unit,
                "medians": {name: median(all_) for name, all_ in measured_.items()},
                "ratios": ratios,
                "rounds": values[case.name],
            }
        )
    return rows
