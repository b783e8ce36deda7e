"""A module's rig: `MODE` (of `scripts/rig up --mode`) and `ENV` of the test module shape it.

Of the caller's environment `MARGAY_RIG_MODE` overrides the mode, `MARGAY_RIG_KEEP` leaves the rig
running, `MARGAYD_CONFIG` is margayd's configuration file (say, for native pod ports), and with
`MARGAY_RIG_SHORTCUT=off` nothing goes past the workers, but in the modules that are about that.
"""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from rig import Rig  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A failure shows what the processes last logged."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and "rig" in item.fixturenames and Rig.running:
        for path in sorted(Rig.running.run.glob("n?/*.log")):
            tail = path.read_text(errors="replace").splitlines()[-12:]
            report.sections.append((f"{path.parent.name} {path.name}", "\n".join(tail)))


@pytest.fixture(scope="module")
def rig(request):
    """A fresh cluster for the module."""
    assert os.geteuid() == 0, "rig tests need root: namespaces and AF_XDP"
    mode = os.environ.get("MARGAY_RIG_MODE") or getattr(request.module, "MODE", "vxlan")
    rig = Rig()
    try:
        rig.up(mode, **getattr(request.module, "ENV", {}))
        yield rig
    finally:
        if not os.environ.get("MARGAY_RIG_KEEP"):
            rig.down()
