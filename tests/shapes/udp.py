"""A UDP socket that talks to itself, connected."""

import socket

from shape import arguments, check, run

options = arguments()
endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
endpoint.bind(("127.0.0.1", 0))
endpoint.connect(endpoint.getsockname())
endpoint.settimeout(5)


def step(k: int) -> None:
    endpoint.send(b"%d" % k)
    check(endpoint.recv(64) == b"%d" % k, "a datagram was lost")


run(step, options)
