"""A module's rig: `MODE` (of `scripts/rig up --mode`) and `ENV` of the test module shape it."""

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
    """A fresh cluster for the module. `MARGAY_RIG_KEEP=1` leaves it running afterwards."""
    assert os.geteuid() == 0, "rig tests need root: namespaces and AF_XDP"
    rig = Rig()
    try:
        rig.up(getattr(request.module, "MODE", "vxlan"), **getattr(request.module, "ENV", {}))
        yield rig
    finally:
        if not os.environ.get("MARGAY_RIG_KEEP"):
            rig.down()
