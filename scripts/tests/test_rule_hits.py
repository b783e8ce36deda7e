"""What rules have decided (`margayctl policy hits`, metrics), and the action Log, on live traffic."""

import json
import re
import socket
import time

import pytest
from documents import calico, rule
from rig import wait_until
from scene import SERVICE, Scene
from traffic import Attempt

MODE = "none"


@pytest.fixture(scope="module")
def scene(rig):
    scene = Scene(rig)
    yield scene
    scene.close()


def ingress(name, *rules, **spec):
    """A NetworkPolicy of namespace x for the pod `near`."""
    return calico(
        "NetworkPolicy", name, "x", selector="name == 'near'", ingress=list(rules), **spec
    )


def in_force(scene, *documents):
    """Puts policies in force on n1."""
    with scene.rig.changing("n1"):
        scene.rig.store.write("policies", list(documents))


def hits(rig, *words, node="n1"):
    """`margayctl policy hits` by (policy, rule, direction, action)."""
    socket = f"unix:{rig.run}/{node}/margayd.sock"
    told = json.loads(rig.ctl("--dataplane", socket, "-o", "json", "policy", "hits", *words))
    return {
        (one["policy"] or one["tierDefault"], one["rule"], one["direction"], one["action"]): one
        for one in told["rules"]
    }


def more(rig, key, connections, packets=0, within=8.0):
    """Waits until a rule has so many connections, and packets of them; its counts."""

    def enough():
        found = hits(rig).get(key, {"connections": 0, "packets": 0})
        return (found["connections"] >= connections and found["packets"] >= packets) and found

    return wait_until(enough, f"{key}: {connections} connections", within, every=0.2)


def test_a_rule_counts_its_connections_packets_and_bytes(scene):
    rig = scene.rig
    in_force(
        scene,
        ingress(
            "front",
            rule("Deny", "TCP", destination={"ports": [81]}),
            rule("Allow", "TCP", destination={"ports": [80]}),
            order=1,
        ),
    )
    allowed = ("NetworkPolicy/x/front", 1, "ingress", "allow")
    assert allowed not in hits(rig)
    for number in range(5):
        assert scene.field.reach([Attempt("client", "near")])
    # A handshake, a request, an answer and two ends are some 8 packets of 40 bytes and more.
    found = more(rig, allowed, 5, packets=5 * 6)
    assert found["connections"] == 5 and found["packets"] <= 5 * 14
    assert found["packets"] * 40 <= found["bytes"] <= found["packets"] * 100
    denied = ("NetworkPolicy/x/front", 0, "ingress", "deny")
    assert not scene.field.reach([Attempt("client", "near", "TCP", 81)])
    assert more(rig, denied, 1)["packets"] >= 1
    # UDP meets no rule: the tier's default action denied it.
    assert not scene.field.reach([Attempt("client", "near", "UDP", 80)])
    assert more(rig, ("default", None, "ingress", "deny"), 1)["connections"] == 1
    # The client's own profile allowed all of them on their way out.
    assert more(rig, ("Profile//kns.x", 0, "egress", "allow"), 7)


def test_metrics_say_the_same_as_the_tool(scene):
    rig = scene.rig
    key = {"policy": "NetworkPolicy/x/front", "rule": "1", "direction": "ingress"}
    scene.field.reach([Attempt("client", "near")])
    more(rig, ("NetworkPolicy/x/front", 1, "ingress", "allow"), 6)
    time.sleep(2.5)  # The connection's last packets.
    told = hits(rig)[("NetworkPolicy/x/front", 1, "ingress", "allow")]
    metrics = rig.metrics("n1")
    for name in ("connections", "packets", "bytes"):
        total = metrics.total(f"margay_policy_{name}_total", action="allow", **key)
        assert total == told[name], name


def test_flows_name_the_policy_and_the_rule_of_the_document(scene):
    rig = scene.rig
    assert scene.field.reach([Attempt("client", "near")])
    socket = f"unix:{rig.run}/n1/margayd.sock"
    flows = json.loads(rig.ctl("--dataplane", socket, "-o", "json", "flows", "--port", "80"))
    assert {"policy": "NetworkPolicy/x/front", "rule": 1} in [flow["ingress"] for flow in flows]
    scene.field.reach([Attempt("client", "near", "TCP", 81)], within=0.3)
    flows = json.loads(rig.ctl("--dataplane", socket, "-o", "json", "flows", "--denied"))
    mine = [flow for flow in flows if flow["orig"]["dstPort"] == 81]
    assert mine and mine[0]["denied"] == "policy"
    assert mine[0]["ingress"] == {"policy": "NetworkPolicy/x/front", "rule": 0}


def test_what_a_service_translates_is_denied_by_the_rule_of_its_pod(scene):
    rig = scene.rig
    denying = calico(
        "GlobalNetworkPolicy",
        "no-web",
        selector="name == 'client'",
        egress=[
            rule("Deny", "TCP", destination={"selector": "name == 'far'"}),
            rule("Allow"),
        ],
    )
    in_force(scene, denying)
    with rig.inside("client"):
        asking = socket.socket()
    asking.settimeout(0.5)
    with pytest.raises(TimeoutError):
        asking.connect((SERVICE, 80))
    asking.close()
    more(rig, ("GlobalNetworkPolicy//no-web", 0, "egress", "deny"), 1)


def test_an_edit_leaves_what_was_counted_with_the_old_rule(scene):
    rig = scene.rig
    in_force(scene, ingress("one", rule("Allow")))
    with rig.inside("client"):
        talking = socket.create_connection((rig.pods["near"][0], 80), 2)
    talking.settimeout(2)
    for number in range(10):
        talking.send(b"x" * 100)
        assert talking.recv(100)
    old = ("NetworkPolicy/x/one", 0, "ingress", "allow")
    before = more(rig, old, 1)
    in_force(scene, ingress("one", rule("Allow")), ingress("two", rule("Allow"), order=0))
    for number in range(10):
        talking.send(b"y" * 100)
        assert talking.recv(100)
    new = ("NetworkPolicy/x/two", 0, "ingress", "allow")
    after = wait_until(
        lambda: (hits(rig).get(new) or {}).get("packets", 0) >= 20 and hits(rig)[new],
        "the new rule's packets",
        8,
    )
    talking.close()
    assert after["connections"] == 1
    assert hits(rig)[old]["packets"] <= before["packets"] + 22


def test_a_log_rule_gives_a_line_for_a_connection_within_its_limit(scene):
    rig = scene.rig
    rig.store.write(
        "felix",
        calico(
            "FelixConfiguration",
            "default",
            logPrefix="%t|%k|%n|%p",
            logActionRateLimit="1/minute",
            logActionRateLimitBurst=3,
        ),
    )
    in_force(scene, ingress("seen", rule("Log", "TCP"), rule("Allow")))
    for number in range(8):
        assert scene.field.reach([Attempt("client", "near")])
    pattern = r"default\|np\|seen\|x/seen: TCP [\d.]+:\d+ → [\d.]+:80"
    lines = wait_until(lambda: re.findall(pattern, rig.log("n1", "daemon")), "lines", 5)
    time.sleep(0.5)
    lines = re.findall(pattern, rig.log("n1", "daemon"))
    assert len(lines) == 3, lines
    held = rig.metrics("n1").total("margay_log_action_suppressed_total", reason="held_back")
    assert held == 5
    rig.store.remove("felix")


def test_a_flood_that_is_denied_is_bounded_and_every_packet_is_somewhere(scene):
    rig = scene.rig
    in_force(scene, ingress("closed", rule("Deny", "UDP")))
    with rig.inside("client"):
        flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flood.connect((rig.pods["near"][0], 9))
    before = rig.metrics("n1")
    for number in range(3000):
        flood.send(b"z" * 100)
    flood.close()
    sent = 3000
    denied = ("NetworkPolicy/x/closed", 0, "ingress", "deny")

    def counted():
        found = hits(rig).get(denied)
        now = rig.metrics("n1")
        dropped = now.drops("policy") - before.drops("policy")
        return found and found["packets"] >= dropped > 0 and found

    found = wait_until(counted, "all denied packets are the rule's", 8)
    assert found["packets"] <= sent
    # One conversation is one attempt, however many packets it has.
    assert found["connections"] <= 3


def test_books_are_right(scene):
    scene.rig.books_are_right()
