"""How many TCP connections a pod may have, by the Pod's annotations: with sockets that connect, are
refused and close."""

import contextlib
import errno
import json
import socket
import time

import pytest
from documents import SERVICE_RANGES
from rig import wait_until
from services import cluster_ip, endpoint, endpoint_slice, service
from traffic import FAMILY, Attempt, Field

MODE = "vxlan"
CALICO = "qos.projectcalico.org/"
FAMILIES = pytest.mark.parametrize("v6", (False, True), ids=("IPv4", "IPv6"))


def limit(rig, name=None, **said):
    """Writes Pods' documents, one of them with these annotations, and waits until these are in force."""
    for each in ("a", "b"):
        write(rig, each, said if each == name else {})
    in_force = lambda: {way: most(rig, way) for way in ("ingress", "egress") if most(rig, way)}
    wait_until(lambda: in_force() == said, f"{said} is in force")


def write(rig, name, said):
    """Writes the Pod's document with these annotations."""
    annotations = {f"{CALICO}{way}MaxConnections": str(most) for way, most in said.items()}
    rig.store.write(f"pod-{name}", {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}]},
    })  # fmt: skip


def most(rig, way):
    """The limit of n1's pods together."""
    return rig.metrics("n1").total("margay_limited_connections_max", direction=way)


def there(rig, way="ingress"):
    """The connections of n1's pods that are limited."""
    return rig.metrics("n1").total("margay_limited_connections", direction=way)


def refused(rig):
    """Connections that n1 refused."""
    return rig.metrics("n1").drops("connection_limit")


@pytest.fixture(scope="module")
def field(rig):
    """Pods a and b of n1, c of n2; servers in b and c."""
    for node, name in (("n1", "a"), ("n1", "b"), ("n2", "c")):
        rig.pod(node, "default", name)
    rig.store.write("cidr", SERVICE_RANGES)
    with contextlib.closing(Field(rig, ports=(80, 8080))) as field:
        field.join("b")
        field.join("c")
        yield field
    rig.books_are_right()


@pytest.fixture
def open_ones(rig, field):
    """What a test opens; afterwards nothing is open nor limited."""
    with contextlib.ExitStack() as stack:
        yield stack
    limit(rig)


def connect(rig, open_ones, source, address, port=80):
    """A connection; `None` where it is refused."""
    with rig.inside(source):
        one = socket.socket(FAMILY[6 if ":" in address else 4], socket.SOCK_STREAM)
    open_ones.enter_context(one)
    one.settimeout(5)
    error = one.connect_ex((address, port))
    assert error in (0, errno.ECONNREFUSED), errno.errorcode.get(error, error)
    if error:
        return None
    one.send(b"?")
    assert one.recv(1) == b"?"
    return one


@FAMILIES
@pytest.mark.parametrize("source", ("a", "c"))
def test_one_connection_too_many_is_refused_and_one_that_closes_makes_room(rig, field, open_ones, source, v6):
    limit(rig, "b", ingress=3)
    before, address = refused(rig), rig.pods["b"][v6]
    held = [connect(rig, open_ones, source, address) for _ in range(3)]
    assert all(held) and connect(rig, open_ones, source, address) is None
    assert connect(rig, open_ones, source, address, 8080) is None, "whatever the port"
    assert refused(rig) == before + 2 and there(rig) == 3
    for one in held:
        one.send(b"!")
        assert one.recv(1) == b"!", "the others go on"
    held[1].close()
    wait_until(lambda: there(rig) == 2, "its end was seen")
    assert connect(rig, open_ones, source, address)
    assert connect(rig, open_ones, source, address) is None
    # The kubelet finds a busy pod alive, and the limit is of TCP alone.
    assert connect(rig, open_ones, "n1", address)
    assert field.reach([Attempt(source, "b", "UDP", family=6 if v6 else 4)])


@FAMILIES
def test_what_a_pod_begins_is_limited_wherever_it_goes(rig, field, open_ones, v6):
    limit(rig, "a", egress=2)
    of_b, of_c = rig.pods["b"][v6], rig.pods["c"][v6]
    assert connect(rig, open_ones, "a", of_b)
    to_c = connect(rig, open_ones, "a", of_c)
    assert to_c and there(rig, "egress") == 2
    assert connect(rig, open_ones, "a", of_b) is None
    assert connect(rig, open_ones, "a", of_c) is None
    assert connect(rig, open_ones, "b", of_c), "another pod"
    to_c.close()
    wait_until(lambda: there(rig, "egress") == 1, "its end was seen")
    assert connect(rig, open_ones, "a", of_b)


def test_connections_through_a_service_count_at_its_backend(rig, field, open_ones):
    address, _ = cluster_ip(1)
    backend = endpoint(rig.pods["b"][0], "n1")
    rig.store.write("service", [service(1, None, protocols=("TCP",)), endpoint_slice(1, 0, backend)])
    limit(rig, "b", ingress=2)
    wait_until(lambda: connect(rig, open_ones, "a", address), "the service is there")
    assert connect(rig, open_ones, "c", rig.pods["b"][0])
    for source in ("a", "c"):
        assert connect(rig, open_ones, source, address) is None, source
    rig.store.remove("service")


def test_another_limit_holds_at_once_and_ends_nothing(rig, field, open_ones):
    address = rig.pods["b"][0]
    held = [connect(rig, open_ones, "a", address) for _ in range(3)]
    limit(rig, "b", ingress=1)
    assert there(rig) == 3, "what began without a limit counts"
    assert connect(rig, open_ones, "a", address) is None
    limit(rig, "b", ingress=4)
    held.append(connect(rig, open_ones, "a", address))
    assert held[3] and connect(rig, open_ones, "a", address) is None
    for one in held:
        one.send(b"!")
        assert one.recv(1) == b"!"
    limit(rig)
    assert connect(rig, open_ones, "a", address)


def test_connections_are_counted_again_after_a_restart(rig, field, open_ones):
    limit(rig, "b", ingress=3)
    address = rig.pods["b"][0]
    held = [connect(rig, open_ones, source, address) for source in "aac"]
    time.sleep(1.5)  # The state is saved once a second.
    rig.kill("n1", "agent")
    rig.kill("n1", "daemon")
    rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "margayd is ready", 10)
    assert there(rig) == 3 and connect(rig, open_ones, "a", address) is None, "without the agent"
    held[2].close()
    wait_until(lambda: there(rig) == 2, "its end was seen")
    held[2] = connect(rig, open_ones, "c", address)
    assert held[2] and there(rig) == 3
    rig.start("n1", "agent")
    wait_until(lambda: rig.ready("n1", 9102), "the agent is ready", 10)
    assert there(rig) == 3 and connect(rig, open_ones, "c", address) is None, "with the agent"
    for one in held:
        one.send(b"!")
        assert one.recv(1) == b"!"


def test_the_limit_is_shown_with_the_endpoint(rig, field, open_ones):
    limit(rig, "b", ingress=3, egress=9)
    shown = json.loads(rig.ctl("get", "workloadendpoint", "-o", "json"))
    of_b = next(item for item in shown["items"] if item["spec"].get("pod") == "b")
    expected = {"ingressMaxConnections": 3, "egressMaxConnections": 9}
    assert of_b["spec"]["qosControls"] == expected
