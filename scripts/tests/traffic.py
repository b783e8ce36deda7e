"""Small conversations between many places at once: who reaches whom by TCP, UDP and SCTP.

`Field.join` opens servers in a place, one thread answers for all of them; `Field.reach` makes a
whole list of attempts side by side and says which were answered. SCTP is spoken on raw sockets (an
INIT is answered by an INIT ACK, RFC 9260 section 3.3), for kernels are built without it.
"""

import contextlib
import dataclasses
import errno
import selectors
import socket
import struct
import time

from answering import Answering
from sctp import INIT, INIT_ACK, TAG, payload, sctp_packet

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One conversation to try. `family` is 4 or 6."""

    source: str
    target: str
    protocol: str = "TCP"
    port: int = 80
    family: int = 4


class Field(Answering):
    """Servers in places of a rig and the thread that answers for them."""

    def __init__(self, rig, ports=(80, 81)):
        self.rig = rig
        self.ports = ports
        self.address = {}
        self.raw = {}
        self.acked = set()
        self.next_port = 20000
        super().__init__()

    def reply(self, about, peer, data):
        return data

    def join(self, name, addresses=None, ports=None):
        """Opens the servers of a place; its addresses default to those of the pod of that name."""
        self.address[name] = dict(zip((4, 6), addresses or self.rig.pods[name]))
        ports = self.ports if ports is None else ports
        with self.rig.inside(name):
            for version, family in FAMILY.items():
                for port in ports:
                    self.open(family, "", port, None)
                about = name, version
                self.raw[about] = self.open_sctp(family, self._sctp, about)

    def _sctp(self, raw, about):
        _name, version = about
        packet, peer = raw.recvfrom(65536)
        packet = payload(packet, FAMILY[version])
        if len(packet) < 16:
            return
        source, target, tag = struct.unpack_from("!HHI", packet)
        if packet[12] == INIT and target in self.ports:
            (their_tag,) = struct.unpack_from("!I", packet, 16)
            raw.sendto(sctp_packet(target, source, their_tag, INIT_ACK), (peer[0], 0))
        elif packet[12] == INIT_ACK and tag == TAG:
            self.acked.add((about, target))

    # --- the asking side ---

    def reach(self, attempts, within=1.2):
        """Makes all attempts side by side; the set of those that were answered."""
        attempts = sorted(set(attempts), key=lambda one: one.source)
        asked, reached = {}, set()
        waiting = selectors.DefaultSelector()
        for start in range(0, len(attempts), 64):
            for one in attempts[start : start + 64]:
                asked[one] = self._ask(one, waiting)
            self._collect(waiting, reached, 0.002)
        end = time.monotonic() + within
        again = time.monotonic() + 0.4
        while len(reached) < len(attempts) and time.monotonic() < end:
            self._collect(waiting, reached, 0.02)
            reached |= {one for one, ask in asked.items() if callable(ask) and ask()}
            if time.monotonic() > again:
                again += 0.4
                self._ask_again(asked, reached)
        for ask in asked.values():
            if isinstance(ask, socket.socket):
                ask.close()
        return reached

    def _ask(self, one, waiting):
        """Starts an attempt: its socket, or (SCTP) a function that says whether it was answered."""
        address = self.address[one.target][one.family]
        if one.protocol == "SCTP":
            return self._init(one, address)
        kind = socket.SOCK_STREAM if one.protocol == "TCP" else socket.SOCK_DGRAM
        with self.rig.inside(one.source):
            ask = socket.socket(FAMILY[one.family], kind)
        ask.setblocking(False)
        error = ask.connect_ex((address, one.port))
        assert error in (0, errno.EINPROGRESS), f"{one}: {errno.errorcode[error]}"
        if one.protocol == "UDP":
            ask.send(b"?")
            waiting.register(ask, selectors.EVENT_READ, one)
        else:
            waiting.register(ask, selectors.EVENT_WRITE, one)
        return ask

    def _init(self, one, address):
        self.next_port = 20000 + (self.next_port - 19999) % 20000
        port, raw, key = self.next_port, self.raw[one.source, one.family], (one.source, one.family)
        self.acked.discard((key, port))

        def answered(send=False):
            if send:
                raw.sendto(sctp_packet(port, one.port, 0, INIT), (address, 0))
            return (key, port) in self.acked

        answered(send=True)
        return answered

    def _collect(self, waiting, reached, wait):
        if not waiting.get_map():
            time.sleep(wait)
            return
        for key, _ in waiting.select(wait):
            one, ask = key.data, key.fileobj
            waiting.unregister(ask)
            if one.protocol == "TCP":
                good = ask.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            else:
                with contextlib.suppress(OSError):
                    ask.recv(16)
                    reached.add(one)
                good = False
            if good:
                reached.add(one)

    @staticmethod
    def _ask_again(asked, reached):
        """What may be lost on a busy machine is sent again; TCP does that by itself."""
        for one, ask in asked.items():
            if one in reached:
                continue
            with contextlib.suppress(OSError):
                if one.protocol == "SCTP":
                    ask(send=True)
                elif one.protocol == "UDP":
                    ask.send(b"?")
