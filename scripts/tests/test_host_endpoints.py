"""Host endpoints: policy for the node's own traffic, and for what passes through the node."""

import contextlib
import json
import re
import signal
import socket
import time

import pytest
from documents import calico, rule
from rig import wait_until
from services import NODE, OUT, cluster_ip, endpoint, endpoint_slice, service
from traffic import Attempt, Field

MODE = "vxlan"
PORTS = (22, 53, 80, 81, 6443, 8080)
LABELS = {"role": "host"}


@pytest.fixture(scope="module")
def field(rig):
    rig.pod("n1", "default", "near", app="web")
    rig.pod("n2", "default", "far", app="web")
    field = Field(rig, PORTS)
    field.join("n1", NODE["n1"])
    field.join("n2", NODE["n2"])
    field.join("out", OUT)
    field.join("near")
    field.join("far")
    for v in (0, 1):
        for name, node in (("near", "n1"), ("far", "n2")):
            rig.exec("out", "ip", "route", "replace", rig.pods[name][v], "via", NODE[node][v])
    yield field
    field.close()


@pytest.fixture(autouse=True)
def open_node(rig, field):
    """Every test begins and ends without host endpoints."""
    yield
    rig.store.remove("hosts", "felix")
    expect(field, {tcp("out", "n1"), tcp("n1", "out"), tcp("out", "n1", 81, 6)})


def ask(rig, *words):
    """What margayctl says of n1's dataplane."""
    where = f"unix:{rig.run}/n1/margayd.sock"
    return json.loads(rig.ctl("--dataplane", where, *words, "-o", "json"))


def host(name="n1-eth0", node="n1", profiles=(), **spec):
    return calico("HostEndpoint", name, labels=LABELS, node=node, profiles=list(profiles), **spec)


def policy(name, ingress=None, egress=None, order=10, **spec):
    lists = {"ingress": ingress, "egress": egress}
    given = {key: rules for key, rules in lists.items() if rules is not None}
    types = [key.capitalize() for key in given]
    spec = {"selector": "role == 'host'", "order": order, "types": types} | given | spec
    return calico("GlobalNetworkPolicy", name, **spec)


def ports(*numbers):
    return {"ports": list(numbers)}


def allow(protocol, *numbers):
    return rule("Allow", protocol, destination=ports(*numbers))


def guard(rig, *documents):
    """Puts host endpoints and policies in force, in the place of earlier ones."""
    rig.store.write("hosts", list(documents))


def tcp(source, target, port=80, family=4):
    return Attempt(source, target, "TCP", port, family)


def udp(source, target, port=80, family=4):
    return Attempt(source, target, "UDP", port, family)


def expect(field, allowed, denied=(), within=6.0):
    """Waits until of these attempts exactly the allowed ones are answered."""
    allowed, seen = set(allowed), None
    end = time.monotonic() + within
    while seen != allowed:
        assert time.monotonic() < end, f"missing {allowed - seen}, too many {seen - allowed}"
        seen = field.reach(allowed | set(denied), within=0.7)
    # And it stays so.
    assert field.reach(denied, within=0.5) == set()


# === the node's own traffic ===


def test_without_policy_or_profile_only_failsafe_ports_are_open(rig, field):
    guard(rig, host(interfaceName="eth0"))
    expect(
        field,
        {tcp("out", "n1", 22), tcp("out", "n1", 22, 6), tcp("out", "n1", 6443)}
        | {tcp("n1", "out", 6443), tcp("n1", "out", 6443, 6), udp("n1", "out", 53)}
        # What passes through is not the node's own, and its own pods are its own business.
        | {tcp("out", "near"), tcp("near", "out"), tcp("near", "far"), tcp("out", "near", 80, 6)}
        | {tcp("n1", "near"), tcp("near", "n1"), tcp("n1", "far"), tcp("far", "n1", 22)},
        {tcp("out", "n1"), tcp("out", "n1", 80, 6), udp("out", "n1"), udp("out", "n1", 22)}
        | {tcp("n1", "out"), tcp("n1", "out", 80, 6), udp("n1", "out"), tcp("n1", "n2")},
    )
    assert not rig.ping("out", NODE["n1"][0]) and not rig.ping("n1", OUT[0])
    # Neighbours are found anew all the same.
    rig.exec("out", "ip", "neigh", "flush", "dev", "eth0")
    rig.exec("n1", "ip", "neigh", "flush", "dev", "eth0")
    expect(field, {tcp("out", "n1", 22), tcp("out", "n1", 22, 6)})


def test_rules_open_ports_each_way_and_answers_follow(rig, field):
    guard(
        rig,
        host(interfaceName="eth0"),
        policy(
            "own",
            [allow("TCP", 80), allow("UDP", 53), rule("Allow", "ICMP", icmp={"type": 8})],
            [allow("TCP", 81), rule("Allow", "ICMPv6", icmp={"type": 128})],
        ),
    )
    expect(
        field,
        {tcp("out", "n1"), tcp("out", "n1", 80, 6), udp("out", "n1", 53), udp("out", "n1", 53, 6)}
        | {tcp("n1", "out", 81), tcp("n1", "out", 81, 6)},
        {tcp("out", "n1", 81), udp("out", "n1", 80), tcp("n1", "out", 80), udp("n1", "out", 81)},
    )
    assert rig.ping("out", NODE["n1"][0]) and not rig.ping("n1", OUT[0])
    assert rig.ping("n1", OUT[1]) and not rig.ping("out", NODE["n1"][1])
    flows = [flow for flow in ask(rig, "flows", "--port", "53") if flow["verdict"] == "allow"]
    assert {flow["ingress"]["policy"] for flow in flows} == {"GlobalNetworkPolicy//own"}
    status = ask(rig, "node", "status")
    uplink = next(port for port in status["ports"] if port["name"] == "eth0")
    assert uplink["endpoint"] == "HostEndpoint/n1-eth0"


def test_large_and_long_goes_through_in_both_directions(rig, field):
    guard(
        rig,
        host(interfaceName="eth0"),
        policy("own", [allow("TCP", 5201), allow("UDP", 9)], [rule("Allow")]),
    )
    server = rig.spawn("n1", "iperf3", "-s", "-p", 5201)
    try:
        expect(field, {tcp("n1", "out")}, {tcp("out", "n1")})
        for more in ((), ("-R",), ("-6",)):
            target = NODE["n1"][1 if "-6" in more else 0]
            words = ("iperf3", "-c", target, "-p", 5201, "-t", 1, "-J", *more)
            report = json.loads(rig.exec("out", *words))
            assert report["end"]["sum_received"]["bits_per_second"] > 1e7, more
    finally:
        rig.end(server)
    # Datagrams in pieces are judged whole, either way.
    assert rig.ping("n1", OUT[0], 2, 2, "-s", 4000)
    assert not rig.ping("out", NODE["n1"][0], 1, 1, "-s", 4000)


def test_a_removed_rule_cuts_and_a_removed_host_endpoint_gives_the_interface_back(rig, field):
    guard(rig, host(interfaceName="eth0"), policy("own", [allow("TCP", 80)], []))
    expect(field, {tcp("out", "n1")}, {tcp("out", "n1", 81)})
    with rig.inside("out"):
        client = socket.create_connection((NODE["n1"][0], 80), 3)
    client.settimeout(2)
    client.send(b"?")
    assert client.recv(9) == b"?"
    guard(rig, host(interfaceName="eth0"), policy("own", [allow("TCP", 81)], []))
    expect(field, {tcp("out", "n1", 81)}, {tcp("out", "n1")})
    client.send(b"!")
    with pytest.raises(TimeoutError):
        client.recv(9)
    rig.store.remove("hosts")
    expect(field, {tcp("out", "n1"), tcp("n1", "out")})
    with contextlib.suppress(TimeoutError):
        assert client.recv(9) == b"!"
    client.close()
    before = rig.metrics("n1").total("margay_rx_packets_total", port="margay0")
    expect(field, {tcp("n1", "out"), udp("n1", "out", 53)})
    rig.ping("n1", OUT[0], 3)
    assert rig.metrics("n1").total("margay_rx_packets_total", port="margay0") == before


def test_profiles_decide_where_no_policy_does(rig, field):
    guard(rig, host(interfaceName="eth0", profiles=["projectcalico-default-allow"]))
    expect(field, {tcp("out", "n1"), tcp("n1", "out"), tcp("n1", "n2")})
    assert rig.ping("out", NODE["n1"][1])
    guard(
        rig,
        host(interfaceName="eth0", profiles=["projectcalico-default-allow"]),
        policy("own", [rule("Deny", "TCP", destination=ports(81)), rule("Pass")]),
    )
    expect(field, {tcp("out", "n1"), tcp("n1", "out", 81)}, {tcp("out", "n1", 81)})


def test_failsafe_ports_are_felixs(rig, field):
    felix = calico(
        "FelixConfiguration",
        "node.n1",
        failsafeInboundHostPorts=[{"protocol": "TCP", "port": 81, "net": f"{OUT[0]}/32"}],
        failsafeOutboundHostPorts=[],
    )
    rig.store.write("felix", felix)
    guard(rig, host(interfaceName="eth0"))
    expect(
        field,
        {tcp("out", "n1", 81)},
        {tcp("out", "n1", 22), tcp("n2", "n1", 81), tcp("out", "n1", 81, 6)}
        | {tcp("n1", "out", 6443), udp("n1", "out", 53)},
    )


def test_an_interface_is_found_by_its_address(rig, field):
    guard(rig, host("by-ip", expectedIPs=[NODE["n1"][1]]))
    expect(field, {tcp("out", "n1", 22)}, {tcp("out", "n1"), tcp("out", "n1", 80, 6)})
    guard(rig, host("by-ip", expectedIPs=["192.0.2.77"]), host("other", interfaceName="eth7"))
    expect(field, {tcp("out", "n1")})
    status = ask(rig, "node", "status")
    down = {one["endpoint"] for one in status["endpointsDown"]}
    assert down == {"HostEndpoint/by-ip", "HostEndpoint/other"}


def test_one_for_all_interfaces_stands_for_tunnels_too(rig, field):
    guard(
        rig,
        host("all", interfaceName="*"),
        policy("through", [allow("TCP", 80)], [allow("TCP", 81)], applyOnForward=True),
    )
    expect(
        field,
        {tcp("out", "n1"), tcp("n1", "out", 81), tcp("far", "n1"), tcp("n1", "far", 81)}
        | {tcp("far", "near"), tcp("near", "far", 81), tcp("near", "n1", 53), tcp("n1", "near", 53)}
        | {tcp("out", "near", 80, 6), tcp("near", "out", 81, 6)},
        {tcp("out", "n1", 81), tcp("n1", "out"), tcp("far", "n1", 81), tcp("n1", "far")}
        | {tcp("far", "near", 81), tcp("near", "far"), tcp("out", "near", 81, 6)},
    )


# === what passes through ===


def test_forward_policy_decides_on_pods_and_leaves_the_node_alone(rig, field):
    guard(
        rig,
        host(interfaceName="eth0", profiles=["projectcalico-default-allow"]),
        policy("in", [rule("Allow", "TCP", destination=ports(80)), rule("Deny")],
               applyOnForward=True),
        policy("out", None, [rule("Deny", "TCP", destination=ports(81)), rule("Allow")],
               applyOnForward=True),
    )  # fmt: skip
    expect(
        field,
        {tcp("out", "near"), tcp("out", "near", 80, 6), tcp("near", "out"), udp("near", "out", 81)}
        | {tcp("out", "n1"), tcp("near", "far", 81), tcp("far", "near", 81)},
        {tcp("out", "near", 81), udp("out", "near"), tcp("near", "out", 81), tcp("out", "n1", 81)},
    )


def test_pre_dnat_policy_sees_node_ports_as_they_were_asked_for(rig, field):
    rig.store.write("service", [service(1, None, "NodePort", ("TCP",))] + [
        endpoint_slice(1, v, endpoint(rig.pods["near"][v], "n1")) for v in (0, 1)
    ])  # fmt: skip
    asks = tcp("out", "n1", 30001), tcp("n2", "n1", 30001)
    expect(field, asks)
    only = {"nets": [f"{OUT[0]}/32"]}
    node_ports = rule("Allow", "TCP", source=only, destination=ports("30000:32767"))
    node_ports_denied = rule("Deny", "TCP", destination=ports("30000:32767"))
    guard(
        rig,
        host(interfaceName="eth0"),
        policy("nodeports", [node_ports, node_ports_denied], preDNAT=True, applyOnForward=True),
        policy("through", [rule("Deny")], applyOnForward=True, order=20),
    )
    expect(field, {asks[0], tcp("out", "n1", 22)}, {asks[1], tcp("out", "near"), tcp("out", "n1")})
    rig.store.remove("service")


def test_untracked_policy_needs_both_directions_and_keeps_no_flow(rig, field):
    both = [
        rule("Allow", "UDP", destination=ports(53)),
    ], [rule("Allow", "UDP", source=ports(53))]
    guard(
        rig,
        host(interfaceName="eth0"),
        policy("raw", *both, doNotTrack=True, applyOnForward=True),
    )
    expect(field, {udp("out", "n1", 53), udp("out", "n1", 53, 6)}, {udp("out", "n1", 80)})
    before = len(ask(rig, "flows", "--port", "53"))
    expect(field, {udp("out", "n1", 53), udp("out", "n1", 53, 6)})
    assert len(ask(rig, "flows", "--port", "53")) <= before
    guard(
        rig,
        host(interfaceName="eth0"),
        policy("raw", both[0], [], doNotTrack=True, applyOnForward=True),
        policy("rest", [], [], order=20),
    )
    expect(field, {tcp("out", "n1", 22)}, {udp("out", "n1", 53)})
    guard(
        rig,
        host(interfaceName="eth0", profiles=["projectcalico-default-allow"]),
        policy("raw", [rule("Deny", "TCP", destination=ports(80))], doNotTrack=True,
               applyOnForward=True),
    )  # fmt: skip
    expect(
        field,
        {tcp("out", "n1", 81), tcp("out", "near", 81), tcp("n1", "out"), tcp("near", "out")},
        {tcp("out", "n1"), tcp("out", "near")},
    )


def test_a_denial_before_connections_are_looked_at_goes_by_port_and_by_set(rig, field):
    web = [{"name": "web", "port": 80, "protocol": "TCP"}]
    named = host(expectedIPs=list(NODE["n1"]), ports=web)
    every = policy("every", [rule("Allow")], [rule("Allow")], order=100)
    raw = {"doNotTrack": True, "applyOnForward": True}
    guard(rig, named, every)
    asks = {tcp("out", "n1"), tcp("out", "n1", 81), tcp("n2", "n1"), tcp("out", "n1", 80, 6)}
    expect(field, asks)
    guard(rig, named, every, policy("raw", [rule("Deny", "TCP", destination=ports("web"))], **raw))
    expect(field, {tcp("out", "n1", 81)}, asks - {tcp("out", "n1", 81)})
    bad = calico("GlobalNetworkSet", "bad", labels={"bad": "yes"}, nets=list(OUT))
    guard(
        rig, named, every, bad, policy("raw", [rule("Deny", source={"selector": "bad == 'yes'"})], **raw)
    )
    expect(field, {tcp("n2", "n1")}, asks - {tcp("n2", "n1")})


# === by every way: addresses, services and node ports (Calico's table of datapaths) ===


@pytest.fixture(scope="module")
def ways(rig, field):
    """Services 1 to 4: of the pods near and far, and of processes of n1 and n2."""
    backends = {1: "near", 2: "far", 3: "n1", 4: "n2"}
    documents = []
    for number, name in backends.items():
        documents.append(service(number, None, "NodePort", ("TCP",)))
        for v, address in enumerate(field.address[name].values()):
            backend = endpoint(address, "n1" if name in ("near", "n1") else "n2")
            documents.append(endpoint_slice(number, v, backend))
        field.address[f"c{number}"] = dict(zip((4, 6), cluster_ip(number)))
    rig.store.write("ways", documents)
    routed = lambda: "margay0" in rig.exec("n1", "ip", "route", "get", cluster_ip(4)[0], check=False)
    wait_until(routed, "the services' addresses are n1's to reach")
    yield
    rig.store.remove("ways")


def by_both(*ways):
    """Attempts by TCP in both families: `SOURCE TARGET [PORT]`."""
    return {
        tcp(*way.split()[:2], int((*way.split(), 80)[2]), family) for way in ways for family in (4, 6)
    }


def under(rig, field, direction, asks, bare, spared=frozenset()):
    """Asks under no policy, one that allows and one that denies, with `applyOnForward` and without.

    `bare` says whether they pass without policy: what passes through does, and is denied by what
    applies on forward alone. `spared` passes whatever a policy of this direction says.
    """
    everywhere = host("all", interfaceName="*")
    of = lambda action, order, forward: policy(
        action.lower(), order=order, applyOnForward=forward, **{direction: [rule(action)]}
    )
    rig.store.remove("hosts")
    expect(field, asks | spared)
    guard(rig, everywhere)
    expect(field, (asks if bare else set()) | spared, set() if bare else asks)
    for forward in (False, True):
        allowing, denying = of("Allow", 500, forward), of("Deny", 200, forward)
        guard(rig, everywhere, allowing)
        expect(field, asks | spared)
        guard(rig, everywhere, allowing, denying)
        passes = bare and not forward
        expect(field, (asks if passes else set()) | spared, set() if passes else asks)


def test_what_reaches_a_guarded_nodes_process_is_judged_by_both_kinds_of_policy(rig, field, ways):
    under(rig, field, "ingress", by_both("n2 n1", "far c3"), bare=False)


def test_what_a_guarded_node_sends_is_judged_by_both_kinds_of_policy(rig, field, ways):
    asks = by_both("n1 far", "n1 c2", "n1 n1 30002", "n1 c4", "n1 n1 30004")
    under(rig, field, "egress", asks, bare=False)


def test_what_passes_a_guarded_node_is_judged_by_forward_policy_alone(rig, field, ways):
    into, out = by_both("far near", "far n1 30001"), by_both("near far", "near c2", "near n1 30002")
    under(rig, field, "ingress", into, bare=True, spared=out)
    under(rig, field, "egress", out, bare=True, spared=into)


# === what is told of it ===


def told(rig, name, direction, number=0):
    """What a rule of a policy has decided on n1."""
    wanted = {"policy": f"GlobalNetworkPolicy//{name}", "direction": direction, "rule": number}
    rules = ask(rig, "policy", "hits")["rules"]
    return next((one for one in rules if one.items() >= wanted.items()), None)


def test_log_rules_of_each_list_give_lines(rig, field):
    rig.store.write("felix", calico("FelixConfiguration", "default", logPrefix="%t|%k|%n"))
    passing = {"applyOnForward": True}
    guard(
        rig,
        host(interfaceName="eth0"),
        policy("log-raw", [rule("Log", "UDP"), rule("Allow", "UDP")], doNotTrack=True, **passing),
        policy("log-pre", [rule("Log", "TCP", destination=ports(81))], preDNAT=True, **passing),
        policy("log-own", [rule("Log", "TCP"), allow("TCP", 80),
                           rule("Deny", "TCP", destination=ports(8080))]),
        policy("log-fwd", [rule("Log", "TCP"), rule("Allow")], order=20, **passing),
    )  # fmt: skip
    passes = {tcp("out", "n1"), tcp("out", "near"), tcp("out", "near", 81)}
    expect(field, passes, {tcp("out", "n1", 8080)})
    # Some of these may have been asked before the policies were in force.
    field.reach([*passes, udp("out", "near")])
    near, own = rig.pods["near"][0], NODE["n1"][0]
    for line in (
        f"default|gnp|log-raw: UDP {OUT[0]}:PORT → {near}:80",
        f"default|gnp|log-pre: TCP {OUT[0]}:PORT → {near}:81",
        f"default|gnp|log-own: TCP {OUT[0]}:PORT → {own}:80",
        f"default|gnp|log-fwd: TCP {OUT[0]}:PORT → {near}:80",
    ):
        pattern = re.escape(line).replace("PORT", r"\d+")
        wait_until(lambda: re.search(pattern, rig.log("n1", "daemon")), line, within=5)


def test_packets_of_untracked_policies_are_counted_by_rule(rig, field):
    guard(
        rig,
        host(interfaceName="eth0"),
        policy(
            "raw-counted",
            [allow("UDP", 53), rule("Deny", "UDP", destination=ports(80))],
            [rule("Allow", "UDP", source=ports(53))],
            doNotTrack=True,
            applyOnForward=True,
        ),
    )
    asked = udp("out", "n1", 53), udp("out", "n1", 80)
    expect(field, asked[:1], asked[1:])
    # Some of these may have been asked before the policies were in force.
    assert field.reach(asked, within=0.7) == {asked[0]}
    packets = [("ingress", 0, "allow"), ("ingress", 1, "deny"), ("egress", 0, "allow")]
    for direction, number, action in packets:
        counted = wait_until(lambda: told(rig, "raw-counted", direction, number), "a count", 5)
        assert counted["action"] == action and counted["connections"] == 0
        assert counted["bytes"] >= counted["packets"] * 28 > 0


def test_what_lets_connections_pass_is_counted_and_shown(rig, field):
    rig.store.write("service", [service(1, None, "NodePort", ("TCP",))] + [
        endpoint_slice(1, v, endpoint(rig.pods["near"][v], "n1")) for v in (0, 1)
    ])  # fmt: skip
    guard(
        rig,
        host(interfaceName="eth0", profiles=["projectcalico-default-allow"]),
        policy("pre-counted", [allow("TCP", 30001)], preDNAT=True, applyOnForward=True),
        policy("fwd-counted", [allow("TCP", 80)], [allow("TCP", 81)], applyOnForward=True),
    )
    passing = {tcp("out", "n1", 30001), tcp("out", "near"), tcp("near", "out", 81)}
    expect(field, passing, {tcp("out", "near", 81), tcp("near", "out")})
    # Some of these may have been asked before the policies were in force.
    assert field.reach(passing) == passing
    for name, direction in (
        ("pre-counted", "ingress"),
        ("fwd-counted", "ingress"),
        ("fwd-counted", "egress"),
    ):
        counted = wait_until(lambda: told(rig, name, direction), f"{name} {direction}", 8)
        assert counted["action"] == "allow" and counted["connections"] >= 1
        # A handshake, a request, an answer and two ends.
        assert counted["packets"] >= 6 * counted["connections"] - 6
    shown = [flow.get("passedIngress") for flow in ask(rig, "flows", "--net", rig.pods["near"][0])]
    for name in ("pre-counted", "fwd-counted"):
        assert {"policy": f"GlobalNetworkPolicy//{name}", "rule": 0} in shown, shown
    rig.store.remove("service")


def test_simulation_of_what_passes_agrees_with_live_packets(rig, field):
    guard(
        rig,
        host(interfaceName="eth0"),
        policy("raw", [rule("Deny", "TCP", destination=ports(8080))], doNotTrack=True,
               applyOnForward=True),
        policy("pre", [allow("TCP", 81), rule("Deny", "TCP", destination=ports(6443))],
               preDNAT=True, applyOnForward=True),
        policy("fwd", [allow("TCP", 80)], [allow("TCP", 80, 81)], applyOnForward=True),
    )  # fmt: skip
    places = {"out": OUT[0], "n1": NODE["n1"][0], "n2": NODE["n2"][0]}
    places |= {name: rig.pods[name][0] for name in ("near", "far")}
    pairs = [(a, b) for a in places for b in places if a != b and {a, b} != {"out", "n2"}]
    attempts = [tcp(a, b, port) for a, b in pairs for port in (22, 80, 81, 6443, 8080)]
    lines = "".join(
        json.dumps({"src": places[a.source], "dst": places[a.target], "protocol": "TCP",
                    "srcPort": 40000, "dstPort": a.port}) + "\n"
        for a in attempts
    )  # fmt: skip
    out = rig.ctl("policy", "simulate", "--forwarded", input=lines)
    answers = [json.loads(line) for line in out.splitlines()]
    allowed = {a for a, answer in zip(attempts, answers) if answer["verdict"] == "allow"}
    expect(field, allowed, set(attempts) - allowed)


# === processes die ===


def test_failsafe_ports_answer_while_the_daemon_is_dead_and_nothing_else_does(rig, field):
    guard(rig, host(interfaceName="eth0"), policy("own", [allow("TCP", 80)], [allow("TCP", 80)]))
    expect(field, {tcp("out", "n1"), tcp("n1", "out")}, {tcp("out", "n1", 81)})
    rig.kill("n1", "daemon")
    try:
        expect(
            field,
            {tcp("out", "n1", 22), tcp("out", "n1", 22, 6), tcp("n1", "out", 6443)},
            {tcp("out", "n1"), tcp("n1", "out"), tcp("out", "n1", 81), udp("out", "n1", 53)},
        )
    finally:
        rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "n1 ready", within=10)
    expect(
        field,
        {tcp("out", "n1"), tcp("n1", "out"), tcp("out", "n1", 22)},
        {tcp("out", "n1", 81), tcp("n1", "out", 81)},
    )


def test_generic_xdp_lets_in_what_it_sees_twice(rig, field):
    guard(rig, host(interfaceName="eth0"), policy("own", [allow("TCP", 80)], [allow("TCP", 81)]))
    rig.kill("n1", "daemon", signal.SIGTERM)
    # A veth refuses native XDP where its peer's packets may be larger than a page takes.
    rig.exec("wire", "ip", "link", "set", "n1", "mtu", 3700)
    try:
        rig.start("n1", "daemon")
        wait_until(lambda: rig.ready("n1"), "n1 ready", within=10)
        uplink = next(p for p in ask(rig, "node", "status")["ports"] if p["name"] == "eth0")
        assert uplink["mode"] == "generic"
        expect(
            field,
            {tcp("out", "n1"), tcp("out", "n1", 80, 6), tcp("n1", "out", 81), tcp("out", "n1", 22)},
            {tcp("out", "n1", 81), tcp("n1", "out")},
        )
        rig.conserved("n1")
    finally:
        rig.kill("n1", "daemon", signal.SIGTERM)
        rig.exec("wire", "ip", "link", "set", "n1", "mtu", 1500)
        rig.start("n1", "daemon")
        wait_until(lambda: rig.ready("n1"), "n1 ready", within=10)


def test_the_books_are_right(rig):
    rig.books_are_right()
