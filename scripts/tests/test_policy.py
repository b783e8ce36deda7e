"""The upstream Kubernetes NetworkPolicy scenarios: whole reachability matrices of nine pods."""

import pytest
from documents import among, both, pods, policy, port, spaces
from nine import EVERY, USUAL, Nine

TCP = (("TCP", 80, 4), ("TCP", 80, 6), ("TCP", 81, 4), ("TCP", 81, 6))
EVERYTHING_BUT_V6 = tuple(flavour for flavour in EVERY if flavour[2] == 4)


@pytest.fixture(scope="module")
def nine(rig):
    nine = Nine(rig)
    yield nine
    nine.close()


DENY_IN = policy("deny-in", "x", types=["Ingress"])
DENY_OUT = policy("deny-out", "x", types=["Egress"])
DENY_ALL = policy("deny-all", "x", types=["Ingress", "Egress"])
ALLOW_IN = policy("allow-in", "x", ingress=[{}])
ALLOW_OUT = policy("allow-out", "x", egress=[{}])


def to_xa(*peers, ports=None, name="in"):
    """A policy on x/a that lets these peers in."""
    rule = ({"from": list(peers)} if peers else {}) | ({"ports": ports} if ports else {})
    return policy(name, "x", {"pod": "a"}, ingress=[rule])


def from_xa(*peers, ports=None, name="out"):
    """A policy on x/a that lets it out to these peers."""
    rule = ({"to": list(peers)} if peers else {}) | ({"ports": ports} if ports else {})
    return policy(name, "x", {"pod": "a"}, egress=[rule])


# Name → policies, whether an attempt should succeed, and the flavours of attempts.
SCENARIOS = {
    "without_policy_everything_is_open": ([], lambda one: True, EVERY),
    "default_deny_ingress": ([DENY_IN], lambda one: one.target[0] != "x", EVERY),
    "default_deny_egress": ([DENY_OUT], lambda one: one.source[0] != "x", EVERY),
    "default_deny_of_both": (
        [DENY_ALL],
        lambda one: "x" not in (one.source[0], one.target[0]),
        USUAL,
    ),
    "allow_all_ingress": ([ALLOW_IN], lambda one: True, USUAL),
    "allow_all_wins_over_deny": ([DENY_ALL, ALLOW_IN, ALLOW_OUT], lambda one: True, USUAL),
    "pods_of_the_own_namespace_by_label": (
        [to_xa(pods(pod="b"))],
        lambda one: one.target != "xa" or one.source == "xb",
        USUAL,
    ),
    "any_pod_of_the_own_namespace": (
        [to_xa(pods())],
        lambda one: one.target != "xa" or one.source[0] == "x",
        USUAL,
    ),
    "namespaces_by_label": (
        [to_xa(spaces(ns="y"))],
        lambda one: one.target != "xa" or one.source[0] == "y",
        USUAL,
    ),
    "any_pod_of_any_namespace": ([to_xa(spaces())], lambda one: True, USUAL),
    "pods_by_expression": (
        [to_xa({"podSelector": among("pod", "In", "b", "c")})],
        lambda one: one.target != "xa" or one.source in ("xb", "xc"),
        USUAL,
    ),
    "namespaces_by_expression": (
        [to_xa({"namespaceSelector": among("ns", "NotIn", "x", "z")})],
        lambda one: one.target != "xa" or one.source[0] == "y",
        USUAL,
    ),
    "a_label_that_exists": (
        [
            to_xa(
                {
                    "namespaceSelector": among("ns", "Exists"),
                    "podSelector": among("pod", "DoesNotExist"),
                }
            )
        ],
        lambda one: one.target != "xa",
        USUAL,
    ),
    "namespaces_by_their_standard_name": (
        [to_xa({"namespaceSelector": among("kubernetes.io/metadata.name", "In", "z")})],
        lambda one: one.target != "xa" or one.source[0] == "z",
        USUAL,
    ),
    "selected_pods_by_expression": (
        [policy("some", "x", among("pod", "In", "a", "b"), types=["Ingress"])],
        lambda one: one.target not in ("xa", "xb"),
        USUAL,
    ),
    "pod_selector_or_namespace_selector": (
        [to_xa(pods(pod="b"), spaces(ns="y"))],
        lambda one: one.target != "xa" or one.source == "xb" or one.source[0] == "y",
        USUAL,
    ),
    "pod_selector_and_namespace_selector": (
        [to_xa(both({"ns": "y"}, {"pod": "b"}))],
        lambda one: one.target != "xa" or one.source == "yb",
        USUAL,
    ),
    "several_selectors_of_both_kinds": (
        [to_xa(both(among("ns", "NotIn", "x"), among("pod", "In", "b", "c")))],
        lambda one: one.target != "xa" or (one.source[0] in "yz" and one.source[1] in "bc"),
        USUAL,
    ),
    "one_port": (
        [to_xa(ports=[port(81)])],
        lambda one: one.target != "xa" or (one.protocol, one.port) == ("TCP", 81),
        EVERY,
    ),
    "a_port_from_a_namespace": (
        [to_xa(spaces(ns="y"), ports=[port(81)])],
        lambda one: one.target != "xa"
        or (one.source[0] == "y" and (one.protocol, one.port) == ("TCP", 81)),
        USUAL,
    ),
    "two_policies_for_two_ports_add_up": (
        [
            to_xa(spaces(ns="y"), ports=[port(81)], name="one"),
            to_xa(spaces(ns="y"), ports=[port(80)], name="two"),
        ],
        lambda one: one.target != "xa" or (one.source[0] == "y" and one.protocol == "TCP"),
        USUAL,
    ),
    "a_port_range": (
        [to_xa(ports=[port(79, end=80)])],
        lambda one: one.target != "xa" or (one.protocol, one.port) == ("TCP", 80),
        TCP,
    ),
    "a_named_port": (
        [to_xa(ports=[port("serve-81-tcp")])],
        lambda one: one.target != "xa" or (one.protocol, one.port) == ("TCP", 81),
        EVERYTHING_BUT_V6,
    ),
    "a_named_port_on_the_way_out": (
        [from_xa(ports=[port("serve-80-tcp")])],
        lambda one: one.source != "xa" or (one.protocol, one.port) == ("TCP", 80),
        EVERYTHING_BUT_V6,
    ),
    "a_named_port_of_another_protocol_opens_nothing": (
        [to_xa(ports=[port("serve-80-udp")])],
        lambda one: one.target != "xa",
        TCP,
    ),
    "udp_only": (
        [to_xa(ports=[port(80, "UDP")])],
        lambda one: one.target != "xa" or (one.protocol, one.port) == ("UDP", 80),
        EVERY,
    ),
    "sctp_only": (
        [to_xa(ports=[port(80, "SCTP")])],
        lambda one: one.target != "xa" or (one.protocol, one.port) == ("SCTP", 80),
        EVERY,
    ),
    "a_protocol_without_a_port": (
        [to_xa(ports=[{"protocol": "UDP"}])],
        lambda one: one.target != "xa" or one.protocol == "UDP",
        EVERY,
    ),
    "egress_to_a_namespace": (
        [from_xa(spaces(ns="y"))],
        lambda one: one.source != "xa" or one.target[0] == "y",
        USUAL,
    ),
    "egress_to_two_kinds_of_peers": (
        [from_xa(pods(pod="b"), name="one"), from_xa(spaces(ns="y"), name="two")],
        lambda one: one.source != "xa" or one.target == "xb" or one.target[0] == "y",
        USUAL,
    ),
    "egress_and_ingress_together": (
        [
            policy(
                "both",
                "x",
                {"pod": "a"},
                ingress=[{"from": [spaces(ns="y")]}],
                egress=[
                    {"to": [spaces(ns="z")], "ports": [port(80), port(80, "UDP"), port(80, "SCTP")]}
                ],
            )
        ],
        lambda one: (one.target != "xa" or one.source[0] == "y")
        and (one.source != "xa" or (one.target[0] == "z" and one.port == 80)),
        USUAL,
    ),
    "egress_of_one_and_ingress_of_the_other_must_both_allow": (
        [
            from_xa(spaces(ns="y")),
            policy("in", "y", {"pod": "a"}, ingress=[{"from": [spaces(ns="z")]}]),
        ],
        lambda one: (one.source != "xa" or one.target[0] == "y")
        and (one.target != "ya" or one.source[0] == "z"),
        USUAL,
    ),
    "the_order_of_policies_does_not_matter": (
        [to_xa(spaces(ns="z"), name="a"), DENY_IN, to_xa(pods(pod="c"), name="zz")],
        lambda one: one.target[0] != "x"
        or (one.target == "xa" and (one.source[0] == "z" or one.source == "xc")),
        USUAL,
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_reachability_is_as_the_policies_say(nine, scenario):
    documents, allowed, flavours = SCENARIOS[scenario]
    nine.policies(*documents)
    nine.check(allowed, flavours)


def block(nine, pod, *excepted):
    """Peers that name a pod's addresses, or everything but some pods' addresses."""
    v4, v6 = nine.field.address[pod].values() if pod else ("0.0.0.0", "::")
    out = [nine.field.address[name].values() for name in excepted]
    peers = []
    for cidr, width, family in ((v4, 32, 0), (v6, 128, 1)):
        peer = {"cidr": f"{cidr}/{width if pod else 0}"}
        if out:
            peer["except"] = [f"{list(addresses)[family]}/{width}" for addresses in out]
        peers.append({"ipBlock": peer})
    return peers


def test_an_ip_block_lets_out_to_its_addresses_only(nine):
    nine.policies(from_xa(*block(nine, "yb")))
    nine.check(lambda one: one.source != "xa" or one.target == "yb")


def test_an_ip_block_excepts_some_addresses(nine):
    nine.policies(from_xa(*block(nine, None, "yb", "xc")))
    nine.check(lambda one: one.source != "xa" or one.target not in ("yb", "xc"))


def test_an_ip_block_opens_again_what_another_excepts(nine):
    nine.policies(from_xa(*block(nine, None, "yb", "xc"), *block(nine, "yb")))
    nine.check(lambda one: one.source != "xa" or one.target != "xc")


def test_an_ip_block_judges_who_comes_in(nine):
    nine.policies(to_xa(*block(nine, "yb")))
    nine.check(lambda one: one.target != "xa" or one.source == "yb")


def test_packets_are_conserved_and_the_kernel_forwarded_none(nine):
    nine.policies()
    nine.rig.books_are_right()
