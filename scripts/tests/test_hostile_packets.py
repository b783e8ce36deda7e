"""Packets that nobody should send, and too many of them: counted, and no bystander notices."""

import contextlib
import json
import socket
import threading
import time

import pytest
from bystanders import counted, undisturbed
from frames import Wire, hostile, link, packets, tunnelled
from rig import wait_until
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scene import NODE, OUTSIDE, PEER, SERVICE, Scene

GATEWAY = "ee:ee:ee:ee:ee:ee"


@pytest.fixture(scope="module")
def scene(rig):
    scene = Scene(rig)
    rig.pod("n1", "x", "rogue")
    yield scene
    scene.close()


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


def test_who_takes_a_remote_pods_address_from_the_wire_is_dropped_as_spoofed(scene, cable):
    """Nodes send such packets through a tunnel; nobody else may be taken for that pod."""
    near, far = scene.pods["near"], scene.pods["far"]
    head = Ether(src=cable.mac, dst=cable.node_mac)
    lies = [
        head / IP(src=far[0], dst=near[0]) / UDP(sport=1001, dport=80),
        head / IPv6(src=far[1], dst=near[1]) / UDP(sport=1001, dport=80),
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
    # Fragments among the malformed packets wait 30 s for the rest of their datagrams.
    rig.conserved("n1", within=40)


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
