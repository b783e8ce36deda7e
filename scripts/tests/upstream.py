"""The tables of upstream's test cases (control/ctl/tests/upstream), for live packets.

`cases` reads a table; `Upstream` is its world on a rig: pods a, b and c in each of the namespaces w,
x, y and z. `put` makes a step's documents the ones in force, `check` asks who reaches whom, by one
packet each (probes.py). How a row is read: main.rs beside the tables.
"""

import json
import time

import yaml
from nine import pod_document
from probes import Probe, Probes
from rig import NODES, ROOT

TABLES = ROOT / "control/ctl/tests/upstream"
SPACES, NAMES = "wxyz", "abc"
PODS = {f"{space}/{name}": f"{space}{name}" for space in SPACES for name in NAMES}
API = {
    "kubernetes": ("networking.k8s.io/v1", "NetworkPolicy"),
    "cluster": ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
    "Service": ("v1", "Service"),
    "ServiceAccount": ("v1", "ServiceAccount"),
}
IN_FORCE = 0.25  # seconds after which a change is in force that no generation tells of


def cases(table):
    """Steps between pods of a table's rows, with their titles; every variation is a row."""
    for row in yaml.safe_load((TABLES / f"{table}.yaml").read_text())["cases"]:
        for words in row.pop("vary", [{}]):
            one = put_in(row, words)
            if any(step.get("at") for step in one.get("steps", ())):
                yield f"{one['suite']}: {one['case']}", one["steps"]


def put_in(row, words):
    """Puts words in their places: as they are where they stand alone, as text within text."""
    text = json.dumps(row)
    for word, value in words.items():
        text = text.replace(f'"<{word}>"', json.dumps(value)).replace(f"<{word}>", str(value))
    return json.loads(text)


def document(key, spec):
    """A document from `KIND [NAMESPACE/]NAME [LABEL=VALUE]` and its specification."""
    kind, name, *labels = key.split(" ")
    version, kind = API.get(kind, ("projectcalico.org/v3", kind))
    namespace, _, name = name.rpartition("/")
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    metadata |= {"labels": dict(label.split("=") for label in labels)} if labels else {}
    return {"apiVersion": version, "kind": kind, "metadata": metadata} | ({"spec": spec} if spec else {})


def node_of(pod):
    """Pods a live on n1, b on n2, c on either by namespace."""
    return "n2" if pod[1] == "b" or pod == "yc" else "n1"


def means(pattern, source, target):
    """Whether `SOURCE > DESTINATION` is about these pods."""
    is_it = lambda who, name: who in ("*", name, name[0])
    ends = pattern.split(" > ")
    return is_it(ends[0], source) and is_it(ends[1], target)


class Upstream:
    """The world of the tables on a rig."""

    def __init__(self, rig):
        self.rig = rig
        self.probes = Probes(rig)
        self.in_force = {}
        self.source_port = 20_000
        for space in SPACES:
            self._namespace(space, {})
        for name, pod in PODS.items():
            rig.pod(node_of(pod), name[0], pod, pod=name[2])
            self._pod(name, {})
            self.probes.join(pod)
        self.words = {
            f"{name}.{family}": address
            for name, pod in PODS.items()
            for family, address in zip((4, 6), rig.pods[pod])
        }

    def _namespace(self, space, labels):
        metadata = {"name": space, "labels": {"ns": space} | labels}
        self.rig.store.write(
            f"ns-{space}", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        )

    def pod(self, name, labels=()):
        """The document of a pod, by its namespace and name."""
        pod = PODS[name]
        own = pod_document(pod, {"pod": name[2], "space": name[0]} | dict(labels))
        own["spec"]["nodeName"] = node_of(pod)
        return own

    def _pod(self, name, labels):
        self.rig.store.write(f"pod-{PODS[name]}", self.pod(name, labels))

    def put(self, documents):
        """Makes these the documents in force: specifications by `KIND NAME`."""
        if documents == self.in_force:
            return
        before = self._generations()
        old, self.in_force = self.in_force, documents
        for key in {key for key in old | documents if key.startswith("labels ")}:
            name, labels = key.removeprefix("labels "), documents.get(key, {})
            if labels != old.get(key, {}):
                (self._pod if "/" in name else self._namespace)(name, labels)
        policies = [
            document(key, spec) for key, spec in documents.items() if not key.startswith("labels ")
        ]
        self.rig.store.write("policies", policies)
        end = time.monotonic() + IN_FORCE
        while time.monotonic() < end and self._generations()[0] == before[0]:
            time.sleep(0.01)

    def _generations(self):
        return [self.rig.metrics(node).total("margay_generation") for node in NODES]

    def check(self, step):
        """What is not as a step says. What may be lost, or not in force yet, is asked again."""
        for within in (0.1, 0.3, 1.0, 2.0):
            wrong = self._differences(step, within)
            if not wrong:
                break
        return wrong

    def _differences(self, step, within):
        self.source_port += 1
        at = step.get("at", [])
        sent, expected = [], set()
        for number, flavour in enumerate([at] if isinstance(at, str) else at):
            protocol, port = flavour.split()
            # Either family has its turn: both are asked of the simulation.
            family = (4, 6)[(self.source_port + number) % 2]
            for source in PODS:
                for target in PODS:
                    if source == target:
                        continue
                    one = Probe(PODS[source], PODS[target], protocol, int(port), family)
                    sent.append(one)
                    says = lambda key: any(means(p, source, target) for p in step.get(key, ()))
                    if says("open") or not says("closed"):
                        expected.add(one)
        came = self.probes.arrived(sent, self.source_port, within)
        told = lambda some: sorted(f"{p.source} > {p.target} {p.protocol} {p.port}" for p in some)
        return [f"came: {one}" for one in told(came - expected)] + [
            f"did not come: {one}" for one in told(expected - came)
        ]

    def walk(self, steps):
        """Walks a case's steps; what is not as they say."""
        documents = {}
        for number, step in enumerate(put_in(steps, self.words)):
            documents = {k: v for k, v in documents.items() if k not in step.get("take", ())}
            documents |= step.get("put", {})
            self.put(documents)
            for one in self.check(step)[:4]:
                yield f"step {number}: {one}"

    def close(self):
        """Closes the sockets; the pods go with the rig."""
        self.probes.close()
