"""The cast of the upstream NetworkPolicy tests: pods a, b and c in each of the namespaces x, y, z.

They stand on both nodes, so that every matrix has pairs on one node and across. What is reachable
is asked twice: with real packets, and of `margayctl policy simulate`.
"""

import json
import time
import warnings

from traffic import Attempt, Field

NAMESPACES = "xyz"
NAMES = "abc"
IN_FORCE = 0.25  # seconds after which a changed document decides
PODS = [namespace + name for namespace in NAMESPACES for name in NAMES]
# Both TCP families and both ports always; the other protocols where they matter little cost little.
USUAL = (("TCP", 80, 4), ("TCP", 80, 6), ("TCP", 81, 4), ("UDP", 80, 4), ("SCTP", 80, 6))
EVERY = tuple(
    (protocol, port, family)
    for protocol in ("TCP", "UDP", "SCTP")
    for port in (80, 81)
    for family in (4, 6)
)


def node_of(pod):
    """Pods a live on n1, b on n2, c on either by namespace."""
    return {"a": "n1", "b": "n2"}.get(pod[1]) or ("n2" if pod[0] == "y" else "n1")


def pod_document(pod, labels):
    """A Pod document with the upstream tests' port names (`serve-80-tcp`, …)."""
    ports = [
        {"name": f"serve-{port}-{protocol.lower()}", "containerPort": port, "protocol": protocol}
        for port in (80, 81)
        for protocol in ("TCP", "UDP", "SCTP")
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod, "namespace": pod[0], "labels": labels},
        "spec": {
            "nodeName": node_of(pod),
            "containers": [{"name": "c", "image": "none", "ports": ports}],
        },
    }


def namespace_document(name, **labels):
    """A Namespace document, labelled `ns=NAME` as upstream does."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"ns": name} | labels},
    }


class Nine:
    """The nine pods on a rig, with their servers."""

    def __init__(self, rig):
        self.rig = rig
        self.field = Field(rig)
        for namespace in NAMESPACES:
            rig.store.write(f"ns-{namespace}", namespace_document(namespace))
        for pod in PODS:
            rig.pod(node_of(pod), pod[0], pod, pod=pod[1])
            rig.store.write(f"pod-{pod}", pod_document(pod, {"pod": pod[1]}))
            self.field.join(pod)

    def policies(self, *documents):
        """Makes these the policies in force, in one rename."""
        if documents:
            self.rig.store.write("policies", list(documents))
        else:
            self.rig.store.remove("policies")
        time.sleep(IN_FORCE)

    def document(self, name, document):
        """Puts another document in force."""
        self.rig.store.write(name, document)
        time.sleep(IN_FORCE)

    def check(self, allowed, flavours=USUAL, pairs=None):
        """Asserts that exactly the attempts for which `allowed` holds succeed, live and simulated."""
        pairs = pairs or [(source, target) for source in PODS for target in PODS]
        attempts = [Attempt(*pair, *flavour) for pair in pairs for flavour in flavours]
        want = {one for one in attempts if one.source == one.target or allowed(one)}
        got = set()
        for within in (0.8, 2.0, 3.0):
            got = self.field.reach(attempts, within)
            if got == want:
                break
            told = "; ".join(self._differences("live", got, want))
            warnings.warn(f"within {within} s {told}", stacklevel=2)
        simulated = self.simulate(attempts)
        problems = self._differences("live", got, want)
        problems += self._differences("simulated", simulated, want)
        assert not problems, "; ".join(problems)

    def simulate(self, attempts):
        """Which attempts `policy simulate` allows."""
        lines = [
            {
                "src": self.field.address[one.source][one.family],
                "dst": self.field.address[one.target][one.family],
                "protocol": one.protocol,
                "srcPort": 40000,
                "dstPort": one.port,
            }
            for one in attempts
        ]
        answers = self.rig.ctl(
            "policy", "simulate", input="\n".join(json.dumps(line) for line in lines)
        )
        verdicts = [json.loads(answer)["verdict"] for answer in answers.splitlines()]
        assert len(verdicts) == len(attempts)
        return {one for one, verdict in zip(attempts, verdicts) if verdict == "allow"}

    @staticmethod
    def _differences(how, got, want):
        def told(some):
            listed = sorted(
                f"{a.source}→{a.target} {a.protocol}/{a.port} v{a.family}" for a in some
            )
            return f"{len(listed)}: {', '.join(listed[:12])}"

        problems = []
        if got - want:
            problems.append(f"{how}: reached, but should not ({told(got - want)})")
        if want - got:
            problems.append(f"{how}: not reached, but should ({told(want - got)})")
        return problems

    def close(self):
        """Closes the servers; the pods go with the rig."""
        self.field.close()
