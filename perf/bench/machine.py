"""What the figures were measured on."""

import os
import platform
import time
from datetime import datetime, timezone

from shell import Watch, run

# For so many seconds the machine is looked at before anything is measured.
LOOK = 2


def describe(repository):
    """Machine, kernel, commit and time."""
    with open("/proc/cpuinfo", encoding="ascii") as lines:
        fields = [[word.strip() for word in line.split(":", 1)] for line in lines if ":" in line]
    models = [value for name, value in fields if name == "model name"]
    with open("/proc/meminfo", encoding="ascii") as lines:
        memory = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    watch = Watch()
    time.sleep(LOOK)
    git = ["git", "-c", "safe.directory=*", "-C", str(repository)]
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": run([*git, "rev-parse", "--short=12", "HEAD"]).strip(),
        "clean": not run([*git, "status", "--porcelain", "-uno", "--", ":!perf/results"]).strip(),
        "cpu": models[0] if models else platform.processor(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "virtual": any(name == "flags" and "hypervisor" in value.split() for name, value in fields),
        "memory_gib": round(memory["MemTotal"] / 2**20, 1),
        "huge_pages": memory["HugePages_Total"],
        # Others' work on each core, before anything was measured.
        "busy": watch.shares(),
    }
