"""Measures, and writes what came of it. scripts/bench builds what is measured and calls this."""

import argparse
import json
import os
import re
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import churn
import emulated
import flames
import latency
import machine
import memory
import packets
import restart
import rfc
import scale
import show
import tcp
from margay import Margay
from shell import precedence

PERF = Path(__file__).resolve().parent.parent
KINDS = (packets, tcp, latency, churn, restart, scale, rfc)
SUITES = {kind.Suite.name: kind.Suite for kind in KINDS}
ALL = [*SUITES, *memory.SUITES, "profile"]
# Those that give Margay what --set and --no-policy ask for.
SETTABLE = ("rig", "tcp", "latency", "rfc", "profile")
# Those that an emulated machine has the time for.
EMULATED = ("rig", "tcp", "latency")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split(".")[0])
    suites = f"{', '.join(ALL)}; all of them by default"
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=suites)
    parser.add_argument("--rounds", type=int, help="of every measurement (default 5, of some 3 or 1)")
    of_each = "of each measurement (default 2, of latency and rfc 1)"
    parser.add_argument("--seconds", type=float, help=of_each)
    words = "left out at the beginning of each (default 0.3); of rig and tcp"
    parser.add_argument("--warm-up", type=float, metavar="SECONDS", help=words)
    parser.add_argument("--case", default="", help="only cases whose names contain this")
    words = f"a line of margayd's configuration file, as 'shortcut = false'; {', '.join(SETTABLE)} only"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=words)
    words = "Margay without policies; of the same suites"
    parser.add_argument("--no-policy", action="store_true", help=words)
    words = f"in an emulated machine with Debian's kernel; {', '.join(EMULATED)} only"
    parser.add_argument("--emulated", action="store_true", help=words)
    words = "where results are written (default perf/results; of part of a suite, or with --set or"
    words += " --no-policy, target/bench)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=words)
    parser.add_argument("--bin", default=PERF.parent / "target/release", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    unknown = [suite for suite in parsed.suites if suite not in ALL]
    if unknown:
        parser.error(f"there is no suite {unknown[0]}: there are {', '.join(ALL)}")
    if parsed.case and (whole := [name for name in parsed.suites if name not in SUITES]):
        parser.error(f"--case: not of {whole[0]}: give {', '.join(SUITES)}")
    if parsed.emulated and (slow := [name for name in parsed.suites if name not in EMULATED]):
        parser.error(f"--emulated: not of {slow[0]}: give {', '.join(EMULATED)}")
    everything = EMULATED if parsed.emulated else SUITES if parsed.case else ALL
    parsed.suites = parsed.suites or list(everything)
    partly = parsed.case or parsed.set or parsed.no_policy
    parsed.out = parsed.out or (PERF.parent / "target/bench" if partly else PERF / "results")
    fixed = [suite for suite in parsed.suites if suite not in SETTABLE]
    if fixed and (parsed.set or parsed.no_policy):
        parser.error(f"--set, --no-policy: not of {fixed[0]}: give {', '.join(SETTABLE)}")
    if wrong := [line for line in parsed.set if not re.match(r"\s*[\w.-]+\s*=\s*\S", line)]:
        parser.error(f"--set {wrong[0]!r}: must be KEY=VALUE, as margayd's configuration file has it")
    numbers = (parsed.rounds, parsed.seconds, parsed.warm_up)
    if any(number is not None and number <= 0 for number in numbers):
        parser.error("--rounds, --seconds and --warm-up must be positive")
    return parsed


def main():
    chosen = arguments()
    if os.geteuid() != 0:
        sys.exit("scripts/bench: must run as root: namespaces and AF_XDP need it")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("scripts/bench: needs two CPUs: one generates, the other forwards")
    on_wires = [name for name in chosen.suites if name in SUITES]
    all_cases = [case for name in on_wires for case in SUITES[name].cases]
    if on_wires and not any(chosen.case in case.name for case in all_cases):
        sys.exit(f"scripts/bench: no case's name contains {chosen.case!r}")
    Margay.extra, Margay.policy = chosen.set, not chosen.no_policy
    chosen.out.mkdir(parents=True, exist_ok=True)
    # A bench that is told to end removes what it has built.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if chosen.emulated and not emulated.inside():
        sys.exit(emulated.measure(sys.argv[1:], chosen.out.resolve()))
    for name in on_wires:
        measure(SUITES[name], chosen)
    for name in (name for name in chosen.suites if name in memory.SUITES):
        measure_in_memory(name, chosen)
    if "profile" in chosen.suites:
        measure_profile(chosen)


def measure_profile(chosen):
    """Draws flame graphs of a worker, and writes and prints the shares."""
    description = machine.describe(PERF.parent)
    with tempfile.TemporaryDirectory(prefix="margay-bench-") as scratch:
        rows = flames.measure(Path(chosen.bin), scratch, chosen.seconds or 2, chosen.out)
    command = shlex.join(["scripts/bench", *features(chosen), "profile"])
    write({"suite": "profile", "machine": description, "command": command, "rows": rows}, chosen.out)
    print("\n".join(flames.table(rows)))


def measure_in_memory(name, chosen):
    """Runs the benches of a suite, and writes and prints what came of them."""
    description = machine.describe(PERF.parent)
    ticks, rows = memory.measure(name)
    description["ticks_a_second"] = ticks
    command = f"scripts/bench {name}"
    result = {"suite": name, "machine": description, "command": command, "rows": rows}
    memory.picture(result, write(result, chosen.out).with_suffix(".svg"))
    print("\n".join(memory.table(rows)))


def write(result, folder):
    """Where the figures of a suite are kept now, without suffix."""
    out = folder / (result["suite"] + ("-emulated" if emulated.inside() else ""))
    kept = out.with_suffix(".json")
    if kept.exists() and (said := show.beside(result, json.loads(kept.read_text(encoding="utf-8")))):
        result["before"] = said
        print("\n".join(show.words(said)), file=sys.stderr)
    kept.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {out}.*", file=sys.stderr)
    return out


def measure(kind, chosen):
    """Runs one suite, and writes and prints what came of it."""
    cases = [case for case in kind.cases if chosen.case in case.name]
    if not cases:
        return
    with tempfile.TemporaryDirectory(prefix="margay-bench-") as scratch:
        rounds, seconds = chosen.rounds or kind.rounds, chosen.seconds or kind.seconds
        suite = kind(Path(chosen.bin), scratch, seconds)
        if chosen.warm_up:
            suite.warm_up = chosen.warm_up
        description = machine.describe(PERF.parent)
        suite.down()
        try:
            with precedence():
                suite.up()
                values = suite.measure(rounds, cases, progress)
        finally:
            suite.down()
    result = {
        "suite": suite.name,
        "machine": description,
        "command": command(chosen, suite, rounds, seconds),
        "rounds": rounds,
        "seconds": seconds,
        "rows": suite.summary(values, cases),
    }
    show.picture(result, write(result, chosen.out).with_suffix(".svg"))
    print("\n".join(show.table(result["rows"])))


def command(chosen, suite, rounds, seconds):
    """What measures the same again."""
    words = ["--rounds", str(rounds), "--seconds", f"{seconds:g}"]
    words += ["--warm-up", f"{chosen.warm_up:g}"] if chosen.warm_up else []
    words += ["--case", chosen.case] if chosen.case else []
    return shlex.join(["scripts/bench", *words, *features(chosen), suite.name])


def features(chosen):
    """The words that turn something of Margay off or on, or choose the machine."""
    set_ = [word for line in chosen.set for word in ("--set", line)]
    flags = [("--no-policy", chosen.no_policy), ("--emulated", chosen.emulated)]
    return set_ + [flag for flag, given in flags if given]


def progress(number, case, device, value):
    """One line a measurement, on the standard error."""
    offered = f" of {value['offered']:.3f}" if "offered" in value else ""
    words = f"{value['value']:.3f}{offered} {case.unit}"
    print(f"round {number + 1}: {case.name}: {device}: {words}", file=sys.stderr, flush=True)


try:
    main()
except (RuntimeError, AssertionError) as error:
    # Of a command, a device or a value that is not what it should be, in its own words or the rig's.
    sys.exit(f"scripts/bench: {error}")
