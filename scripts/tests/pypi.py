"""Other people's programs and libraries from PyPI, for this run of the tests only.

`installed` puts packages into a folder of the build's own target folder, once; nothing of the
system changes.
"""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "pypi"


def installed(*packages):
    """A folder with these packages, of exactly these versions (`name==1.2.3`), and what they need."""
    folder = FOLDER / "-".join(sorted(package.replace("==", "-") for package in packages))
    complete = folder / ".complete"
    if not complete.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore"]
        done = subprocess.run(
            [*pip, "--upgrade", "--target", str(folder), *packages],
            text=True,
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == 0, f"pip install {packages}: {done.stdout}{done.stderr}"
        complete.touch()
    return folder
