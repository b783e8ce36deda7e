"""What suites share: devices measured in interleaved rounds, TCP through them, the rows of a table."""

import json
import math
import sys
import time
from pathlib import Path
from statistics import median

import figures
from devices import TUNNELS
from shell import Watch, finish, inside, start, wait_until, watched


class Suite:
    """Builds the devices, measures every case with each of them in every round.

    `cases` have a name, a unit and the way that they go; `ours` and `yardsticks` are the names of
    the devices whose ratios are of interest.
    """

    name = ""
    # Of every measurement, where the command line does not say.
    rounds = 5
    seconds = 2
    # Seconds left out at its beginning: flows are made, rings fill.
    warm_up = 0.3
    cases = []
    ours = ()
    yardsticks = ()

    def __init__(self, scratch, seconds, devices):
        self.scratch = scratch
        self.seconds = seconds
        self.devices = devices

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
            began = time.monotonic()
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
            took = f"round {number + 1} took {time.monotonic() - began:.0f} s"
            print(took, file=sys.stderr, flush=True)
        return values

    def encapsulate(self, way):
        for device in self.devices:
            device.encapsulate(TUNNELS.get(way, "none"))

    def one(self, device, case):
        began = Watch()
        device.begin()
        try:
            value = self.value(device, case)
        finally:
            device.end()
        if value:
            value.setdefault("cpu", began.shares())
        return value

    def value(self, device, case):
        """One measurement, or None if the device has no such way."""
        raise NotImplementedError

    def tcp(self, device, case):
        """iperf3 from pod to pod."""
        pods = device.pods(case.way)
        if not pods:
            return None
        client, server, address = pods
        # iperf3 knows whole seconds only, and takes 0 for no end.
        seconds, warm_up = math.ceil(self.seconds), math.ceil(self.warm_up)
        line = f"iperf3 -J -c {address} -t {seconds} -O {warm_up} -P {case.streams}"
        log = Path(self.scratch) / "iperf3.log"
        serving = start(["ip", "netns", "exec", server, "iperf3", "-s", "-1"], log)
        try:
            wait_until("iperf3 listens", lambda: ":5201" in inside(server, "ss -Htln"))
            back = ["-R"] if case.reverse else []
            words, cpu = watched(["ip", "netns", "exec", client, *line.split(), *back])
        finally:
            finish(serving)
        told = json.loads(words)
        end = told["end"]
        return {
            "value": end["sum_received"]["bits_per_second"] / 1e9,
            "bytes": end["sum_received"]["bytes"],
            "retransmits": end["sum_sent"].get("retransmits"),
            "mss": told["start"].get("tcp_mss_default"),
            "cpu": cpu,
        }

    def summary(self, values, cases):
        """Rows of medians and ratios."""
        return [self.row(case, values[case.name]) for case in cases]

    def pairs(self):
        """Whose ratios to whom the table has."""
        return [(ours, theirs) for ours in self.ours for theirs in self.yardsticks]

    def row(self, case, rounds):
        return self.row_of(case.name, case.unit, rounds)

    def row_by_cpu(self, case, rounds):
        """The same by a second of processor time, both cores together."""
        of = {
            name: [{"value": one["value"] / sum(one["cpu"])} for one in all_]
            for name, all_ in rounds.items()
        }
        unit = "Gb/CPU s" if case.streams else "M/CPU s"
        return self.row_of(f"{case.name}, by CPU time", unit, of)

    def row_of(self, name, unit, rounds, pairs=None):
        """`pairs`: whose ratios the row has; by default the table's."""
        measured_ = {name: [value["value"] for value in all_] for name, all_ in rounds.items()}
        ratios = [
            {"of": ours, "to": theirs, **ratio}
            for ours, theirs in (self.pairs() if pairs is None else pairs)
            if ours in measured_ and theirs in measured_
            if (ratio := figures.ratio(measured_[ours], measured_[theirs]))
        ]
        return {
            "case": name,
            "unit": unit,
            "medians": {name: median(all_) for name, all_ in measured_.items()},
            "ratios": ratios,
            "rounds": rounds,
        }
