"""A UDP socket that talks to itself, connected.

It sends again what was lost, as whoever uses UDP must: CRIU saves no datagrams that wait to be received.
"""

import socket

from shape import arguments, check, run

options = arguments()
endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
endpoint.bind(("127.0.0.1", 0))
endpoint.connect(endpoint.getsockname())
endpoint.settimeout(0.2)
TRIES = 25


def step(k: int) -> None:
    for _ in range(TRIES):
        endpoint.send(b"%d" % k)
        try:
            while endpoint.recv(64) != b"%d" % k:
                pass  # one that was sent twice
        except TimeoutError:
            continue
        return
    check(False, "the socket receives nothing")


run(step, options)
