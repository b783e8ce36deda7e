"""Policies that name domains: what name servers tell pods is allowed, for its time, and nothing else."""

import json
import socket
import time

import pytest
from documents import calico
from name_server import Client, host, serve
from rig import wait_until

SERVICE = ("10.96.0.10", "fd96::a")
# Addresses of the host outside, by number.
V4, V6 = "198.51.100.{}".format, "2001:db8:5::{}".format
RECORDS = (
    host("www.example.com", V4(1), V6(1)),
    host("tcp.example.com", V4(2), V6(2)),
    host("restart.example.com", V4(3), V6(3)),
    host("alone.example.com", V4(4), V6(4)),
    host("short.example.com", V4(5), V6(5), ttl=1),
    host("deep.er.example.org", V4(6), V6(6)),
    host("example.org", V4(7), V6(7)),
    host("edge.cdn.example", V4(8), V6(8)),
    "cname=alias.example.net,edge.cdn.example,60",
    host("direct.example.com", V4(9), V6(9)),
    host("believed.example.com", V4(10), V6(10)),
    host("late.example.info", V4(11), V6(11)),
    host("www.cluster.example", V4(12), V6(12)),
    host("below.cluster.example", V4(13), V6(13)),
)
DENIED = 20


def policy(*domains):
    """What the client may do: ask name servers, and reach what these names and a network set say."""
    to_servers = [
        {"action": "Allow", "protocol": protocol, "destination": {"ports": [53]}}
        for protocol in ("UDP", "TCP")
    ]
    by_name = {"action": "Allow", "protocol": "TCP", "destination": {"domains": list(domains)}}
    by_set = {"action": "Allow", "destination": {"selector": "role == 'partner'"}}
    return calico(
        "NetworkPolicy",
        "names",
        namespace="default",
        selector="app == 'client'",
        types=["Egress"],
        egress=[*to_servers, by_name, by_set],
    )


NAMES = ("www.example.com", "*.example.com", "*.example.org")


@pytest.fixture(scope="module")
def client(rig):
    for number in range(1, DENIED + 1):
        rig.exec("out", "ip", "addr", "add", f"{V4(number)}/32", "dev", "eth0")
        rig.exec("out", "ip", "addr", "add", f"{V6(number)}/128", "dev", "eth0", "nodad")
    for node in ("n1", "n2"):
        rig.exec(node, "ip", "route", "add", "198.51.100.0/24", "via", "172.20.0.100")
        rig.exec(node, "ip", "route", "add", "2001:db8:5::/64", "via", "fd20::100")
    web = rig.spawn("out", "python3", "-m", "http.server", "--bind", "::", "80")
    rig.pod("n1", "kube-system", "dns1", k8s_app="dns")
    rig.pod("n2", "kube-system", "dns2", k8s_app="dns")
    rig.pod("n1", "default", "rogue", app="rogue")
    rig.pod("n1", "default", "a", app="client")
    ports = [{"name": p.lower(), "protocol": p, "port": 53} for p in ("UDP", "TCP")]
    spec = {
        "clusterIP": SERVICE[0],
        "clusterIPs": list(SERVICE),
        "ipFamilies": ["IPv4", "IPv6"],
        "selector": {"k8s_app": "dns"},
        "ports": ports,
    }
    metadata = {"namespace": "kube-system", "name": "kube-dns"}
    rig.store.write("dns", {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    for place in ("dns1", "dns2"):
        serve(rig, place, *RECORDS)
    serve(rig, "rogue", host("believed.example.com", V4(DENIED), V6(DENIED)))
    rig.store.write("partner", calico(
        "NetworkSet",
        "partner",
        namespace="default",
        labels={"role": "partner"},
        nets=[f"{V4(19)}/32"],
        allowedEgressDomains=["alias.example.net"],
    ))  # fmt: skip
    client = Client(rig, "a", SERVICE[0])
    wait_until(lambda: client.dig("www.example.com"), "the service answers")
    wait_until(lambda: web.poll() is None and client.fetch(V4(1)), "the web server answers", 10)
    put_in_force(rig, policy(*NAMES))
    return client


def put_in_force(rig, document):
    with rig.changing("n1"):
        rig.store.write("names", document)


def punts(rig, node="n1"):
    return rig.metrics(node).total("margay_punts_total", reason="dns")


def shown(rig, node="n1", *more):
    words = ("--dataplane", f"unix:{rig.run}/{node}/margayd.sock", "dns", "-o", "json", *more)
    return json.loads(rig.ctl(*words))


def test_a_name_is_allowed_at_the_first_connection_and_only_its_address(rig, client):
    assert client.refused(V4(1)), "nobody has looked it up under the policy"
    before = rig.metrics("n1").drops("policy")
    assert client.fetch("www.example.com").at_once
    assert client.fetch("www.example.com", 6).at_once
    assert rig.metrics("n1").drops("policy") == before, "no packet was lost on the way"
    assert client.fetch(V4(1)).at_once, "by its address too"
    assert client.refused(V4(DENIED)) and client.refused(V6(DENIED), 6)


def test_every_first_connection_after_an_answer_passes(rig, client):
    names = ("tcp", "restart", "alone", "direct")
    assert all(client.fetch(f"{name}.example.com").at_once for name in names)


def test_a_wildcard_allows_what_is_below_it_and_not_itself(client):
    assert client.dig("example.org") == [V4(7)]
    assert client.refused("example.org")
    assert client.fetch("deep.er.EXAMPLE.org").at_once


def test_a_network_set_allows_its_names_and_what_they_are_aliases_of(client):
    assert client.fetch(V4(19)).at_once, "a net of the set"
    assert client.refused(V4(8))
    assert client.dig("alias.example.net")[-1] == V4(8)
    assert client.fetch("alias.example.net").at_once and client.fetch(V4(8)).at_once


def test_answers_over_tcp_and_ipv6_and_of_a_backend_itself_are_read(rig, client):
    for number, name, server, *how in (
        (2, "tcp.example.com", SERVICE[0], "+tcp"),
        (9, "direct.example.com", rig.pods["dns2"][0]),
        (10, "believed.example.com", SERVICE[1]),
    ):
        assert client.refused(V6(number), 6), name
        assert client.dig(name, "AAAA", *how, server=server) == [V6(number)]
        assert client.fetch(V6(number), 6).at_once, name


def test_a_server_that_is_not_trusted_is_not_believed(rig, client):
    rogue = rig.pods["rogue"][0]
    before = punts(rig)
    for how in ((), ("+tcp",)):
        answer = client.dig("believed.example.com", "A", *how, server=rogue)
        assert answer == [V4(DENIED)], "the answer itself is not the policy's business"
        assert client.refused(V4(DENIED))
    assert punts(rig) == before


def test_what_was_learned_is_shown_and_explained(rig, client):
    client.fetch("www.example.com")
    (row,) = shown(rig, "n1", "--name", "www.example.com", "--address", V4(1))
    assert row["patterns"] == ["*.example.com", "www.example.com"], row
    assert row["policies"] == ["NetworkPolicy/default/names"]
    assert 0 < row["remainingSeconds"] <= 300
    assert shown(rig, "n2") == [], "nobody on the other node has asked"
    other = [row["name"] for row in shown(rig, "n1", "--address", V4(7), "--all")]
    assert other in ([], ["example.org"])
    daemon = ("--dataplane", f"unix:{rig.run}/n1/margayd.sock")
    why = rig.ctl(*daemon, "policy", "explain", "default/a", V4(1), "80")
    assert "www.example.com" in why and "ALLOW" in why.upper().split("\n")[1], why
    blind = rig.ctl("policy", "explain", "default/a", V4(DENIED), "80")
    assert "no address of" in blind, blind
    flow = {"src": rig.pods["a"][0], "dst": V4(1), "protocol": "TCP", "srcPort": 1, "dstPort": 80}
    told = json.loads(rig.ctl("policy", "simulate", input=json.dumps(flow)))
    assert told["verdict"] == "deny", "a simulation knows no addresses"


def connected(rig, address, port=81):
    """A connection of the client's to the host outside, and both of its ends."""
    with rig.inside("out"):
        listener = socket.create_server(("", port))
    with rig.inside("a"):
        mine = socket.create_connection((address, port), timeout=3)
    theirs, _peer = listener.accept()
    listener.close()
    theirs.settimeout(3)
    return mine, theirs


def talks(mine, theirs):
    mine.sendall(b"still here")
    return theirs.recv(100) == b"still here"


def test_an_address_lapses_with_its_time_and_connections_that_are_there_go_on(rig, client):
    assert client.fetch("short.example.com").at_once
    mine, theirs = connected(rig, V4(5))
    row = lambda: shown(rig, "n1", "--address", V4(5))[0]
    assert row()["remainingSeconds"] <= 10, "the least that an address is allowed for"
    wait_until(lambda: row()["remainingSeconds"] == 0, "it lapses", within=15)
    wait_until(lambda: client.refused(V4(5)), "new connections are denied")
    assert talks(mine, theirs)
    # All decisions are made anew.
    put_in_force(rig, policy(*NAMES, "another.example.info"))
    assert talks(mine, theirs)
    # The rule that allowed it is gone.
    put_in_force(rig, policy("www.example.com"))
    with pytest.raises(TimeoutError):
        talks(mine, theirs)
    put_in_force(rig, policy(*NAMES))
    assert client.fetch("short.example.com").at_once, "a new answer allows it again"
    mine.close()
    theirs.close()
    gone = lambda: not [r for r in shown(rig) if r["address"] == V4(5) and not r["remainingSeconds"]]
    wait_until(gone, "it is forgotten, or current", within=2)


def test_a_policy_finds_what_was_looked_up_before_it(rig, client):
    assert client.dig("late.example.info") == [V4(11)]
    assert client.refused(V4(11))
    put_in_force(rig, policy(*NAMES, "*.example.info"))
    assert client.fetch(V4(11)).at_once
    put_in_force(rig, policy(*NAMES))
    assert client.refused(V4(11))


def cluster_policy(name, priority, action, *peers, protocols=()):
    """A cluster policy of the admin tier on the client's egress."""
    rule = {"action": action, "to": list(peers)}
    rule |= {"protocols": list(protocols)} if protocols else {}
    subject = {"pods": {"podSelector": {"matchLabels": {"app": "client"}}, "namespaceSelector": {}}}
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": "Admin", "priority": priority, "subject": subject, "egress": [rule]},
    }


def test_a_cluster_policy_accepts_names_before_it_denies_the_rest(rig, client):
    """A list of names that may be reached, and a denial of everything outside behind it."""
    http = {"tcp": {"destinationPort": {"number": 80}}}
    named = {"domainNames": ["WWW.cluster.example.", "*.example.org"]}
    outside = {"networks": ["198.51.100.0/24", "2001:db8:5::/64"]}
    put_in_force(rig, [
        cluster_policy("names", 10, "Accept", named, protocols=[http]),
        cluster_policy("rest", 20, "Deny", outside),
    ])  # fmt: skip
    try:
        assert client.refused(V4(12)), "nobody has looked it up"
        for family in (4, 6):
            assert client.fetch("www.cluster.example", family).at_once
            assert client.fetch("deep.er.example.org", family).at_once
        assert client.refused("below.cluster.example") and client.refused("example.org")
        assert client.refused(V4(1)), "denied before the policy of the namespace"
        rows = shown(rig, "n1", "--name", "www.cluster.example", "--address", V4(12))
        assert [row["policies"] for row in rows] == [["KubernetesClusterNetworkPolicy//names"]]
        # Names are for what is accepted: a rule that denies them denies everything.
        put_in_force(rig, [cluster_policy("names", 10, "Deny", named), policy(*NAMES)])
        assert client.refused(V4(12)) and client.refused(V4(19))
    finally:
        put_in_force(rig, policy(*NAMES))
    assert client.fetch("www.example.com").at_once


def test_what_was_learned_outlives_the_daemon(rig, client):
    assert client.fetch("restart.example.com").at_once
    mine, theirs = connected(rig, V4(3))
    time.sleep(1.5)  # What was learned is saved once a second.
    rig.kill("n1", "daemon")
    rig.start("n1", "daemon")
    wait_until(lambda: rig.ready("n1"), "the daemon", within=10)
    assert client.fetch(V4(3)).at_once, "without a new question"
    assert talks(mine, theirs)
    assert client.refused(V4(DENIED))


def test_names_are_learned_while_the_agent_is_dead(rig, client):
    rig.kill("n1", "agent")
    try:
        assert client.fetch("alone.example.com", 6).at_once
    finally:
        rig.start("n1", "agent")
        wait_until(lambda: rig.ready("n1", 9102), "the agent", within=10)
    assert client.fetch(V6(4), 6).at_once, "the agent's state changes nothing of it"


def test_without_a_policy_that_names_domains_answers_take_the_fast_path(rig, client):
    assert client.dig("www.example.com")
    seen = rig.metrics("n1").by("margay_dns_messages_total", "result")
    assert seen["question"] and seen["answer"] and "late" not in seen and "unheld" not in seen, seen
    with rig.changing("n1"):
        rig.store.remove("names", "partner")
    before = punts(rig)
    assert client.dig("www.example.com") and client.dig("www.example.com", "AAAA", "+tcp")
    assert punts(rig) == before


def test_the_books_are_right(rig):
    rig.books_are_right()
