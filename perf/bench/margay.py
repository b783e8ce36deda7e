"""Margay as a device: a cluster of two nodes, with its ways to carry and to wait."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

from devices import (
    DEVICE_CPU,
    GATEWAY_MAC,
    GENERATOR_CPU,
    PERF,
    SERVICES,
    TUNNELS,
    Device,
    Ends,
    check_mtu,
    one_veth,
)
from shell import inside, ip, mac_of, prefer_workers, run


class Margay(Device):
    """A cluster of two nodes made by scripts/rig.

    One worker has a core of its own; several are where the daemon puts them. `kind` is that of the
    pods' ports, trunk unless it is native, and its first letter marks the namespaces.
    """

    # Lines of margayd's configuration that the command line has for all of them, and whether there
    # are policies.
    extra = ()
    policy = True
    # What the pools' encapsulation is.
    mode = "none"

    def __init__(self, name, kind, binaries, scratch, settings="", workers=1):
        self.name = name
        self.kind = "native" if kind == "native" else "trunk"
        self.tag = f"mgp{kind[0]}"
        self.run = Path(f"/run/margay-rig-{self.tag}")
        config = Path(scratch) / f"{self.tag}.toml"
        pinned = f'cpus = "{DEVICE_CPU}"\n' if workers == 1 else ""
        text = f'{pinned}pod-ports = "{self.kind}"\n{settings}'
        lines = [*text.splitlines(), *self.extra]
        # Of two lines with the same key the later one counts.
        keys = {line.partition("=")[0].strip(): line for line in lines}
        config.write_text("\n".join([*keys.values(), ""]), encoding="utf-8")
        self.environment = {
            **os.environ,
            "MARGAY_BIN": str(binaries),
            "MARGAY_RIG_TAG": self.tag,
            "MARGAYD_CONFIG": str(config),
            "WORKERS": str(workers),
        }
        self.addresses = {}

    def rig(self, line):
        return run([str(PERF.parent / "scripts/rig"), *line.split()], env=self.environment)

    def up(self):
        self.rig(f"cold --mode {self.mode}")
        self.lay()
        self.rig("start")
        for node, name, app in [("n1", "a", "client"), ("n1", "b", "server"),
                                ("n2", "c", "server"), ("n2", "d", "client")]:
            result = json.loads(self.rig(f"pod {node} default {name} app={app}"))
            self.addresses[name], self.addresses[f"{name}6"] = (
                one["address"].split("/")[0] for one in result["ips"]
            )
        for document in ["service.yaml", *(["policy.yaml"] if self.policy else [])]:
            hidden = self.run / f"store/.{document}"
            shutil.copy(PERF / "bench" / document, hidden)
            hidden.rename(self.run / "store" / document)
        # The sink swallows what the other node would answer.
        inside(f"{self.tag}-n1", "ping -c 1 -W 2 172.20.0.2")
        mac = mac_of(f"{self.tag}-n2")
        ip(f"-n {self.tag}-n1 neigh replace 172.20.0.2 lladdr {mac} dev eth0 nud permanent")
        prefer_workers(int((self.run / "n1/daemon.pid").read_text(encoding="ascii")))

    def lay(self):
        """Lays the wire; scripts/rig has laid one of frames."""

    def down(self):
        self.rig("down")

    def ends(self, way):
        if TUNNELS.get(way, self.mode) != self.mode:
            return None
        if way == "from vxlan":
            return self.ends_from_vxlan()
        far = way in TUNNELS
        # Into a pod behind the trunk the kernel redirects past a native program.
        into_pods = "generic" if self.kind == "trunk" else "native"
        family = "6" if way == "local6" else ""
        pod = self.addresses[("c" if far else "b") + family]
        return Ends(
            netns=f"{self.tag}-p-a",
            src=self.addresses["a" + family],
            dst=SERVICES.get(way, pod),
            dst_mac=GATEWAY_MAC,
            sink_netns=f"{self.tag}-wire" if far else f"{self.tag}-p-b",
            sink_interface="n1" if far else "eth0",
            sink_xdp=into_pods if not far else "native",
            xdp=into_pods,
        )

    def ends_from_vxlan(self):
        """From a pod of the other node, as its frames come by the wire."""
        node = json.loads((self.run / "store/state/Node/n1.json").read_text(encoding="utf-8"))
        local = self.ends("local")
        return replace(
            local,
            netns=f"{self.tag}-wire",
            interface="n1",
            xdp="native",
            src=self.addresses["d"],
            dst_mac=mac_of(f"{self.tag}-n1"),
            tunnel=("172.20.0.2", "172.20.0.1", node["spec"]["vxlanTunnelMACAddr"]),
        )

    def encapsulate(self, mode):
        """Changes the pools' encapsulation and gives the nodes the time to follow."""
        if mode == self.mode:
            return
        self.rig(f"pools {mode}")
        self.mode = mode
        time.sleep(1)

    def pods(self, way):
        name = "b" if way == "local" else "c"
        return f"{self.tag}-p-a", f"{self.tag}-p-{name}", self.addresses[name]


class Carried(Margay):
    """Workers carry everything, those of both nodes on the second core; who talks has the first."""

    client_cpu = GENERATOR_CPU

    def __init__(self, name, kind, binaries, scratch, settings=""):
        super().__init__(name, kind, binaries, scratch, f"shortcut = false\n{settings}")


class FarMargay(Margay):
    """Two nodes with VXLAN between them from the beginning, on another wire: pods have the MTU that it
    leaves them."""

    mode = "vxlan"

    def __init__(self, wire, *words, **more):
        super().__init__(*words, **more)
        self.wire = wire
        self.environment["WIRE_MTU"] = str(wire.mtu)

    def up(self):
        super().up()
        for pod in ("a", "c"):
            check_mtu(f"{self.tag}-p-{pod}", self.wire)

    def lay(self):
        if not self.wire.whole:
            return
        nodes = [f"{self.tag}-n{number}" for number in (1, 2)]
        for node in nodes:
            ip(f"-n {node} link del eth0")
        one_veth(*nodes)
        for number, node in enumerate(nodes, 1):
            ip(f"-n {node} addr add 172.20.0.{number}/24 dev eth0")
            ip(f"-n {node} addr add fd20::{number}/64 dev eth0 nodad")
            ip(f"-n {node} link set eth0 up")

    def encapsulate(self, mode):
        """It has VXLAN for good."""

    def pods(self, way):
        return super().pods(way) if way == self.mode else None


class PreferringMargay(Carried):
    """Workers that run the uplink's NAPI, where the kernel lets them; else it has no way."""

    def __init__(self, name, kind, binaries, scratch):
        super().__init__(name, kind, binaries, scratch, "prefer-busy-poll = true\n")
        self.control = f"unix:{self.run}/n1/margayd.sock"
        self.ctl = Path(binaries) / "margayctl"

    def pods(self, way):
        line = [str(self.ctl), "--dataplane", self.control, "-o", "json", "node", "status"]
        chosen = {row["name"]: row["value"] for row in json.loads(run(line))["tuning"]}
        polled = way != "local" and chosen["NAPI of eth0"] == "workers"
        return super().pods(way) if polled else None


class BusyMargay(Carried):
    """One node whose worker polls for ever; stopped while it is not measured.

    The other node is stopped from the beginning: its worker would take the same core.
    """

    def up(self):
        super().up()
        for node in ("n1", "n2"):
            self.signal(node, signal.SIGSTOP)

    def signal(self, node, number):
        pid = self.run / node / "daemon.pid"
        if pid.exists():
            os.kill(int(pid.read_text(encoding="ascii")), number)

    def down(self):
        for node in ("n1", "n2"):
            self.signal(node, signal.SIGCONT)
        super().down()

    def begin(self):
        self.signal("n1", signal.SIGCONT)

    def end(self):
        self.signal("n1", signal.SIGSTOP)

    def encapsulate(self, mode):
        """It has no way between nodes."""

    def pods(self, way):
        return super().pods(way) if way == "local" else None
