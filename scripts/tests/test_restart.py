"""Processes that die, stop and come back, under connections that talk all the time."""

import contextlib
import signal
import socket
import struct
import subprocess
import time
import types

import pytest
from rig import wait_until
from scene import NODE, NODE_PORT, OUTSIDE, SERVICE, Scene
from streams import CALM, Pulse, Streams

# Generous: a busy machine, and TCP's own timers behind an outage. What was measured is printed.
BACK_WITHIN = 10.0


@pytest.fixture(scope="module")
def scene(rig):
    scene = Scene(rig)
    yield scene
    scene.close()


@pytest.fixture
def flows(scene):
    """Connections of every kind through n1's dataplane, and `ssh` beside it."""
    streams = Streams(scene.rig)
    near, far = scene.pods["near"], scene.pods["far"]
    wait_until(lambda: scene.rig.ping("client", far[0]), "the nodes are connected")
    ours = [
        streams.open("client", near[0], name="same node"),
        streams.open("client", near[1], name="same node, IPv6"),
        streams.open("client", far[0], name="across"),
        streams.open("client", far[1], name="across, IPv6"),
        streams.open("client", SERVICE, name="to a service"),
        streams.open("n1", far[0], name="node to a remote pod"),
        streams.open("out", NODE[4], NODE_PORT, name="node port from outside"),
        streams.open("client", OUTSIDE[4], 8080, name="outside through SNAT"),
        streams.open("client", OUTSIDE[6], 8080, name="outside through SNAT, IPv6"),
    ]
    ssh = streams.open("out", NODE[4], 8022, name="the node's own, from outside")
    yield types.SimpleNamespace(ours=ours, ssh=ssh, streams=streams)
    streams.close()


def survived(flows):
    """Asserts that every connection goes on, and that the node's own lost nothing."""
    for stream in flows.ours:
        assert stream.goes_on(BACK_WITHIN), f"{stream.name}: {stream.error or 'silent'}"
    ssh = flows.ssh
    assert ssh.goes_on() and ssh.lost() == 0, f"{ssh.name}: {ssh.error}, lost {ssh.lost()}"
    assert ssh.stall() < CALM, f"{ssh.name} stood still for {ssh.stall():.2f} s"


def calm(flows):
    for stream in (*flows.ours, flows.ssh):
        stream.calm()


def tell(capsys, text):
    with capsys.disabled():
        print(f"\n  {text}")


def refused(rig, source, address, port, within=0.7):
    """Whether a connection attempt is answered by a reset; a silent drop is False."""
    with rig.inside(source):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with client:
        client.settimeout(within)
        with contextlib.suppress(TimeoutError):
            try:
                client.connect((address, port))
            except ConnectionRefusedError:
                return True
    return False


class Resets:
    """Counts the TCP resets that arrive at the outside host from n1, by source port."""

    def __init__(self, rig):
        with rig.inside("out"):
            self.tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self.tap.bind(("eth0", 0x0800))
        self.tap.setblocking(False)

    def seen(self):
        """Source ports of the resets since the last call."""
        ports = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self.tap.recv(2048)
                head = (packet[0] & 15) * 4
                source = socket.inet_ntoa(packet[12:16])
                if packet[9] == 6 and source == NODE[4] and packet[head + 13] & 4:
                    ports.append(struct.unpack_from("!H", packet, head)[0])
        return ports


# === the daemon dies ===


def test_every_connection_survives_the_daemons_death(scene, flows, capsys):
    rig = scene.rig
    pulse = Pulse(rig, "client", scene.pods["far"][0])
    time.sleep(0.2)
    calm(flows)
    rig.kill("n1", "daemon")
    time.sleep(1)
    executed = time.monotonic()
    rig.start("n1", "daemon")
    survived(flows)
    outage, ended = pulse.stop()
    tell(
        capsys,
        f"margayd killed, 1 s dead: outage {outage:.2f} s, first answer {ended - executed:.2f} s"
        f" after the new process was executed (target 1 s)",
    )
    assert ended - executed < 5
    wait_until(lambda: rig.ready("n1"), "n1 ready")


def test_a_daemon_killed_while_it_starts_harms_no_connection(scene, flows):
    for pause in (0.05, 0.15, 0.3):
        scene.rig.kill("n1", "daemon")
        scene.rig.start("n1", "daemon")
        time.sleep(pause)
    scene.rig.kill("n1", "daemon")
    scene.rig.start("n1", "daemon")
    survived(flows)


def test_while_the_daemon_is_dead_what_is_ours_is_dropped_and_the_rest_passes(scene, flows):
    rig = scene.rig
    resets = Resets(rig)
    calm(flows)
    rig.kill("n1", "daemon")
    resets.seen()
    try:
        # Ours: node ports, cluster addresses, pods' packets to the node, answers to SNAT's ports.
        assert not refused(rig, "out", NODE[4], NODE_PORT)
        assert not refused(rig, "client", NODE[4], 9)
        assert not refused(rig, "client", scene.pods["near"][0], 9)
        masqueraded = [key for key in outside_peers(rig) if key[0] == NODE[4]]
        assert masqueraded, "no masqueraded connection is open at the outside host"
        for address, port in masqueraded:
            poke(rig, address, port)
        time.sleep(0.5)
        ours = {NODE_PORT} | {port for _, port in masqueraded}
        assert not ours & set(resets.seen()), "the kernel reset what is ours"
        # The node's own: its servers answer, its closed ports refuse.
        assert refused(rig, "out", NODE[4], 9)
        assert rig.ping("out", NODE[4]) and rig.ping("out", NODE[6]) and rig.ping("n1", OUTSIDE[4])
        assert all(stream.stall() > 0.5 for stream in flows.ours)
        assert all(stream.error is None for stream in flows.ours)
    finally:
        rig.start("n1", "daemon")
    survived(flows)


def outside_peers(rig):
    """Addresses and ports of the clients of the outside host's server."""
    listed = rig.exec("out", "ss", "-Htn4", "state", "established", "sport = :8080")
    return [
        (peer, int(port))
        for peer, port in (line.split()[3].rsplit(":", 1) for line in listed.splitlines())
    ]


def poke(rig, address, port):
    """Sends a segment out of any connection to a port: a kernel that owned it would reset."""
    source, target = map(socket.inet_aton, (OUTSIDE[4], address))
    segment = bytearray(struct.pack("!HHIIBBHHH", 8080, port, 1, 1, 0x50, 0x10, 512, 0, 0))
    words = struct.unpack("!16H", source + target + struct.pack("!HH", 6, 20) + segment)
    struct.pack_into("!H", segment, 16, ~(sum(words) % 0xFFFF) & 0xFFFF)
    with rig.inside("out"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with raw:
        raw.sendto(segment, (address, 0))


# === the agent dies ===


def test_nothing_is_lost_while_the_agent_is_dead_and_when_it_comes_back(scene, flows, capsys):
    rig = scene.rig
    before = rig.pid("n1", "daemon")
    calm(flows)
    rig.kill("n1", "agent")
    time.sleep(1)
    fresh = flows.streams.open("client", SERVICE, name="opened without an agent")
    assert rig.ping("client", scene.pods["far"][1])
    rig.start("n1", "agent")
    wait_until(lambda: rig.ready("n1", 9102), "the agent is ready", within=10)
    time.sleep(0.5)
    survived(flows)
    for stream in (*flows.ours, fresh):
        assert stream.lost() == 0, f"{stream.name} lost {stream.lost()} segments"
        assert stream.stall() < CALM, f"{stream.name} stood still for {stream.stall():.2f} s"
    longest = max(stream.stall() for stream in flows.ours)
    tell(capsys, f"margay-agent killed: nothing lost, longest pause {1000 * longest:.0f} ms")
    assert rig.pid("n1", "daemon") == before and rig.alive("n1", "daemon")


def test_a_daemon_without_an_agent_forwards_with_its_last_state(scene, flows):
    rig = scene.rig
    rig.kill("n1", "agent")
    rig.kill("n1", "daemon")
    try:
        rig.start("n1", "daemon")
        survived(flows)
        wait_until(lambda: rig.ready("n1"), "ready with its last state")
        for target in ("near", "far"):
            assert rig.ping("client", scene.pods[target][0])
        flows.streams.open("client", SERVICE, name="a new connection")
        flows.streams.open("out", NODE[4], NODE_PORT, name="a new connection from outside")
    finally:
        rig.start("n1", "agent")
    wait_until(lambda: rig.ready("n1", 9102), "the agent is ready", within=10)
    survived(flows)


# === a clean stop ===


def test_sigterm_leaves_the_node_as_it_was_and_the_flows_for_the_next_start(scene, flows):
    rig = scene.rig
    # A kernel that is alone on the node answers for the node's address: whoever talks to it from
    # outside would be told that his connection is none.
    for stream in flows.ours:
        stream.paused = "outside" in stream.name
    time.sleep(0.3)
    child = rig.start_as_child("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "n1 ready")
    calm(flows)
    child.send_signal(signal.SIGTERM)
    assert child.wait(5) == 0
    try:
        after = rig.kernel_state("n1")
        for kind, before in rig.bare["n1"].items():
            assert after[kind] == before, f"{kind} differ from before the first start"
        assert rig.ping("out", NODE[4]) and rig.ping("out", NODE[6])
        assert rig.ping("n1", OUTSIDE[4]) and rig.ping("n1", OUTSIDE[6])
    finally:
        rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "n1 ready again")
    for stream in flows.ours:
        stream.paused = False
    survived(flows)


# === a second one by mistake ===


@pytest.mark.parametrize("places", ["the same places", "other places"])
def test_a_second_daemon_refuses_and_disturbs_nothing(scene, flows, places, tmp_path):
    rig = scene.rig
    mine = rig.run / "n1"
    where = mine if places == "the same places" else tmp_path
    before = rig.pid("n1", "daemon")
    calm(flows)
    words = ["--node", "n1", "--uplink", "eth0", "--workers", "1"]
    words += ["--socket", where / "margayd.sock", "--state-dir", where / "state"]
    place = ["ip", "netns", "exec", f"{rig.tag}-n1", rig.bin / "margayd"]
    second = subprocess.run([*place, *words], text=True, capture_output=True, timeout=10)
    assert second.returncode != 0
    assert "another margayd" in second.stderr and "stop that one" in second.stderr, second.stderr
    survived(flows)
    assert all(stream.lost() == 0 for stream in flows.ours)
    assert rig.pid("n1", "daemon") == before and rig.alive("n1", "daemon") and rig.ready("n1")


def test_packets_are_conserved_and_the_kernel_forwarded_none(scene):
    scene.rig.books_are_right()
