"""Protocols with neither ports nor identifiers (GRE, ESP, any number) from pods to outside, in the
node's name: answers come back to whom they are for, and the node keeps its own."""

import contextlib
import errno
import select
import signal
import socket
import time

import pytest
from rig import wait_until
from scene import NODE, OUTSIDE

MODE = "vxlan"
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
SECOND = {4: "172.20.0.2", 6: "fd20::2"}


class Raw:
    """A socket of one protocol in one place, which speaks with one far end."""

    def __init__(self, rig, place, protocol, family, far):
        with rig.inside(place):
            self.socket = socket.socket(FAMILIES[family], socket.SOCK_RAW, protocol)
        self.socket.connect((far, 0))
        self.family = family

    def say(self, words):
        self.socket.send(words)

    def hears(self, within=3.0):
        """What arrives next; nothing if nothing does."""
        if not select.select([self.socket], [], [], within)[0]:
            return None
        packet = self.socket.recv(65536)
        return packet[(packet[0] & 15) * 4 :] if self.family == 4 else packet

    def silent(self):
        return self.hears(0.3) is None


@pytest.fixture(scope="module")
def pods(rig):
    for name in ("a", "b"):
        rig.pod("n1", "default", name)
        for family in FAMILIES:
            wait_until(lambda: rig.ping(name, OUTSIDE[family]), f"{name} has a way out")
    return rig.pods


@pytest.fixture
def raw(rig):
    """Makes sockets, which end with the test."""
    with contextlib.ExitStack() as open_ones:

        def make(*words):
            made = Raw(rig, *words)
            open_ones.callback(made.socket.close)
            return made

        yield make


def both(raw, place, protocol, family):
    """A place's socket towards the outside, and the outside's towards the node."""
    near = raw(place, protocol, family, OUTSIDE[family])
    return near, raw("out", protocol, family, NODE[family])


def talks(near, far, words=b"margay" * 4):
    near.say(words)
    assert far.hears() == words, "asked"
    far.say(words[::-1])
    assert near.hears() == words[::-1], "answered"


def is_refused(rig, pod, near, far):
    """Asserts that a pod cannot say what `near` has begun to, which goes on, and that it is counted."""
    before = rig.metrics("n1").drops("snat_exhausted")
    talks(near, far)
    pod.say(b"me too")
    assert far.silent()
    talks(near, far)
    assert pod.silent()
    assert rig.metrics("n1").drops("snat_exhausted") - before == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", (47, 50, 253))
def test_an_answer_comes_back_to_the_pod(pods, raw, protocol, family):
    near, far = both(raw, "a", protocol, family)
    talks(near, far)
    talks(near, far)
    talks(near, far, bytes(range(250)) * 12)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_pod_is_refused_where_nothing_tells_the_two_apart(rig, pods, raw, family):
    near, far = both(raw, "a", 97, family)
    is_refused(rig, raw("b", 97, family, OUTSIDE[family]), near, far)
    # Elsewhere it may.
    elsewhere, second = raw("b", 97, family, SECOND[family]), raw("n2", 97, family, NODE[family])
    talks(elsewhere, second)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_nodes_own_exchanges_stay_its_own(rig, pods, raw, family):
    own, far = both(raw, "n1", 89, family)
    is_refused(rig, raw("a", 89, family, OUTSIDE[family]), own, far)
    # With another end, whatever a pod speaks with this one.
    talks(*both(raw, "a", 98, family))
    talks(raw("n1", 98, family, SECOND[family]), raw("n2", 98, family, NODE[family]))


@pytest.mark.parametrize(("family", "told"), ((4, errno.ENOPROTOOPT), (6, errno.EPROTO)))
def test_an_error_about_it_reaches_the_pod(rig, pods, raw, family, told):
    near = raw("a", 143, family, OUTSIDE[family])
    level, option = ((socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25))[family == 6]
    near.socket.setsockopt(level, option, 1)  # IP_RECVERR, IPV6_RECVERR
    near.say(b"to nobody")
    with pytest.raises(OSError) as error:
        wait_until(near.hears, "an error")
    assert error.value.errno == told


def test_a_mask_and_a_timestamp_are_told_to_the_pod_that_asked(rig, pods):
    """Queries of ICMP with identifiers, but other answers than those of pings."""
    with rig.inside("a"):
        asks = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with asks:
        # Type 13, identifier 77, sequence 1, no times: the checksum makes it all ones.
        head = bytes([13, 0]) + (0xFFFF - 0x0D00 - 77 - 1).to_bytes(2) + bytes([0, 77, 0, 1])
        asks.sendto(head + bytes(12), (OUTSIDE[4], 0))
        wait_until(lambda: select.select([asks], [], [], 3)[0] and asks.recv(2048)[20] == 14, "an answer")


def test_it_goes_on_after_the_daemon_was_killed(rig, pods, raw):
    pairs = [both(raw, "a", 47, family) for family in FAMILIES]
    for pair in pairs:
        talks(*pair)
    rig.kill("n1", "daemon", signal.SIGKILL)
    rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "the daemon is back", 15)
    for near, far in pairs:
        # Answers first: nothing that the pod says brings them.
        far.say(b"goes on")
        assert near.hears() == b"goes on"
        talks(near, far)


def test_what_a_pod_spoke_is_the_nodes_again_when_it_is_gone(rig, pods, raw):
    pod, far = both(raw, "b", 99, 4)
    talks(pod, far)
    own = raw("n1", 99, 4, OUTSIDE[4])
    far.say(b"for the pod")
    assert own.silent()
    rig.unpod("n1", "default", "b")

    def heard():
        far.say(b"for the node")
        return own.hears(0.2)

    assert wait_until(heard, "the node hears it", 10) == b"for the node"


def test_the_books_are_right(rig, pods):
    time.sleep(0.2)
    rig.books_are_right(within=10)
