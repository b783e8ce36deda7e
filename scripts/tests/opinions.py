"""What the public package network-config-analyzer (NCA, np-guard's) thinks of documents.

`Opinion` starts the package's own command on documents and answers, tuple by tuple, whether the
connection is allowed. The command lists each pair of peers that may talk, with their connections.
"""

import collections
import ipaddress
import json
import os
import re
import subprocess
import sys

from pypi import installed

PACKAGE = "network-config-analyzer==2.1.0"
FIELD = re.compile(r"(protocols|src_ports|dst_ports):")
CUBE = re.compile(r"\{([^}]*)\}")


class Opinion:
    """The package's view of documents (Namespaces, Pods, sets of nets and policies)."""

    def __init__(self, folder, documents):
        folder.mkdir(parents=True)
        self.folder = folder
        resources = folder / "resources"
        resources.mkdir()
        (resources / "all.yaml").write_text("\n---\n".join(map(json.dumps, documents)))
        words = ["--connectivity", "-r", resources, "-f", folder / "answer", "--print_ipv6"]
        words += ["--output_format", "txt_no_fw_rules", "--output_endpoints", "pods"]
        self.log = open(folder / "log", "w")
        self.child = subprocess.Popen(
            [sys.executable, "-m", "nca", *map(str, words)],
            env=os.environ | {"PYTHONPATH": str(installed(PACKAGE))},
            stdout=self.log,
            stderr=self.log,
        )
        self.pairs = None

    def allows(self, source, target, protocol, source_port, port):
        """Whether the connection is allowed; ends are `NAMESPACE/POD` or addresses outside."""
        self._read()
        return any(
            connections.hold(protocol, source_port, port)
            for one in self._names(source)
            for other in self._names(target)
            for connections in self.pairs.get((one, other), ())
        )

    def _names(self, end):
        """The peers in the package's answer that an end belongs to: itself, or ranges around it."""
        if "/" in end:
            return [end]
        if end not in self.around:
            address = ipaddress.ip_address(end)
            self.around[end] = [name for name, ranges in self.ranges.items() if address in ranges]
        return self.around[end]

    def _read(self):
        if self.pairs is not None:
            return
        code = self.child.wait(60)
        self.log.close()
        log = (self.folder / "log").read_text()
        assert code == 0 and (self.folder / "answer").exists(), f"{PACKAGE}: {log}"
        self.pairs, self.ranges, self.around = collections.defaultdict(list), {}, {}
        for line in (self.folder / "answer").read_text().splitlines():
            if not line:
                continue
            ends, told = line.split(" : ", 1)
            pair = tuple(ends.split(" => "))
            for end in pair:
                if not re.fullmatch(r"[a-z][-a-z0-9]*/[-a-z0-9]+", end):
                    self.ranges.setdefault(end, Ranges(end))
            self.pairs[pair].append(Connections(told))

    def close(self):
        """Ends the command if it still runs."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait(5)
        self.log.close()


class Ranges:
    """Addresses as the package writes them: `1.2.3.0-1.2.3.9,10.0.0.0/8`."""

    def __init__(self, text):
        self.all = []
        for one in text.split(","):
            if "-" in one:
                first, last = map(ipaddress.ip_address, one.split("-"))
            else:
                net = ipaddress.ip_network(one)
                first, last = net[0], net[-1]
            self.all.append((first, last))

    def __contains__(self, address):
        return any(
            first.version == address.version and first <= address <= last
            for first, last in self.all
        )


class Values:
    """Ports or protocols as the package writes them: `80-81,90`, `TCP, UDP`, `all but TCP`."""

    def __init__(self, text):
        self.negated = text.startswith("all but ")
        text = text.removeprefix("all but ")
        self.all = []
        for one in filter(None, (part.strip() for part in text.split(","))):
            numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", one)
            self.all.append(
                range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1) if numbers else (one,)
            )

    def __contains__(self, value):
        return any(value in some for some in self.all) != self.negated


class Connections:
    """Connections as the package writes them: `All connections`, `All but {…},{…}`, `{…},{…}`."""

    def __init__(self, told):
        self.negated = told.startswith("All ")
        self.cubes = []
        rest = told.removeprefix("All connections").removeprefix("All but ")
        assert CUBE.sub("", rest).strip(", ") == "", f"unknown words: {told}"
        for inner in CUBE.findall(rest):
            words = FIELD.split(inner)
            assert not words[0], f"unknown field: {told}"
            values = (Values(value.rstrip(", ")) for value in words[2::2])
            self.cubes.append(dict(zip(words[1::2], values)))

    def hold(self, protocol, source_port, port):
        """Whether they contain this one."""
        one = {"protocols": protocol, "src_ports": source_port, "dst_ports": port}
        inside = any(
            all(one[name] in values for name, values in cube.items()) for cube in self.cubes
        )
        return inside != self.negated
