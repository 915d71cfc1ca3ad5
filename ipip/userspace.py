"""The process that carries a tunnel's packets where the kernel has no ipip module; it outlives the agent.

    python -m ipip.userspace DEVICE SOCKET LOG VERSION

It makes the TUN device (persistent: routes through it survive this process), answers on SOCKET, detaches, and returns
0 to whoever started it once packets can flow. One JSON object a line: {"command": "configure", "local": ...,
"routes": [["10.65.2.0/26", "172.31.2.11"], ...], "allowed": [...]}, {"command": "status"}, {"command": "stop"}.
`device` speaks it. On a machine of several processors there is a further process for each, with a queue of its own;
they follow the first one, which asks them in the same language. Imports are few on purpose: all of it fits into 12 MB.
"""

import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
from struct import Struct

from ipip import queues
from ipip.batch import Library, library
from ipip.carrier import DEVICE_GONE, Carrier

TUN = "/dev/net/tun"
TUNSETIFF, TUNSETPERSIST, TUNSETOFFLOAD = 0x400454CA, 0x400454CB, 0x400454D0  # linux/if_tun.h
IFF_TUN, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x0100, 0x1000, 0x4000
CHECKSUMS, SEGMENTS, DATAGRAMS = 0x01, 0x02, 0x20 | 0x40  # TUN_F_CSUM, TUN_F_TSO4, TUN_F_USO4 and 6: only together
REQUEST = Struct("16sH22x")
"""struct ifreq: name and flags."""

PROCESS_NAME = "felix-ipip"
"""What ps and top show; `device` knows our processes by it."""

LONGEST_LINE = 8 << 20
"""Bytes of one request: 100,000 routes fit."""

CLIENTS = 16
"""Connections at once; further ones are closed."""


def open_tun(name: str) -> tuple[int, bool]:
    """Make or take over the TUN device, without a link-layer header and so that it stays when we go.

    Returns:
        a queue of it, and whether there can be more: not where the device was made by a version that had one.

    Raises:
        OSError: EBUSY while another process holds its one queue, EINVAL where a device of another kind has the name.
    """
    flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
    try:
        return open_queue(name, flags | IFF_MULTI_QUEUE), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return open_queue(name, flags), False


def open_queue(name: str, flags: int) -> int:
    """Make or take over a TUN device of these flags, or one more queue of it."""
    tun = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, TUNSETIFF, REQUEST.pack(name.encode(), flags))
        fcntl.ioctl(tun, TUNSETPERSIST, 1)
    except OSError:
        os.close(tun)
        raise
    return tun


def offload(tun: int, functions: Library | None) -> bool:
    """Have the device leave the cutting up of large packets to us, if we can; say whether that goes for UDP too."""
    offered = (CHECKSUMS | SEGMENTS | DATAGRAMS, CHECKSUMS | SEGMENTS) if functions else ()
    for features in (*offered, 0):
        try:
            fcntl.ioctl(tun, TUNSETOFFLOAD, features)
        except OSError:
            continue  # Linux cuts UDP up since 6.2
        return bool(features & DATAGRAMS)
    return False


def listen(path: str) -> socket.socket:
    """Listen where only root may connect; a socket file that a dead process left is replaced."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        if os.path.exists(path):  # noqa: PTH110 - pathlib costs 2 MB here
            os.unlink(path)  # noqa: PTH108 - same
        server.bind(path)
    except OSError:
        server.close()
        raise
    finally:
        os.umask(before)
    server.listen(CLIENTS)
    return server


def number(address: object) -> int:
    """Return an IPv4 address as a number; ValueError where it is none."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, str(address)), "big")
    except OSError as error:
        raise ValueError(f"{address!r} is no IPv4 address") from error


def prefix(text: object) -> tuple[int, int]:
    """Return network and length of a prefix; ValueError where it is none."""
    address, slash, length = str(text).partition("/")
    network, bits = number(address), int(length) if length.isdecimal() and len(length) < 3 else 33  # noqa: PLR2004
    if not slash or bits > 32 or network & ((1 << (32 - bits)) - 1):  # noqa: PLR2004 - bits of an IPv4 address
        raise ValueError(f"{text!r} is no IPv4 prefix")
    return network, bits


STATUS = b'{"command": "status"}'

LAST_BATCHES = 16
"""Before the end: as many packets as wait in the device at most."""


class HelperFailed(Exception):  # noqa: N818 - what happened, and the answer is to end
    """A further process does not answer: those that are left would carry only their part of the packets."""


class Client:
    """One connection to the control socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming = b""
        self.outgoing = b""


class Process:
    """Waits for packets and requests, and serves both."""

    def __init__(self, device: str, version: str, tun: int, share: bytes) -> None:
        self.device = device
        self.version = version
        functions = library()
        self.carrier = Carrier(tun, share, functions, datagrams=offload(tun, functions))
        self.running = True
        self.settings: dict[str, object] = {"local": None, "routes": [], "allowed": []}
        self._helpers: list[queues.Helper] = []
        self._server: socket.socket | None = None
        self._clients: dict[int, Client] = {}
        self._poll = select.epoll()
        self._poll.register(tun, select.EPOLLIN)
        self._raw = -1

    def serve(self, server: socket.socket, helpers: list[queues.Helper]) -> None:
        """Answer at a socket, and have the further processes do the same as this one."""
        self._server, self._helpers = server, helpers
        self._poll.register(server.fileno(), select.EPOLLIN)
        queues.watch(helpers, self._poll)

    def follow(self, sock: socket.socket) -> None:
        """Answer at a connection that stands."""
        sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._clients[sock.fileno()] = Client(sock)
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            OSError: DEVICE_GONE when somebody deletes the device; another when a further process fails.
        """
        tun, server = self.carrier.tun, self._server.fileno() if self._server else -1
        helpers = {helper.sock.fileno() for helper in self._helpers}
        while self.running:
            for descriptor, events in self._poll.poll():
                if descriptor == tun:
                    self.carrier.send()
                elif descriptor == self._raw:
                    self.carrier.receive()
                elif descriptor == server:
                    self._accept()
                elif descriptor in helpers:
                    raise ConnectionResetError(errno.ECONNRESET, "a queue's process has ended")
                elif descriptor in self._clients:  # not so: a raw socket that `configure` has just replaced
                    self._serve(self._clients[descriptor], events)

    def answer(self, line: bytes) -> dict[str, object]:
        """Do what one line asks for and return the reply; rubbish is answered with a sentence."""
        try:
            request = json.loads(line)
            command = request["command"]
            if command == "configure":
                self._configure(request, line)
            elif command == "stop":
                self._finish(line)
                return {}  # those that it would count in have ended
            elif command != "status":
                return {"error": f"{command!r} is no command; known are configure, status, stop"}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            return {"error": f"not understood: {error!r}"}
        except OSError as error:
            return {"error": f"packets cannot be sent from {request['local']}: {error.strerror}"}
        return self._status()

    def _status(self) -> dict[str, object]:
        if self._server is None:
            return {"counters": self.carrier.counters}
        status = {"version": self.version, "pid": os.getpid(), "device": self.device}
        return {**status, **self.settings, "counters": self._counters()}

    def _counters(self) -> dict[str, int]:
        counters = dict(self.carrier.counters)
        for helper in self._helpers:
            for name, value in self._ask(helper, STATUS)["counters"].items():
                counters[name] += value
        return counters

    def _ask(self, helper: queues.Helper, line: bytes) -> dict[str, dict[str, int]]:
        """Ask a further process; where one does not answer, all end, and the agent starts new ones."""
        try:
            return helper.ask(line)
        except OSError as error:
            raise HelperFailed from error

    def _configure(self, request: dict[str, object], line: bytes) -> None:
        routes, allowed = request["routes"], request["allowed"]
        if not isinstance(routes, list) or not isinstance(allowed, list):
            raise TypeError("routes and allowed are lists")
        parsed = [(*prefix(network), number(node)) for network, node in routes]
        self.carrier.configure(number(request["local"]), parsed, frozenset(map(number, allowed)))
        self.settings = {"local": request["local"], "routes": routes, "allowed": allowed}
        for helper in self._helpers:
            if "error" in self._ask(helper, line):
                raise HelperFailed
        fresh = self.carrier.raw.fileno() if self.carrier.raw else -1
        if fresh != self._raw:  # a closed socket has left the epoll set by itself
            self._poll.register(fresh, select.EPOLLIN)
            self._raw = fresh

    def _finish(self, line: bytes) -> None:
        """Carry what waits at both sides already, here and in the further processes, and end."""
        self.running = False
        for helper in self._helpers:
            self._ask(helper, line)
        try:
            for _ in range(LAST_BATCHES):
                self.carrier.send()
                self.carrier.receive()
        except OSError:
            return  # the device is down, or gone: nothing waits there

    def _accept(self) -> None:
        if self._server is None:
            return
        try:
            sock, _ = self._server.accept()
        except OSError:
            return  # the client has left already
        if len(self._clients) >= CLIENTS:
            sock.close()
            return
        self.follow(sock)

    def _serve(self, client: Client, events: int) -> None:
        try:
            open_still = self._read(client) if events & ~select.EPOLLOUT else True
            sent = client.sock.send(client.outgoing) if client.outgoing else 0
        except BlockingIOError:
            open_still, sent = True, 0
        except OSError:
            open_still, sent = False, 0
        client.outgoing = client.outgoing[sent:]
        if not open_still:
            del self._clients[client.sock.fileno()]
            client.sock.close()
        else:
            wanted = select.EPOLLIN | select.EPOLLOUT if client.outgoing else select.EPOLLIN
            self._poll.modify(client.sock.fileno(), wanted)

    def _read(self, client: Client) -> bool:
        """Take what came and answer whole lines; False when the client is done or talks without end."""
        data = client.sock.recv(1 << 16)
        *lines, client.incoming = (client.incoming + data).split(b"\n")
        for line in lines:
            client.outgoing += json.dumps(self.answer(line)).encode() + b"\n"
        return bool(data) and len(client.incoming) <= LONGEST_LINE


def detach(log: str) -> None:
    """Become a daemon: the starter returns, a session of our own, no descriptor of the starter's kept."""
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    kept = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, null), (1, null), (2, kept)):
        os.dup2(source, target)
    os.close(null)
    os.close(kept)
    os.chdir("/")
    name_process(PROCESS_NAME)


def name_process(name: str) -> None:
    """Have ps and top show a name."""
    with open("/proc/self/comm", "w") as file:  # noqa: PTH123 - pathlib costs 2 MB here
        file.write(name)


def note(event: str, **fields: object) -> None:
    """Log one JSON line; a full disk must not stop packets."""
    line = json.dumps({"event": event, "pid": os.getpid(), **fields}) + "\n"
    try:
        os.write(sys.stderr.fileno(), line.encode())
    except OSError:
        return


def helper(device: str, version: str, index: int, total: int, ends: tuple[int, ...]) -> queues.Helper:
    """Start a further process, with a queue of its own, and return how to talk to it.

    Args:
        device: the TUN device.
        version: of the program.
        index: of the process, from 1.
        total: how many there will be, the first one included.
        ends: descriptors of the first process's that it has no business with.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    if os.fork():
        theirs.close()
        return queues.Helper(ours)
    queues.die_with(parent)
    for descriptor in (*ends, ours.detach()):
        os.close(descriptor)
    name_process(f"{PROCESS_NAME}-{index}")
    tun = open_queue(device, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE)
    process = Process(device, version, tun, queues.share(index, total))
    process.follow(theirs)
    try:
        process.run()
    except OSError as error:
        if error.errno != DEVICE_GONE:
            note("fault", device=device, queue=index, reason=str(error))
            os._exit(1)
    signal.pause()  # the first process finds the device gone, too, and says so; with it we end
    os._exit(0)


def main(arguments: list[str]) -> int:
    """Run the process; the starter gets 0 once the device is there and the socket answers."""
    try:
        device, path, log, version = arguments
    except ValueError:
        sys.stderr.write("usage: python -m ipip.userspace DEVICE SOCKET LOG VERSION\n")
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the starter's terminal is not meant for us
    try:
        tun, several = open_tun(device)
        server = listen(path)
    except OSError as error:
        remedy = f"{TUN} is missing: `modprobe tun`, or give the container --device {TUN}"
        missing = error.filename == TUN and error.errno == errno.ENOENT
        sys.stderr.write(f"{remedy if missing else error.strerror}\n")
        return 1
    detach(log)
    total = queues.count() if several else 1
    ends = (tun, server.fileno())
    helpers = [helper(device, version, index, total, ends) for index in range(1, total)]
    process = Process(device, version, tun, queues.share(0, total))
    process.serve(server, helpers)
    return supervise(process)


def supervise(process: Process) -> int:
    """Run the first process until it is told to end or cannot go on; return its exit status."""
    device = process.device
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt, for poll() waits on
    note("started", device=device, version=process.version)
    try:
        process.run()
    except KeyboardInterrupt:
        note("stopped", device=device, reason="SIGTERM")
        return 0
    except (OSError, HelperFailed) as error:
        gone = isinstance(error, OSError) and error.errno == DEVICE_GONE
        note("fault", device=device, reason=f"{device} was deleted" if gone else str(error) or HelperFailed.__doc__)
        return 1
    note("stopped", device=device)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
