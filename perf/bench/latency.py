"""The suite `latency`: one request at a time between pods, by sockperf, beside the kernel's way."""

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import suite
from kernel import Kernel, KernelNodes
from margay import BusyMargay, Carried, Margay, PreferringMargay
from shell import finish, inside, measured, start, wait_until

# Ports that perf/bench/policy.yaml and perf/kernel/pods.nft let through, beside iperf3's 5201.
PORTS = {"UDP": 5001, "TCP": 5202}
# What runs beside under load: datagrams of 1000 bytes between the same pods, 25,000 a second.
LOAD = "-u -b 200M -l 1000"
QUANTILES = ("50.000", "99.000", "99.900")
OBSERVED = re.compile(r"percentile\s+([\d.]+) =\s+([\d.]+)")


@dataclass(frozen=True)
class Case:
    """A conversation; each of its quantiles is a row of the table."""

    name: str
    way: str
    protocol: str
    loaded: bool = False
    unit: str = "µs"


CASES = [
    Case("UDP", "local", "UDP"),
    Case("TCP", "local", "TCP"),
    Case("UDP under load", "local", "UDP", loaded=True),
    Case("TCP under load", "local", "TCP", loaded=True),
    Case("UDP by VXLAN", "vxlan", "UDP"),
    Case("TCP by VXLAN", "vxlan", "TCP"),
]


class Suite(suite.Suite):
    """Margay as it is by default and the kernel; beside them ways to wait, where workers carry all."""

    name = "latency"
    rounds = 3
    seconds = 1
    cases = CASES
    def __init__(self, binaries, scratch, seconds):
        devices = [
            Margay("margay", "l", binaries, scratch, workers=2),
            Carried("margay, adaptive", "a", binaries, scratch),
            BusyMargay("margay, busy", "b", binaries, scratch, "busy = true\n"),
            PreferringMargay("margay, prefer", "p", binaries, scratch),
            Kernel(),
            KernelNodes(),
        ]
        super().__init__(scratch, seconds, devices)

    def pairs(self):
        """Whoever waits in another way is held against who waits as by default, on the same cores."""
        others = [(f"margay, {way}", "margay, adaptive") for way in ("busy", "prefer")]
        return [("margay", "kernel"), *others]

    def value(self, device, case):
        """There and back in microseconds; `value` is the 99th percentile."""
        pods = device.pods(case.way)
        if not pods:
            return None
        client, server, address = pods
        cpu = device.client_cpu
        pinned = f"taskset -c {cpu} " if cpu is not None else ""
        mode = " --tcp" if case.protocol == "TCP" else ""
        port = PORTS[case.protocol]
        command = f"{pinned}sockperf %s -i {address} -p {port}{mode}"
        asking = f"{command % 'ping-pong'} --full-rtt -t {max(1, self.seconds):g}"
        with (
            self.serving(server, command % "server", port),
            self.load(client, server, address, case),
        ):
            words = measured(["ip", "netns", "exec", client, *asking.split()])
        found = dict(OBSERVED.findall(words))
        if not all(quantile in found for quantile in QUANTILES):
            raise RuntimeError(f"{device.name}, {case.name}: sockperf says {words.strip()[-300:]}")
        quantiles = {quantile: float(found[quantile]) for quantile in QUANTILES}
        return {"value": quantiles["99.000"], "quantiles": quantiles}

    @contextmanager
    def serving(self, server, command, port):
        log = Path(self.scratch) / "sockperf.log"
        process = start(["ip", "netns", "exec", server, *command.split()], log)
        try:
            wait_until("sockperf listens", lambda: f":{port}" in inside(server, "ss -Htuln"))
            yield
        finally:
            finish(process)

    @contextmanager
    def load(self, client, server, address, case):
        """Other packets between the same pods, where the case asks for them."""
        if not case.loaded:
            yield
            return
        log = Path(self.scratch) / "iperf3.log"
        serving = start(["ip", "netns", "exec", server, "iperf3", "-s", "-1"], log)
        wait_until("iperf3 listens", lambda: ":5201" in inside(server, "ss -Htln"))
        line = f"iperf3 -c {address} -t {self.seconds + 10:g} {LOAD}"
        sending = start(["ip", "netns", "exec", client, *line.split()], log)
        try:
            wait_until("the load runs", lambda: ":5201" in inside(client, "ss -Hun"))
            yield
        finally:
            finish(sending)
            finish(serving)

    def summary(self, values, cases):
        """A row for each quantile."""
        return [
            self.quantile_row(case, quantile, values[case.name])
            for case in cases
            for quantile in QUANTILES
        ]

    def quantile_row(self, case, quantile, rounds):
        of = {
            name: [{"value": one["quantiles"][quantile], "cpu": one["cpu"]} for one in all_]
            for name, all_ in rounds.items()
        }
        return self.row_of(f"{case.name}, p{float(quantile):g}", case.unit, of)
