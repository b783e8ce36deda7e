"""Ten thousand services with a hundred thousand endpoints, through agent and daemon."""

import json
import time

import pytest
from rig import resident, wait_until
from services import V4, endpoint, endpoint_slice, prepare
from whoami import Whoami

MODE = "vxlan"
SERVICES, ENDPOINTS, A_FILE = 10_000, 10, 200
FIRST, MIDDLE, LAST = 0, SERVICES // 2, SERVICES - 1


def address(n):
    """The cluster address of service `n`."""
    return f"10.96.{100 + n // 256}.{n % 256}"


def documents(n, *pods):
    """Service `n` and its slice: the pods' addresses on n1, else ten that nobody has."""
    port = {"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080}
    spec = {"clusterIP": address(n), "clusterIPs": [address(n)], "ports": [port]}
    far = [endpoint(f"10.{200 + e}.{n // 256}.{n % 256}", "n2") for e in range(ENDPOINTS)]
    near = [endpoint(pod, "n1") for pod in pods]
    document = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{n}"}, "spec": spec}
    return [document, endpoint_slice(n, V4, *(near or far))]


def memory(rig, process):
    """Resident memory of a process on n1 in MiB."""
    return resident(rig.pid("n1", process)) >> 20


@pytest.fixture(scope="module")
def who(rig):
    """Pod a and backend x on n1, backend y on n2; x serves three of many services."""
    prepare(rig)
    who = Whoami(rig)
    who.serve("x", 8080, sctp=False)
    x = rig.pods["x"][V4]
    start = {process: memory(rig, process) for process in ("agent", "daemon")}
    texts = {}
    for first in range(0, SERVICES, A_FILE):
        some = range(first, first + A_FILE)
        many = [documents(n, *([x] if n in (FIRST, LAST) else [])) for n in some if n != MIDDLE]
        texts[f"many{first:05}"] = "\n---\n".join(json.dumps(one) for two in many for one in two)
    begin = time.monotonic()
    for name, text in texts.items():
        rig.store.write(name, text)
    rig.store.write("middle", documents(MIDDLE, x))
    for n in (FIRST, MIDDLE, LAST):
        wait_until(lambda: who.serves("a", address(n), 80), f"service {n}", within=90)
    print(f"in force after {time.monotonic() - begin:.1f} s;", end=" ")
    for process, before in start.items():
        print(f"{process}: {before} → {memory(rig, process)} MiB;", end=" ")
    yield who
    who.close()
    rig.books_are_right()


def test_memory_stays_within_bounds(rig, who):
    """About 3.5 KiB an endpoint for its document and what follows from it."""
    assert memory(rig, "agent") < 600 and memory(rig, "daemon") < 200


def test_one_changed_endpoint_compiles_its_service_alone_and_is_in_force_soon(rig, who):
    compiled = lambda: rig.metrics("n1", 9102).total("margay_compile_services_total")
    for pods in ((), (rig.pods["x"][V4],)):
        before, begin = compiled(), time.monotonic()
        rig.store.write("middle", documents(MIDDLE, *pods))
        wait_until(lambda: who.serves("a", address(MIDDLE), 80) == bool(pods), "it", every=0.01)
        print(f"one change: {(time.monotonic() - begin) * 1000:.0f} ms;", end=" ")
        assert compiled() - before == 1
    assert who.serves("a", address(FIRST), 80) and who.serves("a", address(LAST), 80)


def test_a_killed_daemon_is_soon_back_with_all_of_them(rig, who):
    rig.kill("n1", "daemon")
    rig.start("n1", "daemon")
    begin = time.monotonic()
    wait_until(lambda: who.serves("a", address(LAST), 80), "it is back", within=10)
    print(f"back after {time.monotonic() - begin:.2f} s")
    wait_until(lambda: rig.ready("n1"), "the daemon is ready")
