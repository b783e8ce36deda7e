"""Policies of Kubernetes and Calico made up from a seed, of the fields that NCA knows as well.

Left out, for the package does not read them or reads them otherwise (the differences that matter
have cases of their own in test_policy_opinions.py): tiers, ICMP, service accounts, services, http,
ipVersion, nets that hold pods, and nets beside selectors.
"""

from documents import calico, policy, port, rule

NAMESPACES = {"x": "red", "y": "red", "z": "blue"}
OUTSIDE = tuple((f"172.20.0.{n}", f"fd20::{n}") for n in (100, 105, 106, 111))
PORTS = {"TCP": (80, 81, 85, 8080), "UDP": (53, 80, 85), "SCTP": (80, 85)}
NAMED = {"TCP": "web", "UDP": "name", "SCTP": "signal"}
# Pod → labels beside `pod`, and the numbers of its named ports.
PODS = {
    "a": ({"role": "web", "rank": "low"}, {"web": 80, "name": 53, "signal": 80}),
    "b": ({"role": "web"}, {"web": 8080, "name": 53}),
    "c": ({"role": "db", "rank": "mid"}, {"web": 85, "signal": 85}),
    "d": ({"rank": "mid"}, {"name": 85}),
}
POD_LABELS = {"pod": "abcd", "role": ("web", "db"), "rank": ("low", "mid", "high")}
SPACE_LABELS = {"ns": "xyz", "team": ("red", "blue"), "odd": ("yes",)}
NETS = {
    4: ("172.20.0.0/24", "172.20.0.96/29", "172.20.0.104/29", "172.20.0.105/32", "192.0.2.0/24"),
    6: ("fd20::/64", "fd20::100/125", "fd20::105/128", "fd20::110/124", "2001:db8::/32"),
}
WIDE = {4: ("0.0.0.0/0", "10.244.0.0/16"), 6: ("::/0", "fd44::/48")}


def cast():
    """The Namespaces and Pods that the policies are about, as documents by name."""
    documents = {}
    for namespace, team in NAMESPACES.items():
        labels = {"ns": namespace, "team": team}
        labels |= {"odd": "yes"} if namespace == "z" else {}
        metadata = {"name": namespace, "labels": labels}
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        documents[f"ns-{namespace}"] = document
        for name, (labels, named) in PODS.items():
            protocols = {value: key for key, value in NAMED.items()}
            ports = [
                {"name": key, "containerPort": number, "protocol": protocols[key]}
                for key, number in named.items()
            ]
            metadata = {
                "name": namespace + name,
                "namespace": namespace,
                "labels": labels | {"pod": name},
            }
            node = "n1" if (name in "ab") == (namespace != "y") else "n2"
            spec = {
                "nodeName": node,
                "containers": [{"name": "c", "image": "none", "ports": ports}],
            }
            documents[f"pod-{namespace}{name}"] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": spec,
            }
    return documents


class Maker:
    """Makes sets of policies with a random.Random."""

    def __init__(self, random):
        self.random = random

    def policies(self):
        """One set: some of Kubernetes, some of Calico, of both or of one kind."""
        kubernetes, theirs = self.random.choice(((6, 0), (4, 4), (3, 6), (0, 8)))
        made = [self.kubernetes(f"k{number}") for number in range(kubernetes)]
        # Orders differ from each other and from 1000, that of Kubernetes' policies.
        orders = self.random.sample([*range(10, 900, 10), *range(1010, 1900, 10)], theirs)
        made += [self.calico(f"c{number}", order) for number, order in enumerate(orders)]
        return made

    def maybe(self, chance):
        return self.random.random() < chance

    # --- Kubernetes ---

    def kubernetes(self, name):
        """A NetworkPolicy."""
        types = self.random.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"]))
        rules = {
            kind: [self._kubernetes_rule(side) for _ in range(self.random.randint(0, 3))]
            for kind, side in (("ingress", "from"), ("egress", "to"))
            if kind.capitalize() in types
        }
        namespace = self.random.choice(list(NAMESPACES))
        made = policy(name, namespace, types=types, **rules)
        made["spec"]["podSelector"] = self._labels() if self.maybe(0.8) else {}
        return made

    def _kubernetes_rule(self, side):
        made = {}
        if self.maybe(0.85):
            made[side] = [self._peer() for _ in range(self.random.randint(1, 3))]
        if self.maybe(0.6):
            made["ports"] = [self._port() for _ in range(self.random.randint(1, 3))]
        return made

    def _peer(self):
        kind = self.random.choice(("pods", "spaces", "both", "block"))
        if kind == "block":
            return {"ipBlock": self._block()}
        if kind == "pods":
            return {"podSelector": self._labels()}
        made = {"namespaceSelector": self._space_labels()}
        return made if kind == "spaces" else made | {"podSelector": self._labels(keys=False)}

    def _block(self):
        family = self.random.choice((4, 6))
        if self.maybe(0.3):
            cidr, pods = WIDE[family]
            return {"cidr": cidr, "except": [pods, self.random.choice(NETS[family])]}
        made = {"cidr": self.random.choice(NETS[family])}
        if made["cidr"] == NETS[family][0] and self.maybe(0.7):
            made["except"] = self.random.sample(NETS[family][1:4], self.random.randint(1, 2))
        return made

    def _labels(self, keys=True):
        return self._selector(POD_LABELS, keys)

    def _space_labels(self):
        return self._selector(SPACE_LABELS)

    def _selector(self, labels, keys=True):
        """A selector of Kubernetes about labels with these values; with `keys` also about keys."""
        key = self.random.choice(list(labels))
        some = self.random.sample(list(labels[key]), self.random.randint(1, len(labels[key])))
        operators = ("", "", "In", "NotIn", "{}") + (("Exists", "DoesNotExist") if keys else ())
        operator = self.random.choice(operators)
        if operator == "{}":
            return {}
        if not operator:
            return {"matchLabels": {key: some[0]}}
        values = {"values": some} if operator.endswith("In") else {}
        return {"matchExpressions": [{"key": key, "operator": operator} | values]}

    def _port(self):
        protocol = self.random.choice(list(PORTS))
        kind = self.random.choice(("number", "number", "named", "range", "any"))
        if kind == "any":
            return {"protocol": protocol}
        if kind == "named":
            return port(NAMED[protocol], protocol)
        if kind == "range":
            return port(80, protocol, self.random.choice((81, 85, 9000)))
        return port(self.random.choice(PORTS[protocol]), protocol)

    # --- Calico ---

    def calico(self, name, order):
        """A NetworkPolicy or GlobalNetworkPolicy."""
        types = self.random.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"]))
        namespace = self.random.choice([*NAMESPACES, None, None])
        spec = {"order": order, "types": types}
        if self.maybe(0.9):
            spec["selector"] = self._expression()
        if namespace is None and self.maybe(0.4):
            spec["namespaceSelector"] = self._space_expression()
        for kind in types:
            rules = [self._calico_rule(namespace) for _ in range(self.random.randint(1, 4))]
            spec[kind.lower()] = rules
        kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
        return calico(kind, name, namespace, **spec)

    def _calico_rule(self, namespace):
        action = self.random.choice(("Allow", "Allow", "Allow", "Deny", "Deny", "Pass"))
        protocol = self.random.choice((None, "TCP", "UDP", "SCTP", 6, 17))
        sides = {}
        family = self.random.choice((4, 6))
        for side in ("source", "destination"):
            entity = self._entity(namespace, family) if self.maybe(0.45) else {}
            if protocol and self.maybe(0.5 if side == "destination" else 0.15):
                entity |= self._calico_ports(side, protocol)
            if entity:
                sides[side] = entity
        made = rule(action, protocol, **sides)
        if protocol is None and self.maybe(0.3):
            made["notProtocol"] = self.random.choice(("TCP", "UDP", "SCTP", 17))
        return made

    def _entity(self, namespace, family):
        kind = self.random.choice(("selector", "space", "both", "not", "nets"))
        if kind == "nets":
            nets = self.random.sample(NETS[family], self.random.randint(1, 3))
            some = {"notNets": [self.random.choice(NETS[family][1:4])]} if self.maybe(0.4) else {}
            return {"nets": nets} | some
        made = {}
        if kind in ("space", "both"):
            made["namespaceSelector"] = self._space_expression()
        if kind in ("selector", "both"):
            made["selector"] = self._expression()
        if kind == "not" or self.maybe(0.2):
            made["notSelector"] = self._expression()
        if kind == "not" and namespace:
            made["selector"] = "all()"
        return made

    def _expression(self):
        """A selector of Calico's language about pods."""
        return self._words(POD_LABELS)

    def _space_expression(self):
        return self._words(SPACE_LABELS)

    def _words(self, labels, depth=0):
        if depth < 2 and self.maybe(0.3):
            left, right = self._words(labels, depth + 1), self._words(labels, depth + 1)
            return f"({left}) {self.random.choice(('&&', '||'))} ({right})"
        key = self.random.choice(list(labels))
        some = self.random.sample(list(labels[key]), self.random.randint(1, len(labels[key])))
        listed = ", ".join(f"'{value}'" for value in some)
        return self.random.choice(
            (
                f"{key} == '{some[0]}'",
                f"{key} != '{some[0]}'",
                f"{key} in {{{listed}}}",
                f"{key} not in {{{listed}}}",
                f"has({key})",
                f"!has({key})",
                f"{key} contains '{some[0][0]}'",
                f"{key} starts with '{some[0][0]}'",
                "all()",
            )
        )

    def _calico_ports(self, side, protocol):
        name = {6: "TCP", 17: "UDP"}.get(protocol, protocol)
        numbers = list(PORTS[name])
        if side == "source":
            made = self.random.choice((["40000:40003"], [40001, 40002], ["40004:65535"]))
        else:
            choices = [*numbers, "80:81", "82:9000", NAMED[name]]
            made = self.random.sample(choices, self.random.randint(1, 3))
        return {"notPorts" if self.maybe(0.25) else "ports": made}
