"""Tools from crates.io, each in a folder of its own below the target folder."""

import os
import subprocess
from pathlib import Path


def target():
    """Where cargo builds."""
    return Path(os.environ.get("CARGO_TARGET_DIR", "target"))


def installed(crate, version, program, *more):
    """The folder with that program of a crate, which is installed if it is not there."""
    scratch = target() / f"{crate}-{version}"
    if not (scratch / "bin" / program).exists():
        command = ["cargo", "install", "--quiet", "--root", str(scratch)]
        subprocess.run([*command, "--version", version, *more, crate], check=True)
    return (scratch / "bin").resolve()
