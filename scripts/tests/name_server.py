"""A name server in a pod, and programs that look names up as programs do.

`serve` starts dnsmasq in a place; `Client` digs and fetches from a pod whose resolver asks a server
of one's choice.
"""

import dataclasses
import json

from rig import wait_until


def serve(rig, place, *records):
    """Starts a server that knows these records: options of dnsmasq, such as `host-record=…`."""
    child = rig.spawn(
        place,
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--log-facility=/dev/null",
        *(f"--{record}" for record in records),
    )
    listens = lambda: ":53 " in rig.exec(place, "ss", "-Hlun") and child.poll() is None
    wait_until(listens, f"a name server in {place}")
    return child


def host(name, *addresses, ttl=300):
    """A record of dnsmasq: a name's addresses."""
    return f"host-record={','.join((name, *addresses, str(ttl)))}"


@dataclasses.dataclass
class Fetched:
    """How a request went: HTTP's code (0 without an answer), and seconds from SYN to SYN ACK."""

    code: int
    handshake: float

    def __bool__(self):
        return self.code == 200

    @property
    def at_once(self):
        """Whether the first SYN was answered: the second one comes after a second (RFC 6298 §2)."""
        return self.code == 200 and self.handshake < 0.9


class Client:
    """A pod that looks names up."""

    def __init__(self, rig, place, server):
        self.rig = rig
        self.place = place
        self.resolver = rig.run / f"resolv-{place}.conf"
        self.resolver.write_text(f"nameserver {server}\noptions timeout:2 attempts:2\n")
        self.server = server

    def dig(self, name, kind="A", *more, server=None):
        """Looks a name up; the addresses (and aliases) of the answer."""
        words = ("dig", f"@{server or self.server}", "+short", "+tries=2", "+time=2", *more)
        return self.rig.exec(self.place, *words, name, kind).split()

    def fetch(self, target, family=4, timeout=3):
        """Asks for http://`target`/: a name, which the resolver is asked for, or an address."""
        target = f"[{target}]" if ":" in target else target
        told = "%{json}"
        command = (
            f"mount --bind {self.resolver} /etc/resolv.conf && exec"
            f" curl -s -o /dev/null -{family} -m {timeout} -w '{told}' http://{target}/"
        )
        done = self.rig.run_in(self.place, "unshare", "-m", "sh", "-c", command)
        told = json.loads(done.stdout)
        return Fetched(told["http_code"], told["time_connect"] - told["time_namelookup"])

    def refused(self, target, family=4):
        """Whether nothing comes of a request, within a second."""
        return not self.fetch(target, family, timeout=1)
