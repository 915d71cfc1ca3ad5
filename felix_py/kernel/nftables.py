"""Reads and writes our nftables table through libnftables, the library behind `nft`; told by the kernel of changes.

What changes tables raises the kernel's generation number; as long as it is the one that we know, nothing need be read.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator

from felix_py.kernel import filter_table, roundtrip
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.messages import HEADER, REQUEST, attributes, messages
from felix_py.kernel.netlink_socket import attach_filter, subscribe
from felix_py.kernel.objects import KernelRefused

LIBRARY = "libnftables.so.1"
MISSING = (
    f"{LIBRARY} cannot be loaded; install it (apt-get install libnftables1), or set netfilter: Disabled in felix.yaml"
)

STATELESS, NUMERIC_PROTOCOL = 1 << 2, 1 << 7
"""NFT_CTX_OUTPUT_..., nftables/libnftables.h: no counters, and no names from /etc/protocols, which differ by host."""

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES, NFNLGRP_NFTABLES = 10, 7
"""include/uapi/linux/netfilter/nfnetlink.h."""

NEW_GENERATION, GET_GENERATION = NFNL_SUBSYS_NFTABLES << 8 | 15, NFNL_SUBSYS_NFTABLES << 8 | 16
GENERATION_ID, PROCESS_ID, PROCESS_NAME = 1, 2, 3
NFGENMSG = struct.pack("=BBH", 0, 0, 0)
"""NFT_MSG_NEWGEN, NFT_MSG_GETGEN, NFTA_GEN_...; include/uapi/linux/netfilter/nf_tables.h."""

ASK_GENERATION = HEADER.pack(HEADER.size + len(NFGENMSG), GET_GENERATION, REQUEST, 1, 0) + NFGENMSG

FEW = 8
"""Changes of which it is remembered who made them."""

LOAD_TYPE, TAKE, DROP = (0x28, 0, 0, 4), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)
"""Instructions of a filter on a socket, include/uapi/linux/bpf_common.h; the type stands at byte 4 of a message."""


class Nftables:
    """The table of the network namespace of the thread that makes this; for use by one thread, but for `hear`."""

    def __init__(self) -> None:
        self._library = _Library()
        self._asking, self._listening = _open(), _open()
        self._known: int | None = None
        self._changes: dict[int, str] = {}
        # How this version of the library prints rules that we wrote otherwise: (ours, as printed).
        self._printed: tuple[str, str] | None = None
        if self._asking is not None:
            roundtrip.wait_at_most(self._asking, roundtrip.ANSWER_SECONDS)
        if self._listening is not None:
            self._listening.settimeout(0)
            only = int.from_bytes(struct.pack("=H", NEW_GENERATION), "big")
            attach_filter(self._listening, [LOAD_TYPE, (0x15, 0, 1, only), TAKE, DROP])
            subscribe(self._listening, NFNLGRP_NFTABLES)

    def fileno(self) -> int:
        """Return the descriptor that is readable when tables have changed; -1 where the kernel has no nftables."""
        return self._listening.fileno() if self._listening is not None else -1

    def close(self) -> None:
        """Close everything; the table stays."""
        self._library.close()
        for each in (self._asking, self._listening):
            if each is not None:
                each.close()

    def hear(self) -> None:
        """Take the queued events, so that `fileno` is quiet again; what they mean, `changed` finds by asking."""
        while self._listening is not None:
            try:
                self._changes = dict(
                    [*self._changes.items(), *_changes(messages(self._listening.recv(1 << 16)))][-FEW:]
                )
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # of lost events is known what counts: that there were some
                    raise

    def changed_by(self) -> str:
        """Name the process that brought the generation that was read last, if the kernel has told by now."""
        return self._changes.get(self._known or 0, "somebody")

    def changed(self) -> bool:
        """Say whether somebody else has changed tables since `read` or `write`."""
        return self._known is not None and self._generation() != self._known

    def read(self) -> FilterTable | None:
        """Return the table as it is; None where there is none.

        Raises:
            KernelRefused: when it could not be read.
        """
        before = self._generation()
        try:
            listing = self._library.run(f"list table {filter_table.NAME}")
        except KernelRefused as refused:
            if "No such file or directory" not in str(refused):
                raise
            listing = ""
        self._known = before
        if not listing:
            return None
        found = filter_table.parse(listing)
        if self._printed is not None and found.rules == self._printed[1]:
            return FilterTable(self._printed[0], found.elements)
        return found

    def write(self, want: FilterTable | None, have: FilterTable | None) -> None:
        """Make the table so, at one moment for all packets.

        Args:
            want: None removes it.
            have: what `read` returned, or was written since.

        Raises:
            KernelRefused: with the reason; nothing was changed then, and it has to be read again.
        """
        before = self._generation()
        self._library.run(filter_table.commands(want, have))
        after = self._generation()
        # One transaction of ours is one generation; more, and somebody else was at work meanwhile.
        alone = before is not None and before == self._known and after == (before + 1) % (1 << 32)
        self._known = after if alone else -1
        if want is not None and (have is None or have.rules != want.rules):
            as_printed = filter_table.parse(self._library.run(f"list table {filter_table.NAME}")).rules
            self._printed = (want.rules, as_printed) if as_printed != want.rules else None

    def ruleset(self) -> str:
        """Return every table of everybody, as nft prints it.

        Raises:
            KernelRefused: when it could not be read.
        """
        return self._library.run("list ruleset")

    def _generation(self) -> int | None:
        """Return the number that each change of any table raises; None where the kernel has no nftables."""
        if self._asking is None:
            return None
        try:
            answers = messages(roundtrip.exchange(self._asking, ASK_GENERATION, 1, at_once=True))
        except OSError as error:
            raise KernelRefused(f"nftables' generation could not be asked for: {error.strerror or error}") from error
        return next(_generations(answers), None)


def _generations(answers: Iterator[tuple[int, int, int, int, bytes]]) -> Iterator[int]:
    for kind, _, _, _, body in answers:
        number = dict(attributes(body, len(NFGENMSG))).get(GENERATION_ID, b"")
        if kind == NEW_GENERATION and len(number) == 4:  # noqa: PLR2004 - 32 bits
            yield int.from_bytes(number, "big")


def _changes(events: Iterator[tuple[int, int, int, int, bytes]]) -> Iterator[tuple[int, str]]:
    """Yield each generation with the process that brought it."""
    for _, _, _, _, body in events:
        found = dict(attributes(body, len(NFGENMSG)))
        name = found.get(PROCESS_NAME, b"").rstrip(b"\0").decode(errors="replace")
        process = int.from_bytes(found.get(PROCESS_ID, b""), "big")
        yield int.from_bytes(found.get(GENERATION_ID, b""), "big"), f"process {process} ({name})"


def _open() -> socket.socket | None:
    """Open a netfilter socket; None where the kernel has none."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            return None
        raise
    sock.bind((0, 0))
    return sock


class _Library:
    """libnftables(3), loaded when first used: it costs 2 MB, and who switched us off need not have it."""

    def __init__(self) -> None:
        self._functions: ctypes.CDLL | None = None
        self._context: int | None = None
        try:
            self._functions = _declared(ctypes.CDLL(LIBRARY))
        except OSError:
            return  # `run` says so, if anything is to be run
        # The library's socket belongs to the network namespace of the thread that makes the context.
        self._context = self._functions.nft_ctx_new(0)
        self._functions.nft_ctx_output_set_flags(self._context, STATELESS | NUMERIC_PROTOCOL)
        self._functions.nft_ctx_buffer_output(self._context)
        self._functions.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Run commands in nft's language as one transaction; return what they print.

        Raises:
            KernelRefused: with what nft says.
        """
        if self._functions is None or self._context is None:
            raise KernelRefused(MISSING)
        failed = self._functions.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._functions.nft_ctx_get_output_buffer(self._context)
        trouble: bytes = self._functions.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise KernelRefused(f"nftables refused: {' '.join(trouble.decode(errors='replace').split())}")
        return output.decode()

    def close(self) -> None:
        """Give back what the library holds."""
        if self._functions is not None and self._context is not None:
            self._functions.nft_ctx_free(self._context)
            self._context = None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes what the functions take: pointers have 64 bits, which it would not guess."""
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library
