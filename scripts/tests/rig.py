"""Two nodes, pods, and a host outside, in network namespaces: `scripts/rig` as a Python object.

Order of use: `Rig.up` makes the cluster, `Rig.pod` attaches pods by the real CNI plugin, `store`
changes documents, `exec`/`spawn`/`inside` act within a namespace, `metrics`, `conserved` and
`kernel_forwarded` say what the dataplane did, `down` ends everything.

Names of places: `n1` and `n2` (nodes), `out` (a host on the nodes' wire), `wire` (its bridge), and
the names of pods.
"""

import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = ("n1", "n2")
PLACES = (*NODES, "out", "wire")
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


def wait_until(probe, what, within=5.0, every=0.05):
    """Polls `probe` until it gives something true, which is returned; fails after `within` seconds."""
    end = time.monotonic() + within
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < end, f"not within {within} s: {what}"
        time.sleep(every)


def port_of(name):
    """The host interface of a pod of namespace default."""
    return "cali" + hashlib.sha1(f"default.{name}".encode()).hexdigest()[:11]


def resident(pid):
    """Resident memory of a process, in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10


class Metrics:
    """One scrape of a process's /metrics."""

    LINE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? ([-+.\deE]+)$", re.M)
    LABEL = re.compile(r'(\w+)="([^"]*)"')

    def __init__(self, text):
        self.samples = [
            (name, dict(self.LABEL.findall(labels)), float(value))
            for name, labels, value in self.LINE.findall(text)
        ]

    def total(self, name, **labels):
        """Sum of a metric's samples that carry all of these labels; 0 where there is none."""
        return sum(
            value
            for sample, has, value in self.samples
            if sample == name and labels.items() <= has.items()
        )

    def by(self, name, label):
        """A metric by the value of one label, zeroes left out."""
        found = {}
        for sample, has, value in self.samples:
            if sample == name and value:
                found[has.get(label)] = found.get(has.get(label), 0) + value
        return found

    def drops(self, reason):
        """Packets dropped for a reason."""
        return self.total("margay_drops_total", reason=reason)

    def balance(self):
        """What came in less what came to an end: 0 once the dataplane is idle."""
        came = self.total("margay_rx_packets_total") + self.total("margay_injected_packets_total")
        went = sum(
            self.total(name)
            for name in (
                "margay_tx_packets_total",
                "margay_drops_total",
                "margay_consumed_packets_total",
            )
        )
        return came - went


class Store:
    """The datastore's directory. Every change is a file renamed into place or out of it."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def write(self, name, text):
        """Puts a document (text, or values that JSON can say) under `name`.yaml."""
        if not isinstance(text, str):
            many = text if isinstance(text, list) else [text]
            text = "\n---\n".join(json.dumps(one) for one in many)
        hidden = self.path / f".{name}.new"
        hidden.write_text(text)
        hidden.rename(self.path / f"{name}.yaml")

    def remove(self, *names):
        """Takes documents away; missing ones are no error."""
        for name in names:
            (self.path / f"{name}.yaml").unlink(missing_ok=True)


class Rig:
    """A running rig. One at a time for each tag (`MARGAY_RIG_TAG`); `running` is the present one."""

    running = None

    def __init__(self):
        self.tag = os.environ.get("MARGAY_RIG_TAG", "mgt")
        self.bin = pathlib.Path(os.environ.get("MARGAY_BIN", ROOT / "target/release")).resolve()
        self.run = pathlib.Path(f"/run/margay-rig-{self.tag}")
        self.store = Store(self.run / "store")
        self.env = os.environ | {
            "MARGAY_RIG_TAG": self.tag,
            "MARGAY_RIG": str(self.run),
            "MARGAY_BIN": str(self.bin),
        }
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.pods = {}
        self.bare = {}
        self.children = []

    # --- the cluster ---

    def script(self, *words, check=True):
        """Runs `scripts/rig`; its standard output."""
        done = subprocess.run(
            [ROOT / "scripts/rig", *map(str, words)],
            env=self.env,
            text=True,
            capture_output=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, f"rig {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, mode="vxlan", **env):
        """Makes the cluster afresh. `env` is for the script, as `WORKERS="1"`."""
        for name in ("margayd", "margay-agent", "margay-cni", "margay-ipam", "margayctl"):
            assert (self.bin / name).exists(), f"{self.bin / name} is missing: set MARGAY_BIN"
        self.script("down", check=False)
        Rig.running = self
        self.env |= env
        self.script("cold", "--mode", mode)
        for name in ("n1", "n2", "out"):
            # An address under test for duplicates (RFC 4862) cannot ask for its neighbours yet.
            tentative = lambda: self.exec(name, "ip", "-6", "addr", "show", "tentative")
            wait_until(lambda: not tentative(), f"{name} has its IPv6 addresses")
        self.bare = {node: self.kernel_state(node) for node in NODES}
        self.script("start")

    def down(self):
        """Ends every process and namespace of the rig, and what `spawn` started."""
        for child in self.children:
            self.end(child)
        self.script("down", check=False)
        os.close(self.home)

    def netns(self, name):
        """Path of a place's network namespace."""
        return f"/run/netns/{self.tag}-{name if name in PLACES else f'p-{name}'}"

    def pid(self, node, process):
        """Pid of a node's `daemon` or `agent`."""
        return int((self.run / node / f"{process}.pid").read_text())

    def alive(self, node, process):
        """Whether that process still runs (a zombie does not)."""
        with contextlib.suppress(OSError):
            return bool(os.readlink(f"/proc/{self.pid(node, process)}/exe"))
        return False

    def kill(self, node, process, sig=signal.SIGKILL):
        """Sends a signal to a node's `daemon` or `agent`; it has ended when this returns."""
        self.script("stop", node, process, signal.Signals(sig).name.removeprefix("SIG"))

    def start(self, node, process):
        """Starts it again, without waiting until it is ready."""
        self.script(process, node)

    def start_as_child(self, node, process, *more, env=None, sig=signal.SIGTERM):
        """Ends it, cleanly unless `sig` is another, and starts the same command, with `more` behind it, as a
        child of ours.

        A configuration file takes the place of the one that it had.
        """
        line = pathlib.Path(f"/proc/{self.pid(node, process)}/cmdline").read_bytes()
        words = [word.decode() for word in line.split(b"\0")[:-1]]
        if "--config" in more and "--config" in words:
            at = words.index("--config")
            del words[at : at + 2]
        self.kill(node, process, sig)
        log = "margayd.log" if process == "daemon" else f"{process}.log"
        with open(self.run / node / log, "a") as stderr:
            place = ["ip", "netns", "exec", f"{self.tag}-{node}"]
            child = subprocess.Popen([*place, *words, *more], stderr=stderr, env=env)
        self.children.append(child)
        (self.run / node / f"{process}.pid").write_text(f"{child.pid}\n")
        return child

    def log(self, node, process):
        """What a node's `daemon` or `agent` has logged, without colours."""
        name = "margayd" if process == "daemon" else process
        return re.sub(r"\x1b\[[0-9;]*m", "", (self.run / node / f"{name}.log").read_text())

    def pod(self, node, namespace, name, **labels):
        """Attaches a pod and returns its CNI result; `self.pods[name]` are its addresses (v4, v6)."""
        words = [f"{key.replace('__', '/')}={value}" for key, value in labels.items()]
        result = json.loads(self.script("pod", node, namespace, name, *words))
        self.pods[name] = tuple(ip["address"].split("/")[0] for ip in result["ips"])
        return result

    def unpod(self, node, namespace, name):
        """Detaches a pod."""
        self.script("unpod", node, namespace, name)
        self.pods.pop(name, None)

    def cni(self, verb, node, namespace, name, config=None, **env):
        """Calls the CNI plugin as a runtime does, for the pod's network namespace as it is.

        `config` is laid over the network configuration (or is its text), `env` over the variables;
        a variable that is None is left out. Returns the completed process.
        """
        usual = {
            "cniVersion": "1.1.0",
            "name": "margay",
            "type": "margay-cni",
            "agentSocket": str(self.run / node / "agent.sock"),
            "mtu": 0,
            "ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
        }
        config = config if isinstance(config, str) else json.dumps(usual | (config or {}))
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"rig-{name}",
            "CNI_NETNS": self.netns(name),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.bin),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}",
        } | env
        variables = {key: value for key, value in variables.items() if value is not None}
        return self.run_in(
            node,
            self.bin / "margay-cni",
            input=config,
            env={"PATH": os.environ["PATH"]} | variables,
        )

    @contextlib.contextmanager
    def vacant(self, name):
        """Within: there is a network namespace that a pod of that name could have."""
        subprocess.run(["ip", "netns", "add", f"{self.tag}-p-{name}"], check=True)
        try:
            self.exec(name, "ip", "link", "set", "lo", "up")
            yield
        finally:
            subprocess.run(["ip", "netns", "del", f"{self.tag}-p-{name}"], check=True)

    # --- acting within a namespace ---

    @contextlib.contextmanager
    def inside(self, name):
        """Within: sockets that this thread opens belong to that place, and stay there."""
        there = os.open(self.netns(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._setns(there)
            yield
        finally:
            self._setns(self.home)
            os.close(there)

    @staticmethod
    def _setns(fd):
        if LIBC.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    def _into(self, name, words):
        return ["nsenter", f"--net={self.netns(name)}", *map(str, words)]

    def exec(self, name, *words, check=True, timeout=30, input=None):
        """Runs a command in a place; its standard output."""
        done = self.run_in(name, *words, timeout=timeout, input=input)
        assert not check or done.returncode == 0, f"{name}: {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def run_in(self, name, *words, timeout=30, input=None, env=None):
        """Runs a command in a place; the completed process, whatever its exit code."""
        return subprocess.run(
            self._into(name, words),
            text=True,
            capture_output=True,
            timeout=timeout,
            input=input,
            env=env,
        )

    def spawn(self, name, *words, **popen):
        """Starts a command in a place; it is ended with the rig if not before."""
        popen = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | popen
        child = subprocess.Popen(self._into(name, words), text=True, **popen)
        self.children.append(child)
        return child

    def end(self, child, sig=signal.SIGTERM):
        """Ends what `spawn` started; the exit code."""
        if child.poll() is None:
            child.send_signal(sig)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
        return child.wait(5)

    def mac(self, name, device="eth0"):
        """The Ethernet address of a place's interface. (What /sys shows is not the place's.)"""
        return json.loads(self.exec(name, "ip", "-j", "link", "show", device))[0]["address"]

    def ping(self, name, target, count=1, wait=1, *more):
        """Whether an echo comes back."""
        words = ("ping", "-n", "-c", count, "-i", "0.2", "-W", wait, *more, target)
        return self.run_in(name, *words).returncode == 0

    def ctl(self, *words, input=None):
        """Runs `margayctl` on the datastore; its standard output."""
        done = subprocess.run(
            [self.bin / "margayctl", "--datastore", f"dir:{self.store.path}", *map(str, words)],
            text=True,
            capture_output=True,
            timeout=30,
            input=input,
        )
        assert done.returncode == 0, f"margayctl {words}: {done.stdout}{done.stderr}"
        return done.stdout

    # --- what the dataplane did ---

    def scrape(self, node, path="/metrics", port=9101, timeout=5):
        """Status and body of a GET on a node's metrics port (9101 margayd, 9102 agent)."""
        with self.inside(node):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
            connection.connect()
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def metrics(self, node, port=9101):
        """A scrape of margayd's counters (port 9102: the agent's)."""
        status, body = self.scrape(node, port=port)
        assert status == 200, body
        return Metrics(body)

    @contextlib.contextmanager
    def changing(self, *nodes):
        """Within: a change of documents. It is in force on the nodes when this is left.

        They have then another state than before, and stay with it: what the kernel learns of
        neighbours makes new ones too.
        """
        states = lambda: [self.metrics(node).total("margay_generation") for node in nodes]  # noqa: E731
        before = states()
        yield
        wait_until(lambda: all(new > old for new, old in zip(states(), before)), "a new state")
        while (now := states()) != before:
            before = now
            time.sleep(0.3)

    @contextlib.contextmanager
    def agent_with(self, node, *flags):
        """Within: a node's agent has other flags, and the daemon has heard of them."""
        agent = self.start_as_child(node, "agent", *flags)
        wait_until(lambda: self.ready(node, port=9102), "the agent is ready", within=10)
        try:
            yield
        finally:
            self.end(agent, signal.SIGTERM)
            self.start(node, "agent")
            wait_until(lambda: self.ready(node, port=9102), "the agent is ready again", within=10)

    def ready(self, node, port=9101):
        """Whether /readiness is good."""
        try:
            return self.scrape(node, "/readiness", port, timeout=1)[0] == 200
        except OSError:
            return False

    def conserved(self, node, within=5.0):
        """Asserts rx + injected = tx + drops + consumed, once idle."""

        def balanced():
            return self.metrics(node).balance() == 0

        try:
            wait_until(balanced, "", within, every=0.15)
        except AssertionError:
            sums = self.metrics(node)
            told = {
                name: sums.by(f"margay_{name}_total", label)
                for name, label in (
                    ("rx_packets", "port"),
                    ("tx_packets", "port"),
                    ("drops", "reason"),
                    ("punts", "reason"),
                    ("injected_packets", "reason"),
                    ("consumed_packets", "reason"),
                )
            }
            raise AssertionError(f"{node}: off by {sums.balance()}: {told}") from None

    def kernel_forwarded(self, node):
        """IP packets of both families that the node's kernel forwarded by itself."""
        snmp = self.exec(node, "cat", "/proc/net/snmp").splitlines()
        heads, values = (line.split() for line in snmp if line.startswith("Ip:"))
        count = int(values[heads.index("ForwDatagrams")])
        six = self.exec(node, "cat", "/proc/net/snmp6")
        return count + int(re.search(r"Ip6OutForwDatagrams\s+(\d+)", six)[1])

    def kernel_state(self, node):
        """What Margay could leave behind in a node's kernel, by kind, as sorted lines.

        Pods' interfaces, what follows from them, and counters that run are left out.
        """
        commands = {
            "rules": "ip rule; ip -6 rule",
            "routes": "ip route show table all; ip -6 route show table all",
            "links": "ip -o link show",
            "addresses": "ip -o addr show",
            "filters": "for d in $(ls /sys/class/net); do"
            " tc filter show dev $d ingress; tc filter show dev $d egress; done",
            "neighbours": "ip neigh show; ip -6 neigh show",
            "sysctls": "sysctl -a 2>/dev/null | grep -E"
            " 'rp_filter|accept_local|forwarding|ip_local_|route_localnet|disable_ipv6'",
        }
        state = {}
        for kind, command in commands.items():
            place = ["ip", "netns", "exec", f"{self.tag}-{node}", "sh", "-c", command]
            lines = subprocess.check_output(place, text=True, timeout=10).splitlines()
            state[kind] = sorted(line for line in lines if "cali" not in line)
        # Entries of their own accord come and go; only those that Margay asked for matter.
        state["neighbours"] = [line for line in state["neighbours"] if "managed" in line]
        return state

    def books_are_right(self, within=5.0):
        """Asserts on both nodes: packets are conserved, and the kernel forwarded none."""
        for node in NODES:
            self.conserved(node, within)
            assert self.kernel_forwarded(node) == 0, f"{node}: the kernel forwarded packets"
