"""TCP segments that neither end has sent: what a blind attacker may try, and what a bad network does."""

import contextlib
import socket
import tempfile
import time

import pytest
from past import BEHIND, SERVICE, V4, V6, ask, bulks, flow, service_of, takes_it
from rig import NODES, wait_until
from scapy.layers.inet import IP, TCP

CONFIG = tempfile.NamedTemporaryFile("w", suffix=".toml")
ENV = {"WORKERS": "2", "MARGAYD_CONFIG": CONFIG.name, "MARGAY_RIG_SHORTCUT": "on"}
MODE = "vxlan"
FAR = 1 << 30


@pytest.fixture(scope="module")
def pods(rig):
    """Pod a on n1, and b on n2, which serves."""
    rig.pod("n1", "default", "a")
    rig.pod("n2", "default", "b")
    rig.store.write("b", service_of("b"))
    yield rig.pods
    rig.books_are_right()


@pytest.fixture
def quiet(rig, pods):
    """A connection of a to b through the service that says little."""
    with Quiet(rig, SERVICE[V4], 80) as one:
        yield one


class Quiet:
    """A connection from a to b, at `address` and `port`; `port` on b's side is BEHIND."""

    def __init__(self, rig, address, port):
        self.rig, self.address, self.port = rig, address, port
        self.sockets = contextlib.ExitStack()

    def __enter__(self):
        with self.rig.inside("b"):
            listener = self.keep(socket.create_server(("", BEHIND)))
        with self.rig.inside("a"):
            self.tap = self.keep(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
            self.tap.bind(("eth0", 0x0800))
            self.tap.settimeout(3)
            self.client = self.keep(self._connected())
        self.server = self.keep(listener.accept()[0])
        self.server.settimeout(3)
        self.client_port = self.client.getsockname()[1]
        assert self.goes_on()
        return self

    def __exit__(self, *_):
        self.sockets.close()

    def keep(self, one):
        return self.sockets.enter_context(one)

    def _connected(self):
        end = time.monotonic() + 5
        while True:
            client = socket.socket()
            client.settimeout(3)
            try:
                client.connect((self.address, self.port))
                return client
            except OSError:
                client.close()
                assert time.monotonic() < end, "nobody serves"
                time.sleep(0.1)

    def goes_on(self):
        """Whether both ends hear each other; the numbers of the client are known then."""
        for one, other in ((self.client, self.server), (self.server, self.client)):
            one.send(b"x")
            if other.recv(10) != b"x":
                return False
        # The answer, and what acknowledges it.
        end = time.monotonic() + 3
        while time.monotonic() < end:
            packet = IP(self.tap.recv(2048))
            if TCP not in packet or packet[TCP].dport != self.client_port:
                continue
            if packet[TCP].flags.P:
                self.next = packet[TCP].ack
                self.expected = packet[TCP].seq + 1
                return True
        return False

    def forge(self, sender, flags, off=0, payload=b""):
        """Sends a segment from an end's pod in that end's name, that far off its next number."""
        if sender == "a":
            head = IP(src=self.rig.pods["a"][V4], dst=self.address)
            ports = {"sport": self.client_port, "dport": self.port}
            own, other = self.next, self.expected
        else:
            head = IP(src=self.rig.pods["b"][V4], dst=self.rig.pods["a"][V4])
            ports = {"sport": BEHIND, "dport": self.client_port}
            own, other = self.expected, self.next
        numbers = {"seq": (own + off) % 2**32, "ack": other if "A" in flags else 0}
        with self.rig.inside(sender):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            raw.sendto(bytes(head / TCP(**ports, **numbers, flags=flags) / payload), (head.dst, 0))

    def state(self, node="n1"):
        """Its state as margayctl shows it."""
        found = ask(self.rig, "flows", "--port", str(self.client_port), node=node)
        return found[0]["state"] if len(found) == 1 else None


def dropped(rig):
    """Segments that both nodes took for nobody's: resets, others."""
    metrics = [rig.metrics(node) for node in NODES]
    return [sum(one.drops(reason) for one in metrics) for reason in ("tcp_reset", "tcp_window")]


def test_a_blind_reset_is_dropped_and_the_connection_goes_on(rig, quiet):
    resets, others = dropped(rig)
    for sender in "ab":
        for off in (FAR, -FAR, 1 << 31):
            quiet.forge(sender, "R", off)
            quiet.forge(sender, "RA", off)
    wait_until(lambda: dropped(rig)[0] == resets + 12, "all of them are dropped")
    assert dropped(rig)[1] == others
    for node in NODES:
        assert quiet.state(node) == "ESTABLISHED", node
    assert quiet.goes_on()


@pytest.mark.parametrize("sender", "ab")
def test_a_reset_of_the_next_byte_ends_the_connection(rig, quiet, sender):
    resets, _ = dropped(rig)
    quiet.forge(sender, "R")
    other = quiet.server if sender == "a" else quiet.client
    with pytest.raises(ConnectionResetError):
        other.recv(10)
    for node in NODES:
        assert quiet.state(node) == "RESET", node
    assert dropped(rig)[0] == resets


def test_data_from_outside_the_window_is_dropped_where_it_is_translated(rig, quiet):
    _, others = dropped(rig)
    for sender in "ab":
        for off in (FAR, -FAR):
            quiet.forge(sender, "PA", off, b"forged")
    wait_until(lambda: dropped(rig)[1] == others + 4, "all of them are dropped")
    assert quiet.goes_on()


def test_data_from_outside_the_window_is_the_pods_own_matter_where_it_is_not(rig, pods):
    with Quiet(rig, pods["b"][V4], BEHIND) as one:
        before = dropped(rig)
        for sender in "ab":
            one.forge(sender, "PA", FAR, b"forged")
        assert one.goes_on()
        assert dropped(rig) == before


def test_who_lost_his_connection_begins_a_new_one_from_the_same_port(rig, quiet):
    # The client forgets without a word, as one that lost its power.
    with rig.inside("a"):
        again = socket.socket()
    with again:
        rig.exec("a", "nft", "add table ip t; add chain ip t o { type filter hook output priority 0; };"
                 " add rule ip t o tcp flags rst drop")  # fmt: skip
        linger = b"\1\0\0\0\0\0\0\0"
        quiet.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        quiet.client.close()
        rig.exec("a", "nft", "delete table ip t")
        again.settimeout(8)
        again.bind(("", quiet.client_port))
        # The server challenges what it does not expect, and the client resets that.
        again.connect((quiet.address, quiet.port))
        again.send(b"x")
    assert quiet.state() in ("ESTABLISHED", "FIN_WAIT", "CLOSING")


@contextlib.contextmanager
def a_bad_network(rig):
    """Within: both pods lose one packet in a hundred."""
    rules = "".join(
        f"add table {family} t; add chain {family} t i {{ type filter hook input priority 0; }};"
        f" add rule {family} t i numgen random mod 100 lt 1 drop;"
        for family in ("ip", "ip6")
    )
    for pod in "ab":
        rig.exec(pod, "nft", rules)
    try:
        yield
    finally:
        for pod in "ab":
            rig.exec(pod, "nft", "delete table ip t; delete table ip6 t")


def nothing_is_taken_for_forged(rig, by_shortcut):
    """Bulk connections on a bad network lose nothing to the window."""
    before = dropped(rig)
    for v in (V4, V6):
        with bulks(rig, NODES) as start, a_bad_network(rig):
            one = start("a", "b", v, address=SERVICE[v], port=80)
            if by_shortcut and v == V4:
                wait_until(lambda one=one: takes_it(rig, one), "it takes the shortcut")
            assert one.goes_on(within=15, amount=20_000_000), one.error
            count = flow(rig, one)
            assert bool(count["shortcut"]) <= by_shortcut
            one.close()
    assert dropped(rig) == before


def test_a_bad_network_loses_nothing_to_the_window_in_the_shortcut(rig, pods):
    nothing_is_taken_for_forged(rig, True)


def test_a_bad_network_loses_nothing_to_the_window_without_the_shortcut(rig, pods):
    CONFIG.write("shortcut = false\n")
    CONFIG.flush()
    for node in NODES:
        rig.kill(node, "daemon")
        rig.start(node, "daemon")
    for node in NODES:
        wait_until(lambda node=node: rig.ready(node), f"{node} ready")
    nothing_is_taken_for_forged(rig, False)
