"""The prototype that the userspace driver has to beat: one thread, a system call for each packet, no checks at all.

    python tun_prototype.py DEVICE LOCAL REMOTE

Makes the TUN device and carries all that it sends to REMOTE in protocol 4, and back, until it is ended.
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF, IFF_TUN_NO_PI, SO_RCVBUFFORCE = 0x400454CA, 0x1001, 33
SOCKET_BUFFER = 4 << 20


def main(device: str, local: str, remote: str) -> None:
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN_NO_PI))
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 4)
    raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER)
    raw.bind((local, 0))
    print("ready", flush=True)  # noqa: T201 - whoever started us waits for it
    while True:
        for ready in select.select((tun, raw), (), ())[0]:
            if ready == tun:
                raw.sendto(os.read(tun, 1 << 16), (remote, 0))
            else:
                packet = raw.recv(1 << 16)
                os.write(tun, packet[(packet[0] & 15) * 4 :])


if __name__ == "__main__":
    main(*sys.argv[1:])
