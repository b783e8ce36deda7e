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
import threading
import time

from scapy.layers.sctp import crc32c

SCTP = 132
INIT, INIT_ACK = 1, 2
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One conversation to try. `family` is 4 or 6."""

    source: str
    target: str
    protocol: str = "TCP"
    port: int = 80
    family: int = 4


def sctp_packet(source, target, tag, kind):
    """A packet of one INIT or INIT ACK chunk, with its CRC-32C."""
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20, 0x4D41524A, 65535, 1, 1, 1)
    head = struct.pack("!HHI", source, target, tag)
    checksum = crc32c(head + bytes(4) + chunk)
    return head + struct.pack("!I", checksum & 0xFFFFFFFF) + chunk


class Field:
    """Servers in places of a rig and the thread that answers for them."""

    def __init__(self, rig, ports=(80, 81)):
        self.rig = rig
        self.ports = ports
        self.address = {}
        self.raw = {}
        self.acked = set()
        self.selector = selectors.DefaultSelector()
        self.ended = threading.Event()
        self.next_port = 20000
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self):
        """Closes the servers."""
        self.ended.set()
        self.thread.join(5)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()

    def join(self, name, addresses=None, ports=None):
        """Opens the servers of a place; its addresses default to those of the pod of that name."""
        self.address[name] = dict(zip((4, 6), addresses or self.rig.pods[name]))
        ports = self.ports if ports is None else ports
        with self.rig.inside(name):
            for version, family in FAMILY.items():
                for port in ports:
                    self._listen(family, socket.SOCK_STREAM, port)
                    self._listen(family, socket.SOCK_DGRAM, port)
                raw = socket.socket(family, socket.SOCK_RAW, SCTP)
                raw.setblocking(False)
                self.raw[name, version] = raw
                self.selector.register(raw, selectors.EVENT_READ, (self._sctp, (name, version)))

    def _listen(self, family, kind, port):
        server = socket.socket(family, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("", port))
        server.setblocking(False)
        if kind == socket.SOCK_STREAM:
            server.listen(512)
        answer = self._accept if kind == socket.SOCK_STREAM else self._datagram
        self.selector.register(server, selectors.EVENT_READ, (answer, None))

    # --- the answering thread ---

    def _serve(self):
        while not self.ended.is_set():
            if not self.selector.get_map():
                time.sleep(0.05)
                continue
            for key, _ in self.selector.select(0.1):
                answer, about = key.data
                with contextlib.suppress(OSError):
                    answer(key.fileobj, about)

    def _accept(self, server, _):
        connection, _peer = server.accept()
        connection.setblocking(False)
        self.selector.register(connection, selectors.EVENT_READ, (self._echo, None))

    def _echo(self, connection, _):
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if data:
            connection.send(data)
        else:
            self.selector.unregister(connection)
            connection.close()

    def _datagram(self, server, _):
        data, peer = server.recvfrom(65536)
        server.sendto(data, peer)

    def _sctp(self, raw, about):
        _name, version = about
        packet, peer = raw.recvfrom(65536)
        if version == 4:
            packet = packet[(packet[0] & 15) * 4 :]
        if len(packet) < 16:
            return
        source, target, tag = struct.unpack_from("!HHI", packet)
        if packet[12] == INIT and target in self.ports:
            (their_tag,) = struct.unpack_from("!I", packet, 16)
            raw.sendto(sctp_packet(target, source, their_tag, INIT_ACK), (peer[0], 0))
        elif packet[12] == INIT_ACK and tag == 0x4D41524A:
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
