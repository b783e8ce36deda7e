"""Three opinions about more than ten thousand tuples: the simulation, live packets, and NCA.

NCA is the public package network-config-analyzer, somebody else's reading of Kubernetes' and
Calico's documentation. Policies are made from seeds (generated.py). A tuple is a source, a
destination, a protocol and a port; live, it is allowed if and only if one packet arrives.
"""

import json
import random

import pytest
from documents import both, calico, policy, rule
from generated import OUTSIDE, PORTS, Maker, cast
from opinions import Opinion
from probes import Probe, Probes
from rig import NODES

SEEDS = range(1, 11)
CAST = cast()
PODS = {
    document["metadata"]["name"]: document
    for document in CAST.values()
    if document["kind"] == "Pod"
}
OUTSIDERS = {f"out{number}": addresses for number, addresses in enumerate(OUTSIDE)}
PLACES = [*PODS, *OUTSIDERS]
TUPLES = [
    (source, target, protocol, port)
    for source in PLACES
    for target in PLACES
    if source != target and (source in PODS or target in PODS)
    for protocol, ports in PORTS.items()
    for port in ports
]


class Trial:
    """The cast on a rig, with an outside host that has several addresses."""

    def __init__(self, rig):
        self.rig = rig
        self.probes = Probes(rig)
        for name, document in CAST.items():
            if document["kind"] == "Namespace":
                rig.store.write(name, document)
        for name, document in PODS.items():
            rig.pod(document["spec"]["nodeName"], document["metadata"]["namespace"], name)
            rig.store.write(f"pod-{name}", document)
            self.probes.join(name)
            self._route(name)
        for name, addresses in OUTSIDERS.items():
            for address in addresses:
                length = "128" if ":" in address else "24"
                rig.exec("out", "ip", "addr", "replace", f"{address}/{length}", "dev", "eth0")
            self.probes.join(name, "out", addresses)

    def _route(self, pod):
        """The outside host reaches a pod by the pod's node."""
        node = {"n1": 1, "n2": 2}[PODS[pod]["spec"]["nodeName"]]
        for address in self.rig.pods[pod]:
            via = f"fd20::{node}" if ":" in address else f"172.20.0.{node}"
            self.rig.exec("out", "ip", "route", "replace", address, "via", via)

    def put(self, documents, nodes=NODES):
        """Makes these the policies in force, which changes what these nodes know."""
        with self.rig.changing(*nodes):
            self.rig.store.write("policies", documents)

    def live(self, probes, expected, source_port):
        """The probes that arrive. What was expected and did not come is sent again: it may be lost."""
        came = self.probes.arrived(probes, source_port)
        for within in (0.5, 1.0, 2.0):
            lost = [probe for probe in expected if probe not in came]
            if lost:
                came |= self.probes.arrived(lost, source_port, within)
        return came

    def simulated(self, probes, source_port):
        """The probes that `policy simulate` allows, and its whole answers."""
        lines = [
            {
                "src": self.probes.address[probe.source][probe.family],
                "dst": self.probes.address[probe.target][probe.family],
                "protocol": probe.protocol,
                "srcPort": source_port,
                "dstPort": probe.port,
            }
            for probe in probes
        ]
        text = self.rig.ctl("policy", "simulate", input="\n".join(map(json.dumps, lines)))
        answers = dict(zip(probes, map(json.loads, text.splitlines()), strict=True))
        return {probe for probe in probes if answers[probe]["verdict"] == "allow"}, answers

    def opinion(self, name, documents):
        """The package's opinion; it is asked while others go on."""
        return Opinion(self.rig.run / "opinions" / name, [*CAST.values(), *documents])

    def package_says(self, opinion, probes, source_port):
        """The probes that the package allows."""

        def end(name, family):
            if name in OUTSIDERS:
                return self.probes.address[name][family]
            return f"{PODS[name]['metadata']['namespace']}/{name}"

        return {
            probe
            for probe in probes
            if opinion.allows(
                end(probe.source, probe.family),
                end(probe.target, probe.family),
                probe.protocol,
                source_port,
                probe.port,
            )
        }


@pytest.fixture(scope="module")
def trial(rig):
    trial = Trial(rig)
    yield trial
    trial.probes.close()


def test_there_are_more_than_ten_thousand_tuples_between_pods_alone():
    assert len(set(TUPLES)) == len(TUPLES)
    between_pods = [one for one in TUPLES if one[0] in PODS and one[1] in PODS]
    assert len(between_pods) * len(SEEDS) > 10_000


@pytest.mark.parametrize("seed", SEEDS)
def test_simulation_packets_and_package_agree(trial, seed):
    chance, source_port = random.Random(seed), 40000 + seed
    documents = Maker(chance).policies()
    probes = [Probe(*one, chance.choice((4, 6))) for one in TUPLES]
    opinion = trial.opinion(f"seed-{seed}", documents)
    try:
        trial.put(documents)
        simulated, answers = trial.simulated(probes, source_port)
        live = trial.live(probes, simulated, source_port)
        package = trial.package_says(opinion, probes, source_port)
    finally:
        opinion.close()
    differ = []
    for probe in probes:
        told = {"simulated": probe in simulated, "live": probe in live, "package": probe in package}
        if len(set(told.values())) > 1:
            differ.append(f"{probe} allowed? {told}; the simulation: {answers[probe]}")
    assert not differ, "\n".join([f"{len(differ)} of {len(probes)} differ", *differ[:40]])
    share = len(simulated) / len(probes)
    assert 0.05 < share < 0.95, f"the policies of seed {seed} decide too little: {share:.0%} pass"


# === where the package is another opinion than the specification ===


def let_in(**entity):
    """Calico's x/xa lets in what an entity says."""
    return calico(
        "NetworkPolicy",
        "p",
        "x",
        selector="pod == 'a'",
        types=["Ingress"],
        ingress=[rule("Allow", source=entity)],
    )


TARGET = "xa"
KEY = {"matchExpressions": [{"key": "role", "operator": "Exists"}]}
# Name → document, source, family, and whether a TCP packet to xa may pass by the specification.
# The package says the opposite, so the generator leaves these out.
DIFFERENCES = {
    "nets_hold_pods_as_well_for_calico_matches_addresses_and_not_only_strangers": (
        let_in(nets=["10.244.0.0/16"]),
        ("xb", 4, True),
    ),
    "all_fields_of_an_entity_hold_together_nets_and_selectors_too": (
        let_in(nets=["10.244.0.0/16"], selector="pod == 'b'"),
        ("xb", 4, True),
    ),
    "a_rule_with_nets_of_one_family_does_not_exist_in_the_other": (
        let_in(notNets=["172.20.0.104/29"]),
        ("out1", 6, False),
    ),
    "a_not_selector_of_a_namespaced_policy_is_limited_to_its_namespace": (
        let_in(notSelector="pod == 'b'"),
        ("ya", 4, False),
    ),
    "a_pod_selector_beside_a_namespace_selector_looks_into_those_namespaces_for_keys_too": (
        policy("p", "x", {"pod": "a"}, ingress=[{"from": [both({"ns": "y"}, KEY)]}]),
        ("ya", 4, True),
    ),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_where_the_package_reads_otherwise_ours_is_as_specified(trial, case):
    document, (source, family, passes) = DIFFERENCES[case]
    probe, source_port = Probe(source, TARGET, "TCP", 80, family), 41000
    opinion = trial.opinion(case, [document])
    try:
        trial.put([document], [PODS[TARGET]["spec"]["nodeName"]])
        simulated, _answers = trial.simulated([probe], source_port)
        want = {probe} if passes else set()
        assert simulated == want
        assert trial.live([probe], want, source_port) == want
        theirs = trial.package_says(opinion, [probe], source_port)
        assert theirs != want, "the package agrees now: the generator may make such policies"
    finally:
        opinion.close()


def test_packets_are_conserved_and_the_kernel_forwarded_none(trial):
    trial.rig.store.remove("policies")
    trial.rig.books_are_right()
