"""The kernel's preferred busy polling: it is asked for, used where the driver can, and told.

Which drivers can is the kernel's affair: veths do before Linux 6.13. What is asserted follows from what
the kernel says of each socket.
"""

import ctypes
import json
import os
import signal
import socket
import tempfile

import pytest
from rig import LIBC, NODES, wait_until

CONFIG = tempfile.NamedTemporaryFile("w", suffix=".toml")
CONFIG.write("prefer-busy-poll = true\nshortcut = false\n")
CONFIG.flush()
ENV = {"WORKERS": "2", "MARGAYD_CONFIG": CONFIG.name}
MODE = "vxlan"

# asm-generic/socket.h, linux/socket.h, asm-generic/unistd.h.
SO_BUSY_POLL, SO_INCOMING_NAPI_ID, SO_PREFER_BUSY_POLL, AF_XDP = 46, 56, 69, 44
WANTED = (SO_PREFER_BUSY_POLL, SO_BUSY_POLL, SO_INCOMING_NAPI_ID)
PIDFD_OPEN, PIDFD_GETFD = 434, 438
DEFERRED, UNTOUCHED = ("2", "200001"), ("0", "0")


@pytest.fixture(scope="module")
def pods(rig):
    """Pods a and b on n1, and c on n2, that have spoken."""
    for node, name in (("n1", "a"), ("n1", "b"), ("n2", "c")):
        rig.pod(node, "default", name)
    for name in "bc":
        for address in rig.pods[name]:
            wait_until(lambda: rig.ping("a", address), f"a reaches {name} at {address}")
    yield rig.pods
    rig.books_are_right()


def options(rig, node):
    """Of each AF_XDP socket of a node's daemon: does it prefer busy polling, for how long, its NAPI."""
    pid = rig.pid(node, "daemon")
    process = LIBC.syscall(PIDFD_OPEN, pid, 0)
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        fd = LIBC.syscall(PIDFD_GETFD, process, int(number), 0)
        if fd >= 0:
            values = [option(fd, name) for name in (socket.SO_DOMAIN, *WANTED)]
            os.close(fd)
            found += [values[1:]] if values[0] == AF_XDP else []
    os.close(process)
    return found


def option(fd, name):
    """A socket's option; nothing of what is no socket."""
    value, size = ctypes.c_int(), ctypes.c_int(4)
    failed = LIBC.getsockopt(fd, socket.SOL_SOCKET, name, ctypes.byref(value), ctypes.byref(size))
    return None if failed else value.value


def told(rig, node):
    """Who runs the NAPI of the uplink, by `margayctl node status`."""
    dataplane = f"unix:{rig.run}/{node}/margayd.sock"
    status = json.loads(rig.ctl("--dataplane", dataplane, "node", "status", "-o", "json"))
    rows = {row["name"]: row["value"] for row in status["tuning"]}
    return rows["NAPI of eth0"]


def deferral(rig, node, interface):
    """How a node's interface defers its interrupts."""
    folder = f"/sys/class/net/{interface}"
    files = (f"{folder}/napi_defer_hard_irqs", f"{folder}/gro_flush_timeout")
    # Unlike `rig.exec`, this shows the place's own /sys.
    place = ("ip", "netns", "exec", f"{rig.tag}-{node}")
    return tuple(rig.exec("out", *place, "cat", *files).split())


def polled(rig, node):
    """Packets that calls of a node's daemon have taken from the NAPI."""
    lines = rig.exec(node, "cat", "/proc/net/netstat").splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt"))
    return int(values[names.index("BusyPollRxPackets")])


def test_every_socket_of_the_uplink_asks_and_packets_go_on(rig, pods):
    for node in NODES:
        sockets = options(rig, node)
        asking = [patience for prefers, patience, _ in sockets if prefers]
        assert len(sockets) == 4 and len(asking) == 2, "two queues of the uplink, not the trunk's"
        assert all(asking), sockets
    for name in "bc":
        for address in pods[name]:
            assert rig.ping("a", address, 20), f"a does not reach {name} at {address}"


def test_status_and_interrupts_are_as_the_sockets_are(rig, pods):
    for node in NODES:
        known = any(napi for prefers, _, napi in options(rig, node) if prefers)
        who, how = ("workers", DEFERRED) if known else ("kernel", UNTOUCHED)
        wait_until(lambda: told(rig, node) == who, f"{node}: its {who}")  # noqa: B023
        assert deferral(rig, node, "eth0") == how
        assert deferral(rig, node, "margay0x") == UNTOUCHED


def test_calls_take_packets_where_a_napi_is_known_and_nowhere_else(rig, pods):
    before = polled(rig, "n1")
    assert rig.ping("a", pods["c"][0], 200, 1, "-i", "0.002")
    by_workers = told(rig, "n1") == "workers"
    assert (polled(rig, "n1") > before) == by_workers


def test_a_clean_stop_puts_interrupts_back_and_a_kill_leaves_that_to_the_next(rig, pods):
    was = deferral(rig, "n2", "eth0")
    rig.kill("n2", "daemon", signal.SIGKILL)
    assert deferral(rig, "n2", "eth0") == was
    rig.start("n2", "daemon")
    wait_until(lambda: rig.ready("n2"), "n2 is ready again", within=10)
    rig.kill("n2", "daemon", signal.SIGTERM)
    assert deferral(rig, "n2", "eth0") == UNTOUCHED
    rig.start("n2", "daemon")
    wait_until(lambda: rig.ready("n2"), "n2 is ready again", within=10)
    wait_until(lambda: rig.ping("a", pods["c"][0]), "a reaches c again", within=10)
