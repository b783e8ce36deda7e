"""Interfaces that vanish, change and cannot, processes that die: no bystander notices."""

import json
import re
import signal
import socket
import subprocess
import time

import pytest
from bystanders import undisturbed
from rig import wait_until
from scene import NODE, OUTSIDE, OUTSIDE_SERVER, Scene
from streams import CALM
from traffic import Attempt


@pytest.fixture(scope="module")
def scene(rig):
    scene = Scene(rig)
    rig.pod("n1", "x", "rogue")
    yield scene
    scene.close()


# === the node's interfaces ===


def test_an_uplink_without_native_xdp_falls_back_and_says_why(scene):
    """A bridge has no XDP of its own and no queues: generic it is, and the log says so."""
    done = on_spare_node(scene.rig, "br9", [])
    assert done["ready"], done["log"]
    attached = next(line for line in done["log"].splitlines() if "uplink attached" in line)
    assert "generic=true" in attached, attached
    assert "no zero-copy" in attached and "no native" in attached.replace(
        "native XDP", "native"
    ), attached


def test_a_mode_that_the_uplink_cannot_do_is_refused_with_the_reason(scene):
    done = on_spare_node(scene.rig, "br9", ["--xdp-mode", "zerocopy"])
    assert not done["ready"]
    assert "br9" in done["log"] and "zero" in done["log"].lower(), done["log"]
    done = on_spare_node(scene.rig, "br9", ["--xdp-mode", "copy"])
    assert not done["ready"]
    assert "br9" in done["log"] and "XDP" in done["log"], done["log"]


def test_an_uplink_that_is_not_there_is_refused_by_name(scene):
    done = on_spare_node(scene.rig, "eth7", [])
    assert not done["ready"] and done["code"] not in (0, None)
    assert "there is no interface eth7" in done["log"] and "--uplink" in done["log"]


def on_spare_node(rig, uplink, flags):
    """Starts margayd in a namespace of its own with one bridge `br9`; what came of it."""
    name = f"{rig.tag}-spare"
    run = ["ip", "netns", "exec", name]
    state = rig.run / "spare"
    state.mkdir(exist_ok=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for line in ("lo up", "add br9 type bridge", "br9 up"):
            verb = [] if line.startswith("add") else ["set"]
            subprocess.run(["ip", "-n", name, "link", *verb, *line.split()], check=True)
        words = ["--node", "spare", "--uplink", uplink, "--workers", "1", *flags]
        words += ["--socket", state / "d.sock", "--state-dir", state / "state"]
        with open(state / "log", "w") as log:
            # Whatever configuration the rig's daemons have, this one has none.
            env = {key: value for key, value in rig.env.items() if key != "MARGAYD_CONFIG"}
            child = subprocess.Popen([*run, rig.bin / "margayd", *words], stderr=log, env=env)
        end = time.monotonic() + 5
        while time.monotonic() < end and child.poll() is None:
            if "forwarding" in (state / "log").read_text():
                break
            time.sleep(0.05)
        ready = child.poll() is None
        child.terminate()
        code = child.wait(5)
        log = re.sub(r"\x1b\[[0-9;]*m", "", (state / "log").read_text())
        return {"ready": ready, "code": code, "log": log}
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_queue_count_that_changes_is_followed(scene):
    """One queue at the start, a second one while packets flow; the kernel takes none back."""
    rig = scene.rig

    def queues(count):
        return rig.run_in("n1", "ethtool", "-L", "eth0", "rx", count, "tx", count).returncode == 0

    rig.kill("n1", "daemon", signal.SIGTERM)
    try:
        wait_until(lambda: queues(1), "the last socket is closed and one queue enough")
    finally:
        rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "n1 ready with one queue")
    seen = len(rig.log("n1", "daemon"))
    with undisturbed(scene, loses_nothing=False):
        assert queues(2)
        more = lambda: "queues=2" in rig.log("n1", "daemon")[seen:]
        wait_until(more, "the new queue is bound")
        # Connections whose answers arrive by either queue.
        for _ in range(30):
            with rig.inside("client"):
                client = socket.socket()
            with client:
                client.settimeout(1)
                client.connect((OUTSIDE[4], OUTSIDE_SERVER))
        assert not queues(1), "the kernel took a queue from under its socket"
    shown = rig.exec("n1", "ethtool", "-l", "eth0")
    assert re.search(r"Current hardware settings:\s+RX:\s+2", shown), shown


def test_the_uplink_going_down_and_up_ends_no_connection(scene):
    rig = scene.rig
    rig.exec("n1", "sysctl", "-qw", "net.ipv6.conf.eth0.keep_addr_on_down=1")
    with undisturbed(scene, loses_nothing=False) as (near, *across):
        rig.exec("n1", "ip", "link", "set", "eth0", "down")
        time.sleep(1)
        assert near.goes_on() and near.lost() == 0 and near.stall() < CALM
        assert all(stream.stall() > 0.5 and stream.error is None for stream in across)
        rig.exec("n1", "ip", "link", "set", "eth0", "up")


def test_an_uplink_that_vanishes_and_comes_back_is_taken_again(scene):
    """As when a driver is loaded anew: another interface of the same name, with the same addresses."""
    rig = scene.rig
    with undisturbed(scene, loses_nothing=False) as (near, *across):
        rig.exec("n1", "ip", "link", "del", "eth0")
        time.sleep(1.5)
        assert near.goes_on() and near.lost() == 0 and near.stall() < CALM
        assert all(stream.error is None for stream in across)
        make = f"""
            ip -n {rig.tag}-n1 link add eth0 type veth peer name n1 netns {rig.tag}-wire
            ip -n {rig.tag}-wire link set n1 master br0 up
            ip netns exec {rig.tag}-n1 ethtool -K eth0 tx off tso off gso off gro on
            ip netns exec {rig.tag}-wire ethtool -K n1 tx off tso off gso off gro on
            ip -n {rig.tag}-n1 addr add {NODE[4]}/24 dev eth0
            ip -n {rig.tag}-n1 addr add {NODE[6]}/64 dev eth0 nodad
            # As a port takes to agree with the switch, and less.
            sleep 0.2
            ip -n {rig.tag}-n1 link set eth0 up
        """
        subprocess.run(["sh", "-ec", make], check=True, stdout=subprocess.DEVNULL)
        # The others still have the old interface's Ethernet address.
        for place in ("n2", "out"):
            rig.exec(place, "ip", "neigh", "flush", "dev", "eth0")


def test_a_pod_whose_interface_vanishes_under_traffic_harms_nobody(scene):
    """Its namespace goes without a DEL, while it sends and is sent to; the DEL comes later."""
    rig = scene.rig
    with undisturbed(scene):
        for number in range(3):
            name = f"brief{number}"
            rig.pod("n1", "x", name)
            address = rig.pods[name][0]
            scene.field.join(name)
            flood = [
                rig.spawn(name, "ping", "-q", "-i", "0.002", scene.pods["near"][0]),
                rig.spawn("client", "ping", "-q", "-i", "0.002", address),
            ]
            time.sleep(0.3)
            subprocess.run(["ip", "-n", f"{rig.tag}-p-{name}", "link", "del", "eth0"], check=True)
            time.sleep(0.3)
            for child in flood:
                rig.end(child, signal.SIGINT)
            done = rig.cni("DEL", "n1", "x", name)
            assert done.returncode == 0, done.stdout
            rig.store.remove(f"pod-{name}")
    rig.conserved("n1")


# === processes ===


def test_an_agent_that_dies_is_missed_by_nobody(scene):
    rig = scene.rig
    with undisturbed(scene, dies=("n1", "agent")):
        rig.kill("n1", "agent")
        time.sleep(0.5)
        assert scene.field.reach([Attempt("rogue", "far")]), "a new connection without an agent"
        done = rig.cni("STATUS", "n1", "x", "rogue")
        assert done.returncode != 0 and json.loads(done.stdout)["code"] in (50, 51), done.stdout
        rig.start("n1", "agent")
        wait_until(lambda: rig.ready("n1", 9102), "the agent is ready", within=10)
        wait_until(lambda: rig.cni("STATUS", "n1", "x", "rogue").returncode == 0, "STATUS is good")


def test_an_add_while_the_daemon_is_dead_fails_leaves_nothing_and_works_later(scene):
    rig, name = scene.rig, "late"
    with rig.vacant(name):
        rig.kill("n1", "daemon")
        try:
            done = rig.cni("ADD", "n1", "x", name, {"policy_setup_timeout_seconds": 1})
            error = json.loads(done.stdout)
            assert done.returncode != 0 and error["code"] == 11, error
            assert "margayd" in error["msg"] + error["details"], error
            assert "eth0" not in rig.exec(name, "ip", "-br", "link")
            assert name not in rig.ctl("get", "workloadendpoints", "-A", "-o", "name")
        finally:
            rig.start("n1", "daemon")
        wait_until(lambda: rig.ready("n1"), "n1 ready")
        later = lambda: rig.cni("ADD", "n1", "x", name).returncode == 0
        wait_until(later, "an ADD succeeds again", within=10)
        assert rig.ping(name, scene.pods["near"][0]) and rig.ping(name, scene.pods["far"][0])
        assert rig.cni("DEL", "n1", "x", name).returncode == 0


def test_packets_are_conserved_and_the_kernel_forwarded_none(scene):
    scene.rig.books_are_right()
