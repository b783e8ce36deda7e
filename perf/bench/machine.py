"""What the figures were measured on."""

import os
import platform
from datetime import datetime, timezone

from shell import run


def describe(repository):
    """Machine, kernel, commit and time."""
    with open("/proc/cpuinfo", encoding="ascii") as lines:
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    git = ["git", "-C", str(repository)]
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": run([*git, "rev-parse", "--short=12", "HEAD"]).strip(),
        "clean": not run([*git, "status", "--porcelain", "-uno", "--", ":!perf/results"]).strip(),
        "cpu": models[0] if models else platform.processor(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        # Others' work on the same cores, before anything was measured.
        "load": os.getloadavg()[0],
    }
