"""Servers that say who they are and whom they see, and clients that note how they were treated.

`Whoami.serve` opens servers in a place; one thread answers for all of them with "NAME ADDRESS PORT"
of the client as they see it, followed by what they were sent. `Whoami.ask` holds one conversation:
an `Answer`, or `REFUSED`, `UNREACHABLE` or `SILENT`. SCTP is spoken on raw sockets, as kernels are
built without it: an INIT is answered by an INIT ACK (RFC 9260 section 3.3.3) whose cookie holds the
text.
"""

import contextlib
import dataclasses
import errno
import socket
import struct
import time

from answering import Answering
from sctp import INIT, INIT_ACK, SCTP, payload, sctp_is_intact, sctp_packet

REFUSED, SILENT, UNREACHABLE = "refused", "silent", "unreachable"


@dataclasses.dataclass(frozen=True)
class Answer:
    """Who answered, whom it saw, and what came back of the data."""

    name: str
    address: str
    port: int
    data: bytes = b""


def family(address):
    """The socket family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def parse(text):
    """An `Answer` from a server's words."""
    name, address, port, data = text.split(b" ", 3)
    return Answer(name.decode(), address.decode(), int(port), data)


@contextlib.contextmanager
def failing():
    """Notes in the list it gives what became of a conversation that does not succeed."""
    failed = [SILENT]
    try:
        yield failed
    except TimeoutError:
        pass
    except ConnectionRefusedError:
        failed[0] = REFUSED
    except OSError as error:
        if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            raise
        failed[0] = UNREACHABLE


class Whoami(Answering):
    """The servers of one rig."""

    def __init__(self, rig):
        self.rig = rig
        self.sctp_ports = {}
        super().__init__()

    def reply(self, about, peer, data):
        return b"%s %s %d %s" % (about, peer[0].encode(), peer[1], data)

    def serve(self, place, *ports, addresses=("0.0.0.0", "::"), name=None, sctp=True):
        """Opens servers of every protocol on the ports of a place."""
        name = (name or place).encode()
        with self.rig.inside(place):
            for address in addresses:
                for port in ports:
                    self.open(family(address), address, port, name)
                if sctp:
                    about = name, family(address)
                    self.sctp_ports[about] = ports
                    self.open_sctp(family(address), self._init, about)

    def _init(self, raw, about):
        name, version = about
        packet, peer = raw.recvfrom(65536)
        packet = payload(packet, version)
        if len(packet) < 20 or packet[12] != INIT or not sctp_is_intact(packet):
            return
        source, target, tag = *struct.unpack_from("!HH", packet), packet[16:20]
        if target in self.sctp_ports[about]:
            cookie = self.reply(name, (peer[0], source), b"")
            (tag,) = struct.unpack("!I", tag)
            raw.sendto(sctp_packet(target, source, tag, INIT_ACK, cookie), (peer[0], 0))

    # --- the asking side ---

    def ask(self, place, address, port, protocol="TCP", source_port=0, data=b"?", within=2.0, source=""):
        """One conversation from a place: an `Answer`, or what else came within `within` seconds."""
        if protocol == "SCTP":
            return self._ask_sctp(place, address, port, source_port, within)
        kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
        with self.rig.inside(place):
            ask = socket.socket(family(address), kind)
        with contextlib.closing(ask):
            ask.settimeout(within)
            if source_port or source:
                ask.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                ask.bind((source, source_port))
            with failing() as failed:
                ask.connect((address, port))
                ask.send(data)
                return parse(ask.recv(65536))
            return failed[0]

    def serves(self, place, address, port, protocol="TCP", source_port=0, name=None):
        """Whether somebody answers (of that name) within a moment."""
        said = self.ask(place, address, port, protocol, source_port, within=0.25)
        return isinstance(said, Answer) and name in (None, said.name)

    def _ask_sctp(self, place, address, port, source_port, within):
        source_port = source_port or 20000 + time.monotonic_ns() // 1000 % 20000
        with self.rig.inside(place):
            raw = socket.socket(family(address), socket.SOCK_RAW, SCTP)
        with contextlib.closing(raw):
            raw.connect((address, 0))
            end = time.monotonic() + within
            with failing() as failed:
                raw.send(sctp_packet(source_port, port, 0, INIT))
                while time.monotonic() < end:
                    raw.settimeout(max(end - time.monotonic(), 0.001))
                    packet = payload(raw.recv(65536), raw.family)
                    ports = struct.unpack_from("!HH", packet)
                    if packet[12] == INIT_ACK and ports == (port, source_port):
                        assert sctp_is_intact(packet), "CRC-32C"
                        (length,) = struct.unpack_from("!H", packet, 34)
                        return parse(packet[36 : 32 + length])
            return failed[0]
