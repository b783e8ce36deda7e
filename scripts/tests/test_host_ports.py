"""Ports of a node that lead to a pod on it, as container runtimes ask the CNI plugin for them."""

import contextlib

import pytest
from documents import calico, rule
from rig import wait_until
from services import FAMILIES, NODE, OUT, PROTOCOLS, V4
from whoami import SILENT, Answer, Whoami

MODE = "vxlan"
# What the pod "web" gets of n1: port 8080 of all addresses, and 8081 of one alone.
MAPPINGS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": protocol.lower()} for protocol in PROTOCOLS
] + [
    {"hostPort": 8081, "containerPort": 81, "protocol": "tcp", "hostIP": NODE["n1"][V4]},
    {"hostPort": 0, "containerPort": 82, "protocol": "tcp"},
]


@contextlib.contextmanager
def attached(rig, node, name, mappings):
    """Within: a pod with host ports."""
    with rig.vacant(name):
        done = rig.cni("ADD", node, "default", name, {"runtimeConfig": {"portMappings": mappings}})
        assert done.returncode == 0, done.stdout
        yield
        assert rig.cni("DEL", node, "default", name).returncode == 0


@pytest.fixture(scope="module")
def who(rig):
    for node, name in (("n1", "a"), ("n2", "b")):
        rig.pod(node, "default", name)
    who = Whoami(rig)
    with attached(rig, "n1", "web", MAPPINGS):
        who.serve("web", 80, 81)
        wait_until(lambda: who.serves("out", NODE["n1"][V4], 8080), "the host port")
        yield who
        who.close()
    rig.books_are_right()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@FAMILIES
def test_a_host_outside_reaches_the_pod_and_is_seen_as_itself(who, protocol, v):
    said = who.ask("out", NODE["n1"][v], 8080, protocol)
    assert isinstance(said, Answer) and (said.name, said.address) == ("web", OUT[v])


@pytest.mark.parametrize("place", ("a", "b", "web", "n1", "n2"))
@FAMILIES
def test_pods_and_nodes_reach_it_too(who, place, v):
    for protocol in ("TCP", "UDP"):
        said = who.ask(place, NODE["n1"][v], 8080, protocol)
        assert isinstance(said, Answer) and said.name == "web", (place, protocol, said)


def test_only_the_address_that_was_asked_for_has_the_port(rig, who):
    other = "172.20.0.77"
    rig.exec("n1", "ip", "address", "add", f"{other}/24", "dev", "eth0")
    try:
        wait_until(lambda: who.serves("out", other, 8080), "a new address of the node has it", 5)
        assert who.serves("out", NODE["n1"][V4], 8081)
        assert not isinstance(who.ask("out", other, 8081, within=0.5), Answer)
    finally:
        rig.exec("n1", "ip", "address", "del", f"{other}/24", "dev", "eth0")


def test_only_the_pods_own_node_has_the_port(who):
    assert not isinstance(who.ask("out", NODE["n2"][V4], 8080, within=0.5), Answer)


def test_the_pods_policy_judges_the_client(rig, who):
    allowed = rule("Allow", "TCP", source={"nets": [f"{OUT[V4]}/32"]}, destination={"ports": [80]})
    rig.store.write("policy", calico(
        "GlobalNetworkPolicy", "web", None, selector="all()", types=["Ingress"], ingress=[allowed]
    ))  # fmt: skip
    try:
        wait_until(lambda: who.ask("out", NODE["n1"][V4], 8081, within=0.3) == SILENT, "the policy")
        assert who.serves("out", NODE["n1"][V4], 8080)
    finally:
        rig.store.remove("policy")
    wait_until(lambda: who.serves("out", NODE["n1"][V4], 8081), "without the policy")


def test_it_outlives_agent_and_daemon_and_ends_with_the_pod(rig, who):
    with attached(rig, "n1", "brief", [{"hostPort": 8090, "containerPort": 80}]):
        who.serve("brief", 80, sctp=False)
        wait_until(lambda: who.serves("out", NODE["n1"][V4], 8090, name="brief"), "its host port")
        for process in ("agent", "daemon"):
            rig.kill("n1", process)
            rig.start("n1", process)
            wait_until(lambda: who.serves("out", NODE["n1"][V4], 8090, name="brief"), process, 10)
    wait_until(lambda: not who.serves("out", NODE["n1"][V4], 8090), "the port is free again")
