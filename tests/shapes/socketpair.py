"""A child at the other end of a unix socket pair: stream by default, or seqpacket, or datagram."""

import socket

from shape import arguments, ask, child, run, serve

KINDS = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET, "datagram": socket.SOCK_DGRAM}
options = arguments(lambda parser: parser.add_argument("--kind", choices=KINDS, default="stream"))
ours, theirs = socket.socketpair(socket.AF_UNIX, KINDS[options.kind])


def partner() -> None:
    ours.close()
    serve(theirs.fileno(), theirs.fileno())


child(partner)
theirs.close()
run(lambda k: ask(k, ours.fileno(), ours.fileno()), options)
