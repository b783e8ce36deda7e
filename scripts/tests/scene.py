"""A client on n1, servers near (n1), far (n2) and outside, one service, and n1's own plain server."""

from traffic import Field

SERVICE = "10.96.0.10"
NODE_PORT = 30080
NODE_SERVER, OUTSIDE_SERVER = 8022, 8080
NODE = {4: "172.20.0.1", 6: "fd20::1"}
PEER = {4: "172.20.0.2", 6: "fd20::2"}
OUTSIDE = {4: "172.20.0.100", 6: "fd20::100"}

SERVICE_DOCUMENT = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "x"},
    "spec": {
        "type": "NodePort",
        "clusterIP": SERVICE,
        "selector": {"app": "web"},
        "ports": [{"port": 80, "nodePort": NODE_PORT}],
    },
}


class Scene:
    """The pods `client`, `near` and `far` with their servers; `far` is the service's backend."""

    def __init__(self, rig):
        self.rig = rig
        rig.store.write("service", SERVICE_DOCUMENT)
        rig.pod("n1", "x", "client")
        rig.pod("n1", "x", "near")
        rig.pod("n2", "x", "far", app="web")
        self.pods = rig.pods
        self.field = Field(rig)
        for pod in ("near", "far"):
            self.field.join(pod)
        self.field.join("out", OUTSIDE.values(), [OUTSIDE_SERVER])
        self.field.join("n1", NODE.values(), [NODE_SERVER])

    def close(self):
        """Closes the servers; the pods go with the rig."""
        self.field.close()
