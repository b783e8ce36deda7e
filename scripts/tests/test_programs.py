"""Programs as people run them: a shell over ssh that outlives what happens to its service, dig
against a name server in a pod, hping3's odd packets, pings of every size.

SCTP is spoken by `traffic.py` on raw sockets: kernels are built without it."""

import re
import select
import subprocess

import pytest
from documents import SERVICE_RANGES, policy, port
from name_server import serve
from rig import wait_until

MODE = "vxlan"
FAMILIES = pytest.mark.parametrize("v", (0, 1), ids=("v4", "v6"))
SHELL, NAMES = ("10.96.4.22", "fd96::422"), ("10.96.4.53", "fd96::453")
LONG = 3000  # bytes of the long answer: two packets of the tunnel's


@pytest.fixture(scope="module")
def places(rig):
    """Client a and server b on n1, server c on n2; services for shells and for names."""
    for node, name, app in (("n1", "a", "client"), ("n1", "b", "server"), ("n2", "c", "server")):
        rig.pod(node, "default", name, app=app)
    rig.store.write("cidr", SERVICE_RANGES)
    rig.store.write("shell", service("shell", SHELL, [("ssh", "TCP", 22)]))
    rig.store.write("names", service("names", NAMES, [("dns", "UDP", 53), ("dns-tcp", "TCP", 53)]))
    serves(rig, "shell", "b", ("ssh", "TCP", 22))
    serves(rig, "names", "c", ("dns", "UDP", 53), ("dns-tcp", "TCP", 53))
    text = ",".join(f'"{"x" * 250}"' for _ in range(LONG // 250))
    serve(rig, "c", "edns-packet-max=4096", f"txt-record=long.example,{text}", "txt-record=short.example,hello")
    keys = rig.run / "ssh"
    keys.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True)
    subprocess.run(["mkdir", "-p", "/run/sshd"], check=True)
    for name in ("b", "c"):
        options = {"AuthorizedKeysFile": keys / "user.pub", "StrictModes": "no", "UsePAM": "no", "PidFile": "none", "PermitRootLogin": "yes"}
        words = [f"-o{key}={value}" for key, value in options.items()]
        rig.spawn(name, "/usr/sbin/sshd", "-D", "-f", "/dev/null", "-h", keys / "host", *words)
        wait_until(lambda name=name: ":22 " in rig.exec(name, "ss", "-Hltn"), f"a server in {name}")
    wait_until(lambda: "hello" in dig(rig, NAMES[0], "short.example"), "the services are in force")
    return keys


def service(name, addresses, ports):
    """A service of both families whose endpoints slices say."""
    spec = {
        "clusterIP": addresses[0],
        "clusterIPs": list(addresses),
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
        "ports": [{"name": n, "protocol": p, "port": at, "targetPort": at} for n, p, at in ports],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def serves(rig, name, pod, *ports):
    """Makes a pod the only endpoint of a service."""
    slices = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-{v}", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "addressType": ("IPv4", "IPv6")[v],
            "ports": [{"name": n, "protocol": p, "port": at} for n, p, at in ports],
            "endpoints": [{"addresses": [rig.pods[pod][v]], "conditions": {"ready": True}}],
        }
        for v in (0, 1)
    ]
    rig.store.write(f"{name}-slices", slices)


def dig(rig, server, name, *more):
    """What dig says in full."""
    return rig.exec("a", "dig", f"@{server}", "+tries=2", "+time=3", *more, "TXT", name, check=False)


class Shell:
    """A shell in a pod behind the service, over ssh."""

    def __init__(self, rig, keys, to):
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=3", "LogLevel=ERROR")
        words = ("ssh", "-i", keys / "user", *(word for one in options for word in ("-o", one)))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 1}
        self.rig, self.child = rig, rig.spawn("a", *words, f"root@{to}", "sh", **pipes)

    def say(self, command, within=5):
        """What a command prints, as one line; None where no answer comes."""
        self.child.stdin.write(f"{command}\n")
        self.child.stdin.flush()
        ready = select.select([self.child.stdout], [], [], within)[0]
        return self.child.stdout.readline().strip() if ready else None

    def place(self, within=5):
        """The network namespace that it is in."""
        return self.say("readlink /proc/self/ns/net", within)

    def close(self):
        self.rig.end(self.child)


def namespace(rig, pod):
    return rig.exec(pod, "readlink", "/proc/self/ns/net").strip()


@FAMILIES
def test_a_shell_outlives_its_backend_and_a_policy_that_still_allows_it(rig, places, v):
    serves(rig, "shell", "b", ("ssh", "TCP", 22))
    wait_until(lambda: shell_at(rig, places, v) == namespace(rig, "b"), "b serves", 15)
    shell = Shell(rig, places, SHELL[v])
    here, there = namespace(rig, "b"), namespace(rig, "c")
    assert shell.place() == here
    serves(rig, "shell", "c", ("ssh", "TCP", 22))
    wait_until(lambda: shell_at(rig, places, v) == there, "new shells are in c", 15)
    assert shell.place() == here, "the old one stays where it is"
    peer = {"podSelector": {"matchLabels": {"app": "client"}}}
    allowing = policy("shells", "default", {"app": "server"}, [{"from": [peer], "ports": [port(22)]}])
    rig.store.write("shells", allowing)
    denied = lambda: "hello" not in dig(rig, rig.pods["c"][v], "short.example", "+tries=1", "+time=1")
    wait_until(denied, "the policy is in force", 15)
    assert shell.place() == here
    assert len(shell.say("head -c 300000 /dev/zero | tr '\\0' x; echo") or "") == 300_000
    rig.store.write("shells", policy("shells", "default", {"app": "server"}, [{"ports": [port(53), port(53, "UDP")]}]))
    wait_until(lambda: "hello" in dig(rig, rig.pods["c"][v], "short.example"), "another policy", 15)
    assert shell.place(1.5) is None, "what is forbidden is cut"
    rig.store.remove("shells")
    shell.close()


def shell_at(rig, keys, v):
    shell = Shell(rig, keys, SHELL[v])
    try:
        return shell.place(2)
    except BrokenPipeError:
        return None
    finally:
        shell.close()


@FAMILIES
def test_dig_gets_long_answers_in_pieces_and_over_tcp(rig, places, v):
    by_udp = dig(rig, NAMES[v], "long.example", "+bufsize=4096", "+ignore")
    assert by_udp.count("x" * 250) == LONG // 250 and "flags: qr aa rd tc" not in by_udp
    retried = dig(rig, NAMES[v], "long.example", "+noedns")
    assert "retrying in TCP mode" in retried and retried.count("x" * 250) == LONG // 250
    assert "hello" in dig(rig, NAMES[v], "short.example", "+tcp")


SIZES = (0, 1, 1401, 1402, 1403, 1421, 1422, 1423, 1471, 1472, 1473, 8000, 65_000)


@FAMILIES
@pytest.mark.parametrize("target", ("b", "c", "out"))
def test_pings_of_every_size_come_back(rig, places, target, v):
    to = ("172.20.0.100", "fd20::100")[v] if target == "out" else rig.pods[target][v]
    lost = []
    for size in SIZES:
        # The first, of IPv6, whose senders alone cut, may be lost to learn the size.
        words = ("ping", "-n", "-c", 2, "-i", "0.1", "-W", "2", "-s", size, to)
        said = rig.exec("a", *words, check=False)
        if not int(re.search(r"(\d+) received", said)[1]):
            lost.append(size)
    assert not lost


def hping(rig, *words, count=2):
    """How many answers hping3 gets, and what it says of them."""
    done = rig.run_in("a", "hping3", "-n", "-c", count, "-i", "u100000", *words, timeout=15)
    said = done.stdout + done.stderr
    return int(re.search(r"(\d+) packets received", said)[1]), said


@pytest.mark.parametrize("target", ("b", "c"))
def test_hping3_finds_open_and_closed_ports(rig, places, target):
    to = rig.pods[target][0]
    answered, said = hping(rig, "-S", "-p", 22, to)
    assert answered == 2 and "flags=SA" in said
    answered, said = hping(rig, "-S", "-p", 23, to)
    assert answered == 2 and "flags=RA" in said
    scanned = rig.run_in("a", "hping3", "-S", "--scan", "20-25", to, timeout=15)
    assert re.findall(r"^ *(\d+) \S+ *: \.S\.\.A", scanned.stdout + scanned.stderr, re.M) == ["22"]


@pytest.mark.parametrize("flags", ((), ("-F", "-P", "-U"), ("-F",)), ids=("none", "xmas", "fin"))
def test_hping3s_odd_flags_end_at_the_node(rig, places, flags):
    dropped = lambda: rig.metrics("n1").drops("tcp_flags")  # noqa: E731
    for port in (22, 23):
        before = dropped()
        assert hping(rig, *flags, "-p", port, rig.pods["c"][0])[0] == 0
        wait_until(lambda before=before: dropped() > before, "they are counted")


def test_hping3s_fragments_pass_where_they_are_honest(rig, places):
    to = rig.pods["c"][0]
    assert hping(rig, "--icmp", "-d", 3000, "-f", "-m", 1000, to)[0] == 2
    assert hping(rig, "-S", "-p", 22, "-d", 800, "-f", "-m", 400, to)[0] == 2


def test_the_books_are_right(rig, places):
    rig.books_are_right()
