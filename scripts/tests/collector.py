"""A receiver of OTLP log records, of OpenTelemetry's own published messages and Google's gRPC.

`Collector` runs this file as a program in a place of the rig; it notes every request as a line of
JSON (`ExportLogsServiceRequest` as protobuf's JSON mapping has it).
"""

import json
import os
import pathlib
import sys

PACKAGES = ("opentelemetry-proto==1.45.2", "grpcio==1.85.1")
PORT = 4317


class Collector:
    """A receiver at a place's loopback, and what it has received."""

    URL = f"http://127.0.0.1:{PORT}"

    def __init__(self, rig, place):
        from pypi import installed

        self.rig, self.place = rig, place
        self.path = rig.run / f"collector-{place}.jsonl"
        self.env = os.environ | {"PYTHONPATH": str(installed(*PACKAGES))}
        self.child = None

    def start(self):
        """Starts to receive; what came before stays."""
        from rig import wait_until

        command = (sys.executable, __file__, self.path)
        self.child = self.rig.spawn(self.place, *command, env=self.env)
        listens = lambda: f":{PORT} " in self.rig.exec(self.place, "ss", "-Hltn")
        wait_until(listens, "the collector listens", 15)

    def stop(self):
        """Ends the program; connections to it break."""
        self.rig.end(self.child)

    def records(self, **wanted):
        """Records with these attributes: attributes in `attributes`, the other fields beside them."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            for logs in json.loads(line)["resourceLogs"]:
                for scope in logs["scopeLogs"]:
                    about = {"resource": values(logs["resource"]["attributes"]), "scope": scope["scope"]}
                    found += [
                        record | about | {"attributes": values(record["attributes"])}
                        for record in scope["logRecords"]
                    ]
        return [one for one in found if wanted.items() <= one["attributes"].items()]


def values(attributes):
    """Attributes as a dictionary of plain values."""
    return {one["key"]: value(one["value"]) for one in attributes}


def value(any_value):
    """A value: integers are texts in protobuf's JSON."""
    ((kind, it),) = any_value.items()
    if kind == "arrayValue":
        return [value(one) for one in it.get("values", [])]
    return int(it) if kind == "intValue" else it


def receive(path):
    """Notes requests at `path` until it is ended."""
    from concurrent import futures

    import grpc
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc

    class Logs(logs_service_pb2_grpc.LogsServiceServicer):
        def Export(self, request, _context):
            with path.open("a") as file:
                file.write(json.dumps(MessageToDict(request)) + "\n")
            return logs_service_pb2.ExportLogsServiceResponse()

    # One at a time: lines are not to be mixed.
    server = grpc.server(futures.ThreadPoolExecutor(1))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    receive(pathlib.Path(sys.argv[1]))
