"""What goes past the workers, as margayctl says it."""

import contextlib
import hashlib
import json


def ask(rig, *words, node="n1"):
    """What margayctl says of a node's dataplane."""
    where = f"unix:{rig.run}/{node}/margayd.sock"
    return json.loads(rig.ctl("--dataplane", where, *words, "-o", "json"))


def connections(rig, node="n1"):
    """How many connections take a node's shortcut; None where there is none."""
    shortcut = ask(rig, "node", "status", node=node)["shortcut"]
    return shortcut and shortcut["connections"]


def flow(rig, one, node="n1"):
    """A bulk connection as `margayctl flows` shows it."""
    found = ask(rig, "flows", "--port", str(one.client_port), "--net", one.address, node=node)
    return found[0] if len(found) == 1 else None


def opened(start):
    """The connection, or None where nobody answers yet."""
    with contextlib.suppress(OSError):
        return start()
    return None


def takes_it(rig, one, node="n1"):
    """Whether a bulk connection takes a node's shortcut."""
    found = flow(rig, one, node)
    return bool(found) and found["shortcut"]


def moved(one):
    """A bulk connection that has moved much within the last moment."""
    return one.goes_on(amount=256 * 65536)


def port_of(name):
    """A pod's host interface."""
    return "cali" + hashlib.sha1(f"default.{name}".encode()).hexdigest()[:11]
