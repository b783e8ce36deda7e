"""`scripts/bench`: what it cannot measure it refuses in a sentence, and its ratios are what they are said to be."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "perf/bench"
sys.path.append(str(BENCH))

import figures  # noqa: E402  (found by the line above)
import show  # noqa: E402


def refused(*words, before=()):
    line = [*before, "/usr/bin/python3", str(BENCH), *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode != 0, done
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_what_cannot_be_measured_is_refused_with_what_can():
    assert "there is no suite nosuch: there are rig, tcp" in refused("nosuch")
    assert "no case's name contains 'nosuch'" in refused("--case", "nosuch", "rig")
    assert "--case: not of path: give rig" in refused("--case", "60", "path")
    assert "--emulated: not of churn: give rig" in refused("--emulated", "churn")
    assert "--set, --no-policy: not of scale: give rig" in refused("--no-policy", "scale")
    assert "--set 'shortcut': must be KEY=VALUE" in refused("--set", "shortcut", "rig")
    assert "must be positive" in refused("--rounds", "0", "rig")


def test_one_cpu_is_refused():
    assert "needs two CPUs" in refused("rig", before=["taskset", "-c", "0"])


def test_a_ratio_is_the_median_of_the_rounds_own():
    # A machine that is slower in the second round is so for both.
    ratio = figures.ratio([2.0, 1.0, 2.2], [1.0, 0.5, 1.0])
    assert (ratio["median"], ratio["low"], ratio["high"]) == (2.0, 2.0, 2.2)
    assert figures.ratio([1.0], [0.0]) is None


def test_ratios_whose_intervals_do_not_meet_are_told():
    def result(low, high):
        ratio = {"of": "margay", "to": "kernel", "median": 2.0, "low": low, "high": high}
        machine = {"commit": "c0ffee", "time": "2026-01-01T00:00:00"}
        return {"machine": machine, "rows": [{"case": "60 bytes", "ratios": [ratio]}]}

    assert show.beside(result(1.9, 2.1), result(2.0, 2.2))["apart"] == []
    said = show.beside(result(1.9, 2.1), result(2.2, 2.3))
    assert [one["case"] for one in said["apart"]] == ["60 bytes"]
    assert "the intervals of 1 are apart" in next(show.words(said))
    assert show.beside(result(1.9, 2.1), {"machine": {}, "rows": []}) is None
    alone = result(1.9, 1.9) | {"rounds": 1}
    assert show.beside(alone, result(2.2, 2.3)) is None, "one round has no interval"
    assert show.beside(result(2.2, 2.3), alone) is None
