"""Frames that nobody should send: every kind of packet, cut, bent and made up, from a seed."""

import contextlib
import random
import socket
import struct
import time

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.layers.vxlan import VXLAN


def packets(v4, v6):
    """Well-formed packets between a pair of addresses of each family, as bytes behind Ethernet."""
    a, b = (IP(src=v4[0], dst=v4[1]), IPv6(src=v6[0], dst=v6[1]))
    quoted = IP(src=v4[1], dst=v4[0]) / TCP(sport=80, dport=40000)
    options = IP(src=v4[0], dst=v4[1], options=IPOption(b"\x83\x07\x04\x0a\0\0\1"))
    load = b"margay" * 8
    return [
        a / TCP(sport=40000, dport=80, flags="S", options=[("MSS", 1400), ("SAckOK", b"")]) / load,
        a / UDP(sport=40000, dport=80) / load,
        a / ICMP() / load,
        a / ICMP(type=3, code=4, nexthopmtu=68) / quoted,
        a / SCTP(sport=40000, dport=80) / SCTPChunkInit(),
        options / UDP(sport=40000, dport=80) / load,
        IP(src=v4[0], dst=v4[1], flags="MF", id=77) / UDP(sport=40000, dport=80, len=200) / load,
        IP(src=v4[0], dst=v4[1], frag=1, id=78, proto=17) / load,
        b / TCP(sport=40000, dport=80, flags="S") / load,
        b / UDP(sport=40000, dport=80) / load,
        b / ICMPv6EchoRequest() / load,
        b / ICMPv6PacketTooBig(mtu=1) / IPv6(src=v6[1], dst=v6[0]) / UDP() / load,
        b / ICMPv6ND_NS(tgt="fe80::1"),
        b / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=40000, dport=80) / load,
        b / IPv6ExtHdrFragment(m=1, id=5) / UDP(sport=40000, dport=80) / load,
        b / IPv6ExtHdrRouting(addresses=["::1"], segleft=1) / UDP(sport=40000, dport=80) / load,
        b / IPv6ExtHdrFragment(offset=8190, id=6) / load,
    ]


def tunnelled(outer, v4, v6):
    """The same within VXLAN and IPIP between a pair of hosts."""
    found = []
    for inner in packets(v4, v6):
        frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / inner
        head = IP(src=outer[0], dst=outer[1])
        found.append(
            head / UDP(sport=50000, dport=4789, chksum=0) / VXLAN(vni=4096, flags=8) / frame
        )
    found.append(IP(src=outer[0], dst=outer[1]) / IP(src=v4[0], dst=v4[1]) / UDP(dport=80))
    return found


def link(mac, gateway, v4):
    """ARP and tagged frames."""
    head = Ether(src=mac, dst=gateway)
    return [
        head / ARP(op=1, hwsrc=mac, psrc=v4[0], pdst="169.254.1.1"),
        head / ARP(op=2, hwsrc=mac, psrc=v4[1], hwdst=gateway, pdst=v4[0]),
        head / Dot1Q(vlan=5) / Dot1Q(vlan=6) / IP(src=v4[0], dst=v4[1]) / UDP(),
    ]


def with_checksum(frame):
    """The frame with its IPv4 header's checksum made right, so that it is read further."""
    frame = bytearray(frame)
    size = (frame[14] & 15) * 4 if len(frame) > 34 else 0
    if frame[12:14] == b"\x08\x00" and 20 <= size <= len(frame) - 14:
        frame[24:26] = b"\0\0"
        total = sum(struct.unpack(f"!{size // 2}H", frame[14 : 14 + size]))
        struct.pack_into("!H", frame, 24, ~(total % 0xFFFF) & 0xFFFF)
    return bytes(frame)


def bent(frame, dice):
    """A frame cut at every length, with every byte of its headers changed, and padded."""
    found = [frame[:length] for length in range(14, len(frame))]
    for at in range(12, min(len(frame), 90)):
        for value in (0, 0xFF, dice.randrange(256)):
            found.append(frame[:at] + bytes([value]) + frame[at + 1 :])
    found += [with_checksum(one) for one in found]
    found.append(frame + bytes(300))
    return found


def made_up(head, dice, count):
    """Random bytes behind an Ethernet header, often with a plausible beginning."""
    found = []
    for _ in range(count):
        body = bytearray(dice.randbytes(dice.randrange(1, 200)))
        kind = dice.choice((b"\x08\x00", b"\x86\xdd", b"\x08\x06", dice.randbytes(2)))
        body[0] = dice.choice((0x45, 0x60, 0x4F, body[0]))
        found.append(with_checksum(head[:12] + kind + bytes(body)))
    return found


def hostile(frames, seed):
    """All of it, in a fixed disorder."""
    dice = random.Random(seed)
    frames = [bytes(frame) for frame in frames]
    found = [bad for frame in frames for bad in bent(frame, dice)]
    found += made_up(frames[0], dice, 1500)
    dice.shuffle(found)
    return found


class Wire:
    """Puts frames on an interface of a place as they are."""

    def __init__(self, rig, place, interface="eth0"):
        with rig.inside(place):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.socket.bind((interface, 0))
        self.mac = ":".join(f"{byte:02x}" for byte in self.socket.getsockname()[4])

    def send(self, frames, pause_every=64):
        """Sends them, at a pace that a ring of packets can follow; how many were taken."""
        taken = 0
        for number, frame in enumerate(frames):
            with contextlib.suppress(OSError):  # shorter or longer than the device takes
                taken += bool(self.socket.send(frame))
            if pause_every and number % pause_every == 0:
                time.sleep(0.004)
        return taken

    def close(self):
        """Closes it."""
        self.socket.close()
