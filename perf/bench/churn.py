"""The suite `churn`: connections a second through a service; single changes among ten thousand and more."""

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import changes
import suite
from changes import policy, service, store
from kernel import Kernel
from margay import Margay
from shell import finish, inside, measured, run, start, wait_until

SERVICE = "10.96.0.10"
# Of the server; perf/bench/policy.yaml and perf/kernel/pods.nft let it be reached.
PORT = 5201
POLICIES = 100


@dataclass(frozen=True)
class Case:
    """wrk, one request a connection."""

    name: str = "connections through a service, 100 policies of the server"
    way: str = "local"
    unit: str = "connections/s"


class ServiceMargay(Margay):
    """With the service, and policies of the server that let in others than the client."""

    def up(self):
        super().up()
        documents = [service("web", "default", SERVICE, {"name": "b"}, "TCP", PORT)]
        for number in range(POLICIES):
            peer = {"ipBlock": {"cidr": f"10.98.{number}.0/24"}}
            ports = [{"protocol": "TCP", "port": 6000 + number}]
            rule = {"from": [peer], "ports": ports}
            documents.append(policy(f"other{number}", "default", {"app": "server"}, rule))
        store(self.run / "store", "churn", documents)
        time.sleep(1)


class ServiceKernel(Kernel):
    """With the service and as many rules before the one that counts, which match nothing."""

    def up(self):
        super().up()
        chain = "inet pods server_ingress"
        rules = [
            f"insert rule {chain} ip saddr 10.98.{number}.0/24 tcp dport {6000 + number} accept"
            for number in range(POLICIES)
        ]
        service_ = f"{SERVICE} . tcp . 80 : 10.244.9.2 . {PORT}"
        rules.append(f"add element inet pods services {{ {service_} }}")
        node = f"{self.tag}-n"
        run(["ip", "netns", "exec", node, "nft", "-f", "-"], input="\n".join(rules))


class Connections(suite.Suite):
    """wrk from pod to service, by Margay and by the kernel."""

    ours = ("margay",)
    yardsticks = ("kernel",)

    def __init__(self, binaries, scratch, seconds):
        devices = [ServiceMargay("margay", "c", binaries, scratch, workers=2), ServiceKernel()]
        super().__init__(scratch, seconds, devices)

    def value(self, device, case):
        client, server, _address = device.pods(case.way)
        line = f"wrk -t 1 -c 32 -d {max(1, round(self.seconds))}s http://{SERVICE}/ -H"
        with self.serving(server):
            command = ["ip", "netns", "exec", client, *line.split(), "Connection: close"]
            words = measured(command)
        errors = re.findall(r"Socket errors: (.*)|Non-2xx.*: (\d+)", words)
        if errors:
            raise RuntimeError(f"{device.name}: wrk met errors: {errors}")
        return {"value": float(re.search(r"Requests/sec:\s+([\d.]+)", words)[1])}

    @contextmanager
    def serving(self, server):
        configuration = Path(__file__).resolve().parent / "nginx.conf"
        command = ["nginx", "-p", str(self.scratch), "-c", str(configuration)]
        process = start(["ip", "netns", "exec", server, *command], f"{self.scratch}/nginx.log")
        try:
            wait_until("nginx listens", lambda: f":{PORT}" in inside(server, "ss -Htln"))
            yield
        finally:
            finish(process)


class Suite:
    """One after the other: neither is there while the other is measured."""

    name = "churn"
    rounds = 5
    seconds = 2
    cases = [Case(), *changes.CASES]

    def __init__(self, binaries, scratch, seconds):
        self.parts = [part(binaries, scratch, seconds) for part in (Connections, changes.Suite)]

    def up(self):
        """Each part is made when its turn comes."""

    def down(self):
        for part in self.parts:
            part.down()

    def measure(self, rounds, cases, progress):
        values = {}
        for part, kind in zip(self.parts, (Case, changes.Case)):
            some = [case for case in cases if isinstance(case, kind)]
            if some:
                part.up()
                values |= part.measure(rounds, some, progress)
                part.down()
        return values

    def summary(self, values, cases):
        part = {Case: self.parts[0], changes.Case: self.parts[1]}
        return [part[type(case)].row(case, values[case.name]) for case in cases]
