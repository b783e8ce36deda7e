"""Documents of services, and what tests of them share.

Service number `n` is s1, s2, …; everything about it follows from its number: cluster, balancer and
external addresses, port 80 → 8080, node port 30000 + n.
"""

import pytest
from documents import SERVICE_RANGES
from rig import wait_until
from whoami import SILENT

PROTOCOLS = ("TCP", "UDP", "SCTP")
V4, V6 = 0, 1
FAMILIES = pytest.mark.parametrize("v", (V4, V6), ids=("v4", "v6"))
OUT = ("172.20.0.100", "fd20::100")
NODE = {"n1": ("172.20.0.1", "fd20::1"), "n2": ("172.20.0.2", "fd20::2")}
ALL = {"x", "y"}  # the backends that `prepare` makes


def prepare(rig):
    """Pod a and backend x on n1, backend y on n2, and a host outside that asks n1; service ranges."""
    for node, name, label in (("n1", "a", "client"), ("n1", "x", "web"), ("n2", "y", "web")):
        rig.pod(node, "default", name, app=label)
    for v, nets in ((V4, ("10.96.0.0/16", "203.0.113.0/24")), (V6, ("fd96::/64", "fd02::/64"))):
        for net in nets:
            rig.exec("out", "ip", "route", "add", net, "via", NODE["n1"][v])
    for place in ("a", "x", "y", "n1"):
        # Many refusals within a second are wanted of the kernels too.
        rig.exec(place, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    rig.store.write("cidr", SERVICE_RANGES)


def cluster_ip(n):
    """The cluster addresses of a service, by its number."""
    return f"10.96.0.{n}", f"fd96::{n:x}"


def balancer_ip(n):
    """Its load balancer's addresses."""
    return f"203.0.113.{n}", f"fd02::{n:x}"


def external_ip(n):
    """Its external addresses."""
    return f"203.0.113.{100 + n}", f"fd02::100:{n:x}"


def service(n, selector, kind="ClusterIP", protocols=PROTOCOLS, **spec):
    """Service number `n`, s1, s2, …: port 80 → 8080, and 30000 + n on the nodes."""
    ports = [
        {"name": protocol.lower(), "protocol": protocol, "port": 80, "targetPort": 8080}
        | ({} if kind == "ClusterIP" else {"nodePort": 30000 + n})
        for protocol in protocols
    ]
    spec = {
        "type": kind,
        "clusterIP": cluster_ip(n)[0],
        "clusterIPs": list(cluster_ip(n)),
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
        "ports": ports,
    } | spec
    if selector:
        spec["selector"] = selector
    document = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{n}"}, "spec": spec}
    if kind == "LoadBalancer":
        spec["externalIPs"] = list(external_ip(n))
        ingress = [{"ip": ip} for ip in balancer_ip(n)]
        document["status"] = {"loadBalancer": {"ingress": ingress}}
    return document


def endpoint_slice(n, v, *endpoints, name=""):
    """A slice of service `n` as the control plane of Kubernetes would write it."""
    ports = [{"name": p.lower(), "protocol": p, "port": 8080} for p in PROTOCOLS]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"s{n}-{v}{name}", "labels": {"kubernetes.io/service-name": f"s{n}"}},
        "addressType": ("IPv4", "IPv6")[v],
        "ports": ports,
        "endpoints": list(endpoints),
    }


def endpoint(address, node, ready=True):
    """An endpoint of a slice."""
    return {"addresses": [address], "nodeName": node, "conditions": {"ready": ready}}


def own_addresses(rig, node, v):
    """What a node's own and masqueraded packets may carry: its address, or that in the tunnels."""
    words = ("ip", "-o", ("-4", "-6")[v], "addr", "show", "scope", "global")
    lines = rig.exec(node, *words).splitlines()
    return {line.split()[3].split("/")[0] for line in lines}


def asked_often(who, place, to, port, protocol, expected, least=5, most=60):
    """The answers to several conversations: until all expected have answered, and `least` more."""
    answers, names = [], set()
    while len(answers) < most and (len(answers) < least or not expected <= names):
        answer = who.ask(place, to, port, protocol)
        answers.append(answer)
        names.add(getattr(answer, "name", answer))
        if isinstance(answer, str):
            break
    return answers, names


def withdraw(rig, who, n, *more):
    """Takes a service away (and more documents) and waits until nothing of it is in force: its
    address does not even refuse."""
    rig.store.remove(f"s{n}", *more)
    to = cluster_ip(n)[V4]
    wait_until(lambda: who.ask("a", to, 81, "UDP", within=0.15) == SILENT, f"service {n} is gone")
