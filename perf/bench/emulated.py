"""The bench in an emulated machine with Debian's own kernel, for what the machine's kernel lacks.

It boots with the machine's own files: read-only, below a layer in memory, but for the folder of the
results. The emulator runs each instruction in software and models no cache.
"""

import lzma
import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tools
from shell import precedence, prefer, run

# Names the newest kernel of that series.
META = "linux-image-6.12-amd64"
# On the kernel's command line of the emulated machine.
MARK = "margay.bench"
# What the root is made of; the kernel finds its other modules there.
MODULES = ("9p", "9pnet_virtio", "overlay")
# The bench says something more often, also while it builds its devices.
SILENCE = 600
MEMORY = "6G"

# Lays a writable layer on the machine's files, and goes on as FOLDER/start says.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o $options,ro,cache=loose root /lower
mount -t tmpfs layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work root /root
mount -t 9p -o $options folder /root$FOLDER
mount -t 9p -o $options out /root$OUT
exec switch_root /root /bin/sh $FOLDER/start
"""

# The first process; the machine ends with it.
START = """
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mkdir -p /lib/modules/{release}
mount --bind {modules} /lib/modules/{release}
ip link set lo up
cd {repository}
setsid --wait {command} > {folder}/words 2> /dev/ttyS1 < /dev/null
echo $? > {folder}/status
busybox poweroff -f
"""


def inside():
    """Whether this is the emulated machine."""
    return MARK in Path("/proc/cmdline").read_text(encoding="ascii").split()


def measure(arguments, out):
    """Runs the bench with these arguments there, which writes into `out`; returns its exit code."""
    home = tools.target().resolve() / "bench-emulated"
    home.mkdir(parents=True, exist_ok=True)
    kernel, modules = unpacked(home)
    console = home / "console.log"
    with tempfile.TemporaryDirectory(prefix="run-", dir=home) as folder:
        folder = Path(folder)
        command = shlex.join(["/usr/bin/python3", "perf/bench", *arguments, "--out", str(out)])
        names = {"release": modules.name, "modules": modules, "repository": Path.cwd()}
        start = START.format(**names, folder=folder, command=command)
        (folder / "start").write_text(start, encoding="utf-8")
        with precedence():
            listen(machine(kernel, initial(folder, modules), folder, out, console), console)
        words, status = folder / "words", folder / "status"
        if not status.exists():
            raise RuntimeError(f"the emulated machine ended early; {last(console)}")
        print(words.read_text(encoding="utf-8"), end="")
        return int(status.read_text(encoding="ascii"))


def unpacked(home):
    """The kernel and the folder of its modules, fetched by apt if they are not there."""
    lines = run(["apt-cache", "depends", META]).splitlines()
    package = next(line.split()[1] for line in lines if "Depends: " in line)
    release = package.removeprefix("linux-image-")
    folder = home / package
    modules = folder / "lib/modules" / release
    if not (modules / "modules.dep").exists():
        with tempfile.TemporaryDirectory(prefix="apt-", dir=home) as scratch:
            run(["apt-get", "download", "-qq", package], cwd=scratch)
            run(["dpkg", "-x", *map(str, Path(scratch).glob("*.deb")), str(folder)])
        run(["depmod", "-b", str(folder), release])
    return folder / "boot" / f"vmlinuz-{release}", modules


def initial(folder, modules):
    """Makes the image that the kernel starts with: busybox, INIT, and MODULES with what they need."""
    needed = {}
    where = ["-d", str(modules.parents[2]), "-S", modules.name]
    for module in MODULES:
        # Lines of "insmod PATH", what is needed first comes first.
        lines = run(["modprobe", *where, "--show-depends", module]).splitlines()
        needed |= {Path(line.split()[1]): None for line in lines}
    tree = folder / "tree"
    for name in ("bin", "dev", "lower", "layer", "modules", "root"):
        (tree / name).mkdir(parents=True)
    for number, path in enumerate(needed):
        (tree / f"modules/{number:02}-{path.stem}").write_bytes(lzma.decompress(path.read_bytes()))
    shutil.copy("/bin/busybox", tree / "bin")
    (tree / "init").write_text(INIT, encoding="utf-8")
    (tree / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    image = folder / "initial.cpio"
    run(["cpio", "-o", "-H", "newc", "--quiet", "-F", str(image)], cwd=tree, input=names)
    return image


def machine(kernel, image, folder, out, console):
    """Starts the emulator: two processors, a serial line for the kernel, one for the bench's words."""
    clock = "clocksource=tsc tsc=reliable"
    words = f"{MARK} console=ttyS0 panic=-1 {clock} FOLDER={folder} OUT={out}"
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]
    command += ["-m", MEMORY, "-nodefaults", "-no-reboot", "-display", "none"]
    command += ["-kernel", str(kernel), "-initrd", str(image), "-append", words]
    command += ["-serial", f"file:{console}", "-serial", "stdio"]
    for tag, path, readonly in [("root", "/", "on"), ("folder", folder, "off"), ("out", out, "off")]:
        shared = f"local,id={tag},path={path},security_model=none,multidevs=remap,readonly={readonly}"
        command += ["-fsdev", shared, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    # A pipe that nobody writes to: the emulator would take a terminal's keys.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            preexec_fn=lambda: prefer(0))


def listen(process, console):
    """Passes the bench's words on until the machine ends, or ends it when it says nothing more."""
    try:
        while select.select([process.stdout], [], [], SILENCE)[0]:
            words = os.read(process.stdout.fileno(), 4096)
            if not words:
                return
            sys.stderr.buffer.write(words.replace(b"\r\n", b"\n"))
            sys.stderr.flush()
        raise RuntimeError(f"the emulated machine says nothing for {SILENCE} s; {last(console)}")
    finally:
        process.kill()
        process.wait()


def last(console):
    """The last lines of the kernel's words."""
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(["its console's last lines:", *lines[-20:]])
