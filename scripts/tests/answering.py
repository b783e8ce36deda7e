"""Servers in many places of a rig, and one thread that answers for all of them."""

import contextlib
import selectors
import socket
import threading
import time

from sctp import SCTP


class Answering:
    """Every server is opened with something that `reply` is told about it."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def close(self):
        """Closes the servers."""
        self.ended.set()
        self.thread.join(5)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()

    def reply(self, about, peer, data):
        """What a client gets for its data."""
        raise NotImplementedError

    def open(self, family, address, port, about):
        """Opens a TCP and a UDP server in the namespace of this thread."""
        answers = {socket.SOCK_STREAM: self._accept, socket.SOCK_DGRAM: self._datagram}
        for kind, answer in answers.items():
            server = socket.socket(family, kind)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind((address, port))
            server.setblocking(False)
            if kind == socket.SOCK_STREAM:
                server.listen(512)
            self.selector.register(server, selectors.EVENT_READ, (answer, about))

    def open_sctp(self, family, answer, about):
        """Opens a raw socket for SCTP there, whose packets `answer(socket, about)` receives."""
        raw = socket.socket(family, socket.SOCK_RAW, SCTP)
        raw.setblocking(False)
        self.selector.register(raw, selectors.EVENT_READ, (answer, about))
        return raw

    # --- the answering thread ---

    def _run(self):
        while not self.ended.is_set():
            if not self.selector.get_map():
                time.sleep(0.02)
                continue
            for key, _ in self.selector.select(0.05):
                answer, about = key.data
                with contextlib.suppress(OSError):
                    answer(key.fileobj, about)

    def _accept(self, server, about):
        connection, peer = server.accept()
        connection.setblocking(False)
        self.selector.register(connection, selectors.EVENT_READ, (self._talk, (about, peer)))

    def _talk(self, connection, about):
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if data:
            connection.send(self.reply(*about, data))
        else:
            self.selector.unregister(connection)
            connection.close()

    def _datagram(self, server, about):
        data, peer = server.recvfrom(65536)
        server.sendto(self.reply(about, peer, data), peer)
