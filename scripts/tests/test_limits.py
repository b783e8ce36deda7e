"""What pods may use of the network: bits and packets a second, by CNI's `bandwidth` and by the Pod's
annotations, with real programs."""

import json
import re

import pytest
from rig import wait_until
from services import NODE, OUT

MODE = "vxlan"
CALICO, KUBERNETES = "qos.projectcalico.org/", "kubernetes.io/"
# Bits a second, and few at once, so that a test does not wait until a burst is over.
RATE, BURST = 20_000_000, 400_000
# The pods that are limited by their runtime: to the pod, and from it.
INTO = {"ingressRate": RATE, "ingressBurst": BURST}
OUT_OF = {"egressRate": RATE, "egressBurst": BURST, "ingressRate": 0, "ingressBurst": 0}


def document(node, name, **annotations):
    """A Pod; of an annotation's name `ingressBandwidth` is Calico's, `ingress_bandwidth` Kubernetes'."""
    said = {
        (KUBERNETES + key.replace("_", "-") if "_" in key else CALICO + key): value
        for key, value in annotations.items()
    }
    metadata = {"name": name, "namespace": "default", "annotations": said, "labels": {"name": name}}
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def pods(rig):
    """Pods a and b of n1, c of n2, and two that their runtime limits."""
    for node, name in (("n1", "a"), ("n1", "b"), ("n2", "c")):
        rig.pod(node, "default", name)
    limited = {"into": INTO, "outof": OUT_OF}
    with rig.vacant("into"), rig.vacant("outof"):
        for name, bandwidth in limited.items():
            config = {"runtimeConfig": {"bandwidth": bandwidth}}
            done = rig.cni("ADD", "n1", "default", name, config)
            assert done.returncode == 0, done.stdout
            rig.pods[name] = tuple(i["address"].split("/")[0] for i in json.loads(done.stdout)["ips"])
        yield rig.pods
        for name in limited:
            assert rig.cni("DEL", "n1", "default", name).returncode == 0
    rig.books_are_right()


def rate(rig, source, target, *more, v6=False):
    """Bits a second that arrive at `target`, by iperf3."""
    server = rig.spawn(target, "iperf3", "-s", "-1")
    try:
        listens = lambda: ":5201" in rig.exec(target, "ss", "-Htln")
        wait_until(listens, "iperf3 listens")
        words = ("iperf3", "-J", "-t", 3, "-c", rig.pods[target][v6], *more)
        report = json.loads(rig.exec(source, *words))
    finally:
        rig.end(server)
    ends = report["end"]
    if "-u" not in more:
        return ends["sum_received"]["bits_per_second"]
    sent = ends["sum"]
    return sent["bits_per_second"] * (1 - sent["lost_percent"] / 100)


def is_about(measured, wanted=RATE):
    """Whether a rate is one of payload that a limit of frames explains."""
    return 0.7 * wanted <= measured <= 1.15 * wanted


@pytest.mark.parametrize("v6", (False, True), ids=("IPv4", "IPv6"))
@pytest.mark.parametrize("ends", (("a", "into"), ("c", "into"), ("outof", "a"), ("outof", "c")))
def test_tcp_has_the_bandwidth_that_the_runtime_asked_for(rig, pods, ends, v6):
    measured = rate(rig, *ends, v6=v6)
    assert is_about(measured), f"{measured:.0f}"


def test_the_other_direction_and_other_pods_are_not_limited(rig, pods):
    for ends in (("into", "a"), ("a", "outof"), ("a", "b")):
        measured = rate(rig, *ends)
        assert measured > 3 * RATE, f"{ends}: {measured:.0f}"


def test_udp_above_the_bandwidth_is_dropped_and_counted(rig, pods):
    before = rig.metrics("n1").drops("bandwidth")
    measured = rate(rig, "a", "into", "-u", "-b", "60M", "-l", 1200)
    assert is_about(measured), f"{measured:.0f}"
    assert rig.metrics("n1").drops("bandwidth") > before + 1000


def test_what_waits_for_its_turn_arrives_in_order(rig, pods):
    """Held frames leave by their time, not by chance: UDP below the limit, in bursts above it."""
    words = ("-u", "-b", "15M/32", "-l", 1200)
    server = rig.spawn("into", "iperf3", "-s", "-1")
    try:
        wait_until(lambda: ":5201" in rig.exec("into", "ss", "-Htln"), "iperf3 listens")
        report = rig.exec("a", "iperf3", "-J", "-t", 2, "-c", pods["into"][0], *words)
    finally:
        rig.end(server)
    stream = json.loads(report)["end"]["streams"][0]["udp"]
    assert stream["out_of_order"] == 0 and stream["lost_percent"] < 5, stream


def test_annotations_limit_at_once_and_cut_nothing(rig, pods):
    server = rig.spawn("b", "iperf3", "-s", "-1")
    wait_until(lambda: ":5201" in rig.exec("b", "ss", "-Htln"), "iperf3 listens")
    client = rig.spawn(
        "a", "iperf3", "-J", "-i", "1", "-t", "8", "-c", pods["b"][0], stdout=-1, stderr=-1
    )
    try:
        wait_until(lambda: ":5201" in rig.exec("b", "ss", "-Htn"), "iperf3 is connected")
        rig.store.write("pod-b", document("n1", "b", ingressBandwidth="10M", ingressBurst="200k"))
        report, _ = client.communicate(timeout=30)
    finally:
        rig.end(client)
        rig.end(server)
        rig.store.write("pod-b", document("n1", "b"))
    intervals = [i["sum"]["bits_per_second"] for i in json.loads(report)["intervals"]]
    assert len(intervals) >= 8, "the connection lived on"
    late = intervals[4:8]
    assert is_about(sum(late) / len(late), 10_000_000), intervals


def test_calicos_annotation_goes_before_kubernetes_and_both_are_shown(rig, pods):
    said = {"ingress_bandwidth": "8M", "egress_bandwidth": "16M", "egressBandwidth": "30M"}
    rig.store.write("pod-b", document("n1", "b", **said, egressBurst="400k"))
    try:
        shown = json.loads(rig.ctl("get", "workloadendpoint", "-o", "json"))
        of_b = next(item for item in shown["items"] if item["spec"].get("pod") == "b")
        assert of_b["spec"]["qosControls"] == {
            "ingressBandwidth": 8_000_000,
            "ingressBurst": 4 << 30,
            "egressBandwidth": 30_000_000,
            "egressBurst": 400_000,
        }
        of_into = next(item for item in shown["items"] if item["spec"].get("pod") == "into")
        asked = {"ingressBandwidth": RATE, "ingressBurst": BURST}
        assert of_into["spec"]["qosControls"] == asked
        measured = rate(rig, "b", "c")
        assert is_about(measured, 30_000_000), f"{measured:.0f}"
    finally:
        rig.store.write("pod-b", document("n1", "b"))


def test_limits_outlive_restarts_of_both_processes(rig, pods):
    rig.kill("n1", "agent")
    rig.kill("n1", "daemon")
    rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "margayd is ready", 10)
    measured = rate(rig, "c", "into")
    assert is_about(measured), f"without the agent: {measured:.0f}"
    rig.start("n1", "agent")
    wait_until(lambda: rig.ready("n1", 9102), "the agent is ready", 10)
    measured = rate(rig, "c", "into")
    assert is_about(measured), f"with the agent: {measured:.0f}"


@pytest.mark.parametrize("direction", ("ingress", "egress"))
def test_packets_above_their_rate_are_dropped_and_counted(rig, pods, direction):
    said = {f"{direction}PacketRate": "20", f"{direction}PacketBurst": "5"}
    rig.store.write("pod-b", document("n1", "b", **said))
    drops = lambda: rig.metrics("n1").drops("packet_rate")
    before = drops()

    def flood(count):
        return rig.run_in(
            "c", "ping", "-n", "-q", "-i", "0.01", "-c", count, "-W", "1", pods["b"][0]
        ).stdout

    try:
        wait_until(lambda: flood(30) and drops() > before, "the limit is in force")
        lost = drops()
        said = flood(300)
    finally:
        rig.store.write("pod-b", document("n1", "b"))
    received, took = map(int, re.search(r"(\d+) received.* time (\d+)ms", said).groups())
    due = 5 + 20 * took / 1000
    assert 0.7 * due <= received <= 1.1 * due, said
    assert drops() - lost >= 300 - received, said
    wait_until(lambda: rig.ping("c", pods["b"][0], 10), "without the limit all come")


def test_a_bad_value_is_told_and_limits_nothing(rig, pods):
    rig.store.write("pod-b", document("n1", "b", ingressBandwidth="fast", egressBandwidth="10M"))
    try:
        told = lambda: "ingressBandwidth" in rig.log("n1", "agent")
        wait_until(told, "the agent names the annotation")
        measured = rate(rig, "a", "b")
        assert measured > 3 * RATE, f"{measured:.0f}"
    finally:
        rig.store.write("pod-b", document("n1", "b"))


@pytest.mark.parametrize("v6", (False, True), ids=("IPv4", "IPv6"))
def test_what_leaves_the_cluster_is_marked_as_the_annotation_says(rig, pods, v6):
    rig.store.write("pod-b", document("n1", "b", dscp="EF"))
    filters = ("icmp6[0] == 128" if v6 else "icmp[0] == 8",)
    try:
        wait_until(lambda: class_of(rig, "out", OUT[v6], filters) == 46 << 2, "EF at the host outside")
        assert class_of(rig, "c", pods["c"][v6], filters) == 0, "not within the cluster"
    finally:
        rig.store.write("pod-b", document("n1", "b"))


@pytest.mark.parametrize("v6", (False, True), ids=("IPv4", "IPv6"))
def test_what_a_node_sends_out_of_the_cluster_is_marked_as_its_host_endpoint_says(rig, pods, v6):
    labels, everything = {"role": "host"}, [{"action": "Allow"}]
    endpoint = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "HostEndpoint",
        "metadata": {"name": "n1", "labels": labels, "annotations": {CALICO + "dscp": "AF41"}},
        "spec": {"node": "n1", "interfaceName": "eth0"},
    }
    spec = {"selector": "role == 'host'", "ingress": everything, "egress": everything}
    policy = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "everything"},
        "spec": spec | {"types": ["Ingress", "Egress"]},
    }
    filters = ("icmp6[0] == 128" if v6 else "icmp[0] == 8",)
    rig.store.write("host", [endpoint, policy])
    try:
        marked = lambda: class_of(rig, "out", OUT[v6], filters, "n1") == 34 << 2
        wait_until(marked, "AF41 at the host outside")
        assert class_of(rig, "out", OUT[v6], filters) == 0, "of a pod"
        assert class_of(rig, "n2", NODE["n2"][v6], filters, "n1") == 0, "within the cluster"
    finally:
        rig.store.remove("host")
    wait_until(lambda: not marked(), "without the host endpoint")


def class_of(rig, place, address, filters, source="b"):
    """The traffic class of a ping of pod b, or of somebody else, as it arrives at a place."""
    words = ("tcpdump", "-n", "-v", "-l", "-c", "1", "-i", "eth0", *filters)
    listener = rig.spawn(place, *words, stdout=-1, stderr=-1)
    try:
        assert "listening" in listener.stderr.readline()
        rig.ping(source, address, 2)
        said, _ = listener.communicate(timeout=5)
    finally:
        rig.end(listener)
    found = re.search(r"\(tos 0x([0-9a-f]+)|class 0x([0-9a-f]+)", said)
    return int(found[1] or found[2], 16) if found else 0
