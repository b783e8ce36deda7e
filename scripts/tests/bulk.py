"""Bulk TCP between two places: as much as is asked for, evenly, and when it last arrived; and its
super-frames as they arrive.
"""

import contextlib
import socket
import struct
import threading
import time

CHUNK = 64 * 1024
# Every millisecond a chunk: half a gigabit a second, busy enough for any shortcut.
PAUSE = 0.001
# linux/if_packet.h, linux/virtio_net.h
SOL_PACKET, PACKET_VNET_HDR, NEEDS_CSUM = 263, 15, 1


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


class SuperFrame:
    """A frame as a place's interface received it, longer than its segments."""

    def __init__(self, data):
        # struct virtio_net_hdr, in the machine's byte order.
        flags, _, _, self.segment, start, offset = struct.unpack_from("=BBHHHH", data)
        self.left_to_device = bool(flags & NEEDS_CSUM)
        self.frame = data[10:]
        six = self.frame[12:14] == b"\x86\xdd"
        self.addresses = self.frame[22:54] if six else self.frame[26:34]
        self.tcp = self.frame[54 if six else 34 :]
        self.port = struct.unpack_from("!H", self.tcp, 2)[0]
        if self.left_to_device:
            (self.sum,) = struct.unpack_from("!H", self.frame, start + offset)

    def sum_is_right(self):
        """Whether what the device is to complete is the pseudo-header's sum."""
        words = self.addresses + struct.pack("!HI", 6, len(self.tcp))
        total = sum(struct.unpack(f"!{len(words) // 2}H", words))
        while total > 0xFFFF:
            total = (total & 0xFFFF) + (total >> 16)
        return self.left_to_device and self.sum == total


def super_frames(rig, place, port, wanted=20, within=5.0):
    """The next so many super-frames for a TCP port that arrive in a place."""
    with rig.inside(place):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with tap:
        tap.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        tap.bind(("eth0", 3))
        tap.settimeout(0.2)
        found, end = [], time.monotonic() + within
        while len(found) < wanted and time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                data = tap.recv(1 << 17)
                if len(data) > 2000:
                    frame = SuperFrame(data)
                    found += [frame] if frame.port == port else []
        return found
