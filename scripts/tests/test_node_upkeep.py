"""What the node keeps while its addresses, links, neighbours and daemon come and go."""

import signal
import time

import pytest
from rig import NODES, wait_until
from whoami import REFUSED, SILENT, Whoami

MODE = "vxlan"
TCP, UDP = "TCP", "UDP"
NODE_PORT, OWN_PORT = 30_082, 30_501
STRANGERS = {4: ("172.20.0.141", "172.20.0.142"), 6: ("fd20::141", "fd20::142")}


@pytest.fixture(scope="module")
def who(rig):
    """Pods a on n1 and c on n2; a service of c's on every node's port; a server of each node's."""
    for node, name in (("n1", "a"), ("n2", "c")):
        rig.pod(node, "default", name, app=name)
    ports = [
        {"name": p.lower(), "protocol": p, "port": 7, "targetPort": 7, "nodePort": NODE_PORT}
        for p in (TCP, UDP)
    ]
    spec = {"type": "NodePort", "clusterIP": "10.96.0.1", "ports": ports, "selector": {"app": "c"}}
    spec |= {"clusterIPs": ["10.96.0.1", "fd96::1"], "ipFamilyPolicy": "PreferDualStack"}
    rig.store.write(
        "service", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}
    )
    who = Whoami(rig)
    who.serve("c", 7, sctp=False)
    for node in NODES:
        who.serve(node, OWN_PORT, sctp=False)
    wait_until(lambda: who.serves("out", "172.20.0.1", NODE_PORT), "the service")
    yield who
    who.close()
    rig.books_are_right()


@pytest.mark.parametrize("family", (4, 6))
def test_a_client_whom_nobody_has_met_reaches_a_remote_backend_at_once(rig, who, family):
    """The node asks for the client's Ethernet address, not for its own tunnel's."""
    node = {4: "172.20.0.1", 6: "fd20::1"}[family]
    length = {4: 24, 6: 64}[family]
    for protocol, address in zip((TCP, UDP), STRANGERS[family]):
        rig.exec("out", "ip", "addr", "add", f"{address}/{length}", "dev", "eth0", *(["nodad"] * (family == 6)))
        rig.exec("n1", "ip", "neigh", "flush", "to", address)
        answer = who.ask("out", node, NODE_PORT, protocol, source=address)
        assert getattr(answer, "name", answer) == "c", (protocol, answer)


def test_routes_come_back_after_the_nodes_address_was_taken_and_given_again(rig, who):
    before = rig.exec("n1", "ip", "route", "show", "proto", "77")
    assert before.count("\n") > 2
    rig.exec("n1", "sh", "-c", "ip addr del 172.20.0.1/24 dev eth0; ip addr add 172.20.0.1/24 dev eth0")
    routes = lambda: sorted(rig.exec("n1", "ip", "route", "show", "proto", "77").splitlines())
    wait_until(lambda: routes() == sorted(before.splitlines()), "the routes", within=3)
    wait_until(lambda: who.serves("n1", "10.96.0.1", 7), "the service, from the node")
    assert who.serves("n1", rig.pods["c"][0], 7)


def test_routes_come_back_after_the_trunk_was_down_or_somebody_removed_one(rig, who):
    rig.exec("n1", "sh", "-c", "ip link set margay0 down; ip link set margay0 up")
    wait_until(lambda: rig.ping("n1", rig.pods["a"][0]), "the node's pod")
    for words in (("route", "del", "10.96.0.1"), ("rule", "del", "pref", "10")):
        assert rig.run_in("n1", "ip", *words).returncode == 0, words
    wait_until(lambda: who.serves("n1", "10.96.0.1", 7), "the service")
    wait_until(lambda: who.serves("n1", "172.20.0.1", NODE_PORT), "the node port")


def test_the_node_reaches_a_node_port_on_all_of_its_addresses(rig, who):
    rig.exec("n1", "ip", "addr", "add", "172.20.0.77/24", "dev", "eth0")
    rig.exec("n1", "ip", "addr", "add", "172.20.9.9/32", "dev", "lo")
    for address in ("172.20.0.1", "172.20.0.77", "172.20.9.9"):
        wait_until(lambda: who.serves("n1", address, NODE_PORT), address)
        assert who.ask("n1", address, NODE_PORT + 1, TCP) == REFUSED
    for address, device in (("172.20.0.77/24", "eth0"), ("172.20.9.9/32", "lo")):
        rig.exec("n1", "ip", "addr", "del", address, "dev", device)


def test_a_dead_daemon_takes_nothing_from_the_nodes_own_servers(rig, who):
    rig.kill("n1", "daemon")
    try:
        for address in ("172.20.0.1", "fd20::1", "127.0.0.1"):
            assert who.serves("n1", address, OWN_PORT), address
    finally:
        rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "n1 ready")
    wait_until(lambda: who.serves("n1", "172.20.0.1", NODE_PORT), "the node port")


def test_a_daemon_whose_trunk_was_deleted_ends_and_the_next_one_has_all_of_it_back(rig, who):
    rig.exec("n1", "ip", "link", "del", "margay0")
    wait_until(lambda: not rig.alive("n1", "daemon"), "the daemon has ended")
    assert "somebody has deleted the interface margay0" in rig.log("n1", "daemon")
    rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "n1 ready")
    wait_until(lambda: rig.ping("n1", rig.pods["a"][0]), "the node's pod")
    wait_until(lambda: who.serves("n1", "10.96.0.1", 7), "the service")
    wait_until(lambda: who.serves("a", rig.pods["c"][0], 7), "a pod of another node")


def test_a_daemon_that_comes_after_a_crash_takes_a_larger_mtu(rig, who):
    """What its predecessor left on the trunk takes packets of one buffer, and bounds the MTU."""
    ready = lambda: rig.ready("n2")  # noqa: E731
    rig.kill("n2", "daemon")
    rig.exec("n2", "ip", "link", "set", "eth0", "mtu", 9000)
    try:
        rig.start("n2", "daemon")
        wait_until(ready, "the daemon is ready", within=10)
        assert "mtu 9000" in rig.exec("n2", "ip", "link", "show", "margay0")
        wait_until(lambda: who.serves("a", rig.pods["c"][0], 7), "pods are reached")
    finally:
        rig.kill("n2", "daemon", signal.SIGTERM)
        rig.exec("n2", "ip", "link", "set", "eth0", "mtu", 1500)
        rig.start("n2", "daemon")
        wait_until(ready, "the daemon is ready again", within=10)


def test_masquerading_leaves_the_ports_of_the_nodes_processes_alone(rig, who):
    first, last = 61_000, 65_535
    held = (
        "import socket, time\nheld = []\n"
        f"for port in range({first}, {last + 1}):\n"
        "    if port % 4:\n"
        "        s = socket.socket(2, 2); s.bind(('', port)); held.append(s)\n"
        "time.sleep(60)\n"
    )
    holder = rig.spawn("n1", "prlimit", "--nofile=8192", "python3", "-c", held)
    all_of_them = sum(port % 4 != 0 for port in range(first, last + 1))
    many = lambda: len(rig.exec("n1", "ss", "-Huln").splitlines()) >= all_of_them
    wait_until(many, "the ports are held", within=20)
    who.serve("out", *range(2000, 2020), sctp=False)

    doors = iter(range(2000, 2020))

    def left_alone():
        """Each time at another port: a connection keeps the port that it was given before."""
        door = next(doors)
        seen = [who.ask("a", "172.20.0.100", door, "UDP") for _ in range(60)]
        return all(one != SILENT and one.port % 4 == 0 and first <= one.port <= last for one in seen)

    # They are looked at once a second, and more seldom on a busy machine.
    wait_until(left_alone, "they are left alone", within=20, every=1)
    assert left_alone()
    rig.end(holder)
