"""One packet a question: does it arrive? For thousands of questions side by side.

`Probes.join` opens a place's sockets: one sends whole IP packets, one sees what arrives on eth0.
`Probes.arrived` sends a TCP SYN, a UDP datagram or an SCTP INIT for each probe, with a number of
its own in it, and says which came out at the other end, whatever happened to their addresses.
"""

import dataclasses
import ipaddress
import select
import socket
import struct
import time

from sctp import INIT, SCTP, sctp_packet

NUMBER = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": SCTP}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
EVERYTHING = 3  # ETH_P_ALL
SYN = 2
HEADER_INCLUDED = 36  # IPV6_HDRINCL
BURST = 48


@dataclasses.dataclass(frozen=True)
class Probe:
    """A packet to send; ends are names that `Probes.join` gave to addresses."""

    source: str
    target: str
    protocol: str
    port: int
    family: int


class Probes:
    """Sending and seeing sockets in the places of a rig."""

    def __init__(self, rig):
        self.rig = rig
        self.address = {}
        self.place = {}
        self.senders = {}
        self.seers = {}
        self.number = 0

    def join(self, name, place=None, addresses=None):
        """Gives a name to a place's addresses (v4, v6): of the pod of that name if not told."""
        place = place or name
        self.place[name] = place
        self.address[name] = dict(zip((4, 6), addresses or self.rig.pods[name]))
        if place in self.seers:
            return
        with self.rig.inside(place):
            for version, family in FAMILY.items():
                raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                self.senders[place, version] = raw
            self.senders[place, 6].setsockopt(socket.IPPROTO_IPV6, HEADER_INCLUDED, 1)
            seer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERYTHING))
            seer.bind(("eth0", EVERYTHING))
        seer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        seer.setblocking(False)
        self.seers[place] = seer

    def arrived(self, probes, source_port, within=0.3):
        """Sends all; those that arrived at their target until `within` seconds after the last."""
        sent, came = {}, set()

        def take(wait):
            for number, place in self.seen(wait):
                if probe := sent.get(number):
                    assert place == self.place[probe.target], f"{probe}: came to {place}"
                    came.add(probe)

        for at in range(0, len(probes), BURST):
            sent |= {self.send(probe, source_port): probe for probe in probes[at : at + BURST]}
            take(0)
        end = time.monotonic() + within
        while len(came) < len(probes) and time.monotonic() < end:
            take(0.02)
        return came

    def send(self, probe, source_port):
        """Sends one; its number."""
        self.number += 1
        source, target = (self.address[end][probe.family] for end in (probe.source, probe.target))
        packet = ip_packet(source, target, probe.protocol, source_port, probe.port, self.number)
        self.senders[self.place[probe.source], probe.family].sendto(packet, (target, 0))
        return self.number

    def seen(self, wait=0):
        """Numbers of the probes that have come, and the places they came to, since the last call."""
        places = {seer.fileno(): place for place, seer in self.seers.items()}
        for fd in select.select(list(places), [], [], wait)[0]:
            while True:
                try:
                    packet, about = self.seers[places[fd]].recvfrom(2048)
                except BlockingIOError:
                    break
                if about[2] == socket.PACKET_HOST and (number := number_of(packet)):
                    yield number, places[fd]

    def close(self):
        """Closes all sockets."""
        for one in (*self.senders.values(), *self.seers.values()):
            one.close()


# === packets ===


def ip_packet(source, target, protocol, source_port, port, number):
    """An IP packet of one probe."""
    source, target = ipaddress.ip_address(source), ipaddress.ip_address(target)
    kind = NUMBER[protocol]
    if kind == SCTP:
        body = sctp_packet(source_port, port, 0, INIT, first=number)
    elif kind == socket.IPPROTO_TCP:
        body = struct.pack("!HHIIBBHHH", source_port, port, number, 0, 5 << 4, SYN, 8192, 0, 0)
        body = summed(source, target, kind, body, 16)
    else:
        body = struct.pack("!HHHHI", source_port, port, 12, 0, number)
        body = summed(source, target, kind, body, 6)
    if source.version == 4:
        # The kernel fills in the identification and the checksum (raw(7)).
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, kind, 0)
    else:
        head = struct.pack("!IHBB", 6 << 28, len(body), kind, 64)
    return head + source.packed + target.packed + body


def summed(source, target, kind, body, at):
    """The body with its Internet checksum (RFC 1071) over the pseudo header, at that offset."""
    whole = source.packed + target.packed + struct.pack("!II", kind, len(body)) + body
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return body[:at] + struct.pack("!H", ~total & 0xFFFF) + body[at + 2 :]


def number_of(packet):
    """The number in what came as a probe; None in answers and in anything else."""
    if packet[0] >> 4 == 4:
        kind, body = packet[9], packet[(packet[0] & 15) * 4 :]
    else:
        kind, body = packet[6], packet[40:]
    if kind == socket.IPPROTO_TCP and len(body) >= 20 and body[13] == SYN:
        return struct.unpack_from("!I", body, 4)[0]
    if kind == socket.IPPROTO_UDP and len(body) == 12:
        return struct.unpack_from("!I", body, 8)[0]
    if kind == SCTP and len(body) >= 32 and body[12] == INIT:
        return struct.unpack_from("!I", body, 28)[0]
    return None
