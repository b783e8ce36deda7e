"""Bad documents, bad CNI calls and nonsense on sockets: explained, and no bystander notices."""

import contextlib
import json
import random
import re
import socket
import time

import pytest
import yaml
from bystanders import undisturbed
from documents import calico, policy, rule
from rig import ROOT, wait_until
from scene import Scene
from traffic import Attempt


@pytest.fixture(scope="module")
def scene(rig):
    scene = Scene(rig)
    rig.pod("n1", "x", "rogue")
    yield scene
    scene.close()


# === documents ===


def test_a_malformed_document_is_reported_by_file_line_and_field_and_changes_nothing(scene):
    """A policy is in force; its file becomes bad in several ways; a second file stays good."""
    rig = scene.rig
    closed = policy("closed", "x", {"name": "near"}, types=["Ingress"])
    rig.store.write("policies", closed)
    near = Attempt("client", "near")
    wait_until(lambda: not scene.field.reach([near], 0.3), "the policy is in force")
    good = "\n---\n".join([json.dumps(closed)])
    bad_field = (
        good
        + "\n---\n"
        + (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: bad\n"
            "  namespace: x\nspec:\n  podSelector: {}\n  ingress:\n  - ports:\n    - port: 99999\n"
        )
    )
    cases = [
        ("not YAML at all", "kind: [unclosed\n  : :\n", r"line=\d+"),
        ("a port out of range", bad_field, r"line=\d+ .*field=\"?spec\.ingress\[0\]\.ports\[0\]"),
        (
            "the policy itself, with a bad type",
            good.replace('"Ingress"', '"Sideways"'),
            "policyTypes",
        ),
        ("nothing", "", None),
    ]
    try:
        for what, text, told in cases[:3]:
            seen = len(rig.log("n1", "agent"))
            rig.store.write("policies", text)

            def line():
                new = rig.log("n1", "agent")[seen:]
                return [
                    one for one in new.splitlines() if "ERROR" in one and "policies.yaml" in one
                ]

            found = wait_until(line, f"an ERROR line for {what}")[0]
            assert re.search(r"file=\S*policies\.yaml", found) and re.search(told, found), found
            assert not scene.field.reach([near], 0.3), f"{what}: the good state is not kept"
        assert rig.alive("n1", "agent")
    finally:
        rig.store.remove("policies")
    wait_until(lambda: scene.field.reach([near], 0.3), "the policy is gone")


TABLE = (ROOT / "control/ctl/tests/bad_input.yaml").read_text().replace("<10kB>", "n" * 10_240)
LONGEST_LINE = 1000  # of a log, whatever a document says


def test_what_stands_in_a_bad_documents_place_stays_in_force(scene):
    """The table of bad documents, each in the place of the good one that it could be."""
    rig, table = scene.rig, yaml.safe_load(TABLE)
    good = {f"bad-input-{number}": one for number, one in enumerate(table["good"])}
    is_of = lambda one, other: one["kind"] == other["kind"] and all(
        one["metadata"].get(key) == other["metadata"].get(key) for key in ("name", "namespace")
    )
    # A document of another object than a file had before would take that one away.
    place_of = lambda bad: next(
        (name for name, one in good.items() if is_of(one, bad)), "bad-input-other"
    )
    near = {port: Attempt("client", "near", "TCP", port) for port in (80, 81)}
    is_in_force = lambda: scene.field.reach(near.values(), 0.3) == {near[80]}
    for name, document in good.items():
        rig.store.write(name, document)
    wait_until(is_in_force, "the good documents")
    time.sleep(0.5)  # The last of them may concern no attempt.
    compiled = lambda: rig.metrics("n1", 9102).total("margay_compile_policies_total")
    before = compiled()
    try:
        with undisturbed(scene):
            for row in table["bad"]:
                text = row.get("text") or json.dumps(row["document"])
                name = place_of(row["document"] if "document" in row else table["good"][1])
                seen = len(rig.log("n1", "agent"))
                rig.store.write(name, text)
                said = lambda: [
                    line
                    for line in rig.log("n1", "agent")[seen:].splitlines()
                    if " ERROR " in line and f"{name}.yaml" in line and row["field"] in line
                ]
                found = wait_until(said, f"an ERROR line: {row['what']}")
                assert re.search(r" line=1 ", found[0]) and len(found[0]) < LONGEST_LINE, found[0]
                wait_until(is_in_force, f"what was in force stays: {row['what']}")
                assert compiled() == before, row["what"]
                rig.store.write(name, good[name]) if name in good else rig.store.remove(name)
        assert rig.alive("n1", "agent") and rig.alive("n1", "daemon")
    finally:
        rig.store.remove(*good)
    wait_until(lambda: len(scene.field.reach(near.values(), 0.3)) == 2, "the policies are gone")


def test_files_that_are_no_documents_are_reported_and_stop_nothing(scene):
    """Aliases that unfold to 10^9 strings, bytes that are no text, a folder, a link to itself."""
    rig, store = scene.rig, scene.rig.store.path
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    bad = {
        "bomb.yaml": lambda path: path.write_text("\n".join(lines)),
        "deep.yaml": lambda path: path.write_text("[" * 100_000),
        "bytes.yaml": lambda path: path.write_bytes(bytes(range(256)) * 40),
        "bytes.json": lambda path: path.write_bytes(b"{\xff\xfe\0"),
        "folder.yaml": lambda path: path.mkdir(),
        "itself.yaml": lambda path: path.symlink_to(path),
        "nowhere.yaml": lambda path: path.symlink_to("/nil/nil"),
    }
    seen = len(rig.log("n1", "agent"))
    with undisturbed(scene):
        for name, make in bad.items():
            make(store / name)
        rig.store.write("policies", policy("closed", "x", {"name": "near"}, types=["Egress"]))
        asked = [Attempt("near", "far")]
        wait_until(lambda: not scene.field.reach(asked, 0.3), "a good file is in force")
        rig.store.remove("policies")
        wait_until(lambda: scene.field.reach(asked, 0.3), "the policy is gone")
    told = rig.log("n1", "agent")[seen:]
    for name in ("bomb.yaml", "deep.yaml", "bytes.yaml", "bytes.json"):
        assert re.search(rf"ERROR .*file=\S*{name}", told), f"nothing said of {name}"
        (store / name).unlink()
    (store / "folder.yaml").rmdir()
    (store / "itself.yaml").unlink()
    (store / "nowhere.yaml").unlink()


def test_a_bad_document_keeps_what_was_in_force_over_a_restart_and_a_rename(scene):
    """A policy, and the namespace that another policy selects, become bad one after the other."""
    rig, store = scene.rig, scene.rig.store
    denied = [Attempt("client", "near"), Attempt("client", "far", "UDP")]
    deny = calico("NetworkPolicy", "deny", "x", selector="name == 'near'", ingress=[rule("Deny")])
    guard = calico(
        "GlobalNetworkPolicy",
        "guard",
        namespaceSelector="guarded == 'yes'",
        types=["Egress"],
        egress=[rule("Deny", "UDP"), rule("Allow")],
    )
    labels = {"guarded": "yes"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": labels}}

    def still_denied(when):
        # STATUS passes once the dataplane has what the datastore holds.
        assert rig.cni("STATUS", "n1", "x", "near").returncode == 0
        assert not scene.field.reach(denied, 0.5), f"it passes {when}"

    def restart(when):
        rig.kill("n1", "agent")
        rig.start("n1", "agent")
        wait_until(lambda: rig.ready("n1", 9102), "the agent is ready", within=10)
        still_denied(when)

    def move(old, new):
        (store.path / f"{old}.yaml").rename(store.path / f"{new}.yaml")

    try:
        for name, document in (("deny", deny), ("guard", guard), ("space", space)):
            store.write(name, document)
        wait_until(lambda: not scene.field.reach(denied, 0.3), "the policies are in force")
        store.write("deny", json.dumps(deny).replace('"Deny"', '"Denyy"'))
        store.write("space", json.dumps(space).replace('"yes"', '"yes", "owner": "a b"'))
        still_denied("once the documents are bad")
        restart("after a restart")
        move("deny", "deny2")
        move("space", "a-space")
        still_denied("after a rename")
        restart("after a rename and a restart")
        store.write("deny2", "kind: [unclosed\n  : :\n")
        still_denied("once the document names nothing")
        restart("after a restart with a document that names nothing")
        move("deny2", "deny3")
        still_denied("after a rename of a document that names nothing")
    finally:
        store.remove("deny", "deny2", "deny3", "guard", "space", "a-space")
    wait_until(lambda: len(scene.field.reach(denied, 0.5)) == 2, "the policies are gone")
    kept = lambda: list((store.path / "state/.last-good").glob("*/*.json"))
    wait_until(lambda: not kept(), "no last good version is kept any longer")


def test_a_pod_whose_document_is_refused_stays_out_and_one_that_is_attached_keeps_its_labels(scene):
    rig, store = scene.rig, scene.rig.store
    labels = {"name": "sealed", "app": "locked"}
    metadata = {"name": "sealed", "namespace": "x", "labels": labels}
    good = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}}
    bad = json.dumps(good).replace('"locked"', '"locked", "note": "a b"')
    store.write("locked", policy("locked", "x", {"app": "locked"}, types=["Egress"]))
    asked = Attempt("sealed", "near")
    try:
        with rig.vacant("sealed"):
            store.write("sealed", bad)
            done = rig.cni("ADD", "n1", "x", "sealed")
            error = json.loads(done.stdout)
            assert done.returncode != 0 and error["code"] == 11, error
            assert "Pod x/sealed is refused" in error["msg"], error
            assert re.search(
                r"sealed\.yaml:1: metadata\.labels\.note: .*a b", error["details"]
            ), error
            assert "eth0" not in rig.exec("sealed", "ip", "-br", "link")
            assert "sealed" not in rig.ctl("get", "workloadendpoints", "-A", "-o", "name")

            store.write("sealed", good)
            done = rig.cni("ADD", "n1", "x", "sealed")
            assert done.returncode == 0, done.stdout
            assert not scene.field.reach([asked], 0.5)
            store.write("sealed", bad)
            assert rig.cni("STATUS", "n1", "x", "sealed").returncode == 0
            assert not scene.field.reach([asked], 0.5), "it has lost its labels"
            store.remove("locked")
            wait_until(lambda: scene.field.reach([asked], 0.5), "only the policy was in the way")
            assert rig.cni("DEL", "n1", "x", "sealed").returncode == 0
    finally:
        store.remove("locked", "sealed")


# === sockets ===


@pytest.mark.parametrize("name", ["agent.sock", "margayd.sock"])
def test_nonsense_on_a_socket_ends_no_process(scene, name):
    """Random bytes, a line without an end, half a request, and many who say nothing."""
    path = str(scene.rig.run / "n1" / name)
    dice = random.Random(3)
    words = [dice.randbytes(4096), b"x" * 4_000_000, b'{"verb":', b"[" * 50_000 + b"\n", b"{}\n"]
    words += [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + dice.randbytes(500)]
    silent = []
    with undisturbed(scene):
        for word in words:
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.settimeout(1)
                client.connect(path)
                client.sendall(word)
                client.recv(100)
        for _ in range(100):
            silent.append(socket.socket(socket.AF_UNIX))
            silent[-1].settimeout(1)
            silent[-1].connect(path)
        assert scene.rig.cni("STATUS", "n1", "x", "near").returncode == 0
    for client in silent:
        client.close()


# === CNI ===

CONFIG = {"cniVersion": "1.1.0", "name": "margay", "type": "margay-cni"}
# What is wrong → verb, variables, configuration, code, and what the message says.
CALLS = {
    "no_verb": ("", {}, {}, 4, "CNI_COMMAND"),
    "an_unknown_verb": ("FOO", {}, {}, 4, "FOO"),
    "no_container": ("ADD", {"CNI_CONTAINERID": None}, {}, 4, "CNI_CONTAINERID"),
    "a_container_that_climbs": ("ADD", {"CNI_CONTAINERID": "../x"}, {}, 4, "CNI_CONTAINERID"),
    "no_namespace": ("ADD", {"CNI_NETNS": None}, {}, 4, "CNI_NETNS"),
    "a_namespace_that_is_none": ("ADD", {"CNI_NETNS": "/etc/hostname"}, {}, 4, "/etc/hostname"),
    "a_namespace_that_is_not_there": (
        "ADD",
        {"CNI_NETNS": "/run/netns/nil"},
        {},
        4,
        "/run/netns/nil",
    ),
    "no_interface": ("ADD", {"CNI_IFNAME": None}, {}, 4, "CNI_IFNAME"),
    "an_interface_name_too_long": ("ADD", {"CNI_IFNAME": "e" * 16}, {}, 4, "CNI_IFNAME"),
    "an_interface_that_is_there": ("ADD", {"CNI_IFNAME": "lo"}, {}, 101, "lo"),
    "args_without_equals": ("ADD", {"CNI_ARGS": "K8S_POD_NAME"}, {}, 4, "CNI_ARGS"),
    "no_configuration": ("ADD", {}, "", 6, ""),
    "configuration_that_is_no_json": ("ADD", {}, "{", 6, ""),
    "an_unsupported_version": ("ADD", {}, {"cniVersion": "9.9.9"}, 1, "9.9.9"),
    "no_ipam": ("ADD", {}, {"ipam": None}, 7, "ipam"),
    "an_ipam_that_is_not_installed": ("ADD", {}, {"ipam": {"type": "nil"}}, 7, "nil"),
    "no_family_at_all": (
        "ADD",
        {},
        {"ipam": {"type": "margay-ipam", "assign_ipv4": "false"}},
        7,
        "assign_ipv4",
    ),
    "an_mtu_that_is_no_number": ("ADD", {}, {"mtu": "large"}, 7, "mtu"),
    "a_check_without_an_earlier_result": ("CHECK", {}, {}, 7, "prevResult"),
    "an_agent_that_is_away": (
        "ADD",
        {},
        {"agentSocket": "/run/nil/agent.sock"},
        11,
        "/run/nil/agent.sock",
    ),
}


@pytest.fixture(scope="module")
def empty(rig):
    """A namespace that a pod could have."""
    with rig.vacant("empty"):
        yield "empty"


@pytest.mark.parametrize("call", CALLS)
def test_a_bad_cni_call_gets_its_code_and_a_message(scene, empty, call):
    verb, variables, config, code, told = CALLS[call]
    done = scene.rig.cni(verb, "n1", "x", empty, config, **variables)
    assert done.returncode != 0
    error = json.loads(done.stdout)
    assert error["code"] == code and told in error["msg"] + error.get("details", ""), error
    # Nothing is left behind.
    assert "eth0" not in scene.rig.exec(empty, "ip", "-br", "link")
    assert empty not in scene.rig.ctl("get", "workloadendpoints", "-A", "-o", "name")


def test_bad_cni_calls_disturb_nobody(scene, empty):
    with undisturbed(scene):
        for verb, variables, config, _, _ in CALLS.values():
            assert scene.rig.cni(verb, "n1", "x", empty, config, **variables).returncode != 0


def test_packets_are_conserved_and_the_kernel_forwarded_none(scene):
    scene.rig.books_are_right()
