"""TCP connections that talk all the time, to see what an event does to them.

`Streams.open` makes a connection to an echo server (`traffic.Field`) and one thread sends a number
on each, every 20 ms; `Stream.calm` forgets what was, `Stream.stall` is the longest silence since.
"""

import contextlib
import socket
import struct
import threading
import time

# A connection that nothing happens to may still wait for a turn on a busy machine.
CALM = 3.0  # seconds
# Offsets of tcpi_total_retrans and tcpi_dsack_dups in struct tcp_info (linux/tcp.h).
TOTAL_RETRANS, DSACK_DUPS, INFO_SIZE = 100, 216, 232


class Stream:
    """One connection. `error` stays None as long as it lives; while `paused`, nobody talks."""

    def __init__(self, name, client):
        self.name = name
        self.client = client
        self.error = None
        self.paused = False
        self.sent = self.echoed = 0
        self.buffer = b""
        self.calm()

    def calm(self):
        """Starts a new observation."""
        self.last = time.monotonic()
        self.longest = 0.0
        self.lost_before = self._lost_ever()

    def stall(self):
        """The longest time without an echo since `calm`, in seconds; the present one included."""
        return max(self.longest, time.monotonic() - self.last)

    def lost(self):
        """Segments that the client sent since `calm` and that never arrived.

        What was sent again for want of patience arrived twice, as the peer reported (RFC 2883).
        """
        return max(0, self._lost_ever() - self.lost_before)

    def _lost_ever(self):
        info = self.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_SIZE)
        retransmitted, in_vain = (
            struct.unpack_from("I", info, offset)[0] for offset in (TOTAL_RETRANS, DSACK_DUPS)
        )
        return retransmitted - in_vain

    def goes_on(self, within=8.0):
        """Whether what is sent from now on is answered, without an error."""
        target, end = self.sent + 3, time.monotonic() + within
        while time.monotonic() < end and self.error is None:
            if self.echoed >= target:
                return True
            time.sleep(0.02)
        return False

    def turn(self):
        """Sends one number and takes the echoes that have come, which must be in order."""
        try:
            with contextlib.suppress(BlockingIOError):
                self.client.send(struct.pack("!Q", self.sent))
                self.sent += 1
            with contextlib.suppress(BlockingIOError):
                data = self.client.recv(65536)
                if not data:
                    raise ConnectionResetError("closed by the peer")
                self._take(data)
        except OSError as error:
            self.error = error

    def _take(self, data):
        now = time.monotonic()
        self.longest, self.last = max(self.longest, now - self.last), now
        self.buffer += data
        while len(self.buffer) >= 8:
            (number,) = struct.unpack_from("!Q", self.buffer)
            if number != self.echoed:
                raise ConnectionError(f"echo {number} where {self.echoed} was due")
            self.echoed += 1
            self.buffer = self.buffer[8:]


class Streams:
    """The connections of a test and the thread that keeps them talking."""

    def __init__(self, rig):
        self.rig = rig
        self.all = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._talk, daemon=True)
        self.thread.start()

    def open(self, source, address, port=80, name=None, within=3.0):
        """A connection from a place; it has been answered once when this returns."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.rig.inside(source):
            client = socket.socket(family, socket.SOCK_STREAM)
        client.settimeout(within)
        client.connect((address, port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        stream = Stream(name or f"{source} → {address}:{port}", client)
        self.all.append(stream)
        assert stream.goes_on(within), f"{stream.name}: {stream.error}"
        stream.calm()
        return stream

    def _talk(self):
        while not self.ended.wait(0.02):
            for stream in list(self.all):
                if stream.error is None and not stream.paused:
                    stream.turn()

    def close(self, *some):
        """Closes these connections, or all and the thread."""
        if not some:
            self.ended.set()
            self.thread.join(5)
        for stream in some or list(self.all):
            self.all.remove(stream)
            stream.client.close()


class Pulse:
    """Datagrams to an echo server every 5 ms, from a thread; what was not answered was an outage."""

    def __init__(self, rig, source, address, port=80):
        with rig.inside(source):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            self.client = socket.socket(family, socket.SOCK_DGRAM)
        self.client.connect((address, port))
        self.client.setblocking(False)
        self.heard = [time.monotonic()]
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)
        self.thread.start()

    def _beat(self):
        while not self.ended.wait(0.005):
            with contextlib.suppress(OSError):
                self.client.send(b"?")
            with contextlib.suppress(OSError):
                while self.client.recv(16):
                    self.heard.append(time.monotonic())

    def stop(self):
        """Ends it; the longest time without an answer, in seconds, and when it ended."""
        self.ended.set()
        self.thread.join(5)
        self.client.close()
        gaps = zip(self.heard, self.heard[1:])
        return max(((after - before, after) for before, after in gaps), default=(0.0, 0.0))
