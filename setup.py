"""Builds what is written in C: felix-cni, which container runtimes start, and what the tunnel drivers need."""

import platform
import stat
import subprocess
from pathlib import Path
from shutil import which

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

SOURCE = Path("felix_py/cni/felix-cni.c")
PROGRAM = Path("build/bin/felix-cni")
LIBRARIES = {
    Path("ipip/offload.c"): "ipip/offload.so was not built: tunnels on kernels without the ipip module are slower",
    Path("felix_py/kernel/exchange.c"): "felix_py/kernel/exchange.so was not built: pods wait longer for their network",
    Path("felix_py/cni/callers.c"): "felix_py/cni/callers.so was not built: pods wait longer for their network",
    Path("felix_py/replace.c"): "felix_py/replace.so was not built: pods wait longer for their addresses",
}
"""Sources of libraries, and what is missing where one was not built. All else is the same without them."""

WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror")
SHARED = ("-shared", "-fPIC", "-nostdlib", "-O2", "-s", *WARNINGS)
"""Without a libc of their own, and so for any: they call none, or that of Python."""
FLAGS = ("-static", "-Os", "-s", *WARNINGS)

COMPILERS = ("musl-gcc", "gcc", "cc")
"""musl first: its static binary has 40 kB and starts in 0.2 ms, glibc's has 800 kB and takes twice as long."""

BPF_SOURCES = (Path("ipip/tunnel.bpf.c"), Path("felix_py/kernel/guard.bpf.c"))
BPF_FLAGS = ("-target", "bpf", "-O2", "-fno-jump-tables", "-Wall", "-Wextra", "-Werror")
"""Jump tables would be constant data, which the loader does not know."""

BPF_REMEDY = "the ebpf tunnel driver and pod guard were not built: apt-get install clang, then install felix-py again"

REMEDY = "felix-cni was not built, for no C compiler could: apt-get install musl-tools, then install felix-py again"

PLACEHOLDER = f"""#!/bin/sh
# {REMEDY}
echo '{{"cniVersion": "1.0.0", "code": 5, "msg": "{REMEDY}"}}'
exit 1
"""
"""Stands in for the program where it could not be built, so that whoever calls it is told, and not only pip's log."""


class BuildLibraries(Command):
    """Compile what is not done in Python for its speed; everything works without, so that a failure is a warning."""

    def initialize_options(self) -> None:
        """Have no options."""

    def finalize_options(self) -> None:
        """Have no options."""

    def run(self) -> None:
        """Try each compiler that is here; the results lie in the packages, where build_py finds them."""
        for source, warning in LIBRARIES.items():
            target = source.with_suffix(".so")
            target.unlink(missing_ok=True)
            if not any(compiled(self, compiler, SHARED, source, target) for compiler in COMPILERS if which(compiler)):
                self.warn(warning)


class BuildProgram(Command):
    """Compile the shim; an installation without a compiler gets everything else, and a placeholder that says so."""

    def initialize_options(self) -> None:
        """Have no options."""

    def finalize_options(self) -> None:
        """Have no options."""

    def run(self) -> None:
        """Try each compiler that is here."""
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        PROGRAM.unlink(missing_ok=True)
        if not any(compiled(self, compiler, FLAGS, SOURCE, PROGRAM) for compiler in COMPILERS if which(compiler)):
            self.warn(REMEDY)
            PROGRAM.write_text(PLACEHOLDER)
        PROGRAM.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)


def compiled(command: Command, compiler: str, flags: tuple[str, ...], source: Path, target: Path) -> bool:
    """Say whether a compiler made the target; what it says otherwise is a warning."""
    done = subprocess.run((compiler, *flags, "-o", target, source), capture_output=True, text=True, check=False)
    if done.returncode:
        command.warn(f"{compiler} cannot compile {source}: {done.stderr}")
    return done.returncode == 0


class BuildBpf(Command):
    """Compile the BPF programs into the package; without clang the ebpf driver says what it lacks, and others work."""

    def initialize_options(self) -> None:
        """Have no options."""

    def finalize_options(self) -> None:
        """Have no options."""

    def run(self) -> None:
        """Compile, with the kernel's own headers where Debian keeps those of this machine."""
        includes = (f"-I/usr/include/{platform.machine()}-linux-gnu",)
        present = which("clang") is not None
        if not present:
            self.warn(BPF_REMEDY)
        for source in BPF_SOURCES:
            source.with_suffix(".o").unlink(missing_ok=True)
            if present:
                compiled(self, "clang", (*BPF_FLAGS, *includes, "-c"), source, source.with_suffix(".o"))


class Build(build):
    """The usual build; before it what becomes data of the package, and after it the program."""

    sub_commands = [  # noqa: RUF012 - the base class has it so
        ("build_bpf", None),
        ("build_libraries", None),
        *build.sub_commands,
        ("build_program", None),
    ]


class Wheel(bdist_wheel):
    """A wheel for any Python 3 of this machine's architecture: the program is of no other."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return interpreter, ABI and platform."""
        return "py3", "none", f"linux_{platform.machine()}"


class WithProgram(Distribution):
    """Tells setuptools of a compiled program, where it would not see one."""

    def has_ext_modules(self) -> bool:
        """Say that something here was compiled."""
        return True

    def has_data(self) -> bool:
        """Answer setuptools' editable_wheel, which asks by this name and would leave the program out."""
        return self.has_data_files()


setup(
    distclass=WithProgram,
    cmdclass={
        "build": Build,
        "build_bpf": BuildBpf,
        "build_libraries": BuildLibraries,
        "build_program": BuildProgram,
        "bdist_wheel": Wheel,
    },
    data_files=[("bin", [str(PROGRAM)])],
)
