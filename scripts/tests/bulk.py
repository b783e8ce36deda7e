"""Bulk TCP between two places: as much as is asked for, evenly, and when it last arrived."""

import contextlib
import socket
import threading
import time

CHUNK = 64 * 1024
# Every millisecond a chunk: half a gigabit a second, busy enough for any shortcut.
PAUSE = 0.001


class Bulk:
    """A connection whose client sends all the time; `error` stays None as long as it lives.

    The server listens at `target`, on `server_port` where a service leads there.
    """

    def __init__(self, rig, source, target, address, port, server_port=None):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with rig.inside(target):
            listener = socket.create_server(("", server_port or port), family=family)
        with rig.inside(source):
            self.client = socket.socket(family, socket.SOCK_STREAM)
        self.client.settimeout(3)
        self.client.connect((address, port))
        self.server, _ = listener.accept()
        listener.close()
        self.address, self.port = address, port
        self.client_port = self.client.getsockname()[1]
        self.error = None
        self.sent = self.received = 0
        self.last = time.monotonic()
        self.ended = threading.Event()
        self.client.settimeout(0.2)
        self.server.settimeout(0.2)
        self.threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self.threads:
            thread.start()

    def _send(self):
        data = bytes(CHUNK)
        while not self.ended.wait(PAUSE):
            try:
                with contextlib.suppress(TimeoutError):
                    self.sent += self.client.send(data)
            except OSError as error:
                self.error = error
                return

    def _receive(self):
        room = bytearray(4 * CHUNK)
        while not self.ended.is_set():
            try:
                with contextlib.suppress(TimeoutError):
                    self.received += self.server.recv_into(room)
                    self.last = time.monotonic()
            except OSError as error:
                self.error = error
                return

    def goes_on(self, within=8.0, amount=64 * CHUNK):
        """Whether this much more arrives."""
        target, end = self.received + amount, time.monotonic() + within
        while time.monotonic() < end and self.error is None:
            if self.received >= target:
                return True
            time.sleep(0.01)
        return False

    def stops(self, silence=0.5, within=8.0):
        """When the last byte arrived before a silence of so many seconds; None if there is none."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            last = self.last
            if time.monotonic() - last > silence:
                return last
            time.sleep(0.01)
        return None

    def close(self):
        """Ends the threads, then the connection."""
        self.ended.set()
        for thread in self.threads:
            thread.join(5)
        self.client.close()
        self.server.close()
