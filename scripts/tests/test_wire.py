"""The wire checked by strangers: the kernel's own VXLAN and scapy's IPIP as peers of a node, and
tshark as reader of what passes between them."""

import collections
import contextlib
import json
import socket
import time

import pytest
from rig import wait_until
from scapy.all import ICMP, IP, TCP, UDP, Dot1Q, Ether, Raw, fragment
from scapy.layers.vxlan import VXLAN
from whoami import Answer, Whoami

MODE = "vxlan"
V4, V6 = 0, 1
FAMILIES = pytest.mark.parametrize("v", (V4, V6), ids=("v4", "v6"))
# The stranger: its addresses on the wire, of its VTEP, and of the "pod" that it has.
UNDERLAY = ("172.20.0.100", "fd20::100")
VTEP = ("10.244.250.0", "fd44::fa00")
POD = ("10.244.250.5", "fd44::fa05")
MAC = "66:aa:bb:cc:dd:ee"
N1 = ("172.20.0.1", "fd20::1")


def node_object():
    """The stranger as Calico would write it."""
    spec = {
        "bgp": {"ipv4Address": f"{UNDERLAY[V4]}/24", "ipv6Address": f"{UNDERLAY[V6]}/64"},
        "ipv4VXLANTunnelAddr": VTEP[V4],
        "ipv6VXLANTunnelAddr": VTEP[V6],
        "vxlanTunnelMACAddr": MAC,
        "vxlanTunnelMACAddrV6": MAC,
    }
    return calico("Node", "stranger", spec)


def block(name, cidr):
    """A block of the stranger's."""
    spec = {"cidr": cidr, "affinity": "host:stranger", "allocations": [None] * 64}
    spec |= {"attributes": [], "unallocated": list(range(64)), "strictAffinity": False}
    return calico("IPAMBlock", name, spec)


def calico(kind, name, spec):
    """A document of Calico's."""
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def state(rig, kind, name):
    """The spec of what the cluster itself has written."""
    return json.loads((rig.store.path / f"state/{kind}/{name}.json").read_text())["spec"]


def kernel_vxlan(rig, v):
    """The kernel's tunnel of one family to n1: forwarding and neighbours are static."""
    n1, device = state(rig, "Node", "n1"), f"vx{(4, 6)[v]}"
    vtep = n1[("ipv4VXLANTunnelAddr", "ipv6VXLANTunnelAddr")[v]]
    mac = n1[("vxlanTunnelMACAddr", "vxlanTunnelMACAddrV6")[v]]
    whole = (32, 128)[v]
    blocks = (rig.store.path / "state/IPAMBlock").glob("*.json")
    specs = [json.loads(path.read_text())["spec"] for path in blocks]
    nets = [spec["cidr"] for spec in specs if spec["affinity"] == "host:n1"]
    for words in (
        f"ip link add {device} address {MAC} mtu {(1450, 1430)[v]} type vxlan id 4096 dstport 4789"
        f" local {UNDERLAY[v]} dev eth0 nolearning",
        f"ip addr add {VTEP[v]}/{whole} dev {device}" + (" nodad" if v else ""),
        f"ip addr add {POD[v]}/{whole} dev {device}" + (" nodad" if v else ""),
        f"ip link set {device} up",
        f"bridge fdb add {mac} dev {device} dst {N1[v]}",
        f"ip neigh add {vtep} lladdr {mac} dev {device}",
        f"ip route add {vtep}/{whole} dev {device} src {POD[v]}",
        *(
            f"ip route add {net} via {vtep} dev {device} src {POD[v]} onlink"
            for net in nets
            if (":" in net) == bool(v)
        ),
    ):
        rig.exec("out", *words.split())


@pytest.fixture(scope="module")
def who(rig):
    """Pod a on n1, and the stranger with servers on its pod address."""
    rig.pod("n1", "default", "a")
    rig.store.write("stranger", [
        node_object(), block("10-244-250-0-26", "10.244.250.0/26"),
        block("fd44--fa00-122", "fd44::fa00/122"),
    ])  # fmt: skip
    for v in (V4, V6):
        kernel_vxlan(rig, v)
    who = Whoami(rig)
    who.serve("a", 7)
    who.serve("out", 7, addresses=POD, name="stranger")
    wait_until(lambda: who.serves("a", POD[V4], 7), "the stranger is a node")
    yield who
    who.close()
    rig.books_are_right()


@contextlib.contextmanager
def capture(rig, name, *what):
    """Captures at the stranger's end of the wire; the file is whole afterwards."""
    file = rig.run / f"{name}.pcap"
    file.unlink(missing_ok=True)
    dump = rig.spawn(
        "out", "tcpdump", "--immediate-mode", "-U", "-s0", "-ni", "eth0", "-w", file, *what
    )
    wait_until(lambda: file.exists() and file.stat().st_size, "tcpdump writes")
    yield file
    time.sleep(0.3)
    rig.end(dump)


def decoded(rig, file, outer, *fields):
    """Packets from n1 as tshark reads them: the outermost value of each field. Fails where tshark
    finds anything malformed or wrong, in whatever direction."""
    words = ["tshark", "-r", file, "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    words += ["-o", "tcp.check_checksum:TRUE"]
    complaint = "_ws.malformed || _ws.expert.severity >= 0x00800000"
    told = rig.exec("out", *words, "-Y", complaint, check=False)
    assert not told.strip(), told
    listed = [word for field in fields for word in ("-e", field)]
    shape = ["-T", "fields", "-E", "occurrence=f", "-E", "separator=;"]
    lines = rig.exec("out", *words, "-Y", outer, *shape, *listed).splitlines()
    Packet = collections.namedtuple("Packet", [field.replace(".", "_") for field in fields])
    return [Packet(*line.split(";")) for line in lines]


@FAMILIES
def test_the_kernels_vxlan_talks_with_pods_both_ways(rig, who, v):
    a = rig.pods["a"][v]
    for size in (56, 1300, 4000):
        assert rig.ping("a", POD[v], 3, 1, "-s", size), size
        assert rig.ping("out", a, 3, 1, "-I", POD[v], "-s", size), size
    for protocol in ("TCP", "UDP", "SCTP"):
        there = who.ask("a", POD[v], 7, protocol, data=bytes(1000))
        assert there.name == "stranger" and there.address == a
        back = who.ask("out", a, 7, protocol, data=bytes(1000))
        assert back.name == "a" and back.address == POD[v]


@FAMILIES
def test_a_long_stream_passes_between_the_kernels_vxlan_and_a_pod(rig, who, v):
    for way in ((), ("-R",)):
        server = rig.spawn("out", "iperf3", "-s", "-1", "-B", POD[v])
        wait_until(lambda: ":5201" in rig.exec("out", "ss", "-ltn"), "iperf3 listens")
        said = json.loads(rig.exec("a", "iperf3", "-J", "-c", POD[v], "-n", "10M", *way))
        # What is on its way when the sender has sent all is not counted.
        assert said["end"]["sum_sent"]["bytes"] >= 10e6
        assert said["end"]["sum_received"]["bytes"] >= 5e6
        rig.end(server)


@FAMILIES
def test_tshark_reads_vxlan_and_its_fields_are_as_they_must_be(rig, who, v):
    with capture(rig, "vxlan", "udp port 4789") as file:
        rig.ping("a", POD[v], 2, 1)
        for protocol in ("TCP", "UDP"):
            who.ask("a", POD[v], 7, protocol)
            who.ask("out", rig.pods["a"][v], 7, protocol)
    fields = ["vxlan.flags", "vxlan.vni", "udp.srcport", "udp.dstport", "udp.checksum", "eth.dst"]
    fields += (["ip.flags.df", "ip.ttl", "ip.id"], ["ipv6.hlim"])[v]
    outer = (f"ip.src == {N1[V4]}", f"ipv6.src == {N1[V6]}")[v]
    packets = decoded(rig, file, outer, *fields)
    assert len(packets) >= 10
    mac = rig.mac("out")
    for packet in packets:
        assert packet.vxlan_flags == "0x0800" and packet.vxlan_vni == "4096"
        assert packet.udp_dstport == "4789" and 49152 <= int(packet.udp_srcport) <= 65535
        assert packet.eth_dst == mac
        if v == V4:
            assert packet.udp_checksum == "0x0000"
            assert packet.ip_flags_df == "1" and packet.ip_ttl == "64"
        else:
            assert packet.udp_checksum != "0x0000" and packet.ipv6_hlim == "64"


@FAMILIES
def test_flows_have_source_ports_of_their_own(rig, who, v):
    with capture(rig, "ports", "udp port 4789") as file:
        for port in range(30000, 30030):
            for _ in range(2):
                who.ask("a", POD[v], 7, "UDP", source_port=port)
    inner = {}
    words = ("-T", "fields", "-E", "separator=;", "-e", "udp.srcport")
    outer = (f"ip.src == {N1[V4]}", f"ipv6.src == {N1[V6]}")[v]
    for line in rig.exec("out", "tshark", "-r", file, "-Y", outer, *words).splitlines():
        port, flow = line.split(",")
        inner.setdefault(flow, set()).add(port)
    assert len(inner) == 30 and all(len(ports) == 1 for ports in inner.values())
    assert len(set.union(*inner.values())) > 20


def test_congestion_marks_are_copied_into_the_tunnel(rig, who):
    with capture(rig, "marks", "udp port 4789") as file:
        for tos in (0, 1, 2, 3, 0x2E << 2):
            assert rig.ping("a", POD[V4], 1, 1, "-Q", hex(tos))
    words = ("-T", "fields", "-E", "separator=;", "-e", "ip.dsfield")
    lines = rig.exec("out", "tshark", "-r", file, "-Y", f"ip.src == {N1[V4]}", *words).splitlines()
    pairs = [tuple(int(mark, 16) for mark in line.split(",")) for line in lines]
    assert pairs == [(tos, tos) for tos in (0, 1, 2, 3, 0x2E << 2)]


# --- scapy as the stranger ---


@contextlib.contextmanager
def wire(rig):
    """A socket at the stranger's end of the wire that sends and takes whole frames."""
    with rig.inside("out"):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        raw.bind(("eth0", 3))
    with contextlib.closing(raw):
        raw.settimeout(0.05)
        yield raw


def frame(rig, packet):
    """A frame for n1."""
    mac = rig.mac("n1")
    return bytes(Ether(dst=mac, src="02:00:00:00:00:64") / packet)


def talk(rig, raw, packet, within=1.0):
    """Sends a packet to n1; the first IPIP packet that n1 sends afterwards, of the same protocol
    within: what was said before may be said again."""
    protocol = packet[1].proto
    with contextlib.suppress(TimeoutError):
        while True:
            raw.recv(4096)
    raw.send(frame(rig, packet))
    end = time.monotonic() + within
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            got = Ether(raw.recv(4096))
            answers = IP in got and got[IP].src == N1[V4] and got[IP].proto == 4
            if answers and got[IP][1].proto == protocol:
                return got[IP]
    return None


def checksums_are_right(packet):
    """Whether scapy computes the checksums of all layers as they are."""
    again = packet.copy()
    layer = again
    while layer:
        if "chksum" in layer.fields:
            del layer.chksum
        layer = layer.payload
    return bytes(again) == bytes(packet)


def vxlan(rig, outer, inner):
    """A VXLAN packet from the stranger to n1."""
    mac = state(rig, "Node", "n1")["vxlanTunnelMACAddr"]
    tunnel = UDP(sport=50000, dport=4789, chksum=0) / VXLAN(vni=4096, flags="Instance")
    return outer / tunnel / Ether(src=MAC, dst=mac) / inner


def dropped(rig, reason, send):
    """How many packets n1 drops for a reason while `send` runs."""
    before = rig.metrics("n1").drops(reason)
    send()
    with contextlib.suppress(AssertionError):
        wait_until(lambda: rig.metrics("n1").drops(reason) > before, reason, within=1)
    return rig.metrics("n1").drops(reason) - before


def test_congestion_on_the_way_reaches_who_can_say_so(rig, who):
    a = rig.pods["a"][V4]
    with rig.inside("a"):
        pod = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.closing(pod), wire(rig) as raw:
        pod.bind((a, 9))
        pod.settimeout(1)
        pod.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        outer = lambda ecn: IP(src=UNDERLAY[V4], dst=N1[V4], tos=ecn, flags="DF")  # noqa: E731
        inner = (
            lambda ecn: IP(src=POD[V4], dst=a, tos=ecn) / UDP(sport=1, dport=9) / Raw(b"?")
        )  # noqa: E731
        # RFC 6040, figure 4: inner, outer, what arrives.
        for carried, on_the_way, arrives in ((2, 3, 3), (1, 3, 3), (2, 1, 1), (0, 2, 0), (3, 0, 3)):
            raw.send(frame(rig, vxlan(rig, outer(on_the_way), inner(carried))))
            _, told, _, _ = pod.recvmsg(10, 64)
            assert told[0][2][0] & 3 == arrives, f"inner {carried}, outer {on_the_way}"
        send = lambda: raw.send(frame(rig, vxlan(rig, outer(3), inner(0))))  # noqa: E731
        assert dropped(rig, "tunnel_ecn", send) == 1


def test_tunnel_packets_of_strangers_and_odd_ones_are_dropped_and_counted(rig, who):
    inner = IP(src=POD[V4], dst=rig.pods["a"][V4]) / ICMP(id=7)
    unknown = IP(src="172.20.0.101", dst=N1[V4])
    known = IP(src=UNDERLAY[V4], dst=N1[V4])
    other_net, bare = vxlan(rig, known, inner), vxlan(rig, known, inner)
    other_net[VXLAN].vni = 4097
    bare[VXLAN].flags = 0
    lie = vxlan(rig, known, IP(src=rig.pods["a"][V4], dst=rig.pods["a"][V4]) / ICMP(id=7))
    with wire(rig) as raw:
        for reason, packet in (
            ("unknown_tunnel_peer", vxlan(rig, unknown, inner)),
            ("tunnel_malformed", other_net),
            ("tunnel_malformed", bare),
            ("spoof", lie),
        ):
            assert (
                dropped(rig, reason, lambda packet=packet: raw.send(frame(rig, packet))) == 1
            ), reason


def heard_in_a(rig, packets):
    """Sends packets to n1; the datagram that pod a then hears at port 9."""
    with rig.inside("a"):
        pod = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.closing(pod), wire(rig) as raw:
        pod.bind((rig.pods["a"][V4], 9))
        pod.settimeout(2)
        for packet in packets:
            raw.send(frame(rig, packet))
        return pod.recv(9000)


def test_a_tag_within_vxlan_is_malformed(rig, who):
    """RFC 7348 §6.1: a frame with an inner VLAN tag is discarded."""
    packet = vxlan(rig, IP(src=UNDERLAY[V4], dst=N1[V4]), IP(src=POD[V4], dst=rig.pods["a"][V4]))
    inner = packet[VXLAN].payload
    inner.payload = Dot1Q(vlan=5) / inner.payload
    with wire(rig) as raw:
        assert dropped(rig, "tunnel_malformed", lambda: raw.send(frame(rig, packet))) == 1


def become_ipip(rig, who):
    """IPIP instead of VXLAN, while everything runs."""
    if getattr(who, "ipip", False):
        return
    rig.script("pools", "ipip")
    echo = IP(src=POD[V4], dst=rig.pods["a"][V4]) / ICMP(id=1)
    with wire(rig) as raw:
        outer = IP(src=UNDERLAY[V4], dst=N1[V4])
        wait_until(lambda: talk(rig, raw, outer / echo, 0.2), "n1 speaks IPIP")
    who.ipip = True


def test_scapys_ipip_talks_with_a_pod(rig, who):
    become_ipip(rig, who)
    a = rig.pods["a"][V4]
    for df in (0, "DF"):
        outer = IP(src=UNDERLAY[V4], dst=N1[V4], flags=df)
        inner = IP(src=POD[V4], dst=a, flags=df, ttl=9, tos=2)
        with capture(rig, "ipip", "ip proto 4") as file, wire(rig) as raw:
            echo = talk(rig, raw, outer / inner / ICMP(id=77, seq=5) / Raw(bytes(100)))
            syn = talk(rig, raw, outer / inner / TCP(sport=4000, dport=7, flags="S", seq=9))
            said = talk(rig, raw, outer / inner / UDP(sport=4001, dport=7) / Raw(b"hello"))
        for got in (echo, syn, said):
            assert (got.src, got.dst, got.ttl) == (N1[V4], UNDERLAY[V4], 64)
            assert (got[1].src, got[1].dst, got[1].ttl) == (a, POD[V4], 63)
            assert got.tos & 3 == got[1].tos & 3 and got.flags.DF == got[1].flags.DF
            assert checksums_are_right(got)
        assert (echo[ICMP].type, echo[ICMP].id, echo[ICMP].seq) == (0, 77, 5)
        assert syn[TCP].flags == "SA" and syn[TCP].ack == 10
        assert bytes(said[UDP].payload) == b"a %s 4001 hello" % POD[V4].encode()
        packets = decoded(rig, file, f"ip.src == {N1[V4]}", "ip.proto", "ip.ttl", "ip.flags.df")
        assert len(packets) >= 3 and all(packet.ip_proto == "4" for packet in packets)


def test_ipip_that_was_cut_on_the_way_is_put_together_first(rig, who):
    become_ipip(rig, who)
    data = bytes(range(256)) * 5
    inner = IP(src=POD[V4], dst=rig.pods["a"][V4]) / UDP(sport=1, dport=9) / Raw(data)
    pieces = fragment(IP(src=UNDERLAY[V4], dst=N1[V4], id=9) / inner, 500)
    assert len(pieces) == 3 and heard_in_a(rig, pieces) == data


def test_ipip_of_an_unknown_peer_is_dropped_and_counted(rig, who):
    become_ipip(rig, who)
    inner = IP(src=POD[V4], dst=rig.pods["a"][V4]) / ICMP(id=7)
    with wire(rig) as raw:
        packet = IP(src="172.20.0.101", dst=N1[V4]) / inner
        send = lambda: raw.send(frame(rig, packet))  # noqa: E731
        assert dropped(rig, "unknown_tunnel_peer", send) == 1


def test_a_node_that_is_taken_away_is_no_peer_any_more(rig, who):
    become_ipip(rig, who)
    rig.store.remove("stranger")
    inner = IP(src=POD[V4], dst=rig.pods["a"][V4]) / ICMP(id=7)
    with wire(rig) as raw:
        packet = IP(src=UNDERLAY[V4], dst=N1[V4]) / inner
        send = lambda: raw.send(frame(rig, packet))  # noqa: E731
        wait_until(lambda: dropped(rig, "unknown_tunnel_peer", send), "it is forgotten")
    assert not isinstance(who.ask("a", POD[V4], 7, within=0.3), Answer)
