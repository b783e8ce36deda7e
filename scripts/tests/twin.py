"""The kernel in Margay's place: a namespace with conntrack and nftables between two pods and a host
outside, with the addresses of a rig's, and frames sent into both and compared.

Order of use: `Twin` makes the namespaces beside those of a rig, `Sides.send` puts the same packet into
both worlds and records what leaves each of them, in words that leave out what either may choose:
`told` says which.
"""

import pathlib
import select
import socket
import subprocess
import time

from scapy.all import ICMP, IP, TCP, UDP, Ether, IPerror, Raw, TCPerror, UDPerror

GATEWAY = "ee:ee:ee:ee:ee:ee"
PLACES = ("a", "b", "out")
NODE, OUTSIDE, SERVICE = "172.20.0.1", "172.20.0.100", "10.96.7.1"
NODE_PORT = 30080
RULES = pathlib.Path(__file__).with_name("twin.nft")
MARK = b"margay-mark-"
SILENCE = """table ip silence {
    chain silence {
        type filter hook prerouting priority raw; policy drop;
    }
}
"""
UPLINK_MTU = 1400


class World:
    """Sockets in the three places of one world: the dataplane's, or the kernel's."""

    def __init__(self, rig, places):
        self.rig, self.sockets, self.head, self.got = rig, {}, {}, {}
        for place, name in places.items():
            with rig.inside(name):
                tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
            tap.bind(("eth0", 0x0800))
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            tap.setblocking(False)
            self.sockets[place] = tap
            # The stacks of the places say nothing by themselves.
            rig.exec(name, "nft", "-f", "-", input=SILENCE)

    def send(self, place, packet):
        """Puts one frame on the wire of a place, as a whole."""
        self.sockets[place].send(self.head[place] + bytes(packet))

    def drain(self, into):
        """Takes what has arrived at all places; whether there was any."""
        some = False
        for place, tap in self.sockets.items():
            while select.select([tap], [], [], 0)[0]:
                frame, about = tap.recvfrom(65536)
                if about[2] != socket.PACKET_OUTGOING:
                    some = True
                    into.append((place, frame))
        return some

    def last(self, place, say):
        """What is said about the last packet that a place received; nothing where there is none."""
        return say(self.got[place]) if place in self.got else []

    def close(self):
        for tap in self.sockets.values():
            tap.close()


class Twin:
    """The kernel's namespace and its three neighbours; they end with the rig."""

    def __init__(self, rig):
        self.rig = rig
        a, b = rig.pods["a"][0], rig.pods["b"][0]
        for name in ("twin", "twin-a", "twin-b", "twin-out"):
            subprocess.run(["ip", "netns", "add", f"{rig.tag}-p-{name}"], check=True)
        for near, far, address in (("ca", "twin-a", a), ("cb", "twin-b", b), ("eth0", "twin-out", OUTSIDE)):
            self._cable(near, far, address)
        self.run("ip addr add 172.20.0.1/24 dev eth0")
        self.run(f"ip link set eth0 mtu {UPLINK_MTU}")
        self.run(f"ip route add default via {OUTSIDE}")
        for near, address in (("ca", a), ("cb", b)):
            self.run(f"ip link set {near} address {GATEWAY}")
            self.run(f"ip route add {address} dev {near}")
        for near, far, address in (("ca", "twin-a", a), ("cb", "twin-b", b), ("eth0", "twin-out", OUTSIDE)):
            self.run(f"ip neigh replace {address} lladdr {rig.mac(far)} dev {near}")
        for setting in (
            "ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0",
            "conf.all.send_redirects=0", "conf.eth0.send_redirects=0", "conf.ca.send_redirects=0",
            "conf.cb.send_redirects=0", "icmp_ratelimit=0", "icmp_msgs_per_sec=100000",
        ):  # fmt: skip
            self.run(f"sysctl -qw net.ipv4.{setting}")
        defines = {"A": a, "B": b, "NODE": NODE, "SERVICE": SERVICE}
        words = [word for name, value in defines.items() for word in ("-D", f"{name}={value}")]
        rig.exec("twin", "nft", *words, "-f", RULES)

    def run(self, command):
        """A command in the twin's namespace."""
        return self.rig.exec("twin", *command.split())

    def _cable(self, near, far, address):
        self.rig.exec("twin", "ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", f"{self.rig.tag}-p-{far}")
        for place, device in (("twin", near), (far, "eth0")):
            self.rig.exec(place, *f"ip link set {device} up".split())
            self.rig.exec(place, *f"ethtool -K {device} tx off tso off gso off gro off".split())


class Sides:
    """Both worlds side by side."""

    def __init__(self, rig):
        self.a, self.b = rig.pods["a"][0], rig.pods["b"][0]
        self.twin = Twin(rig)
        self.kernel = World(rig, {"a": "twin-a", "b": "twin-b", "out": "twin-out"})
        self.margay = World(rig, {"a": "a", "b": "b", "out": "out"})
        for world, prefix, node in ((self.kernel, "twin-", "twin"), (self.margay, "", "n1")):
            for place in PLACES:
                gateway = rig.mac(node) if place == "out" else GATEWAY
                own = rig.mac(prefix + place)
                world.head[place] = bytes(Ether(src=own, dst=gateway, type=0x0800))[:14]
        self.worlds = {"kernel": self.kernel, "margay": self.margay}
        self.marks = 0
        self.begin()

    def begin(self, differences=()):
        """A new sequence: its steps are counted anew; at some of them the worlds are to differ."""
        self.steps = []
        self.differences = differences
        self.known = {8080, 5353}
        for world in self.worlds.values():
            world.got = {}

    def send(self, place, packet):
        """Puts a packet (or what a function makes of a world) into both; notes what leaves."""
        arrived = {name: [] for name in self.worlds}
        self.marks += 1
        mark = MARK + str(self.marks).encode()
        for world in self.worlds.values():
            made = packet(world) if callable(packet) else packet
            for one in made if isinstance(made, list) else [made]:
                self.known |= set() if callable(packet) else ports(one)
                world.send(place, one)
            # What was sent before the mark has passed once the mark is there.
            to = self.a if place == "b" else self.b
            source = {"a": self.a, "b": self.b, "out": OUTSIDE}[place]
            world.send(place, IP(src=source, dst=to) / UDP(sport=9, dport=5353) / mark)
        end, marked, quiet = time.monotonic() + 5, set(), 0
        while marked < self.worlds.keys():
            assert time.monotonic() < end, f"step {len(self.steps)}: no mark by {self.worlds.keys() - marked}"
            for name, world in self.worlds.items():
                world.drain(arrived[name])
                if any(mark in frame for _place, frame in arrived[name]):
                    marked.add(name)
            time.sleep(0.002)
        # The slow path answers later than the fast one, and on a busy machine much later.
        end = time.monotonic() + (0.2 if len(self.steps) in self.differences else 2)
        while quiet < 3 or (self._differ(arrived) and time.monotonic() < end):
            some = [world.drain(arrived[name]) for name, world in self.worlds.items()]
            quiet = 0 if any(some) else quiet + 1
            time.sleep(0.01)
        for name, world in self.worlds.items():
            for where, frame in self._unmarked(arrived[name]):
                world.got[where] = Ether(frame)[IP]
        self.steps.append({name: self._told(arrived[name]) for name in self.worlds})

    def _unmarked(self, arrived):
        return [(place, frame) for place, frame in arrived if MARK not in frame]

    def _told(self, arrived):
        return sorted(told(place, packet, self.known) for place, packet in joined(self._unmarked(arrived)))

    def _differ(self, arrived):
        kernel, margay = (self._told(arrived[name]) for name in self.worlds)
        return kernel != margay

    def close(self):
        for world in self.worlds.values():
            world.close()


def joined(frames):
    """IP packets of frames; the pieces of a datagram as the datagram, since either may cut as it likes."""
    whole, parts = [], {}
    for place, frame in frames:
        packet = Ether(frame)[IP]
        packet = IP(bytes(packet)[: packet.len])
        if packet.frag == 0 and not packet.flags.MF:
            whole.append((place, packet))
        else:
            parts.setdefault((place, packet.src, packet.dst, packet.id, packet.proto), []).append(packet)
    for (place, *_rest), pieces in parts.items():
        pieces.sort(key=lambda piece: piece.frag)
        data = b"".join(bytes(piece.payload) for piece in pieces)
        first = pieces[0]
        ends = pieces[-1].frag * 8 + len(pieces[-1].payload) == len(data) and not pieces[-1].flags.MF
        assert first.frag == 0 and ends, f"pieces of no datagram at {place}: {pieces}"
        header = IP(src=first.src, dst=first.dst, ttl=first.ttl, proto=first.proto, id=first.id)
        assert all(right(bytes(piece)[: piece.ihl * 4]) for piece in pieces), "headers of pieces"
        whole.append((place, IP(bytes(header / data))))
    return whole


def right(header):
    """Whether an Internet checksum over these bytes is right."""
    words = [int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2)]
    return sum(words) % 0xFFFF == 0


def sums(packet):
    """The checksums of a packet, by what scapy computes: `good`, or which is wrong."""
    again = packet.copy()
    del again[IP].chksum
    for layer in (TCP, UDP, ICMP):
        if layer in again and not (layer is UDP and packet[UDP].chksum == 0):
            del again[layer].chksum
    again = IP(bytes(again))
    wrong = [
        layer.__name__
        for layer in (IP, TCP, UDP, ICMP)
        if layer in packet and packet[layer].chksum != again[layer].chksum
    ]
    return "bad " + "+".join(wrong) if wrong else "good"


def ports(packet):
    """The ports that a packet was sent from and to."""
    if isinstance(packet, bytes):
        packet = IP(packet)
    layer = next((packet[layer] for layer in (TCP, UDP) if layer in packet), None)
    return {layer.sport, layer.dport} if layer else set()


def told(place, packet, known):
    """A packet in words.

    Left out are its identification, ports that are not `known` (a translation chose them), and
    identifiers of the node's pings. DF says nothing of an error: it is small, and cut by nobody.
    """
    end = lambda address, port: f"{address}:{port if port in known else 'CHOSEN'}"
    error = IPerror in packet
    head = f"to {place}: ttl {packet.ttl}{' DF' if packet.flags.DF and not error else ''} tos {packet.tos}"
    if TCP in packet:
        tcp = packet[TCP]
        what = f"TCP {end(packet.src, tcp.sport)} > {end(packet.dst, tcp.dport)} {tcp.flags}"
        what += f" seq {tcp.seq} ack {tcp.ack} len {len(tcp.payload)}"
    elif UDP in packet:
        udp = packet[UDP]
        what = f"UDP {end(packet.src, udp.sport)} > {end(packet.dst, udp.dport)} len {len(udp.payload)}"
        what += " unsummed" if udp.chksum == 0 else ""
    elif ICMP in packet:
        what = f"ICMP {packet.src} > {packet.dst} {packet[ICMP].type}/{packet[ICMP].code} "
        what += about(packet, end) if error else query(packet)
    else:
        what = f"protocol {packet.proto} {packet.src} > {packet.dst} len {len(packet.payload)}"
    return f"{head} {what} {sums(packet)}"


def query(packet):
    """What an echo, or another question, carries."""
    icmp = packet[ICMP]
    chosen = NODE in (packet.src, packet.dst)
    return f"id {'CHOSEN' if chosen else icmp.id} seq {icmp.seq} len {len(icmp.payload)}"


def about(packet, end):
    """What an ICMP error quotes."""
    icmp, quoted = packet[ICMP], packet[IPerror]
    mtu = f"mtu {icmp.nexthopmtu} " if (icmp.type, icmp.code) == (3, 4) else ""
    for layer in (TCPerror, UDPerror):
        if layer in packet:
            ends = end(quoted.src, packet[layer].sport), end(quoted.dst, packet[layer].dport)
            return f"{mtu}about {layer.__name__} {' > '.join(ends)}"
    return f"{mtu}about protocol {quoted.proto} {quoted.src} > {quoted.dst}"


def answer(packet, flags=None, payload=b"", seq=0, ack=0):
    """What the receiver of a packet says in return."""
    head = IP(src=packet.dst, dst=packet.src)
    if TCP in packet:
        tcp = packet[TCP]
        return head / TCP(sport=tcp.dport, dport=tcp.sport, flags=flags, seq=seq, ack=ack, window=8192) / payload
    if UDP in packet:
        return head / UDP(sport=packet[UDP].dport, dport=packet[UDP].sport) / payload
    return head / ICMP(type=0, id=packet[ICMP].id, seq=packet[ICMP].seq) / bytes(packet[ICMP].payload)


def complaint(packet, source=None, type=3, code=3, mtu=0, length=28):
    """An ICMP error about a packet, of its receiver or of a router on the way."""
    quoted = bytes(packet)[:length]
    return IP(src=source or packet.dst, dst=packet.src) / ICMP(type=type, code=code, nexthopmtu=mtu) / Raw(quoted)
