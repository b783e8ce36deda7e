"""The same packets through Margay and through the kernel's conntrack, NAT and filter: what leaves
either agrees, packet by packet, but for the differences that are listed here with their reasons."""

import inspect

import pytest
from documents import calico, rule
from rig import wait_until
from scapy.all import ICMP, IP, TCP, UDP, IPOption, Raw, fragment
from twin import NODE, NODE_PORT, OUTSIDE, SERVICE, UPLINK_MTU, Sides, answer, complaint

MODE = "none"
ENV = {"WORKERS": "1"}
LOAD = b"margay" * 4

# Where the two do not agree: the case, its step (from 0), and why Margay does otherwise.
NO_SYN = "What no SYN began is picked up unless the settings say otherwise; policy has judged it, and the receiver refuses it."
SUMS = "A router does not verify checksums of what it carries (RFC 1812 5.2.2): a wrong one stays wrong, and the receiver drops it."
REFUSED = "Who is refused is told by the address that was asked, as a host would; the node's would be one more address to let through."
EXPIRED = "The error comes from the node, whatever was asked; the kernel translates its own error as though it came from the service."
MARTIAN = "Link-local and reserved addresses are never forwarded (RFC 3927 2.7, RFC 1812 5.3.7)."
GRE = "The kernel here has no tracking of GRE and calls it invalid."
DIFFERENCES = {
    ("unasked_answers", 2): NO_SYN,
    ("unasked_answers", 4): NO_SYN,
    ("nobody_serves", 1): REFUSED,
    ("nobody_serves", 4): REFUSED,
    ("ttl", 2): EXPIRED,
    ("wrong_sums", 1): SUMS,
    ("wrong_sums", 2): SUMS,
    ("wrong_sums", 3): SUMS,
    ("wrong_sums", 4): SUMS,
    ("destinations", 5): MARTIAN,
    ("destinations", 6): MARTIAN,
    ("other_protocols", 0): GRE,
    ("other_protocols", 1): GRE,
}

SERVICE_DOCUMENT = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "twin", "namespace": "default"},
    "spec": {
        "type": "NodePort",
        "clusterIP": SERVICE,
        "selector": {"name": "b"},
        "ports": [
            {"name": "tcp", "port": 80, "targetPort": 8080, "nodePort": NODE_PORT},
            {"name": "udp", "protocol": "UDP", "port": 53, "targetPort": 5353, "nodePort": 30053},
        ],
    },
}


def policy():
    """Pod b is reached at one port of TCP, one of UDP, and by pings."""
    to = lambda port: {"ports": [port]}
    rules = [
        rule("Allow", "TCP", destination=to(8080)),
        rule("Allow", "UDP", destination=to(5353)),
        rule("Allow", "ICMP", icmp={"type": 8}),
    ]
    return calico("NetworkPolicy", "b", "default", selector="name == 'b'", types=["Ingress"], ingress=rules)


@pytest.fixture(scope="module")
def sides(rig):
    """Pods a and b on n1, the service, the policy; the twin with the same addresses."""
    rig.store.write("service", SERVICE_DOCUMENT)
    rig.store.write("policy", policy())
    for name in ("a", "b"):
        rig.pod("n1", "default", name)
    rig.exec("n1", "ip", "link", "set", "eth0", "mtu", UPLINK_MTU)
    assert rig.ping("a", OUTSIDE, 2)
    sides = Sides(rig)
    in_force = lambda: (sides.begin(), sides.send("a", syn(sides.a, SERVICE, 39_999, 80)), agrees(sides))[2]
    wait_until(in_force, "the service and the policy are in force", 15)
    yield sides
    sides.close()


def agrees(sides):
    return all(step["kernel"] == step["margay"] for step in sides.steps)


# === packets ===


def tcp(src, dst, sport, dport, says, seq=0, ack=0, load=b"", **ip):
    options = [("MSS", 1360)] if "S" in says else []
    header = TCP(sport=sport, dport=dport, flags=says, seq=seq, ack=ack, window=8192, options=options)
    return IP(src=src, dst=dst, **ip) / header / load


def syn(src, dst, sport, dport, **ip):
    return tcp(src, dst, sport, dport, "S", 1000, **ip)


def udp(src, dst, sport, dport, load=LOAD, **ip):
    return IP(src=src, dst=dst, **ip) / UDP(sport=sport, dport=dport) / load


def ping(src, dst, ident, load=LOAD, **ip):
    return IP(src=src, dst=dst, **ip) / ICMP(id=ident, seq=1) / load


def last(place, flags=None, load=b"", seq=0, ack=0):
    """An answer to what a place received last, in each world to its own."""
    return lambda world: world.last(place, lambda got: answer(got, flags, load, seq, ack))


def about(place, **how):
    """An error about what a place received last."""
    return lambda world: world.last(place, lambda got: complaint(got, **how))


def shaken(s, place, to, dport, sport, server="b"):
    """A connection from a place: SYN, SYN ACK, ACK, each seen by the other end."""
    source = {"a": s.a, "b": s.b, "out": OUTSIDE}[place]
    s.send(place, syn(source, to, sport, dport))
    s.send(server, last(server, "SA", seq=5000, ack=1001))
    s.send(place, tcp(source, to, sport, dport, "A", 1001, 5001))


# === sequences ===


def odd_pieces(s):
    whole = fragment(udp(s.a, s.b, 43_011, 5353, bytes(1600), id=43_011), 800)
    s.send("a", whole[:1])
    again = fragment(udp(s.a, s.b, 43_012, 5353, bytes(1600), id=43_012), 800)
    s.send("a", [again[0], again[0], *again[1:]])
    crossed = fragment(udp(s.a, s.b, 43_013, 5353, bytes(1600), id=43_013), 800)
    over = crossed[1].copy()
    over.frag -= 2
    s.send("a", [crossed[0], over, crossed[2]])
    s.send("a", IP(src=s.a, dst=s.b, proto=17, frag=100, id=5) / Raw(LOAD))


def to_a_pod(s):
    shaken(s, "a", s.b, 8080, 40_001)
    s.send("a", tcp(s.a, s.b, 40_001, 8080, "PA", 1001, 5001, LOAD))
    s.send("b", last("b", "PA", b"answer", 5001, 1025))
    s.send("a", tcp(s.a, s.b, 40_001, 8080, "FA", 1025, 5007))
    s.send("b", last("b", "A", b"half closed", 5007, 1026))
    s.send("b", last("b", "FA", b"", 5018, 1026))
    s.send("a", tcp(s.a, s.b, 40_001, 8080, "A", 1026, 5019))


def to_a_service(s):
    shaken(s, "a", SERVICE, 80, 40_002)
    s.send("a", tcp(s.a, SERVICE, 40_002, 80, "PA", 1001, 5001, LOAD, tos=0x28, ttl=63))
    s.send("b", last("b", "PA", b"answer" * 200, 5001, 1025))
    s.send("b", last("b", "RA", b"", 6201, 1025))


def to_a_node_port(s):
    shaken(s, "out", NODE, NODE_PORT, 40_003)
    s.send("out", tcp(OUTSIDE, NODE, 40_003, NODE_PORT, "PA", 1001, 5001, LOAD))
    s.send("b", last("b", "PA", b"answer", 5001, 1025))


def masqueraded(s):
    shaken(s, "a", OUTSIDE, 443, 40_004, "out")
    s.send("a", tcp(s.a, OUTSIDE, 40_004, 443, "PA", 1001, 5001, LOAD))
    s.send("out", last("out", "PA", b"answer", 5001, 1025))
    s.send("out", last("out", "FA", b"", 5007, 1025))
    s.send("a", tcp(s.a, OUTSIDE, 40_004, 443, "FA", 1025, 5008))
    s.send("out", last("out", "A", b"", 5008, 1026))


def udp_ways(s):
    s.send("a", udp(s.a, s.b, 41_001, 5353))
    s.send("b", last("b", load=b"answer"))
    s.send("a", udp(s.a, SERVICE, 41_002, 53))
    s.send("b", last("b", load=b"answer"))
    s.send("a", udp(s.a, OUTSIDE, 41_003, 53))
    s.send("out", last("out", load=b"answer"))
    s.send("a", udp(s.a, s.b, 41_004, 5354))
    s.send("b", udp(s.b, s.a, 5354, 41_004))
    s.send("a", udp(s.a, s.b, 41_004, 5354))


def unsummed_udp(s):
    for number, (to, port) in enumerate(((s.b, 5353), (SERVICE, 53), (OUTSIDE, 53))):
        s.send("a", IP(src=s.a, dst=to) / UDP(sport=41_010 + number, dport=port, chksum=0) / LOAD)


def two_of_one_tuple(s):
    s.send("a", udp(s.a, s.b, 41_020, 5353))
    s.send("a", udp(s.a, SERVICE, 41_020, 53))
    s.send("b", last("b", load=b"answer"))
    s.send("a", syn(s.a, SERVICE, 41_021, 80))
    s.send("a", syn(s.a, s.b, 41_021, 8080))


def pings(s):
    s.send("a", ping(s.a, s.b, 7))
    s.send("b", last("b"))
    s.send("b", last("b"))
    s.send("a", ping(s.a, OUTSIDE, 8))
    s.send("out", last("out"))
    s.send("out", ping(OUTSIDE, s.b, 9))
    s.send("b", last("b"))


def unasked_answers(s):
    s.send("a", IP(src=s.a, dst=s.b) / ICMP(type=0, id=77) / LOAD)
    s.send("out", IP(src=OUTSIDE, dst=s.b) / ICMP(type=0, id=78) / LOAD)
    s.send("a", tcp(s.a, s.b, 42_001, 8080, "SA", 9, 9))
    s.send("a", tcp(s.a, s.b, 42_002, 8080, "R", 9))
    s.send("a", tcp(s.a, s.b, 42_003, 8080, "FA", 9, 9))


def no_flags_and_all(s):
    for number, flags in enumerate(("", "FPU", "SF", "SR", "FSRPAU", "U", "SU")):
        s.send("a", tcp(s.a, s.b, 42_010 + number, 8080, flags, 9))


def picked_up(s):
    s.send("a", tcp(s.a, s.b, 42_021, 8080, "PA", 1001, 5001, LOAD))
    s.send("b", last("b", "PA", b"answer", 5001, 1025))
    s.send("a", tcp(s.a, SERVICE, 42_022, 80, "PA", 1001, 5001, LOAD))
    s.send("a", tcp(s.a, s.b, 42_023, 22, "PA", 1001, 5001, LOAD))


def syn_again(s):
    s.send("a", syn(s.a, SERVICE, 42_031, 80))
    s.send("a", syn(s.a, SERVICE, 42_031, 80))
    s.send("b", last("b", "SA", seq=5000, ack=1001))
    s.send("b", last("b", "SA", seq=5000, ack=1001))
    s.send("a", tcp(s.a, SERVICE, 42_031, 80, "A", 1001, 5001))


def refused_by_the_backend(s):
    s.send("a", syn(s.a, SERVICE, 42_041, 80))
    s.send("b", last("b", "RA", seq=0, ack=1001))
    s.send("a", syn(s.a, SERVICE, 42_041, 80))


def simultaneous_open(s):
    s.send("a", syn(s.a, s.b, 42_051, 8080))
    s.send("b", tcp(s.b, s.a, 8080, 42_051, "S", 5000))
    s.send("a", tcp(s.a, s.b, 42_051, 8080, "SA", 1000, 5001))
    s.send("b", tcp(s.b, s.a, 8080, 42_051, "SA", 5000, 1001))
    s.send("a", tcp(s.a, s.b, 42_051, 8080, "A", 1001, 5001))


def reset_and_after(s):
    shaken(s, "a", s.b, 8080, 42_061)
    s.send("a", tcp(s.a, s.b, 42_061, 8080, "R", 1001))
    s.send("b", last("b", "PA", b"late", 5001, 1001))
    s.send("a", syn(s.a, s.b, 42_061, 8080))


def reset_out_of_window(s):
    shaken(s, "a", s.b, 8080, 42_062)
    s.send("b", tcp(s.b, s.a, 8080, 42_062, "R", 3_000_000_000))
    s.send("a", tcp(s.a, s.b, 42_062, 8080, "PA", 1001, 5001, LOAD))


def data_out_of_window(s):
    shaken(s, "a", SERVICE, 80, 42_063)
    s.send("a", tcp(s.a, SERVICE, 42_063, 80, "PA", 2_000_000_000, 5001, LOAD))
    s.send("a", tcp(s.a, SERVICE, 42_063, 80, "PA", 1001, 5001, LOAD))


def port_used_again(s):
    shaken(s, "a", s.b, 8080, 42_071)
    s.send("a", tcp(s.a, s.b, 42_071, 8080, "FA", 1001, 5001))
    s.send("b", last("b", "FA", b"", 5001, 1002))
    s.send("a", tcp(s.a, s.b, 42_071, 8080, "A", 1002, 5002))
    s.send("a", tcp(s.a, s.b, 42_071, 8080, "S", 90_000))
    s.send("b", last("b", "SA", b"", 7000, 90_001))


def denied(s):
    s.send("a", syn(s.a, s.b, 42_081, 22))
    s.send("out", syn(OUTSIDE, s.b, 42_082, 22))
    s.send("out", syn(OUTSIDE, s.b, 42_083, 8080))
    s.send("b", last("b", "SA", b"", 5000, 1001))
    s.send("a", IP(src=s.a, dst=s.b) / ICMP(type=13) / bytes(12))
    s.send("b", syn(s.b, s.a, 42_084, 22))
    s.send("a", last("a", "SA", b"", 5000, 1001))


def nobody_serves(s):
    s.send("a", syn(s.a, SERVICE, 42_091, 81))
    s.send("a", udp(s.a, SERVICE, 42_092, 54))
    s.send("a", tcp(s.a, SERVICE, 42_093, 81, "PA", 1001, 5001, LOAD))
    s.send("a", tcp(s.a, SERVICE, 42_094, 81, "R", 1001))
    s.send("a", ping(s.a, SERVICE, 11))


def hairpin(s):
    s.send("b", syn(s.b, SERVICE, 42_101, 80))
    s.send("b", last("b", "SA", b"", 5000, 1001))
    s.send("b", tcp(s.b, SERVICE, 42_101, 80, "A", 1001, 5001))
    s.send("b", udp(s.b, SERVICE, 42_102, 53))
    s.send("b", last("b", load=b"answer"))


def errors(s):
    s.send("a", udp(s.a, s.b, 42_111, 5353))
    s.send("b", about("b"))
    s.send("a", udp(s.a, SERVICE, 42_112, 53))
    s.send("b", about("b"))
    s.send("a", udp(s.a, OUTSIDE, 42_113, 53))
    s.send("out", about("out"))
    s.send("out", about("out", source="172.20.0.254", type=11, code=0))
    s.send("out", about("out", code=4, mtu=1300, length=48))
    s.send("a", syn(s.a, SERVICE, 42_114, 80))
    s.send("b", about("b", code=13, length=40))
    s.send("a", ping(s.a, OUTSIDE, 12))
    s.send("out", about("out", code=1))


def unrelated_errors(s):
    s.send("out", complaint(udp(s.a, OUTSIDE, 1, 2), type=3, code=1))
    s.send("b", complaint(udp(s.a, s.b, 3, 4), type=3, code=3))
    s.send("a", complaint(tcp(s.b, s.a, 5, 6, "A"), type=11, code=0))
    s.send("out", IP(src=OUTSIDE, dst=s.a) / ICMP(type=5, code=1, gw="172.20.0.9") / bytes(udp(s.a, OUTSIDE, 1, 2)))


def in_pieces(s):
    big = lambda to, port, sport: fragment(udp(s.a, to, sport, port, bytes(range(256)) * 8, id=sport), 800)
    s.send("a", big(s.b, 5353, 43_001))
    s.send("a", big(SERVICE, 53, 43_002)[::-1])
    s.send("a", big(OUTSIDE, 53, 43_003))
    s.send("a", big(s.b, 5354, 43_004))
    s.send("a", fragment(ping(s.a, s.b, 13, bytes(3000), id=99), 1000))


def ttl(s):
    s.send("a", udp(s.a, s.b, 44_001, 5353, ttl=2))
    s.send("a", udp(s.a, s.b, 44_002, 5353, ttl=1))
    s.send("a", syn(s.a, SERVICE, 44_003, 80, ttl=1))
    s.send("a", ping(s.a, OUTSIDE, 14, ttl=1))
    s.send("out", syn(OUTSIDE, s.b, 44_004, 8080, ttl=1))
    s.send("out", syn(OUTSIDE, NODE, 44_005, NODE_PORT, ttl=1))
    s.send("a", complaint(udp(s.b, s.a, 9, 5353)) / b"")


def too_big(s):
    s.send("a", udp(s.a, OUTSIDE, 44_011, 53, bytes(1472), flags="DF"))
    s.send("a", udp(s.a, OUTSIDE, 44_012, 53, bytes(1472), id=4))
    s.send("a", udp(s.a, OUTSIDE, 44_013, 53, bytes(1372), flags="DF"))
    s.send("a", tcp(s.a, OUTSIDE, 44_014, 443, "A", 1, 1, bytes(1400), flags="DF"))


def wrong_sums(s):
    s.send("a", IP(src=s.a, dst=s.b, chksum=1) / UDP(sport=44_021, dport=5353) / LOAD)
    s.send("a", IP(src=s.a, dst=s.b) / UDP(sport=44_022, dport=5353, chksum=1) / LOAD)
    s.send("a", IP(src=s.a, dst=s.b) / TCP(sport=44_023, dport=8080, flags="S", chksum=1))
    s.send("a", IP(src=s.a, dst=SERVICE) / TCP(sport=44_024, dport=80, flags="S", chksum=1))
    s.send("a", IP(src=s.a, dst=s.b) / ICMP(id=15, chksum=1) / LOAD)


def wrong_lengths(s):
    s.send("a", IP(src=s.a, dst=s.b) / UDP(sport=44_031, dport=5353, len=200) / LOAD)
    s.send("a", IP(src=s.a, dst=s.b) / UDP(sport=44_032, dport=5353, len=4) / LOAD)
    s.send("a", IP(src=s.a, dst=s.b) / TCP(sport=44_033, dport=8080, flags="S", dataofs=4))
    s.send("a", IP(src=s.a, dst=s.b) / TCP(sport=44_034, dport=8080, flags="S", dataofs=15))
    s.send("a", bytes(udp(s.a, s.b, 44_035, 5353)) + b"padding" * 3)
    s.send("a", IP(src=s.a, dst=s.b, len=600) / UDP(sport=44_036, dport=5353) / LOAD)


def options(s):
    s.send("a", udp(s.a, s.b, 44_041, 5353, options=[IPOption(b"\x01")] * 4))
    s.send("a", udp(s.a, SERVICE, 44_042, 53, options=[IPOption(b"\x01")] * 4))


def sources(s):
    s.send("a", udp(s.b, OUTSIDE, 44_051, 53))
    s.send("a", udp("10.9.9.9", s.b, 44_052, 5353))
    s.send("out", udp(s.a, s.b, 44_053, 5353))
    s.send("out", udp("127.0.0.1", s.b, 44_054, 5353))
    s.send("out", udp("0.0.0.0", s.b, 44_055, 5353))
    s.send("out", udp("224.0.0.9", s.b, 44_056, 5353))
    s.send("out", udp(NODE, s.b, 44_057, 5353))


def destinations(s):
    s.send("a", udp(s.a, "172.20.0.255", 44_071, 53))
    for number, to in enumerate(("127.0.0.1", "0.0.0.0", "224.0.0.9", "255.255.255.255", "240.0.0.1", "169.254.9.9")):
        s.send("a", udp(s.a, to, 44_061 + number, 53))


def other_protocols(s):
    for number in (47, 50, 253):
        s.send("a", IP(src=s.a, dst=OUTSIDE, proto=number) / Raw(LOAD))
        s.send("out", lambda world: world.last("out", lambda got: IP(src=OUTSIDE, dst=got.src, proto=got.proto) / Raw(LOAD)))
        s.send("a", IP(src=s.a, dst=s.b, proto=number) / Raw(LOAD))


def marks_of_congestion(s):
    for number, tos in enumerate((1, 2, 3, 0xB8)):
        s.send("a", udp(s.a, SERVICE, 44_081 + number, 53, tos=tos))


CASES = [
    case
    for case in list(globals().values())
    if inspect.isfunction(case)
    and case.__module__ == __name__
    and list(inspect.signature(case).parameters) == ["s"]
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_margay_does_what_the_kernel_does(sides, case):
    listed = {step for name, step in DIFFERENCES if name == case.__name__}
    sides.begin(listed)
    case(sides)
    found = [n for n, step in enumerate(sides.steps) if step["kernel"] != step["margay"]]
    for number in sorted({*found} - listed):
        print(f"step {number}:", *sides.steps[number].items(), sep="\n  ")
    assert found == sorted(listed), "the differences are those that are listed"


def test_every_listed_difference_is_of_a_case():
    assert {name for name, _step in DIFFERENCES} <= {case.__name__ for case in CASES}


def test_the_books_are_right(rig, sides):
    # Odd pieces wait for the rest of their datagrams for half a minute.
    rig.books_are_right(within=40)
