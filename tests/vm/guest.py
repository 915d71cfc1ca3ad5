"""Runs a command under Debian's kernel: QEMU without KVM, on this machine's own root file system, read-only.

    python tests/vm/guest.py COMMAND...

The root is shared by 9p below an overlay in memory, so nothing that the guest writes survives; it has no network card.
The kernel comes by `apt-get download` into a cache once and is never installed. Exit status and output are the
command's; 124 when it took too long.
"""

import lzma
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "felix-py" / "vm"
PACKAGE = "linux-image-amd64"
NEEDS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "apt-get": "apt",
    "dpkg": "dpkg",
}
"""Program and the Debian package that has it."""

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What the initial RAM file system needs to mount the root."""

TIMED_OUT, DIED = 124, 125

CPIO = "070701" + "%08X" * 13
"""Header of a member, cpio's newc format: Documentation/driver-api/early-userspace/buffer-format.rst."""

SETUP_SECTORS, PAYLOAD = Struct("<B"), Struct("<II")
SETUP_SECTORS_AT, PAYLOAD_AT, SECTOR = 0x1F1, 0x248, 512
"""Where a bzImage says which part of it is the compressed kernel: Documentation/arch/x86/boot.rst."""

OPTIONS = "trans=virtio,version=9p2000.L,msize=512000,cache=loose"

INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev; $b mount -t proc proc /proc; $b mount -t sysfs sys /sys
while read module; do $b insmod /modules/$module; done < /modules/order
$b mount -t 9p -o ro,{OPTIONS} root /lower
$b mount -t tmpfs -o size=80% upper /upper
$b mkdir /upper/changes /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/changes,workdir=/upper/work overlay /root
for d in proc sys dev; do $b mount --move /$d /root/$d; done
$b mkdir -p /root/run/guest
$b cp /guest /root/run/guest/start
exec $b switch_root /root /bin/sh /run/guest/start
"""

START = """export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1 GUEST=1
mount -t tmpfs run /run; mkdir -p /run/netns /dev/pts /dev/shm
mount -t devpts pts /dev/pts; mount -t tmpfs shm /dev/shm
value() { sed -n "s|.*guest\\.$1=\\([^ ]*\\).*|\\1|p" /proc/cmdline; }
mkdir -p "/lib/modules/$(uname -r)"
mount --bind "$(value modules)" "/lib/modules/$(uname -r)"
modprobe tun; hostname guest; ip link set lo up
stty -F /dev/ttyS1 raw -echo; stty -F /dev/ttyS2 raw -echo
sh -c "$(value command | base64 -d)" < /dev/null > /dev/ttyS1 2>&1
echo "status=$?" > /dev/ttyS2
sync; echo o > /proc/sysrq-trigger; sleep 60
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a command in the guest."""

    status: int
    output: str


def missing() -> str | None:
    """Say what keeps a guest from running here, and the remedy; None where nothing does."""
    if platform.machine() != "x86_64":
        return (
            f"the guest is an x86_64 machine on this machine's root, which is {platform.machine()}; use an x86_64 one"
        )
    absent = [package for program, package in NEEDS.items() if shutil.which(program, path=_path()) is None]
    if absent:
        return f"a guest kernel needs packages that are not here: apt-get install {' '.join(absent)}"
    try:
        _kernel()
    except subprocess.CalledProcessError as error:
        return f"{PACKAGE} could not be fetched ({error.stderr.strip()[-200:]}): apt-get update, on Debian"
    return None


def run(command: Sequence[str], *, seconds: float = 300.0, memory: str = "1536M") -> Outcome:
    """Boot, run the command in this directory as root, power off."""
    release, modules, image = _kernel()
    line = f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(command)}"
    with tempfile.TemporaryDirectory(prefix="guest-") as directory:
        here = Path(directory)
        initial = here / "initial.cpio"
        initial.write_bytes(_initial(release, modules))
        arguments = _arguments(here, image, initial, modules, line, memory)
        try:
            subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return Outcome(TIMED_OUT, _text(here / "output") + f"\nnot done within {seconds:.0f} s\n")
        output, last = _text(here / "output"), _text(here / "status").strip()
        if not last.startswith("status="):
            return Outcome(DIED, output + _text(here / "console")[-2000:])
        return Outcome(int(last.removeprefix("status=")), output)


def _arguments(here: Path, image: Path, initial: Path, modules: Path, line: str, memory: str) -> list[str]:
    import base64  # noqa: PLC0415

    words = (
        "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on tsc=reliable "
        f"guest.modules={modules} guest.command={base64.b64encode(line.encode()).decode()}"
    )
    serial = [word for name in ("console", "output", "status") for word in ("-serial", f"file:{here / name}")]
    return [
        *("qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-smp", "2", "-m", memory),
        *("-accel", "tcg,thread=multi", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-nic", "none", "-device", "virtio-rng-pci", "-kernel", str(image), "-initrd", str(initial)),
        *("-append", words, "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=root,mount_tag=root", *serial),
    ]


def _text(path: Path) -> str:
    return path.read_text(errors="replace").replace("\r\n", "\n") if path.exists() else ""


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _kernel() -> tuple[str, Path, Path]:
    """Return release, module directory and bootable image, fetched if they are not in the cache."""
    root = CACHE / PACKAGE
    if not (root / "complete").exists():
        _fetch(root)
    (modules,) = (root / "lib" / "modules").iterdir()
    return modules.name, modules, root / "image"


def _fetch(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as download:
        try:
            archive = _download(Path(download))
        except subprocess.CalledProcessError:
            # A machine whose package lists are missing or old: the named version is no longer served.
            _output("apt-get", "update", "-qq")
            archive = _download(Path(download))
        _output("dpkg", "-x", archive, root)
    (modules,) = (root / "lib" / "modules").iterdir()
    subprocess.run(["depmod", "-b", root, modules.name], env={"PATH": _path()}, check=True, capture_output=True)
    (image,) = (root / "boot").glob("vmlinuz-*")
    (root / "image").write_bytes(_uncompressed(image.read_bytes()))
    (root / "complete").touch()


def _download(folder: Path) -> Path:
    listing = _output("apt-cache", "depends", PACKAGE)
    package = next((line.split()[1] for line in listing.splitlines() if "Depends: linux-image-" in line), PACKAGE)
    command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    (archive,) = folder.glob("*.deb")
    return archive


def _output(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def _uncompressed(image: bytes) -> bytes:
    """Return the kernel proper where it is packed with xz: unpacking costs the emulated guest 2 s of each boot."""
    (sectors,) = SETUP_SECTORS.unpack_from(image, SETUP_SECTORS_AT)
    offset, length = PAYLOAD.unpack_from(image, PAYLOAD_AT)
    start = (sectors + 1) * SECTOR + offset
    packed = image[start : start + length]
    return lzma.LZMADecompressor().decompress(packed) if packed.startswith(b"\xfd7zXZ") else image


def _initial(release: str, modules: Path) -> bytes:
    """Return the initial RAM file system: busybox, the modules in order, two scripts."""
    order = list(_in_order(modules))
    files = {
        "bin/busybox": Path("/bin/busybox").read_bytes(),
        "init": INIT.encode(),
        "guest": START.encode(),
        "modules/order": "".join(f"{Path(name).name}\n" for name in order).encode(),
        **{f"modules/{Path(name).name}": (modules / name).read_bytes() for name in order},
    }
    folders = ("bin", "modules", "proc", "sys", "dev", "lower", "upper", "root")
    members = [_member(name, b"", 0o40755) for name in folders]
    members += [_member(name, data, 0o100755) for name, data in files.items()]
    assert release == modules.name
    return b"".join([*members, _member("TRAILER!!!", b"", 0)])


def _in_order(modules: Path) -> Iterator[str]:
    """Yield the files of MODULES, each after those that it needs."""
    lines = (line.split(":") for line in (modules / "modules.dep").read_text().splitlines())
    needs = {name: rest.split() for name, rest in lines}
    built_in = (modules / "modules.builtin").read_text()
    seen: set[str] = set()
    for module in MODULES:
        path = next((name for name in needs if Path(name).stem.replace("-", "_") == module), None)
        if path is None:
            assert f"/{module}.ko" in built_in, f"{modules} has no module {module}"
            continue
        for name in (*reversed(needs[path]), path):
            if name not in seen:
                seen.add(name)
                yield name


def _member(name: str, data: bytes, mode: int) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = (CPIO % fields).encode() + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


if __name__ == "__main__":
    reason = missing()
    if reason is not None:
        sys.exit(reason)
    outcome = run(sys.argv[1:])
    sys.stdout.write(outcome.output)
    sys.exit(outcome.status)
