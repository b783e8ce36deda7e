"""Services by kube-proxy's table, for every protocol and both families; and where nobody serves."""

import contextlib
import itertools
import socket
import time

import pytest
from documents import calico
from rig import wait_until
from services import (
    ALL,
    FAMILIES,
    NODE,
    OUT,
    PROTOCOLS,
    V4,
    V6,
    asked_often,
    balancer_ip,
    cluster_ip,
    endpoint,
    endpoint_slice,
    external_ip,
    own_addresses,
    prepare,
    service,
    withdraw,
)
from whoami import REFUSED, SILENT, Whoami, family

MODE = "vxlan"
# Policies of the three services that the table is about, by a number of theirs.
CLUSTER, EXTERNAL_LOCAL, INTERNAL_LOCAL = 1, 2, 3
POLICIES = {
    CLUSTER: {},
    EXTERNAL_LOCAL: {"externalTrafficPolicy": "Local"},
    INTERNAL_LOCAL: {"internalTrafficPolicy": "Local"},
}
# Whoever asks n1 for a cluster address, or for anything else of a service: the backends that may
# answer (x is on n1, y on n2), and whether they see the client itself.
HERE = {"x"}
TABLE = {
    ("a", True): {CLUSTER: (ALL, True), EXTERNAL_LOCAL: (ALL, True), INTERNAL_LOCAL: (HERE, True)},
    ("a", False): {CLUSTER: (ALL, False), EXTERNAL_LOCAL: (ALL, True), INTERNAL_LOCAL: (ALL, False)},
    ("n1", True): {CLUSTER: (ALL, False), EXTERNAL_LOCAL: (ALL, False), INTERNAL_LOCAL: (HERE, False)},
    ("n1", False): {CLUSTER: (ALL, False), EXTERNAL_LOCAL: (ALL, False), INTERNAL_LOCAL: (ALL, False)},
    ("out", True): {CLUSTER: (ALL, False), EXTERNAL_LOCAL: (ALL, False), INTERNAL_LOCAL: (HERE, False)},
    ("out", False): {CLUSTER: (ALL, False), EXTERNAL_LOCAL: (HERE, True), INTERNAL_LOCAL: (ALL, False)},
}  # fmt: skip
# The node's own ports are routed by their number, which a raw socket does not tell the kernel.
RAW_CANNOT = ("n1", "node port", "SCTP")


@pytest.fixture(scope="module")
def who(rig):
    """Pod a and backend x on n1, backend y on n2, and a client outside that asks n1."""
    prepare(rig)
    web = {"app": "web"}
    services = [service(n, web, "LoadBalancer", **more) for n, more in POLICIES.items()]
    services[EXTERNAL_LOCAL - 1]["spec"]["healthCheckNodePort"] = 32000
    rig.store.write("services", services)
    who = Whoami(rig)
    who.serve("x", 8080)
    who.serve("y", 8080)
    who.serve("out", 7)
    wait_until(lambda: who.serves("a", cluster_ip(1)[V4], 80), "services")
    yield who
    who.close()
    rig.books_are_right()


def address_of(rig, name, v):
    """The address of a pod or the host outside."""
    return OUT[v] if name == "out" else rig.pods[name][v]


@pytest.mark.parametrize("n", POLICIES, ids=("cluster", "external-local", "internal-local"))
@pytest.mark.parametrize("protocol", PROTOCOLS)
@FAMILIES
def test_the_table(rig, who, n, protocol, v):
    ways = {
        "cluster address": (cluster_ip(n)[v], 80),
        "node port": (NODE["n1"][v], 30000 + n),
        "balancer": (balancer_ip(n)[v], 80),
        "external address": (external_ip(n)[v], 80),
    }
    masked = own_addresses(rig, "n1", v)
    wrong = []
    for place, (way, (to, port)) in itertools.product(("a", "n1", "out"), ways.items()):
        if (place, way, protocol) == RAW_CANNOT:
            continue
        expected, kept = TABLE[place, way == "cluster address"][n]
        answers, names = asked_often(who, place, to, port, protocol, expected)
        sources = {getattr(answer, "address", None) for answer in answers}
        allowed = {address_of(rig, place, v)} if kept else masked
        if names != expected or not sources <= allowed:
            wrong.append(f"{place} → {way}: {names} not {expected}, {sources} not of {allowed}")
    assert not wrong, "\n".join(wrong)


@FAMILIES
def test_external_local_is_silent_where_no_backend_is(rig, who, v):
    """Its other node answers as the table says."""
    with_backend = NODE["n2"][v]
    answers, names = asked_often(who, "out", with_backend, 30002, "TCP", {"y"})
    assert names == {"y"} and {one.address for one in answers} == {OUT[v]}
    rig.store.write("s6", service(6, {"app": "only-y"}, "NodePort", externalTrafficPolicy="Local"))
    rig.store.write("s6-slice", endpoint_slice(6, v, endpoint(rig.pods["y"][v], "n2")))
    try:
        wait_until(lambda: who.serves("a", cluster_ip(6)[v], 80), "service 6")
        before = rig.metrics("n1").drops("no_local_backend")
        assert who.ask("out", NODE["n1"][v], 30006, within=0.5) == SILENT
        assert rig.metrics("n1").drops("no_local_backend") > before
        assert who.ask("out", NODE["n2"][v], 30006).name == "y"
    finally:
        withdraw(rig, who, 6, "s6-slice")


@FAMILIES
def test_internal_local_is_silent_where_no_backend_is(rig, who, v):
    rig.store.write("s7", service(7, None, internalTrafficPolicy="Local"))
    rig.store.write("s7-slice", endpoint_slice(7, v, endpoint(rig.pods["y"][v], "n2")))
    try:
        wait_until(lambda: who.serves("y", cluster_ip(7)[v], 80), "service 7")
        assert who.ask("a", cluster_ip(7)[v], 80, within=0.5) == SILENT
    finally:
        withdraw(rig, who, 7, "s7-slice")


def refused_soon(who, place, to, port, protocol):
    """What became of a conversation, and that it took less than half a second if refused."""
    start = time.monotonic()
    said = who.ask(place, to, port, protocol, within=1.5)
    return said == REFUSED and time.monotonic() - start < 0.5


@pytest.mark.parametrize("protocol", PROTOCOLS)
@FAMILIES
def test_a_service_without_endpoints_refuses_at_once(rig, who, protocol, v):
    rig.store.write("s8", service(8, {"app": "nobody"}, "LoadBalancer"))
    try:
        wait_until(lambda: who.ask("a", cluster_ip(8)[v], 80, within=0.2) == REFUSED, "refusal")
        for place in ("a", "n1", "out"):
            for way, to, port in (
                ("cluster address", cluster_ip(8)[v], 80),
                ("node port", NODE["n1"][v], 30008),
                ("balancer", balancer_ip(8)[v], 80),
                ("external address", external_ip(8)[v], 80),
            ):
                if (place, way, protocol) == RAW_CANNOT:
                    continue
                assert refused_soon(who, place, to, port, protocol), f"{place} → {to}:{port}"
    finally:
        withdraw(rig, who, 8)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@FAMILIES
def test_a_wrong_port_of_a_live_address_is_refused_at_once(rig, who, protocol, v):
    for place in ("a", "n1", "out"):
        for to in (cluster_ip(1)[v], balancer_ip(1)[v], external_ip(1)[v]):
            assert refused_soon(who, place, to, 81, protocol), f"{place} → {to}"


@FAMILIES
def test_a_protocol_that_is_taken_off_is_refused_and_the_others_stay(rig, who, v):
    rig.store.write("s9", service(9, {"app": "web"}, protocols=("TCP", "UDP")))
    to = cluster_ip(9)[v]
    wait_until(lambda: who.serves("a", to, 80, "UDP"), "UDP")
    rig.store.write("s9", service(9, {"app": "web"}, protocols=("TCP",)))
    wait_until(lambda: who.ask("a", to, 80, "UDP", within=0.2) == REFUSED, "UDP is gone")
    assert who.ask("a", to, 80, "TCP").name in ALL
    withdraw(rig, who, 9)
    wait_until(lambda: who.ask("a", to, 80, "TCP", within=0.2) == SILENT, "the service is gone")


@FAMILIES
def test_an_address_of_the_range_that_no_service_has_is_silent(rig, who, v):
    free = cluster_ip(200)[v]
    before = rig.metrics("n1").drops("no_service")
    for place in ("a", "n1", "out"):
        for protocol in ("TCP", "UDP"):
            assert who.ask(place, free, 80, protocol, within=0.4) == SILENT, place
    assert rig.metrics("n1").drops("no_service") >= before + 6


def test_felix_may_have_unallocated_addresses_refused(rig, who):
    rejects = calico("FelixConfiguration", "default", serviceLoopPrevention="Reject")
    rig.store.write("felix", rejects)
    try:
        for free in cluster_ip(200):
            for protocol in ("TCP", "UDP"):
                asked = lambda to=free, how=protocol: who.ask("a", to, 80, how, within=0.4)
                wait_until(lambda asked=asked: asked() == REFUSED, "it is refused")
    finally:
        rig.store.remove("felix")
        wait_until(lambda: who.ask("a", cluster_ip(200)[0], 80, within=0.4) == SILENT, "silence")


@FAMILIES
def test_load_balancer_source_ranges_hold_for_balancer_addresses_only(rig, who, v):
    def ranges(*nets):
        rig.store.write(
            "s10",
            service(10, {"app": "web"}, "LoadBalancer", loadBalancerSourceRanges=list(nets)),
        )

    to = balancer_ip(10)[v]
    try:
        ranges(" 192.0.2.0/24 ", "2001:db8::/32")
        wait_until(lambda: who.serves("a", cluster_ip(10)[v], 80), "s10")
        before = rig.metrics("n1").drops("source_range")
        for place in ("out", "a", "n1"):
            assert who.ask(place, to, 80, within=0.4) == SILENT, place
            assert who.ask(place, NODE["n1"][v], 30010).name in ALL, place
            assert who.ask(place, external_ip(10)[v], 80).name in ALL, place
        assert rig.metrics("n1").drops("source_range") >= before + 3
        ranges(f" {OUT[v]}/{(32, 128)[v]}", f"{NODE['n1'][v]}/{(32, 128)[v]} ")
        wait_until(lambda: who.serves("out", to, 80), "the range is wide enough")
        assert who.ask("n1", to, 80).name in ALL
        assert who.ask("a", to, 80, within=0.4) == SILENT
    finally:
        withdraw(rig, who, 10)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@FAMILIES
def test_a_pod_reaches_itself_through_its_service(rig, who, protocol, v):
    rig.store.write("s11", service(11, None, "LoadBalancer"))
    slices = [endpoint_slice(11, f, endpoint(rig.pods["x"][f], "n1")) for f in (V4, V6)]
    rig.store.write("s11-slices", slices)
    try:
        wait_until(lambda: who.serves("a", cluster_ip(11)[v], 80), "service 11")
        for to, port in (
            (cluster_ip(11)[v], 80),
            (NODE["n1"][v], 30011),
            (balancer_ip(11)[v], 80),
        ):
            seen = who.ask("x", to, port, protocol)
            assert seen not in (SILENT, REFUSED), to
            assert seen.name == "x" and seen.address in own_addresses(rig, "n1", v), to
    finally:
        withdraw(rig, who, 11, "s11-slices")


@FAMILIES
def test_session_affinity_keeps_a_client_on_one_backend(rig, who, v):
    affinity, n = {"sessionAffinity": "ClientIP"}, 12
    rig.store.write("s12", service(n, {"app": "web"}, "NodePort", **affinity))
    try:
        wait_until(lambda: who.serves("a", cluster_ip(n)[v], 80), "the service")
        for place in ("a", "out", "n1"):
            for to, port in ((cluster_ip(n)[v], 80), (NODE["n1"][v], 30000 + n)):
                for protocol in ("TCP", "UDP"):
                    names = {who.ask(place, to, port, protocol).name for _ in range(12)}
                    assert len(names) == 1, f"{place} → {to} {protocol}"
        rig.store.write("s12", service(n, {"app": "web"}, "NodePort"))
        wait_until(
            lambda: len({who.ask("a", cluster_ip(n)[v], 80).name for _ in range(12)}) > 1,
            "without affinity both serve",
        )
    finally:
        withdraw(rig, who, 12)


@FAMILIES
def test_backends_come_and_go_and_udp_clients_move_on(rig, who, v):
    to = cluster_ip(1)[v]
    rig.pod("n1", "default", "z", app="web")
    who.serve("z", 8080)
    every = ALL | {"z"}
    wait_until(lambda: "z" in asked_often(who, "a", to, 80, "TCP", every)[1], "z serves too")
    # A client that goes on using its port, and so its flow.
    ports = [p for p in range(40000, 40060) if who.ask("a", to, 80, "UDP", p).name == "z"]
    assert ports, "some UDP client is served by z"
    rig.unpod("n1", "default", "z")
    gone = time.monotonic()
    wait_until(
        lambda: all(who.serves("a", to, 80, "UDP", p) for p in ports),
        "its clients are served by others",
    )
    assert time.monotonic() - gone < 2
    assert asked_often(who, "a", to, 80, "TCP", ALL, least=20)[1] == ALL


@pytest.mark.parametrize("protocol", ("TCP", "UDP"))
@FAMILIES
def test_processes_of_the_nodes_are_backends_too(rig, who, protocol, v):
    """From a pod, from the node itself, and from outside through the node's port."""
    if protocol == "TCP":
        for node in ("n1", "n2"):
            who.serve(node, 8080, addresses=[NODE[node][v]], sctp=False)
    rig.store.write("s13", service(13, None, "NodePort"))
    hosts = [endpoint(NODE[node][v], node) for node in ("n1", "n2")]
    rig.store.write("s13-slice", endpoint_slice(13, v, *hosts))
    try:
        wait_until(lambda: who.serves("a", cluster_ip(13)[v], 80), "service 13")
        for place in ("a", "n1", "out"):
            for to, port in ((cluster_ip(13)[v], 80), (NODE["n1"][v], 30013)):
                said, names = asked_often(who, place, to, port, protocol, {"n1", "n2"}, least=8)
                assert names == {"n1", "n2"}, f"{place} → {to}:{port}"
                assert all(one.data == b"?" for one in said)
    finally:
        withdraw(rig, who, 13, "s13-slice")


@FAMILIES
def test_slices_decide_where_there_are_any(rig, who, v):
    """The selector does not; neither do endpoints that are not ready."""
    rig.store.write("s14", service(14, {"app": "web"}))
    rig.store.write("s14-slice", endpoint_slice(14, v, endpoint(rig.pods["y"][v], "n2")))
    to = cluster_ip(14)[v]
    try:
        wait_until(lambda: who.serves("a", to, 80, name="y"), "service 14")
        assert asked_often(who, "a", to, 80, "TCP", {"y"}, least=15)[1] == {"y"}
        down = endpoint(rig.pods["y"][v], "n2", ready=False)
        up = endpoint(rig.pods["x"][v], "n1")
        rig.store.write("s14-slice", endpoint_slice(14, v, down, up))
        wait_until(lambda: who.serves("a", to, 80, name="x"), "x instead of y")
        assert asked_often(who, "a", to, 80, "TCP", {"x"}, least=15)[1] == {"x"}
        rig.store.write("s14-slice", endpoint_slice(14, v, down))
        wait_until(lambda: who.ask("a", to, 80) == REFUSED, "nobody is ready")
    finally:
        withdraw(rig, who, 14, "s14-slice")


def test_a_balancers_address_is_its_status(rig, who):
    document = service(15, {"app": "web"}, "LoadBalancer")
    rig.store.write("s15", document)
    old, new = balancer_ip(15)[V4], balancer_ip(16)[V4]
    try:
        wait_until(lambda: who.serves("out", old, 80), "its address")
        document["status"]["loadBalancer"]["ingress"] = [{"ip": new}]
        rig.store.write("s15", document)
        wait_until(lambda: who.serves("out", new, 80), "another address")
        assert who.ask("out", old, 80, within=0.3) == SILENT
    finally:
        withdraw(rig, who, 15)


@FAMILIES
def test_node_ports_are_the_nodes_own_addresses_and_loopback_is_left_alone(rig, who, v):
    assert who.ask("n1", ("127.0.0.1", "::1")[v], 30001) == REFUSED
    assert who.ask("out", NODE["n2"][v], 30001).name in ALL
    assert who.ask("a", NODE["n2"][v], 30001).name in ALL
    assert who.ask("n1", NODE["n2"][v], 30001).name in ALL
    # Another port of the node is the node's own business.
    assert refused_soon(who, "out", NODE["n1"][v], 30099, "TCP")
    assert refused_soon(who, "a", NODE["n1"][v], 30099, "TCP")


@FAMILIES
def test_connections_outlive_their_service_by_whatever_address_they_came(rig, who, v):
    n = 18
    fronts = [
        (cluster_ip(n)[v], 80),
        (balancer_ip(n)[v], 80),
        (external_ip(n)[v], 80),
        (NODE["n1"][v], 30000 + n),
    ]
    web = {"app": "web"}
    rig.store.write(f"s{n}", service(n, web, "LoadBalancer"))
    places = ("out", "n1", "a")
    for place in places:
        for front in fronts:
            wait_until(lambda place=place, front=front: who.serves(place, *front), (place, front))
    with contextlib.ExitStack() as stack:
        held = {}
        for place in places:
            for front in fronts:
                with rig.inside(place):
                    one = socket.create_connection(front, timeout=3)
                held[place, front] = stack.enter_context(one)

        def go_on(after):
            time.sleep(0.5)
            for which, one in held.items():
                one.send(b"1")
                assert one.recv(1000), f"{which} after {after}"

        go_on("nothing")
        rig.store.write(f"s{n}", service(n, web))
        go_on("another type")
        withdraw(rig, who, n)
        go_on("its end")
        assert who.ask("out", *fronts[-1]) == REFUSED, "there is nothing for others"
        rig.kill("n1", "daemon")
        rig.start("n1", "daemon")
        wait_until(lambda: rig.ready("n1"), "the daemon is back", within=10)
        go_on("a restart of the daemon")
    # When the last has gone the node's own connections are its own again.
    refused = lambda: who.ask("n1", *fronts[-1], within=0.3) == REFUSED  # noqa: E731
    wait_until(refused, "the node port is the kernel's", within=60)


@FAMILIES
def test_connections_outlive_what_happens_to_their_service(rig, who, v):
    to = cluster_ip(1)[v]
    with rig.inside("a"):
        held = socket.create_connection((to, 80), timeout=2)
    with held:
        held.send(b"1")
        name = held.recv(100).split()[0]
        rig.store.write("s17", service(17, {"app": "web"}))
        rig.pod("n1", "default", "w", app="web")
        time.sleep(0.4)
        held.send(b"2")
        assert held.recv(100).split()[0] == name and held.family == family(to)
    rig.unpod("n1", "default", "w")
    withdraw(rig, who, 17)
