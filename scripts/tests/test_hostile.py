"""Bad input of every kind: it is handled, counted and explained, and no bystander notices."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from documents import policy
from frames import Wire, hostile, link, packets, tunnelled
from rig import NODES, wait_until
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scene import NODE, OUTSIDE, OUTSIDE_SERVER, PEER, SERVICE, Scene
from streams import Streams
from traffic import Attempt

GATEWAY = "ee:ee:ee:ee:ee:ee"


@pytest.fixture(scope="module")
def scene(rig):
    scene = Scene(rig)
    rig.pod("n1", "x", "rogue")
    yield scene
    scene.close()


@contextlib.contextmanager
def undisturbed(scene, loses_nothing=True, dies=()):
    """Within: connections of bystanders go on, the processes keep their pids, and none panics.

    `loses_nothing`: not one segment is lost. `dies`: the process, as (node, name), that is to.
    """
    rig = scene.rig
    assert rig.ping("client", scene.pods["far"][0], 5)
    pids = {(node, name): rig.pid(node, name) for node in NODES for name in ("daemon", "agent")}
    pids.pop(dies, None)
    streams = Streams(rig)
    watched = [
        streams.open("client", scene.pods["near"][0], name="on the node"),
        streams.open("client", scene.pods["far"][1], name="across"),
        streams.open("client", OUTSIDE[4], OUTSIDE_SERVER, name="to outside"),
    ]
    try:
        yield watched
        for stream in watched:
            assert stream.goes_on(), f"{stream.name}: {stream.error or 'silent'}"
            if loses_nothing:
                assert stream.lost() == 0, f"{stream.name} lost {stream.lost()}"
                assert stream.stall() < 1, f"{stream.name} stood still for {stream.stall():.2f} s"
        for (node, name), pid in pids.items():
            assert rig.pid(node, name) == pid and rig.alive(node, name), f"{node}: {name} died"
        for node in NODES:
            assert "panicked" not in rig.log(node, "daemon") + rig.log(node, "agent")
    finally:
        streams.close()


@contextlib.contextmanager
def counted(rig, reason, at_least, node="n1"):
    """Within: packets are dropped for a reason, and counted."""
    before = rig.metrics(node).drops(reason)
    yield
    enough = lambda: rig.metrics(node).drops(reason) - before >= at_least
    wait_until(enough, f"{at_least} drops of reason {reason} at {node}")


@pytest.fixture
def rogue(scene):
    """The pod's interface, for frames of any shape."""
    wire = Wire(scene.rig, "rogue")
    yield wire
    wire.close()


@pytest.fixture
def cable(scene):
    """The outside host's interface on the nodes' wire, and n1's Ethernet address."""
    wire = Wire(scene.rig, "out")
    told = scene.rig.exec("n1", "cat", "/proc/net/dev")
    assert "eth0" in told
    link_line = json.loads(scene.rig.exec("n1", "ip", "-j", "link", "show", "eth0"))
    wire.node_mac = link_line[0]["address"]
    yield wire
    wire.close()


def pair(scene, target):
    """Addresses of the rogue pod and of another, by family."""
    return tuple(zip(scene.pods["rogue"], scene.pods[target]))


# === malformed packets ===


def test_malformed_packets_of_a_pod_are_counted_and_harm_nobody(scene, rogue):
    v4, v6 = pair(scene, "near")
    good = [Ether(src=rogue.mac, dst=GATEWAY) / packet for packet in packets(v4, v6)]
    frames = hostile(good + link(rogue.mac, GATEWAY, v4), seed=1)
    before = scene.rig.metrics("n1").by("margay_drops_total", "reason")
    with undisturbed(scene):
        assert rogue.send(frames) > 5000
    after = scene.rig.metrics("n1").by("margay_drops_total", "reason")
    for reason in ("malformed", "checksum", "not_ip", "spoof"):
        assert after[reason] > before.get(reason, 0), f"no drop for {reason}: {after}"


def test_malformed_packets_from_the_wire_are_counted_and_harm_nobody(scene, cable):
    """They come from a known node's address as far as they have one, tunnels among them."""
    v4, v6 = tuple(zip(scene.pods["far"], scene.pods["near"]))
    outer = (PEER[4], NODE[4])
    kinds = tunnelled(outer, v4, v6) + packets((OUTSIDE[4], v4[1]), (OUTSIDE[6], v6[1]))
    good = [Ether(src=cable.mac, dst=cable.node_mac) / packet for packet in kinds]
    before = scene.rig.metrics("n1").by("margay_drops_total", "reason")
    with undisturbed(scene):
        assert cable.send(hostile(good, seed=2)) > 5000
    after = scene.rig.metrics("n1").by("margay_drops_total", "reason")
    for reason in ("malformed", "tunnel_malformed", "checksum"):
        assert after.get(reason, 0) > before.get(reason, 0), f"no drop for {reason}: {after}"


# === lies ===


def test_a_pod_that_spoofs_an_address_is_dropped_and_counted(scene, rogue):
    far4, far6 = scene.pods["far"]
    near4, near6 = scene.pods["near"]
    head = Ether(src=rogue.mac, dst=GATEWAY)
    lies = [
        head / IP(src=source, dst=far4) / UDP(sport=1000, dport=80)
        for source in (near4, far4, NODE[4], OUTSIDE[4], "8.8.8.8", SERVICE)
    ]
    lies += [
        head / IPv6(src=source, dst=far6) / ICMPv6EchoRequest()
        for source in (near6, NODE[6], OUTSIDE[6], "2001:db8::1")
    ]
    with undisturbed(scene), counted(scene.rig, "spoof", 20 * len(lies)):
        rogue.send([bytes(frame) for frame in lies] * 20)


def test_a_packet_from_the_wire_with_a_local_pods_source_is_dropped_as_spoofed(scene, cable):
    near, client = scene.pods["near"], scene.pods["client"]
    head = Ether(src=cable.mac, dst=cable.node_mac)
    lies = [
        head / IP(src=client[0], dst=near[0]) / UDP(sport=1000, dport=80),
        head / IPv6(src=client[1], dst=near[1]) / ICMPv6EchoRequest(),
    ]
    with undisturbed(scene), counted(scene.rig, "spoof", 40):
        cable.send([bytes(frame) for frame in lies] * 20)


def test_a_pod_that_floods_arp_disturbs_nobody(scene, rogue):
    """Requests, claims of the gateway's and of another pod's address, and neighbour adverts."""
    near = scene.pods["near"]
    claims = [
        Ether(src=rogue.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, psrc=psrc, pdst=pdst)
        for psrc, pdst in ((scene.pods["rogue"][0], "169.254.1.1"), (near[0], near[0]))
    ]
    claims.append(Ether(src=rogue.mac, dst=GATEWAY) / ARP(op=2, psrc="169.254.1.1", pdst=near[0]))
    claims.append(
        Ether(src=rogue.mac, dst=GATEWAY)
        / IPv6(src=scene.pods["rogue"][1], dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt=near[1], R=0)
    )
    before = scene.rig.metrics("n1")
    with undisturbed(scene):
        assert rogue.send([bytes(frame) for frame in claims] * 5000, pause_every=256) > 15000
        assert scene.rig.ping("client", near[0]) and scene.rig.ping("client", near[1])
    after = scene.rig.metrics("n1")
    asked = after.total("margay_punts_total", reason="arp") - before.total(
        "margay_punts_total", reason="arp"
    )
    refused = after.total("margay_drops_total") - before.total("margay_drops_total")
    assert asked + refused > 10000, f"{asked} punts and {refused} drops for 20000 frames"


# === tunnels ===


def test_tunnel_packets_that_a_pod_sends_are_dropped_and_counted(scene, rogue):
    """The outer addresses are honest; what is within claims to come from another pod."""
    mine, far, near = (scene.pods[name][0] for name in ("rogue", "far", "near"))
    inner = IP(src=near, dst=far) / UDP(sport=1000, dport=80)
    boxed = VXLAN(vni=4096, flags=8) / Ether(src=rogue.mac, dst=GATEWAY) / inner
    head = Ether(src=rogue.mac, dst=GATEWAY)
    frames = [
        head / IP(src=mine, dst=PEER[4]) / UDP(sport=50000, dport=4789) / boxed,
        head / IP(src=mine, dst=NODE[4]) / UDP(sport=50000, dport=4789) / boxed,
        head / IP(src=mine, dst=PEER[4]) / inner,
        head / IP(src=mine, dst=far) / UDP(sport=50000, dport=4789) / boxed,
    ]
    with undisturbed(scene), counted(scene.rig, "tunnel_from_workload", 60):
        rogue.send([bytes(frame) for frame in frames] * 20)


def test_tunnel_packets_from_an_unknown_host_are_dropped_and_counted(scene, cable):
    near, far = scene.pods["near"][0], scene.pods["far"][0]
    inner = IP(src=far, dst=near) / UDP(sport=1000, dport=80) / b"intruder"
    boxed = VXLAN(vni=4096, flags=8) / Ether(src=cable.mac, dst=GATEWAY) / inner
    frame = (
        Ether(src=cable.mac, dst=cable.node_mac)
        / IP(src=OUTSIDE[4], dst=NODE[4])
        / UDP(sport=50000, dport=4789, chksum=0)
        / boxed
    )
    with scene.rig.inside("near"):
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    listener.setblocking(False)
    with undisturbed(scene), counted(scene.rig, "unknown_tunnel_peer", 50), listener:
        cable.send([bytes(frame)] * 50)
        time.sleep(0.3)
        with contextlib.suppress(BlockingIOError):
            while True:
                assert b"intruder" not in listener.recv(2048)


# === documents ===


def test_a_malformed_document_is_reported_by_file_line_and_field_and_changes_nothing(scene):
    """A policy is in force; its file becomes bad in several ways; a second file stays good."""
    rig = scene.rig
    closed = policy("closed", "x", {"name": "near"}, types=["Ingress"])
    rig.store.write("policies", closed)
    near = Attempt("client", "near")
    scene.field.raw.setdefault(("client", 4), None)
    wait_until(lambda: not scene.field.reach([near], 0.3), "the policy is in force")
    good = "\n---\n".join([json.dumps(closed)])
    bad_field = (
        good
        + "\n---\n"
        + (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: bad\n"
            "  namespace: x\nspec:\n  podSelector: {}\n  ingress:\n  - ports:\n    - port: 99999\n"
        )
    )
    cases = [
        ("not YAML at all", "kind: [unclosed\n  : :\n", r"line=\d+"),
        ("a port out of range", bad_field, r"line=\d+ .*field=\"?spec\.ingress\[0\]\.ports\[0\]"),
        (
            "the policy itself, with a bad type",
            good.replace('"Ingress"', '"Sideways"'),
            "policyTypes",
        ),
        ("nothing", "", None),
    ]
    try:
        for what, text, told in cases[:3]:
            seen = len(rig.log("n1", "agent"))
            rig.store.write("policies", text)

            def line():
                new = rig.log("n1", "agent")[seen:]
                return [
                    one for one in new.splitlines() if "ERROR" in one and "policies.yaml" in one
                ]

            found = wait_until(line, f"an ERROR line for {what}")[0]
            assert re.search(r"file=\S*policies\.yaml", found) and re.search(told, found), found
            assert not scene.field.reach([near], 0.3), f"{what}: the good state is not kept"
        assert rig.alive("n1", "agent")
    finally:
        rig.store.remove("policies")
    wait_until(lambda: scene.field.reach([near], 0.3), "the policy is gone")


# === CNI ===

CONFIG = {"cniVersion": "1.1.0", "name": "margay", "type": "margay-cni"}
# What is wrong → verb, variables, configuration, code, and what the message says.
CALLS = {
    "no_verb": ("", {}, {}, 4, "CNI_COMMAND"),
    "an_unknown_verb": ("FOO", {}, {}, 4, "FOO"),
    "no_container": ("ADD", {"CNI_CONTAINERID": None}, {}, 4, "CNI_CONTAINERID"),
    "a_container_that_climbs": ("ADD", {"CNI_CONTAINERID": "../x"}, {}, 4, "CNI_CONTAINERID"),
    "no_namespace": ("ADD", {"CNI_NETNS": None}, {}, 4, "CNI_NETNS"),
    "a_namespace_that_is_none": ("ADD", {"CNI_NETNS": "/etc/hostname"}, {}, 4, "/etc/hostname"),
    "a_namespace_that_is_not_there": (
        "ADD",
        {"CNI_NETNS": "/run/netns/nil"},
        {},
        4,
        "/run/netns/nil",
    ),
    "no_interface": ("ADD", {"CNI_IFNAME": None}, {}, 4, "CNI_IFNAME"),
    "an_interface_name_too_long": ("ADD", {"CNI_IFNAME": "e" * 16}, {}, 4, "CNI_IFNAME"),
    "an_interface_that_is_there": ("ADD", {"CNI_IFNAME": "lo"}, {}, 101, "lo"),
    "args_without_equals": ("ADD", {"CNI_ARGS": "K8S_POD_NAME"}, {}, 4, "CNI_ARGS"),
    "no_configuration": ("ADD", {}, "", 6, ""),
    "configuration_that_is_no_json": ("ADD", {}, "{", 6, ""),
    "an_unsupported_version": ("ADD", {}, {"cniVersion": "9.9.9"}, 1, "9.9.9"),
    "no_ipam": ("ADD", {}, {"ipam": None}, 7, "ipam"),
    "an_ipam_that_is_not_installed": ("ADD", {}, {"ipam": {"type": "nil"}}, 7, "nil"),
    "no_family_at_all": (
        "ADD",
        {},
        {"ipam": {"type": "margay-ipam", "assign_ipv4": "false"}},
        7,
        "assign_ipv4",
    ),
    "an_mtu_that_is_no_number": ("ADD", {}, {"mtu": "large"}, 7, "mtu"),
    "a_check_without_an_earlier_result": ("CHECK", {}, {}, 7, "prevResult"),
    "an_agent_that_is_away": (
        "ADD",
        {},
        {"agentSocket": "/run/nil/agent.sock"},
        11,
        "/run/nil/agent.sock",
    ),
}


@pytest.fixture(scope="module")
def empty(rig):
    """A namespace that a pod could have."""
    name = f"{rig.tag}-p-empty"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield "empty"
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("call", CALLS)
def test_a_bad_cni_call_gets_its_code_and_a_message(scene, empty, call):
    verb, variables, config, code, told = CALLS[call]
    done = scene.rig.cni(verb, "n1", "x", empty, config, **variables)
    assert done.returncode != 0
    error = json.loads(done.stdout)
    assert error["code"] == code and told in error["msg"] + error.get("details", ""), error
    # Nothing is left behind.
    assert "eth0" not in scene.rig.exec(empty, "ip", "-br", "link")
    assert empty not in scene.rig.ctl("get", "workloadendpoints", "-o", "name")


def test_bad_cni_calls_disturb_nobody(scene, empty):
    with undisturbed(scene):
        for verb, variables, config, _, _ in CALLS.values():
            assert scene.rig.cni(verb, "n1", "x", empty, config, **variables).returncode != 0


# === the node's interfaces ===


def test_an_uplink_without_native_xdp_falls_back_and_says_why(scene):
    """A bridge has no XDP of its own and no queues: generic it is, and the log says so."""
    done = on_spare_node(scene.rig, "br9", [])
    assert done["ready"], done["log"]
    attached = next(line for line in done["log"].splitlines() if "uplink attached" in line)
    assert "generic=true" in attached, attached
    assert "no zero-copy" in attached and "no native" in attached.replace(
        "native XDP", "native"
    ), attached


def test_a_mode_that_the_uplink_cannot_do_is_refused_with_the_reason(scene):
    done = on_spare_node(scene.rig, "br9", ["--xdp-mode", "zerocopy"])
    assert not done["ready"]
    assert "br9" in done["log"] and "zero" in done["log"].lower(), done["log"]


def test_an_uplink_that_is_not_there_is_refused_by_name(scene):
    done = on_spare_node(scene.rig, "eth7", [])
    assert not done["ready"] and done["code"] not in (0, None)
    assert "there is no interface eth7" in done["log"] and "--uplink" in done["log"]


def on_spare_node(rig, uplink, flags):
    """Starts margayd in a namespace of its own with one bridge `br9`; what came of it."""
    name = f"{rig.tag}-spare"
    run = ["ip", "netns", "exec", name]
    state = rig.run / "spare"
    state.mkdir(exist_ok=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for line in ("lo up", "add br9 type bridge", "br9 up"):
            verb = [] if line.startswith("add") else ["set"]
            subprocess.run(["ip", "-n", name, "link", *verb, *line.split()], check=True)
        words = ["--node", "spare", "--uplink", uplink, "--workers", "1", *flags]
        words += ["--socket", state / "d.sock", "--state-dir", state / "state"]
        with open(state / "log", "w") as log:
            child = subprocess.Popen([*run, rig.bin / "margayd", *words], stderr=log)
        end = time.monotonic() + 5
        while time.monotonic() < end and child.poll() is None:
            if "forwarding" in (state / "log").read_text():
                break
            time.sleep(0.05)
        ready = child.poll() is None
        child.terminate()
        code = child.wait(5)
        log = re.sub(r"\x1b\[[0-9;]*m", "", (state / "log").read_text())
        return {"ready": ready, "code": code, "log": log}
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_queue_count_that_changes_is_followed(scene):
    """One queue at the start, a second one while packets flow; the kernel takes none back."""
    rig = scene.rig

    def queues(count):
        return rig.run_in("n1", "ethtool", "-L", "eth0", "rx", count, "tx", count).returncode == 0

    rig.kill("n1", "daemon", signal.SIGTERM)
    assert queues(1)
    rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "n1 ready with one queue")
    seen = len(rig.log("n1", "daemon"))
    with undisturbed(scene, loses_nothing=False):
        assert queues(2)
        more = lambda: "queues=2" in rig.log("n1", "daemon")[seen:]
        wait_until(more, "the new queue is bound")
        # Connections whose answers arrive by either queue.
        for _ in range(30):
            with rig.inside("client"):
                client = socket.socket()
            with client:
                client.settimeout(1)
                client.connect((OUTSIDE[4], OUTSIDE_SERVER))
        assert not queues(1), "the kernel took a queue from under its socket"
    shown = rig.exec("n1", "ethtool", "-l", "eth0")
    assert re.search(r"Current hardware settings:\s+RX:\s+2", shown), shown


def test_the_uplink_going_down_and_up_ends_no_connection(scene):
    rig = scene.rig
    rig.exec("n1", "sysctl", "-qw", "net.ipv6.conf.eth0.keep_addr_on_down=1")
    with undisturbed(scene, loses_nothing=False) as (near, *across):
        rig.exec("n1", "ip", "link", "set", "eth0", "down")
        time.sleep(1)
        assert near.goes_on() and near.lost() == 0 and near.stall() < 1
        assert all(stream.stall() > 0.5 and stream.error is None for stream in across)
        rig.exec("n1", "ip", "link", "set", "eth0", "up")


def test_a_pod_whose_interface_vanishes_under_traffic_harms_nobody(scene):
    """Its namespace goes without a DEL, while it sends and is sent to; the DEL comes later."""
    rig = scene.rig
    with undisturbed(scene):
        for number in range(3):
            name = f"brief{number}"
            rig.pod("n1", "x", name)
            address = rig.pods[name][0]
            scene.field.join(name)
            flood = [
                rig.spawn(name, "ping", "-q", "-i", "0.002", scene.pods["near"][0]),
                rig.spawn("client", "ping", "-q", "-i", "0.002", address),
            ]
            time.sleep(0.3)
            subprocess.run(["ip", "-n", f"{rig.tag}-p-{name}", "link", "del", "eth0"], check=True)
            time.sleep(0.3)
            for child in flood:
                rig.end(child, signal.SIGINT)
            done = rig.cni("DEL", "n1", "x", name)
            assert done.returncode == 0, done.stdout
            rig.store.remove(f"pod-{name}")
    rig.conserved("n1")


# === too much ===


def test_a_pod_that_floods_fills_rings_and_ends_nobodys_connection(scene, capsys):
    """Small datagrams as fast as two senders can, to a pod on the node, across, and to nowhere."""
    rig = scene.rig
    targets = [scene.pods["near"][0], scene.pods["far"][0], OUTSIDE[4], "10.244.255.254"]
    ended = threading.Event()

    def flood(client):
        payload = b"x" * 64
        while not ended.is_set():
            for _ in range(64):
                with contextlib.suppress(OSError):
                    client.send(payload)

    before = rig.metrics("n1")
    clients = []
    for target in targets:
        with rig.inside("rogue"):
            clients.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        clients[-1].connect((target, 9))
    threads = [threading.Thread(target=flood, args=(one,)) for one in clients]
    with undisturbed(scene, loses_nothing=False) as streams:
        for thread in threads:
            thread.start()
        time.sleep(2)
        ended.set()
        for thread in threads:
            thread.join(5)
        lost = {stream.name: stream.lost() for stream in streams}
    after = rig.metrics("n1")
    received = after.total("margay_rx_packets_total") - before.total("margay_rx_packets_total")
    with capsys.disabled():
        print(f"\n  flood: {received:.0f} frames received; bystanders' lost segments: {lost}")
    assert received > 20000
    rig.conserved("n1")


def test_an_agent_that_dies_is_missed_by_nobody(scene):
    rig = scene.rig
    with undisturbed(scene, dies=("n1", "agent")):
        rig.kill("n1", "agent")
        time.sleep(0.5)
        assert scene.field.reach([Attempt("rogue", "far")]), "a new connection without an agent"
        done = rig.cni("STATUS", "n1", "x", "rogue")
        assert done.returncode != 0 and json.loads(done.stdout)["code"] in (50, 51), done.stdout
        rig.start("n1", "agent")
        wait_until(lambda: rig.ready("n1", 9102), "the agent is ready", within=10)
        wait_until(lambda: rig.cni("STATUS", "n1", "x", "rogue").returncode == 0, "STATUS is good")


def test_a_full_flow_table_evicts_what_is_least_worth_and_counts_it(scene, tmp_path):
    """Room for 256 connections; 5000 half-open ones come; established ones stay."""
    rig = scene.rig
    file = tmp_path / "small.toml"
    file.write_text("[flows]\nv4 = 256\nv6 = 256\n")
    rig.start_as_child("n1", "daemon", "--config", file)
    wait_until(lambda: rig.ready("n1"), "n1 ready with a small table")
    with undisturbed(scene):
        wire = Wire(rig, "rogue")
        head = Ether(src=wire.mac, dst=GATEWAY)
        syns = [
            head
            / IP(src=scene.pods["rogue"][0], dst=scene.pods["near"][0])
            / TCP(sport=port, dport=9)
            for port in range(10000, 15000)
        ]
        wire.send([bytes(frame) for frame in syns], pause_every=32)
        wire.close()
    seen = rig.metrics("n1")
    gone = seen.total("margay_flow_evictions_total") + seen.drops("flow_table_full")
    assert gone > 3000, f"{gone} evicted or refused"
    assert seen.total("margay_flows") <= 512
    rig.conserved("n1")


def test_packets_are_conserved_and_the_kernel_forwarded_none(scene):
    scene.rig.books_are_right()
