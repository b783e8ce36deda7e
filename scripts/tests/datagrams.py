"""A conversation of UDP between two places: everything is said back, and each answer is looked at; and
a stream of datagrams that nobody answers.

Nothing is sent but by methods of `Talk` and `Stream`, so that what was sent is known to the packet.
"""

import errno
import os
import random
import socket
import struct
import subprocess
import sys
import time

# linux/udp.h, asm-generic/socket.h
UDP_SEGMENT, SO_NO_CHECK = 103, 11
# Datagrams under way at one time.
WAVE = 16
# How long answers to a wave are waited for.
PATIENCE = 0.05
NOISE = random.Random(4).randbytes(70000)

ECHO = """
import socket, sys
six, bare, port = (int(word) for word in sys.argv[1:])
echo = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
echo.setsockopt(socket.SOL_SOCKET, 11, bare)
echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
echo.bind(("", port))
print("ready", flush=True)
while True:
    # What was too large for the way is told at the next call, whichever that is.
    try:
        data, peer = echo.recvfrom(1 << 16)
        echo.sendto(data, peer)
    except OSError:
        pass
"""


def numbered(number):
    """The datagram of that number."""
    return struct.pack("!I", number) + NOISE[: number * 37 % 1000]


class Talk:
    """`sent` and `received` are (datagrams, bytes of their payload).

    The server listens at `target`, on `server_port` where a service leads there; `bare`: neither end
    writes checksums.
    """

    def __init__(self, rig, source, target, address, port, server_port=None, bare=False):
        self.rig, self.address, self.port = rig, address, port
        six = ":" in address
        words = ("-c", ECHO, int(six), int(bare), server_port or port)
        self.server = rig.spawn(target, sys.executable, *words, stdout=subprocess.PIPE)
        assert self.server.stdout.readline() == "ready\n"
        with rig.inside(source):
            self.client = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        self.client.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, int(bare))
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.client.connect((address, port))
        self.client_port = self.client.getsockname()[1]
        self.sent, self.received = (0, 0), (0, 0)
        self.number = 0
        self.last = time.monotonic()

    def close(self):
        """Ends both ends."""
        self.client.close()
        self.rig.end(self.server)
        self.server.stdout.close()

    def speak(self):
        """A moment of the conversation."""
        self.exchange(25)

    def exchange(self, waves=50):
        """How many of so many waves of datagrams were answered whole. Each datagram is another."""
        answered = 0
        for _ in range(waves):
            wave = set()
            for _ in range(WAVE):
                self.number += 1
                wave.add(numbered(self.number))
            for data in wave:
                self._send(data)
            answered += self._answers(wave)
        return answered

    def ask(self, data, segment=None):
        """The answers to one datagram, or to one that the kernel or the device is to cut."""
        pieces = [data[at : at + segment] for at in range(0, len(data), segment)] if segment else [data]
        how = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", segment))] if segment else []
        self._send(data, how, len(pieces))
        return self._answers(set(pieces), 1.0)

    def noise(self, length):
        """So many bytes that were not sent yet."""
        return os.urandom(8) + NOISE[: length - 8]

    def _told(self, call, *words):
        """The same call once more where the first one only tells that something was too large."""
        try:
            return call(*words)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            return call(*words)

    def _send(self, data, how=(), pieces=1):
        self._told(self.client.sendmsg, [data], how)
        self.sent = (self.sent[0] + pieces, self.sent[1] + len(data))

    def _answers(self, wanted, patience=PATIENCE):
        """Whether all of these come back before `patience` is over; others are older ones."""
        end = time.monotonic() + patience
        while wanted and (left := end - time.monotonic()) > 0:
            self.client.settimeout(left)
            try:
                data = self._told(self.client.recv, 1 << 16)
            except TimeoutError:
                break
            self.last = time.monotonic()
            self.received = (self.received[0] + 1, self.received[1] + len(data))
            wanted.discard(data)
        return not wanted


class Stream:
    """Datagrams of one direction. `sent` is (datagrams, bytes of their payload)."""

    def __init__(self, rig, source, target, address, port):
        self.address = address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with rig.inside(target):
            self.server = socket.socket(family, socket.SOCK_DGRAM)
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.server.bind(("", port))
        self.server.setblocking(False)
        with rig.inside(source):
            self.client = socket.socket(family, socket.SOCK_DGRAM)
        self.client.connect((address, port))
        self.client_port = self.client.getsockname()[1]
        self.sent = (0, 0)
        self.number, self.heard, self.peer = 0, -1, None

    def close(self):
        """Ends both ends."""
        self.client.close()
        self.server.close()

    def speak(self):
        """A moment of the stream."""
        self.say(25)

    def say(self, waves):
        """Sends waves of datagrams; how many of them arrived, each later than the one before it."""
        arrived = 0
        for _ in range(waves):
            for _ in range(WAVE):
                data = numbered(self.number)
                self.client.send(data)
                self.number += 1
                self.sent = (self.sent[0] + 1, self.sent[1] + len(data))
            time.sleep(0.004)
            arrived += self._heard()
        time.sleep(PATIENCE)
        return arrived + self._heard()

    def answer(self):
        """Whether one datagram comes back."""
        self.server.sendto(b"at last", self.peer)
        self.client.settimeout(1)
        return self.client.recv(100) == b"at last"

    def _heard(self):
        count = 0
        while True:
            try:
                data, self.peer = self.server.recvfrom(1 << 16)
            except BlockingIOError:
                return count
            (number,) = struct.unpack("!I", data[:4])
            assert data == numbered(number)
            count += number > self.heard
            self.heard = max(self.heard, number)
