"""`http` rules and service accounts, enforced where an Envoy asks the agent by ext_authz."""

import http.client
import json
import signal
import subprocess
import sys
import time

import pytest
from documents import calico, rule
from pypi import installed
from rig import wait_until
from sidecar import MUTUAL, PLAIN, WEB, Authority, Envoy

MODE = "none"
SPIFFE = "spiffe://cluster.local/ns/default/sa/"
PODS = (("n1", "shop"), ("n1", "till"), ("n1", "stranger"), ("n2", "mall"), ("n2", "cart"))
READS = {"methods": ["GET", "HEAD"], "paths": [{"exact": "/open"}, {"prefix": "/read/"}]}


def of(*accounts):
    return {"serviceAccounts": {"names": list(accounts)}}


def policy(**till):
    """What `till` and `cart` may ask of the servers; `stranger` nothing."""
    return calico(
        "NetworkPolicy",
        "web",
        "default",
        selector="app == 'web'",
        types=["Ingress"],
        ingress=[
            rule("Allow", "TCP", source=of("till"), http=till or READS),
            rule("Allow", "TCP", source=of("cart"), http={"methods": ["PUT"]}),
        ],
    )


class Shop:
    """Pods with Envoys, and how their clients fare."""

    def __init__(self, rig):
        self.rig = rig
        self.folder = rig.run / "l7"
        self.folder.mkdir()
        self.socket = rig.run / "n1/authz/authz.sock"
        for node, name in PODS:
            rig.pod(node, "default", name)
            self.document(node, name)
        rig.store.write("policy", policy())
        self.agent = self.serve("n1", f"unix:{self.socket}")
        self.serve("n2", "172.20.0.2:9191")
        self.authority = Authority(self.folder / "certificates")
        self.shop = Envoy(rig, "shop", self.socket, self.authority, self.folder / "shop")
        self.mall = Envoy(rig, "mall", ("172.20.0.2", 9191), self.authority, self.folder / "mall")

    def document(self, node, name):
        """The pod's document, with the service account of its name."""
        app = "web" if name in ("shop", "mall") else name
        spec = {"nodeName": node, "serviceAccountName": name, "containers": []}
        metadata = {"name": name, "namespace": "default", "labels": {"app": app}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.rig.store.write(f"pod-{name}", pod)

    def serve(self, node, address):
        """Starts the node's agent with a server for proxies; the process."""
        agent = self.rig.start_as_child(node, "agent", "--authz", address)
        wait_until(lambda: self.rig.ready(node, 9102), f"the agent of {node} is ready", 20)
        return agent

    def ask(self, client, path, method="GET", server="shop", port=PLAIN, account=None, headers=()):
        """(status, x-margay-verdict of a refusal, body); status 0 where no connection came about."""
        words = ["curl", "-s", "-i", "--path-as-is", "--max-time", 3, "-X", method]
        words += ["--head"] if method == "HEAD" else []
        words += [word for header in headers for word in ("-H", header)]
        scheme = "http"
        if account:
            scheme = "https"
            name = account.removeprefix("spiffe://").replace("/", "_")
            certificate, key = self.authority.issue(name, account)
            words += ["--cert", certificate, "--key", key, "-k"]
        url = f"{scheme}://{self.rig.pods[server][0]}:{port}{path}"
        done = self.rig.run_in(client, *words, url)
        if done.returncode:
            return 0, None, ""
        head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        lines = head.splitlines()
        fields = dict(line.split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), fields.get("x-margay-verdict"), body

    def status(self, *about, **more):
        return self.ask(*about, **more)[0]


@pytest.fixture(scope="module")
def shop(rig):
    shop = Shop(rig)
    # Until all of the policy is in force.
    wait_until(lambda: shop.status("till", "/open") == 200, "the policy lets a request pass")
    yield shop
    rig.books_are_right()


# === requests ===


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/open", 200),
        ("HEAD", "/open", 200),
        ("GET", "/open?query=/../..", 200),
        ("GET", "/read/1/2", 200),
        ("POST", "/open", 403),
        ("GET", "/open/", 403),
        ("GET", "/read", 403),
        ("GET", "/OPEN", 403),
        ("GET", "/read/../secret", 403),
        ("GET", "/read/%2e%2E/secret", 403),
        ("GET", "/%6fpen", 403),
        ("GET", "/", 403),
    ],
)
def test_only_the_requests_that_a_rule_names_pass(shop, method, path, status):
    assert shop.status("till", path, method) == status


def test_a_refusal_names_what_decided(shop):
    status, verdict, body = shop.ask("till", "/secret")
    assert status == 403
    assert verdict == "deny; reason=tier-default; workload=default/shop/eth0; tier=default"
    assert body == "denied: no rule matches (tier default)\n"


def test_the_server_is_told_what_allowed_and_cannot_be_lied_to(shop):
    lie = "x-margay-verdict: allow; policy=mine"
    status, _, body = shop.ask("till", "/open", headers=[lie])
    assert status == 200
    said = json.loads(body)["headers"]["x-margay-verdict"]
    assert said == (
        "allow; reason=rule; workload=default/shop/eth0; tier=default; "
        "policy=NetworkPolicy/default/web; rule=0"
    )
    # And the proxy's log knows it too.
    logged = lambda: shop.shop.log.exists() and '"rule":"0"' in shop.shop.log.read_text()
    wait_until(logged, "the proxy logs the rule", 15)


def test_without_a_proxy_the_rest_of_the_rule_decides(shop):
    assert shop.status("till", "/secret", "POST", port=WEB) == 200
    assert shop.status("stranger", "/open", port=WEB) == 0
    assert shop.status("stranger", "/open") == 0, "packets are judged before any proxy"


def test_a_proxy_may_ask_over_tcp(shop):
    assert shop.status("cart", "/any", "PUT", server="mall") == 200
    assert shop.status("cart", "/any", "GET", server="mall") == 403
    assert shop.status("till", "/open", server="mall") == 200
    assert shop.status("till", "/any", "PUT", server="mall") == 403


# === identity ===


def test_who_proves_to_be_an_account_is_held_to_it(shop):
    proven = lambda account, path, *method: shop.status(
        "till", path, *method, port=MUTUAL, account=account
    )
    assert proven(SPIFFE + "till", "/open") == 200
    assert proven(SPIFFE + "till", "/any", "PUT") == 403
    # Another's certificate opens neither its doors nor one's own.
    assert proven(SPIFFE + "cart", "/open") == 403
    assert proven(SPIFFE + "cart", "/any", "PUT") == 403
    assert proven("spiffe://cluster.local/ns/other/sa/till", "/open") == 403
    assert proven("spiffe://cluster.local/till", "/open") == 403


# === changes and failures ===


def test_an_edit_holds_for_the_next_request_of_a_connection(shop):
    rig = shop.rig
    with rig.inside("till"):
        connection = http.client.HTTPConnection(rig.pods["shop"][0], PLAIN, timeout=5)
        connection.connect()

    def status(path):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    assert (status("/open"), status("/new")) == (200, 403)
    rig.store.write("policy", policy(paths=[{"exact": "/new"}]))
    began = time.monotonic()
    wait_until(lambda: status("/new") == 200, "the edit is in force", 3)
    assert time.monotonic() - began < 2
    assert status("/open") == 403
    rig.store.write("policy", policy())
    wait_until(lambda: status("/open") == 200, "the policy is back", 3)
    connection.close()


def test_every_question_is_counted(shop):
    count = lambda **labels: shop.rig.metrics("n1", 9102).total("margay_authz_checks_total", **labels)
    allowed, denied = count(verdict="allow"), count(verdict="deny", reason="tier-default")
    shop.status("till", "/open")
    shop.status("till", "/secret")
    shop.status("till", "/secret")
    assert count(verdict="allow") - allowed == 1
    assert count(verdict="deny", reason="tier-default") - denied == 2


def test_a_proxy_that_nobody_answers_lets_nothing_pass(shop):
    rig = shop.rig
    rig.end(shop.agent, signal.SIGKILL)
    assert shop.status("till", "/open") == 403
    assert shop.status("till", "/open", port=WEB) == 200, "packets go on as they did"
    again = subprocess.Popen(shop.agent.args, stderr=subprocess.DEVNULL)
    rig.children.append(again)
    (rig.run / "n1/agent.pid").write_text(f"{again.pid}\n")
    wait_until(lambda: shop.status("till", "/open") == 200, "answered again", 15)


# === a client that is not Envoy ===


class Client:
    """Google's gRPC, with messages made of Envoy's own description of its interface."""

    def __init__(self, socket):
        packages = ("grpcio==1.85.1", "grpcio-health-checking==1.85.1", "xds-protos==1.85.0")
        sys.path.insert(0, str(installed(*packages)))
        import grpc
        from envoy.service.auth.v3 import external_auth_pb2
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        self.auth, self.health = external_auth_pb2, health_pb2
        # Its own default is the path, which is no authority (RFC 3986) that a server has to take.
        options = [("grpc.default_authority", "localhost")]
        self.channel = grpc.insecure_channel(f"unix:{socket}", options)
        self.stub = health_pb2_grpc.HealthStub(self.channel)
        self.call = self.channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            external_auth_pb2.CheckRequest.SerializeToString,
            external_auth_pb2.CheckResponse.FromString,
        )

    def check(self, source, destination, http=None, principal=""):
        """The answer to a question about (address, port) pairs and a (method, path)."""
        question = self.auth.CheckRequest()
        attributes = question.attributes
        attributes.source.principal = principal
        for peer, (address, port) in (
            (attributes.source, source),
            (attributes.destination, destination),
        ):
            peer.address.socket_address.address = address
            peer.address.socket_address.port_value = port
        if http:
            attributes.request.http.method, attributes.request.http.path = http
        return self.call(question, timeout=5)

    def serving(self, service):
        """Whether a service is healthy."""
        answer = self.stub.Check(self.health.HealthCheckRequest(service=service), timeout=5)
        return answer.status == self.health.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def client(shop):
    client = Client(shop.socket)
    yield client
    client.channel.close()


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_any_client_of_the_interface_is_answered(shop, client, family):
    address = {name: addresses[family] for name, addresses in shop.rig.pods.items()}
    ask = lambda source, *more, to="shop", **how: client.check(
        (address[source], 40000), (address[to], 80), *more, **how
    )
    allowed = ask("till", ("GET", "/open"), principal=SPIFFE + "till")
    assert allowed.status.code == 0 and allowed.HasField("ok_response")
    assert dict(allowed.dynamic_metadata)["policy"] == "NetworkPolicy/default/web"
    refused = ask("till", ("GET", "/open"), principal=SPIFFE + "cart")
    assert refused.status.code == 7 and refused.denied_response.status.code == 403
    assert ask("till").status.code == 7, "a rule with http means no connection without it"
    assert ask("stranger", ("GET", "/open")).status.code == 7
    # Its own node's agent answers for a workload, and nobody else.
    elsewhere = ask("till", ("GET", "/open"), to="mall")
    assert elsewhere.status.code == 7 and "no workload of this node" in elsewhere.status.message


def test_the_service_tells_its_health(client):
    assert client.serving("") and client.serving("envoy.service.auth.v3.Authorization")
