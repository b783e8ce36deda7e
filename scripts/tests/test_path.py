"""The way of single packets: hops, sizes, fragments, translation of sources, errors on their way
back, and what the node keeps for itself."""

import contextlib
import os
import re
import signal
import socket
import struct
import time

import pytest
from documents import calico
from rig import NODES, wait_until
from scapy.all import (
    ARP,
    IP,
    TCP,
    Ether,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6ParamProblem,
    IPv6,
    IPv6ExtHdrFragment,
)
from whoami import REFUSED, SILENT, Whoami, family

MODE = "vxlan"
OUT = ("172.20.0.100", "fd20::100")
NODE = {"n1": ("172.20.0.1", "fd20::1"), "n2": ("172.20.0.2", "fd20::2")}
V4, V6 = 0, 1
FAMILIES = pytest.mark.parametrize("v", (V4, V6), ids=("v4", "v6"))
# The wire's MTU: `scripts/rig` goes by it too.
WIRE = int(os.environ.get("WIRE_MTU", "1500"))
# Largest packet between nodes by mode, for IPv4 and IPv6.
PATH_MTU = {
    "none": (WIRE, WIRE),
    "ipip": (WIRE - 20, WIRE),
    "vxlan": (WIRE - 50, WIRE - 70),
    "vxlan-crosssubnet": (WIRE, WIRE),
}
# That of pods while a pool of each family has VXLAN.
POD = min(PATH_MTU["vxlan"])


@pytest.fixture(scope="module")
def who(rig):
    """Pods a, b (n1) and c (n2); big (n1) and huge (n2) have the wire's own MTU."""
    for node, name in (("n1", "a"), ("n1", "b"), ("n2", "c")):
        rig.pod(node, "default", name, app=name)
    rig.env["POD_MTU"] = str(WIRE)
    rig.pod("n1", "default", "big")
    rig.pod("n2", "default", "huge", app="huge")
    rig.store.write("echo", [service("echo", "10.96.0.10", "fd96::10", {"app": "c"})])
    who = Whoami(rig)
    for name in rig.pods:
        who.serve(name, 7)
    who.serve("out", 7)
    for place in (*rig.pods, *NODES, "out"):
        # Many errors within a second are wanted of the kernels too.
        rig.exec(place, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    who.mode = MODE
    yield who
    who.close()
    rig.books_are_right()


def service(name, v4, v6, selector, **spec):
    """A service of both families with UDP and TCP port 70 → 7, and 71 → 71 where nobody listens."""
    ports = [
        {"name": f"{protocol.lower()}{port}", "port": port, "targetPort": to, "protocol": protocol}
        | {"nodePort": 30000 + port}
        for protocol in ("TCP", "UDP")
        for port, to in ((70, 7), (71, 71))
    ]
    spec = {"ports": ports, "clusterIP": v4, "clusterIPs": [v4, v6], "selector": selector} | spec
    spec |= {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack"}
    spec |= {"ipFamilies": ["IPv4", "IPv6"]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def address(rig, name, v):
    """The address of a pod, node or the host outside."""
    return (OUT if name == "out" else NODE.get(name) or rig.pods[name])[v]


def tunnel(rig, node, v):
    """A node's address inside the tunnels."""
    field = ("ipv4VXLANTunnelAddr", "ipv6VXLANTunnelAddr")[v]
    text = (rig.store.path / f"state/Node/{node}.json").read_text()
    return re.search(rf'"{field}": "([^"]+)"', text)[1]


def become(rig, who, mode):
    """Brings the pools into a mode, while everything runs."""
    if who.mode == mode:
        return
    before = {node: rig.metrics(node).total("margay_generation") for node in NODES}
    rig.script("pools", mode)
    who.mode = mode
    for node in NODES:
        grown = lambda: rig.metrics(node).total("margay_generation") > before[node]  # noqa: E731
        wait_until(grown, f"{node} knows mode {mode}")
    # The tunnels' addresses come after the pools, by way of the Node objects.
    time.sleep(0.7)


@FAMILIES
@pytest.mark.parametrize("source", ("a", "n1", "n2"))
def test_everybody_is_pinged(rig, who, source, v):
    become(rig, who, "vxlan")
    for target in ("a", "b", "c", "n1", "n2", "out"):
        assert rig.ping(source, address(rig, target, v), 1, 2), target


@FAMILIES
@pytest.mark.parametrize("mode", PATH_MTU)
def test_large_echoes_are_cut_and_put_together(rig, who, mode, v):
    become(rig, who, mode)
    pairs = [("a", target) for target in ("b", "c", "n1", "n2", "out")]
    for source, target in [*pairs, ("n1", "b"), ("n1", "c"), ("big", "c"), ("big", "huge")]:
        words = ("ping", "-n", "-c3", "-i0.05", "-W1", f"-s{2 * WIRE + 1000}", address(rig, target, v))
        got = int(re.search(r"(\d+) received", rig.exec(source, *words, check=False))[1])
        # Of IPv6, whose senders alone cut, the first may be lost to learn the size.
        assert got >= (3, 1)[v], f"{source} → {target}: {got} of 3"


@FAMILIES
@pytest.mark.parametrize("mode", PATH_MTU)
def test_the_path_mtu_is_told(rig, who, mode, v):
    become(rig, who, mode)
    for source, target, mtu in (
        ("big", "huge", PATH_MTU[mode][v]),
        ("big", "a", POD),
        ("big", "c", POD),
        ("big", "out", WIRE),
    ):
        # What was learned in another mode is forgotten.
        rig.exec(source, "ip", ("-4", "-6")[v], "route", "flush", "cache")
        said = rig.exec(source, "tracepath", "-n", address(rig, target, v))
        assert int(re.search(r"Resume: pmtu (\d+)", said)[1]) == mtu, f"{source} → {target}\n{said}"


@FAMILIES
@pytest.mark.parametrize("kind", ("-U", "-I", "-T"), ids=("udp", "icmp", "tcp"))
def test_traceroute_shows_every_node_once(rig, who, kind, v):
    become(rig, who, "vxlan")
    n1, n2, c = NODE["n1"][v], tunnel(rig, "n2", v), address(rig, "c", v)
    for source, target, hops in (
        ("a", c, [n1, n2, c]),
        ("a", address(rig, "b", v), [n1, address(rig, "b", v)]),
        ("a", OUT[v], [n1, OUT[v]]),
        ("a", NODE["n2"][v], [n1, NODE["n2"][v]]),
        ("a", n1, [n1]),
        ("n1", c, [n2, c]),
        ("n1", address(rig, "b", v), [address(rig, "b", v)]),
    ):
        words = ("traceroute", ("-4", "-6")[v], "-n", "-q1", "-w2", kind, target)
        told = re.findall(r"^ *\d+ +(\S+)", rig.exec(source, *words), re.M)
        assert told == hops, f"{source} → {target}"


@FAMILIES
def test_traceroute_through_a_service_names_the_service(rig, who, v):
    become(rig, who, "vxlan")
    cluster = ("10.96.0.10", "fd96::10")[v]
    words = ("traceroute", ("-4", "-6")[v], "-n", "-q1", "-w2", "-U", "-p71", cluster)
    told = re.findall(r"^ *\d+ +(\S+)", rig.exec("a", *words), re.M)
    assert told == [NODE["n1"][v], tunnel(rig, "n2", v), cluster]


@FAMILIES
def test_errors_are_translated_back_through_a_service(rig, who, v):
    cluster, node_port = ("10.96.0.10", "fd96::10")[v], (NODE["n1"][v], 30071)
    for protocol in ("UDP", "TCP"):
        for source, to, port in (
            ("a", cluster, 71),
            ("n1", cluster, 71),
            ("a", *node_port),
            ("n1", *node_port),
            ("out", *node_port),
            # A masqueraded one, of a pod and of what is no pod.
            ("a", address(rig, "out", v), 71),
            ("a", NODE["n2"][v], 71),
        ):
            assert who.ask(source, to, port, protocol) == REFUSED, f"{source} → {to} {protocol}"


def arriving_ttl(rig, source, target, v):
    """The TTL that is left of 10 of a UDP datagram."""
    # IP_RECVTTL and IPV6_RECVHOPLIMIT
    told, level = ((12, socket.IPPROTO_IP), (51, socket.IPPROTO_IPV6))[v]
    mine = (socket.IP_TTL, socket.IPV6_UNICAST_HOPS)[v]
    to = address(rig, target, v)
    with contextlib.ExitStack() as stack:
        with rig.inside(target):
            there = stack.enter_context(socket.socket(family(to), socket.SOCK_DGRAM))
        with rig.inside(source):
            here = stack.enter_context(socket.socket(family(to), socket.SOCK_DGRAM))
        there.setsockopt(level, told, 1)
        there.bind((to, 9))
        there.settimeout(2)
        here.setsockopt(level, mine, 10)
        here.sendto(b"?", (to, 9))
        (_, _, data), *_ = there.recvmsg(16, 64)[1]
        return struct.unpack("i", data)[0]


@FAMILIES
def test_ttl_is_lowered_once_a_node(rig, who, v):
    become(rig, who, "vxlan")
    expected = {
        ("a", "b"): 9, ("a", "c"): 8, ("a", "n1"): 10, ("a", "n2"): 9, ("a", "out"): 9,
        ("n1", "b"): 10, ("n1", "c"): 9,
    }  # fmt: skip
    assert {pair: arriving_ttl(rig, *pair, v) for pair in expected} == expected


@FAMILIES
def test_a_hundred_errors_a_second_are_sent(rig, who, v):
    protocol = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)[v]
    level, ttl = (
        (socket.IPPROTO_IP, socket.IP_TTL),
        (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    )[v]
    time.sleep(1)  # What tests before have used up is there again.
    with rig.inside("a"):
        errors = socket.socket(family(OUT[v]), socket.SOCK_RAW, protocol)
        probe = socket.socket(family(OUT[v]), socket.SOCK_DGRAM)
    with errors, probe:
        probe.setsockopt(level, ttl, 1)
        errors.settimeout(0.5)
        for port in range(33000, 33100):
            probe.sendto(b"?", (OUT[v], port))
        exceeded = 0
        with contextlib.suppress(TimeoutError):
            while exceeded < 100:
                got = errors.recv(2048)
                exceeded += got[(20, 0)[v]] == (11, 3)[v]
        assert exceeded == 100


@FAMILIES
@pytest.mark.parametrize("mode", ("none", "ipip", "vxlan"))
def test_datagrams_of_8_kb_pass_a_service_both_ways(rig, who, mode, v):
    become(rig, who, mode)
    cluster, data = ("10.96.0.10", "fd96::10")[v], bytes(range(256)) * 32
    node_port = NODE["n1"][v], 30070
    for source, to, port in (("a", cluster, 70), ("n1", cluster, 70), ("out", *node_port)):
        for _ in range(3):
            # Twice at most the path's size is learned on the way.
            answer = who.ask(source, to, port, "UDP", data=data, within=0.7)
            if answer != SILENT:
                break
        assert answer != SILENT and answer.data == data, source


@FAMILIES
def test_fragments_obey_policy(rig, who, v):
    become(rig, who, "vxlan")
    rule = {"from": [{"podSelector": {}}], "ports": [{"protocol": "UDP", "port": 7}]}
    rig.store.write("only-7", {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "only-7"},
        "spec": {"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [rule]},
    })  # fmt: skip
    b, data = address(rig, "b", v), bytes(8000)
    with rig.inside("b"):
        closed = socket.socket(family(b), socket.SOCK_DGRAM)
    with contextlib.closing(closed):
        closed.bind((b, 8))
        closed.settimeout(0.5)
        try:
            wait_until(
                lambda: who.ask("a", b, 71, "UDP", within=0.2) == SILENT, "the policy is in force"
            )
            before = rig.metrics("n1").drops("policy")
            assert who.ask("a", b, 7, "UDP", data=data).data == data
            assert who.ask("a", b, 8, "UDP", data=data, within=0.3) == SILENT
            with pytest.raises(TimeoutError):
                closed.recv(1)
            # It was denied as the one datagram that it is.
            assert rig.metrics("n1").drops("policy") == before + 1
        finally:
            rig.store.remove("only-7")


@FAMILIES
@pytest.mark.parametrize("protocol", ("TCP", "UDP"))
def test_what_leaves_the_pools_carries_the_node_and_a_port_of_the_range(rig, who, protocol, v):
    ports = set()
    for _ in range(40):
        seen = who.ask("a", OUT[v], 7, protocol)
        assert (seen.name, seen.address) == ("out", NODE["n1"][v])
        ports.add(seen.port)
    assert all(61000 <= port <= 65535 for port in ports)
    assert len(ports) > 20, "ports are spread"
    # The same port in two pods is two ports outside.
    mine = [who.ask(pod, OUT[v], 7, protocol, source_port=33333).port for pod in ("a", "b")]
    assert mine[0] != mine[1]


def test_source_ports_are_of_the_range_that_felix_is_given_and_never_two_of_one(rig, who):
    held = []

    def connect():
        with rig.inside("a"):
            held.append(socket.create_connection((OUT[V4], 7), timeout=2))
        return held[-1]

    def source_port(talk):
        talk.send(b"?")
        return int(talk.recv(100).split()[2])

    before = connect()
    rig.store.write("felix", calico("FelixConfiguration", "default", natPortRange="62000:62019"))
    few = range(62000, 62020)
    try:
        wait_until(lambda: who.ask("a", OUT[V4], 7).port in few, "the range is in force")
        assert source_port(before) not in few, "it goes on with what it has"
        seen = [source_port(connect()) for _ in range(15)]
        assert len(set(seen)) == len(seen) and set(seen) <= set(few)
    finally:
        for one in held:
            one.close()
        rig.store.remove("felix")
        wait_until(lambda: who.ask("b", OUT[V4], 7, "UDP").port not in few, "it is as it was")


def test_pods_reach_a_server_at_a_link_local_address_of_their_node(rig, who):
    """As a cache of a name server has one, on every node the same."""
    cache = "169.254.20.10"
    rig.exec("n1", "ip", "addr", "add", f"{cache}/32", "dev", "lo")
    try:
        who.serve("n1", 5300, addresses=[cache], sctp=False)
        for protocol in ("UDP", "TCP"):
            heard = lambda protocol=protocol: who.ask("a", cache, 5300, protocol) != SILENT
            wait_until(heard, "the node knows of its new address")
            seen = who.ask("a", cache, 5300, protocol)
            assert (seen.name, seen.address) == ("n1", address(rig, "a", V4))
        assert who.ask("c", cache, 5300, "UDP", within=0.4) == SILENT, "that is another node's"
    finally:
        rig.exec("n1", "ip", "addr", "del", f"{cache}/32", "dev", "lo")


@FAMILIES
def test_pods_keep_their_address_towards_pods(rig, who, v):
    for source, target in (("a", "b"), ("a", "c"), ("c", "a")):
        seen = who.ask(source, address(rig, target, v), 7)
        assert seen.address == address(rig, source, v), f"{source} → {target}"


def idle(rig, node, seconds=0.7):
    """A node's metrics, if nothing passed its ports for a while."""
    before = rig.metrics(node)
    time.sleep(seconds)
    after = rig.metrics(node)
    passed = [
        one.total(f"margay_{way}_packets_total") for one in (before, after) for way in ("rx", "tx")
    ]
    return after if passed[:2] == passed[2:] else None


@FAMILIES
def test_the_nodes_own_traffic_never_sees_the_dataplane(rig, who, v):
    here = NODE["n1"][v]
    who.serve("n1", 22, 53, addresses=[here], sctp=False)
    before = wait_until(lambda: idle(rig, "n1"), "connections of other tests have ended", within=10)
    for _ in range(5):
        assert who.ask("out", here, 22).address == OUT[v]
        assert who.ask("out", here, 53, "UDP").address == OUT[v]
        assert who.ask("n1", OUT[v], 7).address == here
        assert who.ask("n1", OUT[v], 7, "UDP").address == here
    assert who.ask("out", here, 23) == REFUSED
    assert rig.ping("out", here)
    time.sleep(0.15)
    after = rig.metrics("n1")
    for name in ("margay_rx_packets_total", "margay_tx_packets_total"):
        assert after.by(name, "port") == before.by(name, "port")


@pytest.mark.parametrize("offloads", ("tx off", "tx on gso off tso off", "tx on gso on tso on"))
def test_checksums_are_right_whatever_a_pod_does_to_its_offloads(rig, who, offloads):
    rig.exec("a", "ethtool", "-K", "eth0", *offloads.split(), check=False)
    for target in ("b", "c", "out"):
        caught = rig.run / f"{target}.pcap"
        caught.unlink(missing_ok=True)
        dump = rig.spawn(
            target, "tcpdump", "--immediate-mode", "-U", "-s0", "-ni", "eth0", "-Qin", "-w", caught
        )
        wait_until(lambda: caught.exists() and caught.stat().st_size, "tcpdump writes")
        for v in (V4, V6):
            for protocol in ("TCP", "UDP"):
                answer = who.ask("a", address(rig, target, v), 7, protocol, data=bytes(1300))
                assert answer not in (SILENT, REFUSED)
        time.sleep(0.2)
        rig.end(dump)
        said = rig.exec("n1", "tcpdump", "-vvnr", caught, "tcp port 7 or udp port 7 or ip6")
        assert said.count("cksum 0x") >= 4 and said.count("sum ok") >= 2
        wrong = [line for line in said.splitlines() if "incorrect" in line or "bad udp" in line]
        assert not wrong, wrong


@contextlib.contextmanager
def packet_socket(rig, place):
    """A socket that sends and takes whole frames at a pod's eth0."""
    with rig.inside(place):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        raw.bind(("eth0", 3))
    with contextlib.closing(raw):
        raw.settimeout(0.3)
        yield raw


def answer_to(raw, frame, wanted):
    """The first frame that comes back for which `wanted` is true."""
    raw.send(bytes(frame))
    with contextlib.suppress(TimeoutError):
        while True:
            got = Ether(raw.recv(2048))
            if wanted(got):
                return got
    return None


def test_a_pod_that_asks_for_any_address_is_told_its_host(rig, who):
    mac = rig.mac("a")
    v4, v6 = rig.pods["a"]
    is_reply = lambda got: ARP in got and got[ARP].op == 2  # noqa: E731
    with packet_socket(rig, "a") as raw:
        for wanted in ("169.254.1.1", address(rig, "b", V4), "8.8.8.8", "172.20.0.1"):
            ask = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=mac, psrc=v4, pdst=wanted)
            assert answer_to(raw, ask, is_reply)[ARP].hwsrc == "ee:ee:ee:ee:ee:ee", wanted
        # Whether its own address is taken, or an announcement of it, has no answer (RFC 5227).
        for claimed in ("0.0.0.0", v4):
            ask = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=mac, psrc=claimed, pdst=v4)
            assert answer_to(raw, ask, is_reply) is None, claimed
        for wanted in ("fe80::1", address(rig, "b", V6), "2001:db8::1"):
            ask = IPv6(src=v6, dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt=wanted)
            frame = Ether(src=mac, dst="33:33:ff:00:00:01") / ask / ICMPv6NDOptSrcLLAddr(lladdr=mac)
            got = answer_to(raw, frame, lambda got: b"\x02\x01" + bytes([0xEE] * 6) in bytes(got))
            assert got is not None, wanted


def test_ipv6_datagrams_in_pieces_leave_the_cluster_in_pieces_that_pass_everywhere(rig, who):
    """Who has cut them may know of a narrower link: RFC 8200 §5, at most 1,280 bytes each."""
    sizes, data = [], (bytes(range(256)) * 72)[: 2 * WIRE]
    with packet_socket(rig, "out") as raw:
        assert who.ask("a", OUT[V6], 7, "UDP", data=data).data == data
        with contextlib.suppress(TimeoutError):
            while True:
                got = Ether(raw.recv(2048))
                if IPv6ExtHdrFragment in got and got[IPv6].src == NODE["n1"][V6]:
                    sizes.append(len(got[IPv6]))
    # What each carries is a multiple of eight, but for the last.
    assert len(sizes) == -(-(len(data) + 8) // 1232) and max(sizes) <= 1280


def test_who_sends_an_ipv6_piece_of_odd_length_is_told_so(rig, who):
    mac, gateway = rig.mac("a"), "ee:ee:ee:ee:ee:ee"
    piece = IPv6(src=address(rig, "a", V6), dst=address(rig, "c", V6))
    piece = piece / IPv6ExtHdrFragment(nh=17, id=7, m=1) / bytes(13)
    is_told = lambda got: ICMPv6ParamProblem in got  # noqa: E731
    with packet_socket(rig, "a") as raw:
        got = answer_to(raw, Ether(src=mac, dst=gateway) / piece, is_told)
    assert got[IPv6].src == NODE["n1"][V6]
    said = got[ICMPv6ParamProblem]
    assert (said.code, said.ptr) == (0, 4) and bytes(said.payload) == bytes(piece)


def test_what_a_pods_stack_says_by_itself_is_no_spoofing(rig, who):
    """Router solicitation, duplicate address detection, listener reports."""
    mac = rig.mac("a")
    before = rig.metrics("n1")
    assert before.drops("spoof") == 0
    rig.pod("n1", "default", "fresh")
    solicitation = IPv6(src="::", dst="ff02::2") / ICMPv6ND_RS()
    detection = IPv6(src="::", dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt="fe80::1")
    with packet_socket(rig, "a") as raw:
        for packet in (solicitation, detection):
            raw.send(bytes(Ether(src=mac, dst="33:33:00:00:00:02") / packet))
    wait_until(
        lambda: rig.metrics("n1").drops("link_local") > before.drops("link_local"),
        "listener reports are counted as link_local",
    )
    after = rig.metrics("n1")
    assert after.drops("spoof") == 0
    punts = [one.total("margay_consumed_packets_total", reason="ndisc") for one in (before, after)]
    assert punts[1] >= punts[0] + 2
    rig.unpod("n1", "default", "fresh")


def test_segment_sizes_fit_the_tunnel_where_the_agent_is_told_to_clamp_them(rig, who):
    become(rig, who, "vxlan")

    def told_size(v):
        """What pod huge (n2) takes for the segment size of pod big (n1), both with the wire's MTU."""
        with rig.inside("huge"):
            talk = socket.create_connection((address(rig, "big", v), 7), timeout=5)
        with contextlib.closing(talk):
            return talk.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)

    timestamps = 12
    for v, header in ((V4, 40), (V6, 60)):
        assert told_size(v) == WIRE - header - timestamps
    with rig.agent_with("n1", "--clamp-mss"):
        for v, header in ((V4, 40), (V6, 60)):
            fits = PATH_MTU["vxlan"][v] - header - timestamps
            wait_until(lambda v=v, fits=fits: told_size(v) == fits, f"{fits} bytes fit", within=10)


def test_a_strict_node_picks_no_connection_up(rig, who):
    mac = rig.mac("a")
    destination = address(rig, "b", V4)

    def amid(port):
        """A segment of a connection that nobody saw begin."""
        ip = IP(src=address(rig, "a", V4), dst=destination)
        return Ether(src=mac, dst="ee:ee:ee:ee:ee:ee") / ip / TCP(sport=port, dport=9, flags="A")

    refused = lambda: rig.metrics("n1").drops("invalid_state")  # noqa: E731
    # Port 9 has no listener: the answer to what arrives is a reset.
    is_reset = lambda got: TCP in got and got[TCP].flags.R  # noqa: E731
    ports = iter(range(20_000, 30_000))
    with packet_socket(rig, "a") as raw:
        assert answer_to(raw, amid(next(ports)), is_reset) is not None
        with rig.agent_with("n1", "--tcp-strict"):
            before = refused()

            def refuses():
                raw.send(bytes(amid(next(ports))))
                return refused() > before

            wait_until(refuses, "a segment without beginning is refused", within=10)
            # Those that begin as they should are not.
            assert who.ask("a", destination, 7).name == "b"


def test_source_ports_are_kept_where_the_agent_is_told_to(rig, who):
    ask = lambda pod, port: who.ask(pod, OUT[V4], 7, source_port=port).port  # noqa: E731
    with rig.agent_with("n1", "--keep-source-ports"):
        ports = iter(range(63_000, 63_100))
        wait_until(lambda: (port := next(ports)) == ask("a", port), "a port is kept", within=10)
        # A port may be another connection's, of a test before.
        kept = [port for port in (next(ports) for _ in range(20)) if ask("a", port) == port]
        assert len(kept) > 15
        assert 61_000 <= ask("b", kept[0]) != kept[0], "it is taken"
        assert 61_000 <= ask("a", 30_000), "it is none of the range"
