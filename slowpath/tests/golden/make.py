#!/usr/bin/python3
"""Writes vectors.txt: packets as scapy makes them, one `NAME HEX` a line.

Run by hand when a vector is added; the tests read the file alone."""
from scapy.all import *
from scapy.layers.inet6 import *
from scapy.layers.vxlan import VXLAN

POD, HOST = "02:00:00:00:00:01", "ee:ee:ee:ee:ee:ee"
GATEWAY = "fe80::ecee:eeff:feee:eeee"
NODE, NODE6, TUNNEL = "192.0.2.1", "2001:db8::1", "10.1.0.64"
CLIENT, CLIENT6, FAR, FAR6 = "10.1.0.5", "fd00::5", "198.51.100.9", "2001:db8:9::9"
SERVICE, SERVICE6 = "10.96.0.10", "fd00:96::a"
BACKEND = "10.1.7.7"
FRAME = Ether(src=POD, dst=HOST)
out = {}


def put(name, packet):
    out[name] = bytes(packet).hex()


# --- ARP and neighbour discovery
put("arp_ask", Ether(src=POD, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=POD, psrc=CLIENT, pdst="169.254.1.1"))
put("arp_answer", Ether(src=HOST, dst=POD) / ARP(op=2, hwsrc=HOST, psrc="169.254.1.1", hwdst=POD, pdst=CLIENT))
put("arp_probe", Ether(src=POD, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=POD, psrc="0.0.0.0", pdst=CLIENT))
put("arp_announce", Ether(src=POD, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=POD, psrc=CLIENT, pdst=CLIENT))
put("arp_reply", Ether(src=POD, dst=HOST) / ARP(op=2, hwsrc=POD, psrc=CLIENT, pdst="169.254.1.1"))
ns = IPv6(src=CLIENT6, dst="ff02::1:ffee:eeee", hlim=255) / ICMPv6ND_NS(tgt=GATEWAY)
put("ns_ask", FRAME / ns / ICMPv6NDOptSrcLLAddr(lladdr=POD))
put("ns_ask_bare", FRAME / IPv6(src=CLIENT6, dst=GATEWAY, hlim=255) / ICMPv6ND_NS(tgt=GATEWAY))
put("ns_routed", FRAME / IPv6(src=CLIENT6, dst="ff02::1:ffee:eeee", hlim=254) / ICMPv6ND_NS(tgt=GATEWAY) / ICMPv6NDOptSrcLLAddr(lladdr=POD))
put("na_answer", Ether(src=HOST, dst=POD) / IPv6(src=GATEWAY, dst=CLIENT6, hlim=255) / ICMPv6ND_NA(R=0, S=1, O=1, tgt=GATEWAY) / ICMPv6NDOptDstLLAddr(lladdr=HOST))
put("dad", FRAME / IPv6(src="::", dst="ff02::1:ff00:5", hlim=255) / ICMPv6ND_NS(tgt=CLIENT6))
put("rs", FRAME / IPv6(src="fe80::1", dst="ff02::2", hlim=255) / ICMPv6ND_RS())

# --- errors
udp = IP(src=CLIENT, dst=FAR, ttl=1, id=7) / UDP(sport=1234, dport=53) / (b"x" * 700)
udp6 = IPv6(src=CLIENT6, dst=FAR6, hlim=1) / UDP(sport=1234, dport=53) / (b"y" * 1400)
put("udp", FRAME / udp)
put("udp6", FRAME / udp6)


def error(source, icmp, about):
    quote = bytes(about)[: 576 - 28]
    return IP(src=source, dst=CLIENT, ttl=64, tos=0xC0, id=0, flags="DF") / icmp / Raw(quote)


def error6(source, icmp, about):
    return IPv6(src=source, dst=CLIENT6, hlim=255) / icmp / Raw(bytes(about)[: 1280 - 48])


put("ttl_expired", error(NODE, ICMP(type=11, code=0), udp))
put("ttl_expired_tunnel", error(TUNNEL, ICMP(type=11, code=0), udp))
put("too_big", error(NODE, ICMP(type=3, code=4, nexthopmtu=600), udp))
for name, code in ("net", 0), ("host", 1), ("port", 3), ("prohibited", 13):
    put(f"unreachable_{name}", error(NODE, ICMP(type=3, code=code), udp))
put("hop_limit", error6(NODE6, ICMPv6TimeExceeded(code=0), udp6))
put("packet_too_big", error6(NODE6, ICMPv6PacketTooBig(mtu=1300), udp6))
for name, code in ("net", 0), ("host", 3), ("port", 4), ("prohibited", 1):
    put(f"unreachable6_{name}", error6(NODE6, ICMPv6DestUnreach(code=code), udp6))

# --- refusals
ports = dict(sport=40000, dport=80)
turned = dict(sport=80, dport=40000, window=0)
to, back = IP(src=CLIENT, dst=SERVICE), IP(src=SERVICE, dst=CLIENT, id=0, flags="DF", ttl=64)
to6, back6 = IPv6(src=CLIENT6, dst=SERVICE6), IPv6(src=SERVICE6, dst=CLIENT6, hlim=64)
mss = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 0)), ("NOP", None), ("WScale", 7)]
put("syn", FRAME / to / TCP(**ports, seq=0xFFFFFFFF, flags="S", options=mss))
put("syn_rst", back / TCP(**turned, seq=0, ack=0, flags="RA"))
put("data", FRAME / to / TCP(**ports, seq=100, ack=777, flags="PA") / b"hello")
put("data_rst", back / TCP(**turned, seq=777, ack=0, flags="R"))
put("fin", FRAME / to / TCP(**ports, seq=100, flags="F") / b"hello")
put("fin_rst", back / TCP(**turned, seq=0, ack=106, flags="RA"))
put("rst", FRAME / to / TCP(**ports, seq=100, flags="R"))
put("syn6", FRAME / to6 / TCP(**ports, seq=9, flags="S", options=mss))
put("syn6_rst", back6 / TCP(**turned, seq=0, ack=10, flags="RA"))
question = to / UDP(sport=5353, dport=53) / b"question"
question6 = to6 / UDP(sport=5353, dport=53) / b"question"
put("question", FRAME / question)
put("question_refused", error(SERVICE, ICMP(type=3, code=3), question))
put("question6", FRAME / question6)
put("question6_refused", error6(SERVICE6, ICMPv6DestUnreach(code=4), question6))

# --- datagrams in pieces
options = [IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"]), IPOption_Router_Alert()]
big = IP(src=CLIENT, dst=FAR, ttl=9, id=77) / UDP(sport=1, dport=2) / bytes(range(256)) * 1
big = IP(bytes(IP(src=CLIENT, dst=FAR, ttl=9, id=77) / UDP(sport=1, dport=2) / (bytes(range(256)) * 5)))
put("big", FRAME / big)
for i, piece in enumerate(fragment(big, fragsize=480)):
    put(f"big_500_{i}", FRAME / piece)
wide = IPv6(bytes(IPv6(src=CLIENT6, dst=FAR6) / UDP(sport=1, dport=2) / (bytes(range(256)) * 7)))
put("wide", FRAME / wide)
to6 = IPv6(src=CLIENT6, dst=FAR6)
wide_pieces = fragment6(to6 / IPv6ExtHdrFragment(id=1) / wide.payload, 1280)
for i, piece in enumerate(wide_pieces):
    put(f"wide_1280_{i}", FRAME / piece)
put("wide_expired", error6(NODE6, ICMPv6TimeExceeded(code=1), wide_pieces[0]))
# Options for the destination are a part of what is cut.
optional = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]) / wide.payload
put("optional", FRAME / to6 / optional)
cut = bytes(optional)[:1024], bytes(optional)[1024:]
put("optional_0", FRAME / to6 / IPv6ExtHdrFragment(nh=60, id=2, m=1) / cut[0])
put("optional_1", FRAME / to6 / IPv6ExtHdrFragment(nh=60, id=2, offset=128) / cut[1])
uneven = to6 / IPv6ExtHdrFragment(nh=17, id=3, m=1) / bytes(13)
put("uneven", FRAME / uneven)
put("uneven_told", error6(NODE6, ICMPv6ParamProblem(code=0, ptr=4), uneven))
beyond = to6 / IPv6ExtHdrFragment(nh=17, id=4, m=0, offset=8191) / bytes(100)
put("beyond", FRAME / beyond)
put("beyond_told", error6(NODE6, ICMPv6ParamProblem(code=0, ptr=42), beyond))
outer = Ether(src="02:4d:00:00:00:09", dst=HOST) / IP(src=NODE, dst="192.0.2.2", id=0, flags="DF")
vxlan = UDP(sport=50000, dport=4789, chksum=0) / VXLAN(flags=0x08, vni=4096) / Ether(src="66:00:00:00:00:01", dst="66:00:00:00:00:02")
put("vxlan", outer / vxlan / big)
put("ipip", outer / big)
for i, piece in enumerate(fragment(big, fragsize=1000)):
    put(f"vxlan_1020_{i}", outer / vxlan / piece)
    put(f"ipip_1020_{i}", outer / piece)

# --- errors of others: a client's packet to a service went on to a backend
router = "203.0.113.7"
went = IP(src=CLIENT, dst=BACKEND, ttl=60, id=9) / TCP(sport=40000, dport=8080, seq=5, flags="S")
known = IP(src=CLIENT, dst=SERVICE, ttl=60, id=9) / TCP(sport=40000, dport=80, seq=5, flags="S")


def told(source, about, ttl, to=CLIENT, icmp=ICMP(type=3, code=1), length=28):
    return IP(src=source, dst=to, ttl=ttl, id=3) / icmp / Raw(bytes(about)[:length])


put("router_says", FRAME / told(router, went, 50, length=40))
put("router_told", told(router, known, 49, length=40))
put("router_says_short", FRAME / told(router, went, 50))
put("router_told_short", told(router, known, 49))
put("backend_says", FRAME / told(BACKEND, went, 50, icmp=ICMP(type=3, code=3), length=40))
put("backend_told", told(SERVICE, known, 49, icmp=ICMP(type=3, code=3), length=40))
masked = IP(src=NODE, dst=FAR, ttl=60, id=9) / ICMP(type=8, id=61001, seq=4) / b"ping"
ping = IP(src=CLIENT, dst=FAR, ttl=60, id=9) / ICMP(type=8, id=33, seq=4) / b"ping"
put("ping_says", FRAME / told(router, masked, 50, to=NODE, icmp=ICMP(type=11, code=0), length=32))
put("ping_told", told(router, ping, 49, icmp=ICMP(type=11, code=0), length=32))
went6 = IPv6(src=CLIENT6, dst="fd00:7::7") / UDP(sport=40000, dport=5353) / b"question"
known6 = IPv6(src=CLIENT6, dst=SERVICE6) / UDP(sport=40000, dport=53) / b"question"
put("six_says", FRAME / IPv6(src=FAR6, dst=CLIENT6, hlim=50) / ICMPv6PacketTooBig(mtu=1300) / Raw(bytes(went6)))
put("six_told", IPv6(src=FAR6, dst=CLIENT6, hlim=49) / ICMPv6PacketTooBig(mtu=1300) / Raw(bytes(known6)))
tunnelled = IP(src=NODE, dst="192.0.2.2", flags="DF") / vxlan / big
frag_needed = ICMP(type=3, code=4, nexthopmtu=1400)
put("tunnel_mtu", FRAME / told(router, tunnelled, 50, to=NODE, icmp=frag_needed))
put("tunnel_mtu_ipip", FRAME / told(router, IP(src=NODE, dst="192.0.2.2") / big, 50, to=NODE, icmp=frag_needed))

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "vectors.txt"), "w") as file:
    file.writelines(f"{name} {hexa}\n" for name, hexa in out.items())
