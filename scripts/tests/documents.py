"""Documents of the datastore, in few words: NetworkPolicies, their peers and ports, Calico's kinds."""


def policy(name, namespace, pods=None, ingress=None, egress=None, types=None):
    """A NetworkPolicy; `pods` selects by labels, or is a whole selector if it says matchExpressions."""
    spec = {"podSelector": selector(pods or {})}
    given = {
        key: rules for key, rules in (("ingress", ingress), ("egress", egress)) if rules is not None
    }
    spec["policyTypes"] = types or [key.capitalize() for key in given]
    spec |= given
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def selector(labels):
    """Labels as a selector; what already is one stays."""
    return labels if "matchExpressions" in labels else {"matchLabels": labels} if labels else {}


def pods(**labels):
    """A peer: pods of the policy's namespace."""
    return {"podSelector": selector(labels)}


def spaces(**labels):
    """A peer: all pods of some namespaces."""
    return {"namespaceSelector": selector(labels)}


def among(key, operator, *values):
    """A selector of one expression."""
    expression = {"key": key, "operator": operator} | ({"values": list(values)} if values else {})
    return {"matchExpressions": [expression]}


def port(number, protocol="TCP", end=None):
    """A port of a rule."""
    return {"port": number, "protocol": protocol} | ({"endPort": end} if end else {})


def both(namespaces, some):
    """A peer: some pods of some namespaces."""
    return {"namespaceSelector": selector(namespaces), "podSelector": selector(some)}


# The ranges that services have their cluster addresses out of.
SERVICE_RANGES = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "ServiceCIDR",
    "metadata": {"name": "kubernetes"},
    "spec": {"cidrs": ["10.96.0.0/16", "fd96::/64"]},
}


# === Calico's kinds ===


def calico(kind, name, namespace=None, labels=None, **spec):
    """A `projectcalico.org/v3` object."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    metadata |= {"labels": labels} if labels else {}
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}


def rule(action, protocol=None, icmp=None, **sides):
    """A rule of a Calico policy; `source` and `destination` are its sides."""
    return (
        {"action": action}
        | ({"protocol": protocol} if protocol else {})
        | ({"icmp": icmp} if icmp else {})
        | sides
    )
