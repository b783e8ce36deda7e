"""Direct server return: the node of a backend answers clients from outside itself (Felix'
`bpfExternalServiceMode: DSR`)."""

import contextlib
import socket
import time

import pytest
from bulk import Bulk
from documents import calico, policy
from rig import NODES, wait_until
from services import (
    FAMILIES,
    NODE,
    OUT,
    V4,
    V6,
    balancer_ip,
    endpoint,
    endpoint_slice,
    external_ip,
    prepare,
    service,
)
from whoami import SILENT, Answer, Whoami

MODE = "vxlan"
N = 1
PORT = 30000 + N
BOTH = pytest.mark.parametrize("protocol", ("TCP", "UDP"))
ETH_P_ALL = 3


def felix(rig, **spec):
    rig.store.write("felix", calico("FelixConfiguration", "default", **spec))


def serve(rig, *pods):
    """Service N has these backends: (pod, node)."""
    slices = [
        endpoint_slice(N, v, *(endpoint(rig.pods[pod][v], node) for pod, node in pods))
        for v in (V4, V6)
    ]
    rig.store.write("slices", slices)


@pytest.fixture(scope="module")
def who(rig):
    """Backend x on n1 and y on n2, of which y serves; a client outside that asks n1."""
    prepare(rig)
    who = Whoami(rig)
    who.serve("x", 8080, sctp=False)
    who.serve("y", 8080, sctp=False)
    serve(rig, ("y", "n2"))
    rig.store.write("s", service(N, None, "LoadBalancer", ("TCP", "UDP")))
    wait_until(lambda: who.serves("out", NODE["n1"][V4], PORT), "the service")
    assert who.ask("out", NODE["n1"][V4], PORT).address != OUT[V4], "through n1 unless told so"
    felix(rig, bpfExternalServiceMode="DSR")
    wait_until(lambda: sees(who, OUT[V4]), "it is in force")
    yield who
    who.close()
    rig.books_are_right()


def sees(who, client, v=V4, protocol="TCP"):
    """Whether the backend sees this client."""
    answer = who.ask("out", NODE["n1"][v], PORT, protocol, within=0.5)
    return isinstance(answer, Answer) and answer.address == client


@contextlib.contextmanager
def heard(rig, source):
    """Within: the Ethernet sources of what the outside host gets from an address, one by one."""
    wanted = socket.inet_pton(socket.AF_INET6 if ":" in source else socket.AF_INET, source)
    at = 22 if ":" in source else 26
    with rig.inside("out"):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with tap:
        tap.bind(("eth0", ETH_P_ALL))
        tap.setblocking(False)
        found = []
        yield found
        time.sleep(0.1)
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = tap.recv(65536)
                if frame[at : at + len(wanted)] == wanted:
                    found.append(frame[6:12].hex(":"))


@FAMILIES
@BOTH
def test_the_backend_sees_the_client_and_answers_it_past_the_node_that_was_asked(
    rig, who, v, protocol
):
    for address, port in (
        (NODE["n1"][v], PORT),
        (balancer_ip(N)[v], 80),
        (external_ip(N)[v], 80),
    ):
        with heard(rig, address) as sources:
            answer = who.ask("out", address, port, protocol)
            assert (answer.name, answer.address) == ("y", OUT[v]), address
        # Echoes of resolution come from n1 itself.
        assert rig.mac("n2") in sources, (address, sources)
        if address != NODE["n1"][v]:
            assert set(sources) == {rig.mac("n2")}


@FAMILIES
def test_bulk_goes_through(rig, who, v):
    rig.store.write("s9", service(9, None, "LoadBalancer", ("TCP",), ports=[
        {"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 9090, "nodePort": 30009}
    ]))  # fmt: skip
    slices = [
        endpoint_slice(9, f, endpoint(rig.pods["y"][f], "n2")) | {
            "ports": [{"name": "tcp", "protocol": "TCP", "port": 9090}]
        }
        for f in (V4, V6)
    ]  # fmt: skip
    rig.store.write("s9-slices", slices)

    def opened():
        with contextlib.suppress(OSError):
            return Bulk(rig, "out", "y", NODE["n1"][v], 30009, 9090)

    one = wait_until(opened, "somebody serves")
    try:
        assert one.goes_on(amount=20_000_000), one.error
    finally:
        one.close()
        rig.store.remove("s9", "s9-slices")


def test_the_client_is_told_what_fits_the_tunnel(rig, who):
    discover, do, mtu = 10, 2, 14  # linux/in.h: IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU
    with rig.inside("out"):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.setsockopt(socket.IPPROTO_IP, discover, do)
        client.connect((NODE["n1"][V4], PORT))
        # Whoever asked before may have been told already.
        with contextlib.suppress(OSError):
            client.send(bytes(1460))
        told = lambda: client.getsockopt(socket.IPPROTO_IP, mtu)
        wait_until(lambda: told() == 1450, "it is told")


@FAMILIES
def test_datagrams_in_pieces_come_and_go(who, v):
    data = bytes(range(256)) * 24
    answer = who.ask("out", NODE["n1"][v], PORT, "UDP", data=data)
    assert (answer.address, answer.data) == (OUT[v], data)


def test_policy_at_the_backend_sees_the_client(rig, who):
    other = {"ipBlock": {"cidr": "192.0.2.0/24"}}
    rig.store.write("np", policy("np", "default", {"app": "web"}, [{"from": [other]}]))
    try:
        ask = lambda: who.ask("out", NODE["n1"][V4], PORT, within=0.3)
        wait_until(lambda: ask() == SILENT, "it is in force")
        client = {"ipBlock": {"cidr": f"{OUT[V4]}/32"}}
        rig.store.write("np", policy("np", "default", {"app": "web"}, [{"from": [client]}]))
        wait_until(lambda: sees(who, OUT[V4]), "the client is allowed by its address")
    finally:
        rig.store.remove("np")


def test_a_closed_port_is_told_to_the_client(rig, who):
    """An ICMP error of the pod comes back as though it were the service's."""
    rig.store.write("s8", service(8, None, "NodePort", ("UDP",)))
    rig.store.write("s8-slices", [
        endpoint_slice(8, V4, endpoint(rig.pods["y"][V4], "n2")) | {
            "ports": [{"name": "udp", "protocol": "UDP", "port": 9}]
        }
    ])  # fmt: skip
    try:
        refused = lambda: who.ask("out", NODE["n1"][V4], 30008, "UDP", within=0.5) == "refused"
        wait_until(refused, "it is refused")
    finally:
        rig.store.remove("s8", "s8-slices")


def test_connections_outlive_both_daemons(rig, who):
    """And their translation with them."""
    with rig.inside("out"):
        client = socket.create_connection((NODE["n1"][V4], PORT), timeout=3)
    with client:
        client.settimeout(8)
        client.send(b"1")
        assert client.recv(1000).startswith(b"y " + OUT[V4].encode())
        for node in NODES:
            rig.kill(node, "daemon")
            rig.start(node, "daemon")
            wait_until(lambda node=node: rig.ready(node), f"{node} ready")
        client.send(b"2")
        assert client.recv(1000)


def test_clients_that_opt_out_and_the_default_are_answered_through_the_node(rig, who):
    felix(rig, bpfExternalServiceMode="DSR", bpfDSROptoutCIDRs=[f"{OUT[V4]}/32"])
    wait_until(lambda: not sees(who, OUT[V4]), "the client is left out")
    assert sees(who, OUT[V6], V6), "the other one is not"
    felix(rig, bpfExternalServiceMode="Tunnel")
    wait_until(lambda: not sees(who, OUT[V6], V6), "it is off")
    felix(rig, bpfExternalServiceMode="DSR")
    wait_until(lambda: sees(who, OUT[V4]) and sees(who, OUT[V6], V6), "it is on")


def test_a_backend_that_goes_is_followed(rig, who):
    serve(rig, ("x", "n1"))
    for protocol in ("TCP", "UDP"):
        answers = lambda protocol=protocol: who.ask("out", NODE["n1"][V4], PORT, protocol, within=0.5)
        wait_until(lambda: getattr(answers(), "name", "") == "x", "the other backend")
    serve(rig, ("y", "n2"))
    wait_until(lambda: sees(who, OUT[V4]), "the first one again")
