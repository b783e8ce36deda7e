"""Upstream's own cases of policy with live packets, and what they say of loops and of pods that end."""

import socket
import time

import pytest
from rig import wait_until
from traffic import Attempt, Field
from upstream import Upstream, cases, node_of

OWN_SERVICE = {4: "10.96.0.61", 6: "fd96::61"}


@pytest.fixture(scope="module")
def upstream(rig):
    upstream = Upstream(rig)
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def field(upstream):
    field = Field(upstream.rig)
    for pod in ("xa", "xb", "ya"):
        field.join(pod)
    yield field
    field.close()


@pytest.mark.parametrize("table", ["kubernetes", "cluster", "calico"])
def test_every_case_holds_for_live_packets(upstream, table):
    asked, wrong = [], []
    for title, steps in cases(table):
        if steps not in asked:  # Several titles may be about the same steps.
            asked.append(steps)
            wrong += [f"{title}: {one}" for one in upstream.walk(steps)]
    assert len(asked) > 15
    assert not wrong, "\n".join(wrong)


# === loops ===

CLOSED = {
    "kubernetes x/closed": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    "cluster closed": {
        "tier": "Admin",
        "priority": 1,
        "subject": {"namespaces": {"matchLabels": {"ns": "x"}}},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"ns": "x"}}}]}],
    },
}


def both_families(*pairs, port=80):
    """Attempts by TCP of these pairs."""
    return {Attempt(*pair, "TCP", port, family) for pair in pairs for family in (4, 6)}


def test_a_pod_reaches_itself_whatever_its_policy(upstream, field):
    upstream.put(CLOSED)
    own, others = both_families(("xa", "xa")), both_families(("xa", "xb"), ("ya", "xa"))
    wait_until(lambda: field.reach(own | others, 0.4) == own, "only itself")
    assert all(upstream.rig.ping("xa", address) for address in upstream.rig.pods["xa"])


def test_a_service_leads_a_pod_back_to_itself_and_to_no_other_that_denies_it(upstream, field):
    spec = {
        "clusterIP": OWN_SERVICE[4],
        "clusterIPs": list(OWN_SERVICE.values()),
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
        "selector": {"pod": "a"},
        "ports": [{"port": 80}],
    }
    upstream.put({"Service x/own": spec, "cluster closed": CLOSED["cluster closed"]})
    field.address["own"] = OWN_SERVICE
    allowed, denied = both_families(("xa", "own"), ("ya", "own")), both_families(("xb", "own"))
    wait_until(lambda: field.reach(allowed | denied, 0.4) == allowed, "the pod itself and others")


# === pods that end ===


def test_a_pod_that_terminates_is_policed_and_reached_until_it_is_detached(upstream, field):
    """Its document says that it is being deleted; it serves, and asks, until its network is gone."""
    rig = upstream.rig
    upstream.put({
        "kubernetes x/in": {
            "podSelector": {"matchLabels": {"pod": "a"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}],
            "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}],
        }
    })  # fmt: skip
    open_pairs = both_families(("xb", "xa"), ("xa", "ya"))
    closed_pairs = both_families(("ya", "xa"), ("xa", "xb"))
    as_said = lambda: field.reach(open_pairs | closed_pairs, 0.4) == open_pairs
    wait_until(as_said, "the policy")
    with rig.inside("xb"):
        stream = socket.create_connection((rig.pods["xa"][0], 80), 3)
    ending = upstream.pod("x/a")
    ending["metadata"] |= {
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 30,
    }
    ending["status"] = {
        "phase": "Running",
        "podIPs": [{"ip": ip} for ip in rig.pods["xa"]],
        "conditions": [{"type": "Ready", "status": "False"}],
    }
    rig.store.write("pod-xa", ending)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert as_said()
    stream.settimeout(2)
    stream.sendall(b"still here")
    assert stream.recv(64) == b"still here"
    stream.close()
    rig.unpod(node_of("xa"), "x", "xa")
    rig.store.remove("pod-xa")
    assert field.reach(both_families(("xb", "xa")), 0.5) == set()


def test_packets_are_conserved_and_the_kernel_forwarded_none(upstream):
    upstream.put({})
    upstream.rig.books_are_right()
