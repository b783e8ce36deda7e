"""UDP past the workers, on a node and between nodes: said back unchanged, counted, judged and cut like
everything else."""

import contextlib
import socket
import time

import pytest
from datagrams import WAVE, Stream, Talk
from documents import policy
from past import (
    BEHIND,
    NODE_PORT,
    SERVICE,
    V4,
    V6,
    by_workers,
    connections,
    encapsulate,
    flow,
    frames,
    on_both,
    service_of,
    takes_it,
)
from rig import NODES, port_of, wait_until

ENV = {"WORKERS": "2", "MARGAY_RIG_SHORTCUT": "on"}
MODE = "none"
# Encapsulation, family, and what fits into it.
WAYS = [("none", V4, 1500), ("none", V6, 1500), ("ipip", V4, 1480), ("vxlan", V4, 1450)]
HEADERS = {V4: 28, V6: 48}
IN_FORCE = 2.0


@pytest.fixture(scope="module")
def pods(rig):
    """Pods a and b on n1, pod c on n2."""
    for node, name in (("n1", "a"), ("n1", "b"), ("n2", "c")):
        rig.pod(node, "default", name)
    yield rig.pods
    rig.books_are_right()


@pytest.fixture
def talk(rig, pods):
    with contextlib.ExitStack() as all_of_them:
        ports = iter(range(5400, 5500))

        def start(source, target, v=V4, address=None, port=None, **more):
            if port:
                one = Talk(rig, source, target, address, port, BEHIND, **more)
            else:
                one = Talk(rig, source, target, address or rig.pods[target][v], next(ports), **more)
            all_of_them.callback(one.close)
            return one

        yield start
    for node in NODES:
        rig.conserved(node)


def becomes(one, condition, within=5.0):
    """Talks until something is so."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        one.speak()
        if condition():
            return True
    return False


def is_quiet(rig, *nodes):
    """Waits until nothing is in these nodes' shortcuts: everything is counted then."""
    for node in nodes:
        wait_until(lambda node=node: connections(rig, node) == 0, "it goes back to the workers")


def counts(rig, hops):
    """Frames at each (node, interface, direction), once what is shown is what there is."""
    time.sleep(0.2)
    return [frames(rig, *hop) for hop in hops]


def is_counted(one, said, v):
    """Asserts that a flow's counts are those of what was sent and received."""
    for count, (packets, size) in (
        (said["origCount"], one.sent),
        (said["replyCount"], one.received),
    ):
        assert count == {"packets": packets, "bytes": size + packets * HEADERS[v]}


def whole_ones_come_back(one, mtu=1500):
    """Asserts that what is no ordinary datagram is said back too: the smallest, one as long as the MTU
    allows, super-datagrams."""
    largest = mtu - (48 if ":" in one.address else 28)
    for size in (8, 9, 1300, largest):
        assert one.ask(one.noise(size)), f"{size} bytes"
    for size, segment in ((8000, 1000), (7777, 1200), (60000, 1400)):
        assert one.ask(one.noise(size), segment), f"{size} bytes by {segment}"


def fragments_come_back(one):
    """The same of what its sender has to cut."""
    assert one.ask(one.noise(4000)) and one.ask(one.noise(60000)), "fragments"


def every_kind_comes_back(one, mtu=1500):
    """The same of all of these, and of what does not fit and is told so."""
    whole_ones_come_back(one, mtu)
    wait_until(lambda: one.ask(one.noise(1472)), "whoever sends is told what fits")
    fragments_come_back(one)


@pytest.mark.parametrize("v", [V4, V6])
def test_busy_udp_goes_past_the_workers_and_is_counted_to_the_packet(rig, talk, v):
    one = talk("a", "b", v)
    assert becomes(one, lambda: takes_it(rig, one)), "it takes the shortcut"
    hops = [("n1", port_of(name), way) for name in "ab" for way in ("rx", "tx")]
    before, workers, sent = counts(rig, hops), by_workers(rig), one.sent[0]
    assert one.exchange(200) == 200 and takes_it(rig, one)
    after, workers, sent = counts(rig, hops), by_workers(rig) - workers, one.sent[0] - sent
    assert workers < sent / 10, "next to nothing met a worker"
    # Neighbour discovery and the like are in the ports' counts.
    assert all(sent <= now - then <= sent + 12 for now, then in zip(after, before))
    is_quiet(rig, "n1")
    said = flow(rig, one)
    assert not said["shortcut"] and said["state"] == "REPLIED"
    is_counted(one, said, v)


@pytest.mark.parametrize("v", [V4, V6])
def test_what_is_no_ordinary_datagram_comes_back_too(rig, talk, v):
    one = talk("a", "b", v)
    assert becomes(one, lambda: takes_it(rig, one)), "it takes the shortcut"
    workers = by_workers(rig)
    whole_ones_come_back(one)
    assert takes_it(rig, one)
    assert by_workers(rig) - workers <= 12, "none met a worker"
    fragments_come_back(one)
    assert by_workers(rig) - workers >= 2 * 43, "and all of these did"
    assert one.exchange(20) == 20 and takes_it(rig, one)


@pytest.mark.parametrize("mode,v,mtu", WAYS)
def test_between_nodes_it_goes_past_the_workers_of_both(rig, talk, mode, v, mtu):
    encapsulate(rig, mode)
    one = talk("a", "c", v)
    assert becomes(one, lambda: on_both(rig, one)), "it takes the shortcut of both nodes"
    hops = [("n1", port_of("a"), "rx"), ("n1", "eth0", "tx")]
    hops += [("n2", "eth0", "rx"), ("n2", port_of("c"), "tx")]
    before, sent = counts(rig, hops), one.sent[0]
    workers = [by_workers(rig, node) for node in NODES]
    assert one.exchange(100) == 100 and on_both(rig, one)
    after, sent = counts(rig, hops), one.sent[0] - sent
    assert all(sent <= now - then <= sent + 12 for now, then in zip(after, before))
    assert all(by_workers(rig, node) - then < sent / 5 for node, then in zip(NODES, workers))
    every_kind_comes_back(one, mtu)


@pytest.mark.parametrize(
    "target,mode,v",
    [("b", "none", V4), ("b", "none", V6), ("c", "ipip", V4), ("c", "vxlan", V4)],
)
def test_a_stream_that_nobody_answers_takes_it_is_counted_and_cut(rig, pods, target, mode, v):
    encapsulate(rig, mode)
    one = Stream(rig, "a", target, pods[target][v], 5500)
    with contextlib.closing(one):
        takes = (lambda: takes_it(rig, one)) if target == "b" else (lambda: on_both(rig, one))
        assert becomes(one, takes), "it takes the shortcut"
        workers, (before, _) = by_workers(rig), one.sent
        assert one.say(100) == one.sent[0] - before and takes()
        assert by_workers(rig) - workers < WAVE * 10, "next to nothing met a worker"
        deny = policy("deny", "default", {"name": target}, types=["Ingress"])
        rig.store.write("deny", deny)
        try:
            wait_until(lambda: one.say(1) == 0, "it is cut", within=IN_FORCE)
            assert one.say(100) == 0, "wholly"
        finally:
            rig.store.remove("deny")
        assert becomes(one, takes), "it takes the shortcut again"
        assert all(one.answer() for _ in range(64)), "answers come back"
        wait_until(lambda: flow(rig, one)["state"] == "REPLIED", "it is answered")
        before, _ = one.sent
        assert one.say(20) == one.sent[0] - before and takes(), "which is no reason to leave"
        is_quiet(rig, "n1", "n2")
        said, (packets, size) = flow(rig, one), one.sent
        assert said["origCount"] == {"packets": packets, "bytes": size + packets * HEADERS[v]}
        assert said["replyCount"]["packets"] == 64
    rig.conserved("n1")


def test_a_few_questions_and_answers_are_left_to_the_workers(rig, talk):
    one = talk("a", "b")
    for _ in range(40):
        assert one.ask(one.noise(60))
        time.sleep(0.01)
    assert not takes_it(rig, one)


@pytest.mark.parametrize("v,bare", [(V4, False), (V6, False), (V4, True)])
def test_a_service_is_translated_on_the_way(rig, talk, v, bare):
    encapsulate(rig, "none")
    rig.store.write("service", service_of("b", "UDP"))
    try:
        one = talk("a", "b", v, SERVICE[v], 80, bare=bare)
        assert becomes(one, lambda: takes_it(rig, one)), "it takes the shortcut"
        assert one.exchange(100) == 100
        with rig.inside("b"):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with tap:
            tap.bind(("eth0", 3))
            one.exchange(5)
            at = (34, 54)[v] + 6
            heard = [tap.recv(2000)[at : at + 2] for _ in range(2 * WAVE)]
        assert all((sum == bytes(2)) == bare for sum in heard), "without a checksum as it was sent"
        if not bare:
            # The kernel cuts nothing that has no checksum.
            whole_ones_come_back(one)
        fragments_come_back(one)
    finally:
        rig.store.remove("service")


def test_who_asks_a_backend_that_is_gone_gets_another_at_the_next_datagram(rig, talk):
    encapsulate(rig, "vxlan")
    rig.store.write("service", service_of("b", "UDP"))
    try:
        one = talk("a", "b", V4, SERVICE[V4], 80)
        assert becomes(one, lambda: takes_it(rig, one)), "it takes the shortcut"
        other = talk("b", "c", V4, rig.pods["c"][V4], BEHIND)
        rig.store.write("service", service_of("c", "UDP"))
        wait_until(lambda: one.exchange(1) and not takes_it(rig, one, "n1"), "the workers have it")
        assert becomes(one, lambda: one.exchange(10) == 10 and takes_it(rig, one))
        assert other.exchange(1) == 1
        one.rig.end(one.server)
        assert one.exchange(10) == 10, "it is the other one who answers"
    finally:
        rig.store.remove("service")


def test_a_node_port_and_what_is_masqueraded(rig, talk):
    encapsulate(rig, "vxlan")
    rig.store.write("service", service_of("c", "UDP", NODE_PORT))
    try:
        one = talk("out", "c", V4, "172.20.0.1", NODE_PORT)
        assert becomes(one, lambda: takes_it(rig, one)), "a node port of another node's pod"
        assert one.exchange(50) == 50
        every_kind_comes_back(one, 1450)
    finally:
        rig.store.remove("service")
    one = talk("a", "out", V4, "172.20.0.100")
    assert becomes(one, lambda: takes_it(rig, one)), "masqueraded"
    assert one.exchange(50) == 50
    every_kind_comes_back(one)


@pytest.mark.parametrize("target", ["b", "c"])
def test_a_policy_cuts_it_at_the_next_datagram_and_lets_it_go_on(rig, talk, target):
    one = talk("a", target)
    takes = (lambda: takes_it(rig, one)) if target == "b" else (lambda: on_both(rig, one))
    assert becomes(one, takes), "it takes the shortcut"
    deny = policy("deny", "default", {"name": target}, types=["Ingress"])
    edited = time.monotonic()
    rig.store.write("deny", deny)
    try:
        end = edited + 5
        while time.monotonic() < end and one.exchange(1):
            pass
        assert one.last - edited < IN_FORCE
        # Silently, and wholly.
        assert one.exchange(10) == 0 and time.monotonic() - one.last > 0.4
    finally:
        rig.store.remove("deny")
    assert becomes(one, takes), "it takes the shortcut again"


def test_an_edit_that_does_not_concern_it_loses_nothing(rig, talk):
    one = talk("a", "b")
    assert becomes(one, lambda: takes_it(rig, one)), "it takes the shortcut"
    elsewhere = policy("elsewhere", "default", {"name": "c"}, types=["Egress"])
    for _ in range(3):
        rig.store.write("elsewhere", elsewhere)
        assert one.exchange(100) == 100
        rig.store.remove("elsewhere")
        assert one.exchange(100) == 100
    assert becomes(one, lambda: takes_it(rig, one)), "it takes the shortcut again"
    is_quiet(rig, "n1")
    is_counted(one, flow(rig, one), V4)
