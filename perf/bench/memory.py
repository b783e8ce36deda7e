"""The suites that send no packet: benches of crates, by time, by instructions, by bytes."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import show
from shell import run as shell
from tools import installed, target

# Counts instructions for the benches of that name.
RUNNER = "gungraun-runner"
# What a bench of bytes prints.
BYTES = re.compile(r"^(?P<case>.+): (?P<value>\d+) bytes")
# What the bench of the clock prints.
TICKS = re.compile(r": (?P<value>\d+) ticks a second")
# Where the kernel keeps the number of reserved pages, and of how many a million flows take.
HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")
WANTED = 128
UNITS = ((1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s"))


@dataclass
class Bench:
    """A bench target of a crate, and how its figures are found."""

    package: str
    name: str
    figures: object


def run(bench, tools, arguments=()):
    """Runs the target; gives what it printed."""
    command = ["cargo", "bench", "--quiet", "-p", bench.package, "--bench", bench.name]
    environment = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}")
    print(f"{bench.package}: {bench.name}", flush=True)
    done = subprocess.run(
        [*command, "--", *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def times(bench, folder, tools):
    """What criterion measured: medians with an interval of 95 %."""
    shutil.rmtree(folder / "criterion", ignore_errors=True)
    run(bench, tools, ["--noplot"])
    for path in sorted((folder / "criterion").glob("**/new/estimates.json")):
        case = json.loads(path.with_name("benchmark.json").read_text(encoding="utf-8"))
        median = json.loads(path.read_text(encoding="utf-8"))["median"]
        interval = median["confidence_interval"]
        # A batch of packets is one iteration.
        elements = (case["throughput"] or {}).get("Elements", 1)
        value, low, high = (
            nanoseconds / elements / 1e9
            for nanoseconds in (
                median["point_estimate"], interval["lower_bound"], interval["upper_bound"]
            )
        )
        yield {"case": case["full_id"], "unit": "s", "value": value, "low": low, "high": high}


def instructions(bench, folder, tools):
    """What callgrind counted; a batch of the engine has 64 packets."""
    shutil.rmtree(folder / "gungraun" / bench.package, ignore_errors=True)
    run(bench, tools, ["--save-summary=json"])
    per = 64 if bench.package == "margay-engine" else 1
    for path in sorted((folder / "gungraun" / bench.package).glob("**/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        counted = summary["profiles"][0]["data"]["total"]["metrics"]
        value, cycles = (counted[event]["values"]["new"] / per for event in ("Ir", "EstimatedCycles"))
        case = f"{summary['function_name']}/{summary['id']}"
        yield {"case": case, "unit": "instructions", "value": value, "estimated_cycles": cycles}


def sizes(bench, _folder, tools):
    """What a bench of bytes printed."""
    for line in run(bench, tools).splitlines():
        if found := BYTES.match(line):
            yield {"case": found["case"], "unit": "bytes", "value": int(found["value"])}


SUITES = {
    "path": [
        Bench("margay-wire", "instructions", instructions),
        Bench("margay-tables", "instructions", instructions),
        Bench("margay-engine", "instructions", instructions),
        Bench("margay-wire", "headers", times),
        Bench("margay-tables", "flow", times),
        Bench("margay-tables", "lookup", times),
        Bench("margay-engine", "path", times),
        Bench("margay-engine", "miss", times),
        Bench("margay-engine", "workers", times),
    ],
    "policy": [
        Bench("margay-tables", "policy", times),
        Bench("margay-tables", "memory", sizes),
        Bench("margay-compile", "policy", times),
        Bench("margay-compile", "memory", sizes),
    ],
}


def install():
    """The counter of instructions, in a folder of its own, which this gives.

    It has to be of the version that the benches are built with.
    """
    command = ["cargo", "pkgid", "gungraun"]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    version = found.stdout.strip().rpartition("@")[2]
    return installed(RUNNER, version, RUNNER)


@contextmanager
def hugepages():
    """Huge pages for the benches that want them, where the machine has that many to give."""
    before = HUGEPAGES.read_text(encoding="ascii")
    HUGEPAGES.write_text(str(WANTED), encoding="ascii")
    try:
        if int(HUGEPAGES.read_text(encoding="ascii")) < WANTED:
            print("no huge pages: the machine has too little memory in one piece", flush=True)
            yield
            return
        with tempfile.TemporaryDirectory(prefix="margay-bench-") as folder:
            shell(["mount", "-t", "hugetlbfs", "none", folder])
            os.environ["MARGAY_HUGEPAGES"] = folder
            try:
                yield
            finally:
                del os.environ["MARGAY_HUGEPAGES"]
                shell(["umount", folder])
    finally:
        HUGEPAGES.write_text(before, encoding="ascii")


def clock(tools):
    """Ticks of the time stamp counter in a second."""
    return int(TICKS.search(run(Bench("margay-tables", "clock", None), tools))["value"])


def measure(suite):
    """The rows of a suite; times are in ticks of the time stamp counter too."""
    folder = target()
    counts = any(bench.figures is instructions for bench in SUITES[suite])
    tools = install() if counts else folder
    ticks = clock(tools)
    rows = []
    with hugepages() if suite == "path" else nullcontext():
        for bench in SUITES[suite]:
            for row in bench.figures(bench, folder, tools):
                if row["unit"] == "s":
                    row["cycles"] = row["value"] * ticks
                rows.append({"bench": f"{bench.package} {bench.name}", **row})
    return ticks, rows


def table(rows):
    """Lines of a Markdown table."""
    yield "| bench | case | value |"
    yield "|---|---|---:|"
    for row in rows:
        yield f"| {row['bench']} | {row['case']} | {words(row)} |"


def picture(result, path):
    """The times, a panel for each bench, all on one scale."""
    pyplot = show.drawing()
    rows = [row for row in result["rows"] if row["unit"] == "s"]
    benches = list(dict.fromkeys(row["bench"] for row in rows))
    counts = [sum(row["bench"] == bench for row in rows) for bench in benches]
    figure, panels = pyplot.subplots(
        len(benches), 1, sharex=True, figsize=(9, 0.16 * sum(counts) + 0.5 * len(benches)),
        height_ratios=counts, squeeze=False,
    )
    for panel, bench in zip(panels[:, 0], benches):
        of = [row for row in rows if row["bench"] == bench]
        middles = [row["value"] * 1e9 for row in of]
        spans = [[1e9 * abs(row["value"] - row[end]) for row in of] for end in ("low", "high")]
        panel.barh(range(len(of)), middles, 0.7, color=show.COLOURS["margay"], xerr=spans,
                   error_kw={"elinewidth": 0.8, "ecolor": "#333333"})
        panel.set_yticks(range(len(of)), [row["case"] for row in of], fontsize=7)
        panel.invert_yaxis()
        panel.set_title(bench, fontsize=9, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    panel.set_xscale("log")
    panel.set_xlim(left=min(row["value"] for row in rows) * 1e9 / 2)
    panel.set_xlabel("ns")
    show.sign(figure, result["machine"])
    figure.tight_layout(rect=(0, 0.01, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def words(row):
    """A value with its unit, and its interval where it has one."""
    if row["unit"] != "s":
        cycles = row.get("estimated_cycles")
        estimate = f", {cycles:,.0f} estimated cycles" if cycles else ""
        return f"{row['value']:,.0f} {row['unit']}{estimate}"
    scale, unit = max(pair for pair in UNITS if pair[0] <= max(row["value"], 1e-9))
    value, low, high = (row[key] / scale for key in ("value", "low", "high"))
    cycles = f", {row['cycles']:,.0f} cycles" if row["cycles"] < 1e6 else ""
    return f"{value:.3g} {unit} ({low:.3g}–{high:.3g}){cycles}"
