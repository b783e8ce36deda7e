"""SCTP by hand, for kernels are built without it: INIT and INIT ACK (RFC 9260 section 3.3)."""

import socket
import struct

from scapy.layers.sctp import crc32c

SCTP = 132
INIT, INIT_ACK, COOKIE = 1, 2, 7
TAG = 0x4D41524A


def sctp_packet(source, target, tag, kind, cookie=b"", first=1):
    """A packet of one INIT or INIT ACK chunk, with its CRC-32C; `first` is its initial TSN."""
    body = struct.pack("!IIHHI", TAG, 65535, 1, 1, first)
    if cookie:
        padding = bytes(-len(cookie) % 4)
        body += struct.pack("!HH", COOKIE, 4 + len(cookie)) + cookie + padding
    chunk = struct.pack("!BBH", kind, 0, 4 + len(body)) + body
    head = struct.pack("!HHI", source, target, tag)
    checksum = crc32c(head + bytes(4) + chunk) & 0xFFFFFFFF
    return head + struct.pack("!I", checksum) + chunk


def sctp_is_intact(packet):
    """Whether the CRC-32C is right."""
    (told,) = struct.unpack_from("!I", packet, 8)
    return crc32c(packet[:8] + bytes(4) + packet[12:]) & 0xFFFFFFFF == told


def payload(packet, version):
    """What a raw socket of that family delivered, without IPv4's header."""
    return packet[(packet[0] & 15) * 4 :] if version == socket.AF_INET else packet
