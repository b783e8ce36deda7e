"""Bulk TCP between nodes, past the workers of both: whole, counted, judged, cut, and on the wire as the
workers write it."""

import contextlib
import hashlib
import os
import signal
import socket
import tempfile
import threading
import time

import pytest
from bulk import super_frames
from documents import policy
from past import (
    NODE_PORT,
    SERVICE,
    V4,
    V6,
    ask,
    bulks,
    by_workers,
    connections,
    encapsulate,
    flow,
    follows_a_smaller_mtu,
    frames,
    moved,
    on_both,
    opened,
    service_of,
    takes_it,
)
from rig import NODES, port_of, wait_until
from scapy.all import IP, TCP, UDP, VXLAN, Ether, IPv6, raw

CONFIG = tempfile.NamedTemporaryFile("w", suffix=".toml")
ENV = {"WORKERS": "2", "MARGAYD_CONFIG": CONFIG.name, "MARGAY_RIG_SHORTCUT": "on"}
MODE = "none"
WAYS = [("none", V4), ("none", V6), ("ipip", V4), ("vxlan", V4), ("vxlan-crosssubnet", V4)]
IN_FORCE = 2.0
DENIALS = {
    "the receiver's": policy("deny", "default", {"name": "b"}, types=["Ingress"]),
    "the sender's": policy("deny", "default", {"name": "a"}, types=["Egress"]),
}


@pytest.fixture(scope="module")
def pods(rig):
    """Pod a on n1, pod b on n2."""
    for node, name in zip(NODES, "ab"):
        rig.pod(node, "default", name)
    yield rig.pods
    rig.books_are_right()


@pytest.fixture
def bulk(rig, pods):
    with bulks(rig, NODES) as start:
        yield start


def workers_of_both(rig):
    return [by_workers(rig, node) for node in NODES]


def counts(rig):
    """Frames on their way from a to b, port by port."""
    path = [("n1", port_of("a"), "rx"), ("n1", "eth0", "tx"), ("n2", "eth0", "rx")]
    return [frames(rig, *hop) for hop in [*path, ("n2", port_of("b"), "tx")]]


@pytest.mark.parametrize("mode,v", WAYS)
def test_bulk_tcp_goes_past_the_workers_of_both_nodes_and_is_counted_there(rig, bulk, mode, v):
    encapsulate(rig, mode)
    one = bulk("a", "b", v)
    wait_until(lambda: on_both(rig, one), "it takes the shortcut of both nodes")
    before, workers, received = counts(rig), workers_of_both(rig), one.received
    assert moved(one)
    assert len(super_frames(rig, "b", one.port)) == 20, "its super-frames arrive whole"
    assert on_both(rig, one)
    received = one.received - received
    after, workers = counts(rig), [now - then for now, then in zip(workers_of_both(rig), workers)]
    path = [now - then for now, then in zip(after, before)]
    assert all(count > received / 1500 for count in path), path
    assert all(count < path[0] / 2 for count in workers), (path, workers)
    one.close()
    for node in NODES:
        wait_until(lambda node=node: connections(rig, node) == 0, "it has ended")
        rig.conserved(node)
        said = flow(rig, one, node)
        assert not said["shortcut"] and said["state"] != "ESTABLISHED", "the workers saw its end"
        assert said["origCount"]["bytes"] > one.received
        assert rig.metrics(node).drops("shortcut") <= 256
    ended = counts(rig)
    assert max(ended) - min(ended) <= ended[0] / 20, "what left one port came by the next"


def transfer(rig, source, target, address, port, amount):
    """Sends random bytes both ways at once; the digests of what was sent and of what arrived."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with rig.inside(target):
        listener = socket.create_server(("", port), family=family)
    with rig.inside(source):
        client = socket.create_connection((address, port), timeout=10)
    server, _ = listener.accept()
    listener.close()
    server.settimeout(10)
    data = [os.urandom(amount), os.urandom(amount)]
    digests = [None, None]

    def receive(end, nth):
        digest, left = hashlib.sha256(), amount
        while left and (part := end.recv(min(left, 1 << 18))):
            digest.update(part)
            left -= len(part)
        digests[nth] = digest.digest()

    threads = [
        threading.Thread(target=client.sendall, args=(data[0],)),
        threading.Thread(target=server.sendall, args=(data[1],)),
        threading.Thread(target=receive, args=(server, 0)),
        threading.Thread(target=receive, args=(client, 1)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    client.close()
    server.close()
    return [hashlib.sha256(part).digest() for part in data], digests


@pytest.mark.parametrize("mode,v", WAYS[:4])
def test_what_arrives_is_what_was_sent(rig, pods, mode, v):
    encapsulate(rig, mode)
    workers = workers_of_both(rig)
    before = counts(rig)
    sent, arrived = transfer(rig, "a", "b", rig.pods["b"][v], 5290, 32 << 20)
    assert sent == arrived
    path = counts(rig)[0] - before[0]
    workers = [now - then for now, then in zip(workers_of_both(rig), workers)]
    assert workers[0] < path, "most of both ways met no worker"


def test_ipv6_in_vxlan_stays_with_the_workers(rig, bulk):
    encapsulate(rig, "vxlan")
    one = bulk("a", "b", V6)
    assert one.goes_on(), one.error
    time.sleep(0.3)
    assert one.goes_on() and not any(takes_it(rig, one, node) for node in NODES)


@pytest.mark.parametrize("whose", DENIALS)
def test_a_policy_cuts_it_silently_and_lets_it_go_on(rig, bulk, whose):
    encapsulate(rig, "vxlan")
    one = bulk("a", "b")
    wait_until(lambda: on_both(rig, one), "it takes the shortcut of both nodes")
    assert moved(one)
    edited = time.monotonic()
    rig.store.write("deny", DENIALS[whose])
    try:
        last = one.stops()
        assert last is not None, "it went on under a policy that forbids it"
        assert last - edited < IN_FORCE and one.error is None
    finally:
        rig.store.remove("deny")
    assert one.goes_on(), one.error
    wait_until(lambda: on_both(rig, one), "it takes the shortcut again")


@pytest.mark.parametrize("mode,v", WAYS[:4])
def test_a_service_is_translated_on_the_way(rig, bulk, mode, v):
    encapsulate(rig, mode)
    rig.store.write("service", service_of("b", node_port=NODE_PORT))
    try:
        start = lambda: bulk("a", "b", v, SERVICE[v], 80)
        one = wait_until(lambda: opened(start), "the service")
        wait_until(lambda: takes_it(rig, one), "it takes the shortcut")
        assert moved(one) and takes_it(rig, one)
    finally:
        rig.store.remove("service")


@pytest.mark.parametrize("node,mode", [("n1", "vxlan"), ("n2", "vxlan"), ("n1", "ipip")])
def test_a_node_port_is_served_past_the_workers(rig, bulk, node, mode):
    encapsulate(rig, mode)
    rig.store.write("service", service_of("b", node_port=NODE_PORT))
    address = {"n1": "172.20.0.1", "n2": "172.20.0.2"}[node]
    try:
        start = lambda: bulk("out", "b", V4, address, NODE_PORT)
        one = wait_until(lambda: opened(start), "the service")
        wait_until(lambda: takes_it(rig, one, node), "it takes the shortcut of the node it asked")
        assert moved(one)
        wait_until(lambda: connections(rig, "n2") == 1, "and that of the backend's")
    finally:
        rig.store.remove("service")


def test_what_is_masqueraded_takes_it_too(rig, bulk):
    encapsulate(rig, "vxlan")
    one = bulk("a", "out", V4, "172.20.0.100")
    wait_until(lambda: takes_it(rig, one), "it takes the shortcut")
    assert moved(one)
    assert one.server.getpeername()[0] == "172.20.0.1"


def test_a_smaller_mtu_on_the_way_is_told_and_kept(rig, bulk):
    encapsulate(rig, "vxlan")
    one = bulk("a", "b")
    wait_until(lambda: on_both(rig, one), "it takes the shortcut of both nodes")
    follows_a_smaller_mtu(rig, one, "eth0", 1350)


def test_a_neighbours_new_address_is_followed(rig, bulk):
    encapsulate(rig, "none")
    one = bulk("a", "b")
    wait_until(lambda: on_both(rig, one), "it takes the shortcut of both nodes")
    old, new = rig.mac("n2"), "02:00:00:00:77:02"
    neighbour = ("ip", "neigh", "replace", "172.20.0.2", "dev", "eth0", "nud", "reachable")
    try:
        rig.exec("n2", "ip", "link", "set", "eth0", "address", new)
        rig.exec("n1", *neighbour, "lladdr", new)
        assert one.goes_on(), one.error
        wait_until(lambda: takes_it(rig, one), "it takes the shortcut again")
        assert moved(one), one.error
    finally:
        rig.exec("n2", "ip", "link", "set", "eth0", "address", old)
        rig.exec("n1", *neighbour, "lladdr", old)
        rig.exec("n1", "ip", "-6", "neigh", "flush", "dev", "eth0")
    assert moved(one), one.error


def captured(rig, place, interface, wanted, within=5.0):
    """The next so many frames that an interface of a place receives of TCP or a tunnel."""
    with rig.inside(place):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with tap:
        tap.bind((interface, 3))
        tap.settimeout(0.2)
        found, end = [], time.monotonic() + within
        while len(found) < wanted and time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                data = tap.recv(1 << 17)
                found += [data] if len(data) > 1200 else []
        return found


def summed(packet):
    """The packet with all checksums made anew, but for a UDP checksum of 0, which says nothing."""
    copy = packet.copy()
    layer = copy
    while layer:
        if isinstance(layer, (IP, TCP)):
            del layer.chksum
        layer = layer.payload
    return raw(copy)


def stable(data):
    """What of a frame is the same in all frames of a flow."""
    packet = Ether(data)
    layers = []
    while packet and not isinstance(packet, TCP):
        fields = dict(packet.fields)
        for name in ("len", "plen", "id", "chksum"):
            fields.pop(name, None)
        layers.append((packet.name, fields))
        packet = packet.payload
    return layers, packet.dport, packet.sport


@pytest.mark.parametrize("mode,v", WAYS[:4])
def test_on_the_wire_it_is_as_the_workers_write_it(rig, bulk, mode, v):
    encapsulate(rig, mode)
    one = bulk("a", "b", v)
    wait_until(lambda: on_both(rig, one), "it takes the shortcut of both nodes")
    # What is looked at is to be what came, not what the bridge joins of it.
    rig.exec("wire", "ethtool", "-K", "n1", "gro", "off")
    by_shortcut = captured(rig, "wire", "n1", 60)
    where = f"unix:{rig.run}/n1/margayd.sock"
    words = ("trace", "--port", one.client_port, "--count", "1000000", "--timeout", "4")
    trace = rig.spawn("n1", rig.bin / "margayctl", "--dataplane", where, *words)
    try:
        wait_until(lambda: connections(rig, "n1") == 0, "it is back with the workers")
        time.sleep(0.2)
        by_worker = captured(rig, "wire", "n1", 60)
    finally:
        rig.end(trace)
        rig.exec("wire", "ethtool", "-K", "n1", "gro", "on")
    assert len(by_shortcut) == len(by_worker) == 60
    for data in by_shortcut:
        assert len(data) <= 1514
        packet = Ether(data)
        assert summed(packet) == data, "lengths and checksums are right"
        inner = packet[VXLAN].payload if mode == "vxlan" else packet
        if v == V4:
            # One hop: the pod's 64 less one.
            ips = [layer for layer in inner.iterpayloads() if isinstance(layer, IP)]
            assert ips[-1].ttl == 63 and ips[-1].flags == "DF"
        else:
            assert inner[IPv6].hlim == 63
        if mode == "vxlan":
            assert packet[UDP].chksum == 0 and packet[UDP].len == len(packet[UDP])
            assert packet[VXLAN].vni == 4096 and 49152 <= packet[UDP].sport
    assert {str(stable(data)) for data in by_shortcut} == {str(stable(data)) for data in by_worker}


def test_super_frames_may_be_longer_than_an_ip_packet(rig, pods):
    """BIG TCP: the kernel joins more than 64 KiB, for which an IPv6 header has no room."""
    sizes = [("out", "gso_max_size"), ("n1", "gro_max_size")]
    for place, size in sizes:
        rig.exec(place, "ip", "link", "set", "eth0", size, 192000)
    try:
        lost = rig.metrics("n1").drops("shortcut")
        sent, arrived = transfer(rig, "a", "out", "fd20::100", 5291, 64 << 20)
        assert sent == arrived
        assert rig.metrics("n1").drops("shortcut") - lost < 200
    finally:
        for place, size in sizes:
            rig.exec(place, "ip", "link", "set", "eth0", size, 65536)


def restarted(rig, node):
    """Starts a node's daemon after a clean stop and whatever was done since."""
    rig.start(node, "daemon")
    ready = lambda: rig.ready(node) and rig.ready(node, 9102)
    wait_until(ready, f"{node} ready", within=10)


def test_an_uplink_of_generic_xdp_has_it_too(rig, bulk):
    encapsulate(rig, "vxlan")
    rig.kill("n2", "daemon", signal.SIGTERM)
    # A veth refuses native XDP where its peer's packets may be larger than a page takes.
    rig.exec("wire", "ip", "link", "set", "n2", "mtu", 3700)
    try:
        restarted(rig, "n2")
        ports = ask(rig, "node", "status", node="n2")["ports"]
        assert next(port for port in ports if port["name"] == "eth0")["mode"] == "generic"
        one = bulk("a", "b")
        wait_until(lambda: on_both(rig, one), "it takes the shortcut of both nodes")
        assert moved(one) and on_both(rig, one)
        one.close()
        rig.conserved("n2")
    finally:
        rig.kill("n2", "daemon", signal.SIGTERM)
        rig.exec("wire", "ip", "link", "set", "n2", "mtu", 1500)
        restarted(rig, "n2")


def test_a_killed_daemon_leaves_what_was_allowed_and_its_successor_judges_anew(rig, bulk):
    encapsulate(rig, "vxlan")
    one = bulk("a", "b")
    wait_until(lambda: on_both(rig, one), "it takes the shortcut of both nodes")
    rig.kill("n1", "daemon")
    try:
        time.sleep(1)
        assert one.goes_on(), "what the last state allowed goes on"
        rig.store.write("deny", DENIALS["the sender's"])
    finally:
        restarted(rig, "n1")
    assert one.stops() is not None, "the successor knows the policy, its predecessor did not"
    rig.store.remove("deny")
    assert one.goes_on(), one.error
    wait_until(lambda: on_both(rig, one), "it takes the shortcut again")


def test_a_clean_stop_ends_it_and_without_it_the_workers_carry_everything(rig, bulk):
    encapsulate(rig, "vxlan")
    one = bulk("a", "b")
    wait_until(lambda: on_both(rig, one), "it takes the shortcut of both nodes")
    rig.kill("n1", "daemon", signal.SIGTERM)
    CONFIG.write("shortcut = false\n")
    CONFIG.flush()
    try:
        assert one.stops() is not None, "nothing of the dataplane is left"
        for way in ("ingress", "egress"):
            assert not rig.exec("n1", "tc", "filter", "show", "dev", "eth0", way)
    finally:
        restarted(rig, "n1")
    assert one.goes_on(), one.error
    assert connections(rig, "n1") is None
    time.sleep(0.5)
    # The other node's half takes it by itself: what it gets and sends is the same.
    assert one.goes_on() and not takes_it(rig, one)
