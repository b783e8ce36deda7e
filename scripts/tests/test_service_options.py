"""What a service may ask for: affinity, topology, draining, health checks, and who is left alone."""

import contextlib
import http.client
import json
import time

import pytest
from documents import calico
from rig import wait_until
from services import (
    ALL,
    FAMILIES,
    NODE,
    V4,
    V6,
    asked_often,
    cluster_ip,
    endpoint,
    endpoint_slice,
    prepare,
    service,
    withdraw,
)
from whoami import REFUSED, SILENT, UNREACHABLE, Whoami

MODE = "vxlan"


@pytest.fixture(scope="module")
def who(rig):
    """Pod a and backend x on n1, backend y on n2, and a client outside that asks n1."""
    prepare(rig)
    who = Whoami(rig)
    who.serve("x", 8080, sctp=False)
    who.serve("y", 8080, sctp=False)
    yield who
    who.close()
    rig.books_are_right()


def slices(rig, n, *pods):
    """Slices of both families; `pods` are (name, node, how it is: see `endpoint`)."""
    return [
        endpoint_slice(n, v, *(endpoint(rig.pods[name][v], node) | how for name, node, how in pods))
        for v in (V4, V6)
    ]


X, Y = ("x", "n1", {}), ("y", "n2", {})
DRAINS = {"conditions": {"ready": False, "serving": True, "terminating": True}}
GONE = {"conditions": {"ready": False, "serving": False, "terminating": True}}


@contextlib.contextmanager
def serving(rig, who, n, document, *pods):
    """Within: service `n` is in force with these endpoints."""
    rig.store.write(f"s{n}-slices", slices(rig, n, *pods))
    rig.store.write(f"s{n}", document)
    try:
        ask = lambda v: who.ask("a", cluster_ip(n)[v], 80, within=0.25) not in (SILENT, UNREACHABLE)
        wait_until(lambda: ask(V4) and ask(V6), f"service {n}")
        yield
    finally:
        withdraw(rig, who, n, f"s{n}-slices")


def names(who, place, to, port=80, protocol="TCP", times=8):
    """Who answers a number of new connections."""
    return {
        getattr(one, "name", one)
        for one in (who.ask(place, to, port, protocol) for _ in range(times))
    }


def now_asks(who, place, to, expected, port=80):
    """Waits until the answers from a place are these, all of them."""
    ask = lambda: asked_often(who, place, to, port, "TCP", expected, least=8)[1]
    wait_until(lambda: ask() == expected, f"{place} → {to}: {expected}")


def test_clients_stay_when_backends_come_and_over_a_crash_of_the_daemon(rig, who):
    n = 21
    places = [(place, cluster_ip(n)[v], 80) for place in ("a", "n1", "out") for v in (V4, V6)]
    places += [("out", NODE["n1"][v], 30000 + n) for v in (V4, V6)]
    document = service(n, None, "NodePort", sessionAffinity="ClientIP")
    with serving(rig, who, n, document, X):
        for place, to, port in places:
            for protocol in ("TCP", "UDP"):
                assert names(who, place, to, port, protocol, times=2) == {"x"}
        rig.store.write(f"s{n}-slices", slices(rig, n, X, Y))
        # n2 has asked nobody yet: what it is sent tells when y serves.
        wait_until(lambda: who.serves("y", cluster_ip(n)[V4], 80), "y serves")
        time.sleep(0.5)
        for place, to, port in places:
            for protocol in ("TCP", "UDP"):
                assert names(who, place, to, port, protocol) == {"x"}, f"{place} → {to} {protocol}"
        rig.kill("n1", "daemon")
        rig.start("n1", "daemon")
        wait_until(lambda: rig.ready("n1"), "the daemon is back", within=10)
        for place, to, port in places:
            assert names(who, place, to, port) == {"x"}, f"{place} → {to}"
        # When x has been away, nobody is its client any more.
        rig.store.write(f"s{n}-slices", slices(rig, n, Y))
        for place, to, port in places:
            now_asks(who, place, to, {"y"}, port)
        rig.store.write(f"s{n}-slices", slices(rig, n, X, Y))
        time.sleep(0.5)
        for place, to, port in places:
            assert names(who, place, to, port) == {"y"}, f"{place} → {to}"


def test_an_idle_client_chooses_again_and_a_busy_one_does_not(rig, who):
    n, seconds = 22, 3
    timeout = {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}
    document = service(n, None, sessionAffinity="ClientIP", **timeout)
    with serving(rig, who, n, document, X, Y):
        first = [who.ask("a", cluster_ip(n)[v], 80).name for v in (V4, V6)]
        end = time.monotonic() + 1.5 * seconds
        while time.monotonic() < end:
            assert [who.ask("a", cluster_ip(n)[v], 80).name for v in (V4, V6)] == first
            time.sleep(0.3)
        moved = [False, False]
        for _ in range(12):
            time.sleep(seconds + 0.3)
            for v in (V4, V6):
                moved[v] |= who.ask("a", cluster_ip(n)[v], 80).name != first[v]
            if any(moved):
                break
        assert any(moved), "one chance in 2^24"


def get(rig, place, to, port, path="/healthz"):
    """Status and JSON of a GET, or None if nobody listens."""
    with rig.inside(place):
        connection = http.client.HTTPConnection(to, port, timeout=3)
        try:
            connection.connect()
        except ConnectionRefusedError:
            return None
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_load_balancers_are_told_which_nodes_serve(rig, who):
    n, port = 23, 32023
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": port}
    health = lambda place, node, v=V4: get(rig, place, NODE[node][v], port)

    def told(count, healthy=True):
        status = 200 if count and healthy else 503
        body = {"service": {"namespace": "default", "name": f"s{n}"}}
        return status, body | {"localEndpoints": count, "serviceProxyHealthy": healthy}

    def told_soon(place, node, expected, v=V4):
        wait_until(lambda: health(place, node, v) == expected, f"{place} → {node}: {expected}")

    assert health("out", "n1") is None
    with serving(rig, who, n, service(n, None, "LoadBalancer", **local), X):
        for v in (V4, V6):
            for place in ("out", "a", "n1", "n2"):
                told_soon(place, "n1", told(1), v)
                told_soon(place, "n2", told(0), v)
        rig.store.write(f"s{n}-slices", slices(rig, n, ("x", "n1", DRAINS), Y))
        told_soon("out", "n1", told(0))
        told_soon("out", "n2", told(1))
        rig.kill("n2", "daemon")
        told_soon("out", "n2", told(1, healthy=False))
        rig.start("n2", "daemon")
        wait_until(lambda: rig.ready("n2"), "the daemon is back", within=10)
        told_soon("out", "n2", told(1))
        # Another port, then none.
        local["healthCheckNodePort"] = port + 1
        rig.store.write(f"s{n}", service(n, None, "LoadBalancer", **local))
        told_soon("out", "n1", None)
        assert get(rig, "out", NODE["n1"][V4], port + 1)[0] == 503
        rig.store.write(f"s{n}", service(n, None, "LoadBalancer"))
        wait_until(lambda: get(rig, "out", NODE["n1"][V4], port + 1) is None, "nobody listens")


def test_load_balancers_are_told_of_a_node_that_is_going(rig, who):
    """kube-proxy's /healthz, on its port or another (KEP-3836)."""
    ask = lambda path, port: get(rig, "out", NODE["n1"][V4], port, path) or (0, {})
    status = lambda path="/healthz", port=10256: ask(path, port)[0]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}
    deleted = {"name": "n1", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a.b/c"]}
    wait_until(lambda: status() == 200, "the node serves")
    try:
        for leaving in (node | {"spec": {"taints": [taint]}}, node | {"metadata": deleted}):
            rig.store.write("going", leaving)
            wait_until(lambda: status() == 503, "it is going")
            assert ask("/healthz", 10256)[1]["nodeEligible"] is False
            assert status("/livez") == 200
            rig.store.write("going", node)
            wait_until(lambda: status() == 200, "it stays")
        rig.kill("n1", "daemon")
        wait_until(lambda: status() == 503 and status("/livez") == 503, "nothing is forwarded")
        rig.start("n1", "daemon")
        wait_until(lambda: status() == 200, "the daemon is back", within=10)
        other = calico("FelixConfiguration", "node.n1", bpfKubeProxyHealthzPort=10257)
        rig.store.write("going", other)
        wait_until(lambda: status(port=10257) == 200 and not status(), "another port")
    finally:
        rig.store.remove("going")
    wait_until(lambda: status() == 200, "its port as always")


@FAMILIES
def test_near_backends_are_preferred_where_the_service_says(rig, who, v):
    zones = {"n1": "east", "n2": "west"}

    def nodes():
        label = "topology.kubernetes.io/zone"
        one = lambda name, zone: {"name": name, "labels": {label: zone}}
        many = [one(*node) for node in zones.items()]
        rig.store.write(
            "nodes", [{"apiVersion": "v1", "kind": "Node", "metadata": m} for m in many]
        )

    nodes()
    rig.store.write("s24", service(24, {"app": "web"}, trafficDistribution="PreferSameNode"))
    rig.store.write("s25", service(25, {"app": "web"}, trafficDistribution="PreferClose"))
    hint = lambda zone: {"hints": {"forZones": [{"name": zone}]}}
    try:
        for n in (24, 25):
            for place, near in (("a", "x"), ("n1", "x"), ("n2", "y")):
                now_asks(who, place, cluster_ip(n)[v], {near})
        hinted = (("x", "n1", hint("west")), ("y", "n2", hint("east")))
        with serving(rig, who, 26, service(26, None), *hinted):
            now_asks(who, "a", cluster_ip(26)[v], {"y"})
            now_asks(who, "n2", cluster_ip(26)[v], {"x"})
            zones["n1"] = "north"
            nodes()
            now_asks(who, "a", cluster_ip(26)[v], ALL)
            now_asks(who, "a", cluster_ip(25)[v], {"x"})
    finally:
        rig.store.remove("nodes")
        withdraw(rig, who, 24)
        withdraw(rig, who, 25)


@FAMILIES
def test_a_backend_that_drains_keeps_its_udp_clients_until_it_serves_no_more(rig, who, v):
    n, port, to = 27, 41000, cluster_ip(27)[v]
    with serving(rig, who, n, service(n, None), X):
        assert who.ask("a", to, 80, "UDP", port).name == "x"
        rig.store.write(f"s{n}-slices", slices(rig, n, ("x", "n1", DRAINS), Y))
        now_asks(who, "a", to, {"y"})
        assert who.ask("a", to, 80, "UDP", port).name == "x"
        rig.store.write(f"s{n}-slices", slices(rig, n, ("x", "n1", GONE), Y))
        served = lambda: getattr(who.ask("a", to, 80, "UDP", port, within=0.3), "name", None)
        wait_until(lambda: served() == "y", "its client is served by y")


@FAMILIES
def test_what_drains_serves_where_nothing_is_ready(rig, who, v):
    n, to = 28, cluster_ip(28)[v]
    local = {"externalTrafficPolicy": "Local"}
    with serving(rig, who, n, service(n, None, "NodePort", **local), ("x", "n1", DRAINS), Y):
        # Each scope for itself: of the cluster y is ready, on n1 there is x alone.
        now_asks(who, "a", to, {"y"})
        now_asks(who, "out", NODE["n1"][v], {"x"}, 30000 + n)
        rig.store.write(f"s{n}-slices", slices(rig, n, ("x", "n1", DRAINS), ("y", "n2", GONE)))
        now_asks(who, "a", to, {"x"})
        rig.store.write(f"s{n}-slices", slices(rig, n, ("x", "n1", GONE), ("y", "n2", GONE)))
        wait_until(lambda: who.ask("a", to, 80) == REFUSED, "nobody serves")
        assert who.ask("out", NODE["n1"][v], 30000 + n) == REFUSED


@FAMILIES
def test_nobody_anywhere_is_said_even_where_only_this_nodes_backends_count(rig, who, v):
    n, local = 29, {"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}
    with serving(rig, who, n, service(n, None, "NodePort", **local)):
        assert who.ask("a", cluster_ip(n)[v], 80) == REFUSED
        assert who.ask("out", NODE["n1"][v], 30000 + n) == REFUSED
        rig.store.write(f"s{n}-slices", slices(rig, n, Y))
        wait_until(
            lambda: who.ask("a", cluster_ip(n)[v], 80, within=0.3) == SILENT, "served elsewhere"
        )
        assert who.ask("out", NODE["n1"][v], 30000 + n, within=0.3) == SILENT
        rig.store.remove(f"s{n}-slices")
        wait_until(lambda: who.ask("a", cluster_ip(n)[v], 80) == REFUSED, "without slices")
        assert who.ask("out", NODE["n1"][v], 30000 + n) == REFUSED


@FAMILIES
def test_both_nodes_choose_alike_with_maglev(rig, who, v):
    n = 30
    document = service(n, None, "NodePort")
    strategy = {"lb.projectcalico.org/external-traffic-strategy": "maglev"}
    document["metadata"]["annotations"] = strategy
    with serving(rig, who, n, document, X, Y):
        wait_until(lambda: who.serves("out", NODE["n2"][v], 30000 + n), "both nodes")
        ask = lambda node, port: who.ask("out", NODE[node][v], 30000 + n, "UDP", port).name
        chosen = [(ask("n1", port), ask("n2", port)) for port in range(42000, 42016)]
        assert all(here == there for here, there in chosen), chosen
        assert {here for here, _ in chosen} == ALL


def test_services_of_other_proxies_are_left_alone(rig, who):
    n, to = 31, cluster_ip(31)[V4]
    document = service(n, {"app": "web"}, publishNotReadyAddresses=True)
    with serving(rig, who, n, document, ("x", "n1", {"conditions": {"ready": False}})):
        assert names(who, "a", to) == {"x"}, "it is not ready, and published all the same"
        for label in ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"):
            document["metadata"]["labels"] = {label: "other"}
            rig.store.write(f"s{n}", document)
            wait_until(lambda: who.ask("a", to, 80, within=0.25) == SILENT, label)
            del document["metadata"]["labels"]
            rig.store.write(f"s{n}", document)
            wait_until(lambda: who.serves("a", to, 80), f"without {label}")


def test_node_ports_answer_on_the_networks_that_the_agent_was_told(rig, who):
    n = 32
    ask = lambda v: who.ask("out", NODE["n1"][v], 30000 + n, within=0.5)
    with serving(rig, who, n, service(n, {"app": "web"}, "NodePort"), X, Y):
        assert ask(V4).name in ALL and ask(V6).name in ALL
        with rig.agent_with("n1", "--nodeport-addresses", "fd20::/64"):
            wait_until(lambda: ask(V4) == REFUSED, "not on its IPv4 address", within=10)
            assert ask(V6).name in ALL
        wait_until(lambda: ask(V4) not in (REFUSED, SILENT), "on all of its addresses", within=10)


def test_node_ports_may_answer_on_primary_addresses_alone(rig, who):
    n, other = 33, "172.20.0.77"
    ask = lambda to: who.ask("out", to, 30000 + n, within=0.5)
    rig.exec("n1", "ip", "addr", "add", f"{other}/24", "dev", "eth0")
    try:
        with serving(rig, who, n, service(n, {"app": "web"}, "NodePort"), X, Y):
            wait_until(lambda: ask(other) not in (REFUSED, SILENT), "on another address")
            with rig.agent_with("n1", "--nodeport-addresses", "primary"):
                wait_until(lambda: ask(other) == REFUSED, "not on another address", within=10)
                assert ask(NODE["n1"][V4]).name in ALL and ask(NODE["n1"][V6]).name in ALL
    finally:
        rig.exec("n1", "ip", "addr", "del", f"{other}/24", "dev", "eth0")


@FAMILIES
def test_backends_hear_from_the_node_where_all_are_masqueraded(rig, who, v):
    n = 34
    ask = lambda: who.ask("a", cluster_ip(n)[v], 80).address  # noqa: E731
    with serving(rig, who, n, service(n, {"app": "web"}), X, Y):
        assert ask() == rig.pods["a"][v]
        with rig.agent_with("n1", "--masquerade-all"):
            hidden = lambda: {ask() for _ in range(8)}.isdisjoint(rig.pods["a"])  # noqa: E731
            wait_until(hidden, "pod a is hidden", within=10)
