"""Flow logs: real connections, allowed, denied and staged, as named lines in a file and as records
that a collector of OpenTelemetry gets."""

import json
import socket
import time

import pytest
from collector import Collector
from documents import calico, rule
from rig import wait_until
from scene import SERVICE, Scene
from traffic import Attempt

MODE = "vxlan"


class Log:
    """The lines of n1's flow log."""

    def __init__(self, rig):
        self.path = rig.run / "n1" / "flows.log"

    def lines(self, **wanted):
        """The lines that have all of these fields."""
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if wanted.items() <= line.items()]

    def sums(self, *fields, **wanted):
        """Sums of these fields over those lines."""
        lines = self.lines(**wanted)
        return tuple(sum(line[field] for line in lines) for field in fields)


@pytest.fixture(scope="module")
def scene(rig):
    rig.store.write(
        "felix", calico("FelixConfiguration", "default", flowLogsFlushInterval="1s")
    )
    scene = Scene(rig)
    scene.collector = Collector(rig, "n1")
    scene.collector.start()
    where = ("--flow-logs", str(Log(rig).path), "--flow-logs-otlp", Collector.URL)
    rig.start_as_child("n1", "agent", *where)
    wait_until(lambda: rig.ready("n1", 9102), "the agent is ready again", 10)
    watched = lambda: rig.metrics("n1").total("margay_flow_watchers") == 1
    wait_until(watched, "the agent hears of flows", 10)
    yield scene
    scene.close()


@pytest.fixture
def log(rig):
    return Log(rig)


@pytest.fixture
def collector(scene):
    return scene.collector


def in_force(scene, *documents):
    """Puts policies in force on n1."""
    with scene.rig.changing("n1"):
        scene.rig.store.write("policies", list(documents))


def talk(rig, source, target, port, size, rounds):
    """One connection that sends and gets back so many times so many bytes."""
    with rig.inside(source):
        talking = socket.create_connection((target, port), 3)
    talking.settimeout(3)
    for _ in range(rounds):
        talking.send(b"x" * size)
        got = 0
        while got < size:
            got += len(talking.recv(size))
    talking.close()


def test_both_ends_of_a_connection_are_named_with_its_bytes(scene, log):
    rig = scene.rig
    in_force(
        scene,
        calico(
            "NetworkPolicy",
            "front",
            "x",
            selector="name == 'near'",
            ingress=[rule("Deny", "TCP", destination={"ports": [81]}), rule("Allow", "TCP")],
        ),
    )
    talk(rig, "client", rig.pods["near"][0], 80, 1000, 10)
    ends = {"sourceName": "client", "destName": "near", "destPort": 80, "proto": "TCP"}
    wait_until(lambda: log.sums("bytesIn", **ends)[0] > 20_000, "the lines", 10)
    source, dest = log.lines(reporter="Src", **ends)[0], log.lines(reporter="Dst", **ends)[0]
    for line in source, dest:
        assert line["action"] == "Allow" and line["node"] == "n1"
        assert line["sourceNamespace"] == line["destNamespace"] == "x"
        assert line["sourceType"] == line["destType"] == "WorkloadEndpoint"
    profile = {"kind": "Profile", "name": "kns.x", "action": "Allow", "ruleIndex": 0}
    assert source["policies"] == {"enforced": [profile], "pending": []}
    front = {
        "kind": "NetworkPolicy",
        "namespace": "x",
        "name": "front",
        "tier": "default",
        "action": "Allow",
        "ruleIndex": 1,
    }
    assert dest["policies"]["enforced"] == [front]
    # What one end calls out is the other's in; headers come on top of 10,000 bytes each way.
    fields = "bytesOut", "bytesIn", "packetsOut", "packetsIn", "numConnectionsStarted"
    out, into, packets_out, packets_in, began = log.sums(*fields, reporter="Src", **ends)
    assert 10_000 < out < 12_500 and 10_000 < into < 12_500 and began == 1
    mirrored = ("bytesIn", "bytesOut", "packetsIn", "packetsOut", "numConnectionsStarted")
    assert log.sums(*mirrored, reporter="Dst", **ends) == (out, into, packets_out, packets_in, 1)


def test_a_service_is_named_beside_the_pod_that_answers(scene, log):
    talk(scene.rig, "client", SERVICE, 80, 100, 2)
    wanted = {"reporter": "Src", "destName": "far", "destServiceName": "web"}
    line = wait_until(lambda: log.lines(**wanted), "a line", 10)[0]
    assert line["destServiceNamespace"] == "x" and line["destServicePort"] == 80
    # The other end is on another node: it reports for itself.
    assert not log.lines(reporter="Dst", destName="far")


def test_a_denied_flow_names_the_rule_that_denied_it(scene, log):
    assert not scene.field.reach([Attempt("client", "near", "TCP", 81)])
    ends = {"sourceName": "client", "destName": "near", "destPort": 81}
    line = wait_until(lambda: log.lines(reporter="Dst", **ends), "a line", 10)[0]
    assert line["action"] == "Deny" and line["packetsOut"] == 0 and line["packetsIn"] >= 1
    hit = line["policies"]["enforced"][0]
    assert (hit["name"], hit["ruleIndex"], hit["action"]) == ("front", 0, "Deny")
    assert log.lines(reporter="Src", **ends)[0]["action"] == "Allow"


def test_the_end_of_a_tier_is_told_as_such(scene, log):
    assert not scene.field.reach([Attempt("client", "near", "UDP", 80)])
    ends = {"sourceName": "client", "destName": "near", "proto": "UDP", "reporter": "Dst"}
    line = wait_until(lambda: log.lines(**ends), "a line", 10)[0]
    end = {"kind": "EndOfTier", "tier": "default", "action": "Deny"}
    assert line["policies"]["enforced"] == [end]


def test_a_staged_policy_says_what_it_would_do_and_does_nothing(scene, log):
    staged = calico(
        "StagedNetworkPolicy",
        "tight",
        "x",
        selector="name == 'near'",
        order=1,
        ingress=[rule("Deny", source={"selector": "name == 'client'"})],
    )
    allowing = calico(
        "NetworkPolicy", "front", "x", selector="name == 'near'", order=2, ingress=[rule("Allow")]
    )
    in_force(scene, staged, allowing)
    talk(scene.rig, "client", scene.rig.pods["near"][0], 80, 10, 1)
    wanted = {"reporter": "Dst", "destName": "near", "destPort": 80, "action": "Allow"}
    pending = lambda: [line for line in log.lines(**wanted) if line["policies"]["pending"]]
    line = wait_until(pending, "a line", 10)[0]
    assert line["policies"]["enforced"][0]["name"] == "front"
    hit = line["policies"]["pending"][0]
    assert hit == {
        "kind": "StagedNetworkPolicy",
        "namespace": "x",
        "name": "tight",
        "tier": "default",
        "action": "Deny",
        "ruleIndex": 0,
    }


# === a collector of OpenTelemetry ===


def test_a_connection_comes_to_a_collector_as_it_stands_in_the_file(scene, log, collector):
    rig = scene.rig
    front = calico(
        "NetworkPolicy", "front", "x", selector="name == 'near'", ingress=[rule("Allow", "TCP")]
    )
    in_force(scene, front)
    began = time.time_ns()
    talk(rig, "client", rig.pods["near"][0], 81, 500, 4)
    ends = {"sourceName": "client", "destName": "near", "destPort": 81, "action": "Allow"}
    texts = ("reporter", "sourceType", "sourceNamespace", "destType", "destNamespace", "proto")
    numbers = ("packetsIn", "packetsOut", "bytesIn", "bytesOut")
    numbers += ("numConnectionsStarted", "numConnectionsCompleted")

    def told():
        """Sums by reporter, of the file and of the collector."""
        lines = [[line for line in log.lines(**ends)], []]
        lines[1] = [record["attributes"] for record in collector.records(**ends)]
        by = [{}, {}]
        for sums, some in zip(by, lines):
            for one in some:
                old = sums.get(one["reporter"], (0,) * len(numbers))
                sums[one["reporter"]] = tuple(a + one[key] for a, key in zip(old, numbers))
        return by if by[0] == by[1] and by[0].get("Dst", (0,) * 4)[2] > 2000 else None

    file, records = wait_until(told, "the same in both", 10)
    assert set(file) == set(records) == {"Src", "Dst"}
    record = collector.records(reporter="Dst", **ends)[0]
    line = log.lines(reporter="Dst", **ends)[0]
    assert all(record["attributes"][key] == line[key] for key in texts)
    assert record["attributes"]["policies"] == ["Allow NetworkPolicy/x/front#0"]
    assert record["resource"] == {"service.name": "margay", "k8s.node.name": "n1"}
    assert record["scope"]["name"] == "margay.flowlog" and record["scope"]["version"]
    assert record["eventName"] == "margay.flow" and record["severityNumber"] == "SEVERITY_NUMBER_INFO"
    assert record["body"]["stringValue"] == "Allow TCP x/client → x/near:81"
    since, until = int(record["timeUnixNano"]), int(record["observedTimeUnixNano"])
    # Its interval may have begun before the connection did.
    assert began - 2e9 < since < until < time.time_ns()


STAGED = {
    "StagedNetworkPolicy": (
        calico("StagedNetworkPolicy", "tight", "x", selector="name == 'near'", order=1,
               ingress=[rule("Deny")]),
        "Deny StagedNetworkPolicy/x/tight#0",
    ),
    "StagedGlobalNetworkPolicy": (
        calico("StagedGlobalNetworkPolicy", "tight", selector="name == 'near'", order=1,
               ingress=[rule("Deny")]),
        "Deny StagedGlobalNetworkPolicy//tight#0",
    ),
    "StagedKubernetesNetworkPolicy": (
        calico("StagedKubernetesNetworkPolicy", "tight", "x",
               podSelector={"matchLabels": {"name": "near"}}, policyTypes=["Ingress"]),
        "Deny EndOfTier default",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STAGED)
def test_every_kind_of_staged_policy_is_in_the_records(scene, collector, kind):
    """Calico has Kubernetes' at order 1000, which denies where no other policy allows."""
    document, pending = STAGED[kind]
    in_force(scene, document)
    wanted = {"reporter": "Dst", "destName": "near", "destPort": 80, "action": "Allow"}
    wanted |= {"policies": ["Allow Profile//kns.x#0"], "pendingPolicies": [pending]}

    def seen():
        talk(scene.rig, "client", scene.rig.pods["near"][0], 80, 10, 1)
        return collector.records(**wanted)

    wait_until(seen, f"{kind} beside what is enforced", 10, every=0.5)


def test_a_collector_that_is_away_costs_records_that_are_counted_and_nothing_else(scene, collector):
    rig = scene.rig
    refused = lambda: rig.metrics("n1", 9102).total("margay_flow_log_total", fate="refused")
    before, complaints = refused(), rig.log("n1", "agent").count("takes no flow logs")
    collector.stop()

    def lost():
        talk(rig, "client", rig.pods["near"][0], 80, 10, 1)
        return refused() > before

    wait_until(lost, "records are lost", 15, every=0.5)
    wait_until(lambda: refused() > before + 2, "and more of them", 15, every=0.5)
    assert rig.log("n1", "agent").count("takes no flow logs") == complaints + 1, "it says so once"
    collector.start()
    wanted = {"sourceName": "client", "destName": "near", "proto": "TCP"}
    known = len(collector.records(**wanted))

    def comes_again():
        talk(rig, "client", rig.pods["near"][0], 80, 10, 1)
        return len(collector.records(**wanted)) > known

    wait_until(comes_again, "records again", 15, every=0.5)
    assert "takes flow logs again" in rig.log("n1", "agent")


def test_a_flood_of_denied_flows_is_bounded_and_what_is_missing_is_counted(scene, log):
    rig = scene.rig
    denying = calico(
        "NetworkPolicy", "front", "x", selector="name == 'near'", ingress=[rule("Deny")]
    )
    in_force(scene, denying)
    before = rig.metrics("n1", 9102).total("margay_flow_log_total", fate="no_room")
    with rig.inside("client"):
        flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # Each port is a key of its own, at either end: more than one interval has room for.
    for port in range(1, 30_000):
        flood.sendto(b"z", (rig.pods["near"][0], port))
    flood.close()

    def missing():
        said = rig.metrics("n1", 9102)
        shown = rig.metrics("n1")
        return (
            said.total("margay_flow_log_total", fate="no_room") - before
            + said.total("margay_flow_log_total", fate="missed")
            + shown.total("margay_policy_unaccounted_total")
        )

    time.sleep(3)
    lines = wait_until(
        lambda: log.lines(sourceName="client", proto="UDP", action="Deny"), "lines", 10
    )
    by_interval = {}
    for line in log.lines():
        by_interval[line["endTime"]] = by_interval.get(line["endTime"], 0) + 1
    assert max(by_interval.values()) <= 1 << 14
    ports = {line["destPort"] for line in lines}
    assert ports and (len(ports) > 29_000 or missing() > 0)
    # Connections go on meanwhile, and afterwards.
    assert rig.ping("client", rig.pods["far"][0])


def test_books_are_right(scene):
    scene.rig.books_are_right()
