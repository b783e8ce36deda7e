"""Commands, namespaces and processes."""

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

# Both measured cores are kept free of others' work as far as the scheduler allows: noise from
# elsewhere hits every device under test alike, but it widens the intervals.
PRIORITY = -20


def run(command, **options):
    """Runs a command and returns what it printed; a failure carries its words."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def ip(line):
    """Runs `ip` with arguments separated by spaces."""
    return run(["ip", *line.split()])


def inside(netns, line, **options):
    """Runs a command, given as one line, in a namespace."""
    return run(["ip", "netns", "exec", netns, *line.split()], **options)


def mac_of(netns, interface="eth0"):
    """An interface's Ethernet address."""
    return inside(netns, f"cat /sys/class/net/{interface}/address").strip()


def namespaces():
    """The names of all network namespaces."""
    return [line.split()[0] for line in ip("netns list").splitlines() if line.strip()]


def prefer(pid, priority=PRIORITY):
    """Gives a process, or one thread, precedence over what else runs, or takes it back."""
    os.setpriority(os.PRIO_PROCESS, pid, priority)


def prefer_workers(pid):
    """Gives the workers of a margayd precedence."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text(encoding="ascii").startswith("margay-worker"):
            prefer(int(task.name))


@contextmanager
def precedence():
    """Gives this session precedence over others: where the scheduler groups processes by session
    (sched(7), autogroup), niceness counts only among those of one."""
    group = Path("/proc/self/autogroup")
    if not group.exists():
        yield
        return
    before = group.read_text(encoding="ascii").split()[-1]
    group.write_text(str(PRIORITY), encoding="ascii")
    try:
        yield
    finally:
        group.write_text(before, encoding="ascii")


def measured(command):
    """Runs a command with precedence, and returns what it printed."""
    return run(command, preexec_fn=lambda: prefer(0))


def watched(command):
    """The same, and the share of each core that was in use meanwhile, by whomever."""
    began = Watch()
    return measured(command), began.shares()


def start(command, log):
    """Starts a command with precedence, whose input stays silent; its words go to a file."""
    with open(log, "a", encoding="utf-8") as words:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=words, stderr=words, preexec_fn=lambda: prefer(0)
        )


def finish(process):
    """Ends a process that was started here."""
    process.terminate()
    process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def busy():
    """Seconds that each CPU has worked since boot."""
    ticks = os.sysconf("SC_CLK_TCK")
    out = []
    with open("/proc/stat", encoding="ascii") as lines:
        for line in lines:
            name, *fields = line.split()
            if name.startswith("cpu") and name != "cpu":
                user, nice, system, _idle, _wait, irq, softirq = map(int, fields[:7])
                out.append((user + nice + system + irq + softirq) / ticks)
    return out


class Watch:
    """Of each core, how much has been in use since this was made."""

    def __init__(self):
        self.busy, self.time = busy(), time.monotonic()

    def shares(self):
        seconds = time.monotonic() - self.time
        return [round((now - then) / seconds, 3) for now, then in zip(busy(), self.busy)]


def wait_until(what, question, seconds=20):
    """Asks until the answer is yes."""
    until = time.monotonic() + seconds
    while not question():
        if time.monotonic() > until:
            raise RuntimeError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.1)
