"""Calico's own policies on live traffic: tiers, order, Deny and Pass, Log, sets of nets, ICMP types."""

import json
import socket
import struct
import time

import pytest
from documents import calico, policy, rule, spaces
from nine import EVERY, USUAL, Nine

TCP = (("TCP", 80, 4), ("TCP", 80, 6), ("TCP", 81, 4))
ALLOW = rule("Allow")


@pytest.fixture(scope="module")
def nine(rig):
    nine = Nine(rig)
    yield nine
    nine.close()


def glob(name, selector, tier=None, order=None, **spec):
    """A GlobalNetworkPolicy."""
    spec |= ({"tier": tier} if tier else {}) | ({"order": order} if order is not None else {})
    return calico("GlobalNetworkPolicy", name, selector=selector, **spec)


def tier(name, order, action=None):
    """A Tier."""
    return calico("Tier", name, order=order, **({"defaultAction": action} if action else {}))


IN_X = "projectcalico.org/namespace == 'x'"
XA = f"{IN_X} && pod == 'a'"
FROM_Y = {"namespaceSelector": "ns == 'y'"}
K8S_OPEN = policy("open", "x", ingress=[{}])
K8S_CLOSED = policy("closed", "x", types=["Ingress"])

# Name → documents, whether an attempt should succeed, and the flavours of attempts.
SCENARIOS = {
    "a_global_policy_without_rules_closes_what_it_selects": (
        [glob("g", IN_X, types=["Ingress"])],
        lambda one: one.target[0] != "x",
        USUAL,
    ),
    "a_global_policy_spans_namespaces": (
        [
            glob(
                "g", "pod in {'a', 'b'}", ingress=[rule("Allow", source={"selector": "pod == 'c'"})]
            )
        ],
        lambda one: one.target[1] == "c" or one.source[1] == "c",
        USUAL,
    ),
    "a_deny_before_an_allow_of_all": (
        [glob("g", XA, ingress=[rule("Deny", source=FROM_Y), ALLOW])],
        lambda one: one.target != "xa" or one.source[0] != "y",
        USUAL,
    ),
    "a_rule_for_one_protocol_leaves_the_others_alone": (
        [
            glob(
                "g",
                XA,
                ingress=[
                    rule("Deny", "SCTP"),
                    rule("Deny", "UDP", destination={"ports": [80]}),
                    ALLOW,
                ],
            )
        ],
        lambda one: one.target != "xa"
        or not (one.protocol == "SCTP" or (one.protocol, one.port) == ("UDP", 80)),
        EVERY,
    ),
    "the_lower_order_decides": (
        [
            glob("late", XA, order=20, ingress=[rule("Deny")]),
            glob("early", XA, order=10, ingress=[rule("Allow", source=FROM_Y)]),
        ],
        lambda one: one.target != "xa" or one.source[0] == "y",
        USUAL,
    ),
    "an_earlier_tier_denies_what_kubernetes_allows": (
        [
            tier("first", 10),
            glob(
                "first.g", IN_X, tier="first", ingress=[rule("Deny", source=FROM_Y), rule("Pass")]
            ),
            K8S_OPEN,
        ],
        lambda one: one.target[0] != "x" or one.source[0] != "y",
        USUAL,
    ),
    "an_earlier_tier_allows_what_kubernetes_denies": (
        [
            tier("first", 10),
            glob(
                "first.g", IN_X, tier="first", ingress=[rule("Allow", source=FROM_Y), rule("Pass")]
            ),
            K8S_CLOSED,
        ],
        lambda one: one.target[0] != "x" or one.source[0] == "y",
        USUAL,
    ),
    "a_tiers_end_denies_what_none_of_its_policies_names": (
        [
            tier("first", 10),
            glob("first.g", XA, tier="first", ingress=[rule("Pass", source=FROM_Y)]),
            K8S_OPEN,
        ],
        lambda one: one.target != "xa" or one.source[0] == "y",
        USUAL,
    ),
    "a_tiers_end_passes_if_the_tier_says_so": (
        [
            tier("first", 10, "Pass"),
            glob("first.g", XA, tier="first", ingress=[rule("Deny", source=FROM_Y)]),
            K8S_OPEN,
        ],
        lambda one: one.target != "xa" or one.source[0] != "y",
        USUAL,
    ),
    "a_pass_in_the_last_tier_leads_to_the_profile": (
        [glob("g", XA, ingress=[rule("Pass", source=FROM_Y), rule("Deny")])],
        lambda one: one.target != "xa" or one.source[0] == "y",
        USUAL,
    ),
    "a_policy_of_one_direction_says_nothing_about_the_other": (
        [
            tier("first", 10),
            glob(
                "first.g",
                IN_X,
                tier="first",
                egress=[rule("Deny", destination={"selector": IN_X}), rule("Pass")],
            ),
        ],
        lambda one: one.source[0] != "x" or one.target[0] != "x",
        USUAL,
    ),
    "log_goes_on_with_the_next_rule": (
        [
            glob(
                "g",
                XA,
                ingress=[rule("Log"), rule("Allow", source=FROM_Y), rule("Log"), rule("Deny")],
            )
        ],
        lambda one: one.target != "xa" or one.source[0] == "y",
        TCP,
    ),
    "a_calico_policy_of_a_namespace_selects_within_it": (
        [
            calico(
                "NetworkPolicy",
                "p",
                "x",
                selector="pod == 'a'",
                ingress=[rule("Allow", source={"selector": "pod == 'b'"})],
            )
        ],
        lambda one: one.target != "xa" or one.source == "xb",
        TCP,
    ),
    "a_negated_selector": (
        [glob("g", XA, ingress=[rule("Allow", source={"notSelector": "pod == 'b'"})])],
        lambda one: one.target != "xa" or one.source[1] != "b",
        TCP,
    ),
    "a_negated_protocol_and_negated_ports": (
        [
            glob(
                "g",
                XA,
                ingress=[
                    {"action": "Deny", "notProtocol": "TCP"},
                    rule("Allow", "TCP", destination={"notPorts": ["81:90"]}),
                ],
            )
        ],
        lambda one: one.target != "xa" or (one.protocol, one.port) == ("TCP", 80),
        EVERY,
    ),
    "a_rule_of_one_ip_version": (
        [glob("g", XA, ingress=[rule("Deny") | {"ipVersion": 6}, ALLOW])],
        lambda one: one.target != "xa" or one.family == 4,
        TCP,
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_reachability_is_as_the_policies_say(nine, scenario):
    documents, allowed, flavours = SCENARIOS[scenario]
    nine.policies(*documents)
    nine.check(allowed, flavours)


# === sets of nets ===


def test_a_network_set_is_selected_by_its_labels_and_follows_its_nets(nine):
    def allow(*members):
        nets = [address for pod in members for address in nine.rig.pods[pod]]
        return [
            calico("GlobalNetworkSet", "friends", labels={"kind": "friend"}, nets=nets),
            glob("g", XA, ingress=[rule("Allow", source={"selector": "kind == 'friend'"})]),
        ]

    nine.policies(*allow("yb"))
    nine.check(lambda one: one.target != "xa" or one.source == "yb")
    nine.policies(*allow("zb", "zc"))
    nine.check(lambda one: one.target != "xa" or one.source in ("zb", "zc"))


def test_a_network_set_of_another_namespace_needs_a_namespace_selector(nine):
    nets = list(nine.rig.pods["zb"])
    documents = [calico("NetworkSet", "friends", "y", {"kind": "friend"}, nets=nets)]
    own = {"selector": "kind == 'friend'"}
    for source, reached in ((own, ()), (own | FROM_Y, ("zb",))):
        allow = calico(
            "NetworkPolicy", "p", "x", selector="pod == 'a'", ingress=[rule("Allow", source=source)]
        )
        nine.policies(*documents, allow)
        nine.check(lambda one: one.target != "xa" or one.source in reached, TCP)


def test_nets_and_their_exceptions_judge_a_host_outside(nine):
    """The outside host reaches pods by a route over the pod's node."""
    rig, pod = nine.rig, nine.rig.pods["xa"][0]
    rig.exec("out", "ip", "route", "replace", pod, "via", "172.20.0.1")
    nine.policies(glob("g", XA, ingress=[rule("Allow", source={"nets": ["172.20.0.0/24"]})]))
    assert rig.ping("out", pod)
    nine.policies(
        glob(
            "g",
            XA,
            ingress=[
                rule("Allow", source={"nets": ["172.20.0.0/24"], "notNets": ["172.20.0.100/32"]})
            ],
        )
    )
    assert not rig.ping("out", pod)


# === ICMP types ===


def timestamp_answered(rig, source, target):
    """Whether an ICMP timestamp request (type 13, RFC 792) is answered; Linux does so by itself."""
    with rig.inside(source):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    body = struct.pack("!HHIII", 0x4D47, 1, 0, 0, 0)
    total = sum(struct.unpack("!9H", b"\x0d\0" + body))
    checksum = ~(total % 0xFFFF) & 0xFFFF
    with raw:
        raw.settimeout(0.2)
        raw.sendto(struct.pack("!BBH", 13, 0, checksum) + body, (target, 0))
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                if raw.recv(256)[20] == 14:
                    return True
            except TimeoutError:
                continue
    return False


def icmp_verdict(nine, source, target, kind):
    """What the simulation says of an ICMP packet."""
    protocol = "ICMPv6" if ":" in target else "ICMP"
    line = {"src": source, "dst": target, "protocol": protocol, "icmpType": kind, "icmpCode": 0}
    return json.loads(nine.rig.ctl("policy", "simulate", input=json.dumps(line)))["verdict"]


@pytest.mark.parametrize("allowed", [8, 13])
@pytest.mark.parametrize("source", ["xb", "xc"])
def test_icmp_is_judged_by_its_type(nine, source, allowed):
    ours, theirs = nine.rig.pods[source][0], nine.rig.pods["xa"][0]
    nine.policies()
    assert nine.rig.ping(source, theirs) and timestamp_answered(nine.rig, source, theirs)
    nine.policies(glob("g", XA, ingress=[rule("Allow", "ICMP", {"type": allowed})]))
    assert nine.rig.ping(source, theirs) == (allowed == 8)
    assert timestamp_answered(nine.rig, source, theirs) == (allowed == 13)
    for kind in (8, 13):
        assert icmp_verdict(nine, ours, theirs, kind) == ("allow" if kind == allowed else "deny")


@pytest.mark.parametrize("source", ["xb", "xc"])
def test_icmp6_is_judged_by_its_type(nine, source):
    theirs = nine.rig.pods["xa"][1]
    for kind, passes in ((128, True), (1, False)):
        nine.policies(glob("g", XA, ingress=[rule("Allow", "ICMPv6", {"type": kind})]))
        assert nine.rig.ping(source, theirs) == passes
        assert (icmp_verdict(nine, nine.rig.pods[source][1], theirs, 128) == "allow") == passes


def test_an_icmp_error_of_an_allowed_connection_passes_a_policy_without_icmp(nine):
    """UDP to a closed port is refused at once: the error comes back through the asker's policy."""
    nine.policies(
        policy(
            "ask",
            "x",
            {"pod": "a"},
            ingress=[],
            egress=[{"to": [spaces()], "ports": [{"protocol": "UDP"}]}],
        )
    )
    for target in ("xb", "xc"):
        with nine.rig.inside("xa"):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.settimeout(1)
            client.connect((nine.rig.pods[target][0], 9))
            client.send(b"?")
            with pytest.raises(ConnectionRefusedError):
                client.recv(16)


def test_packets_are_conserved_and_the_kernel_forwarded_none(nine):
    nine.policies()
    nine.rig.books_are_right()
