"""The suite `profile`: where a worker's time goes under all that the generator sends, as flame graphs and
in shares, and what it is beside that of the bare forwarder on the same ports."""

import itertools
import json
import re
import subprocess
import time
from pathlib import Path
from statistics import median

import figures
import show
from devices import GENERATOR_CPU
from forwarder import Forwarder, TrunkForwarder
from margay import Margay
from shell import finish, measured, precedence, run, start
from tools import installed

# And what forwards on the same ports.
KINDS = {"trunk": TrunkForwarder, "native": Forwarder}
# Bytes of the packets whose work is measured, and rounds in which it is, with each in turn.
SIZES = (60, 1500)
ROUNDS = 10
# Renders what perf has seen.
INFERNO = ("inferno", "0.12.8")
HERTZ = 499
# Frames of the kernel end with this.
KERNEL = "_[k]"
# By the first of these that is found: of the kernel anywhere in a stack, of ours in its leaf.
KERNEL_PARTS = {
    "kernel: the receiver's NAPI and its program, within the send": "__napi_poll",
    "kernel: AF_XDP sends, an skb for each frame": "sys_sendto",
    "kernel: waiting and waking": "epoll_",
    "kernel: the rest": "",
}
PARTS = {
    "engine, tables, wire: parse, decide, rewrite": r"margay_(engine|tables|wire)::",
    "xsk: rings and frames": r"margay_xsk::",
    "worker: the loop, fates, counters": r"margay_worker::",
    "libraries": r"",
}


def measure(binaries, scratch, seconds, out):
    """Rows of shares by part, for each kind of pod ports; writes the pictures into `out`."""
    tools = installed(*INFERNO, "inferno-flamegraph", "--no-default-features", "--features", "cli")
    rows = []
    for kind in KINDS:
        device = Margay(f"margay {kind}", kind, binaries, scratch, "shortcut = false\n")
        device.down()
        try:
            with precedence():
                device.up()
                folded, stages = record(device, binaries, Path(scratch), tools, seconds)
        finally:
            device.down()
        picture(folded, out / f"profile-{kind}.svg", kind, tools)
        rows += [{"case": f"{kind}: {part}", "unit": "%", "value": share}
                 for part, share in shares(folded).items()]
        rows.append({"case": f"{kind}: by stage", "unit": "cycles", "stages": stages})
    return rows + [row for kind in KINDS for row in work(kind, binaries, scratch)]


def work(kind, binaries, scratch):
    """Rows of what a packet takes of the worker's time and of the forwarder's, looks at empty rings left
    out, in rounds with each in turn."""
    margay = Margay(f"margay {kind}", kind, binaries, scratch, "shortcut = false\n")
    forwarder = KINDS[kind](binaries, scratch)
    both = {"margay": (margay, of_margay), "forwarder": (forwarder, of_forwarder)}
    values = {size: {name: [] for name in both} for size in SIZES}
    try:
        with precedence():
            for device, _ in both.values():
                device.down()
                device.up()
            finish(forwarder.process)
            for number, size in itertools.product(range(ROUNDS), SIZES):
                for name, (device, measure_) in sorted(both.items(), reverse=number % 2 == 1):
                    values[size][name].append(measure_(device, binaries, size))
    finally:
        for device, _ in both.values():
            device.down()
    for size, of in values.items():
        # More work, fewer packets.
        ratio = figures.ratio(of["forwarder"], of["margay"])
        case = f"{kind}: work of a packet of {size} bytes"
        yield {"case": case, "unit": "ns", "values": of, "ratio": ratio}


def of_margay(device, binaries, size):
    load = start(sending(device, binaries, size, 3), device.run / "pktgen.log")
    try:
        time.sleep(0.5)
        told = cycles_of(device, binaries, "--seconds", "1")
    finally:
        finish(load)
    stages = {stage["stage"]: stage for stage in told["workers"][0]["stages"]}
    cycles = sum(stage["cycles"] for name, stage in stages.items() if name != "idle")
    return cycles / told["cyclesPerSecond"] * 1e9 / stages["receive"]["packets"]


def cycles_of(device, binaries, *more):
    """What the workers of n1 do with their time, by margayctl."""
    control = f"unix:{device.run / 'n1/margayd.sock'}"
    words = f"{binaries}/margayctl --dataplane {control} -o json counters --cycles"
    return json.loads(run([*words.split(), *more]))


def of_forwarder(device, binaries, size):
    device.start()
    device.begin()
    measured(sending(device, binaries, size, 1.5))
    finish(device.process)
    words = Path(device.log).read_text(encoding="utf-8").strip().splitlines()[-1]
    return json.loads(words)["nanoseconds_per_packet"]


def sending(device, binaries, size, seconds):
    """The generator's command: as many packets as it can, from pod to pod."""
    words = [f"{binaries}/margay-pktgen", "send", "--cpu", GENERATOR_CPU, "--flows", 64, "--size", size]
    return [str(word) for word in [*words, *device.ends("local").words(), "--seconds", seconds]]


def record(device, binaries, scratch, tools, seconds):
    """Stacks of the worker's thread under load, one a line with its count, and cycles by stage."""
    load = start(sending(device, binaries, SIZES[0], 3 * seconds + 4), scratch / "pktgen.log")
    try:
        time.sleep(1)
        told = cycles_of(device, binaries)
        data = scratch / "perf.data"
        command = f"perf record -q -e cpu-clock -F {HERTZ} --call-graph dwarf,8192 -o {data}"
        measured([*command.split(), "-t", worker(device), "--", "sleep", str(2 * seconds)])
    finally:
        load.terminate()
        load.wait()
    seen = run(["perf", "script", "-i", str(data), "--no-inline"])
    folded = run([str(tools / "inferno-collapse-perf"), "--kernel"], input=seen)
    return folded, told["workers"][0]["stages"]


def worker(device):
    """The thread of n1's only worker."""
    pid = int((device.run / "n1/daemon.pid").read_text(encoding="ascii"))
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text(encoding="ascii").startswith("margay-worker"):
            return task.name
    raise RuntimeError("margayd has no worker")


def picture(folded, file, kind, tools):
    title = f"margay {kind}: a worker under load, pod to pod, 60 bytes, 64 flows"
    command = [str(tools / "inferno-flamegraph"), "--title", title, "--hash", "--countname", "ns"]
    drawn = subprocess.run(command, input=folded, capture_output=True, text=True, check=True)
    file.write_text(drawn.stdout, encoding="utf-8")


def shares(folded):
    """Percent of all samples by part."""
    sums = dict.fromkeys([*KERNEL_PARTS, *PARTS], 0)
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        sums[part(stack)] += int(count)
    total = sum(sums.values()) or 1
    return {name: round(100 * count / total, 2) for name, count in sums.items()}


def part(stack):
    """Whose a stack is."""
    if stack.endswith(KERNEL):
        return next(name for name, words in KERNEL_PARTS.items() if words in stack)
    leaf = stack.rsplit(";", 1)[-1]
    return next(name for name, words in PARTS.items() if re.search(words, leaf))


def table(rows):
    """Lines of a Markdown table."""
    yield "| part | share |"
    yield "|---|---:|"
    for row in (row for row in rows if row["unit"] == "%"):
        yield f"| {row['case']} | {row['value']:.1f} % |"
    yield ""
    yield "| work of a packet, ns | margay | forwarder | forwarder / margay |"
    yield "|---|---:|---:|---:|"
    for row in (row for row in rows if "values" in row):
        margay, forwarder = (median(row["values"][name]) for name in ("margay", "forwarder"))
        yield f"| {row['case']} | {margay:.0f} | {forwarder:.0f} | {show.interval(row['ratio'])} |"
