"""A unix socket whose other end is outside the tree.

--kind stream, seqpacket: connected to a stranger's server; CRIU cannot save half of a connection.
datagram: connected to a stranger's named socket, as syslog has it. pair: one end of a stream socket pair.
datagram_pair: one end of a datagram socket pair. sendto: sends to the stranger's socket, not connected to it.
unaccepted: connected to a server that never accepts. unaccepted_inside: that server is our own.
listener: our server, the stranger is its client. --absolute: the name of the socket is an absolute path.
"""

import argparse
import os
import socket
import time

from shape import arguments, check, run, stranger

KINDS = (
    "stream",
    "seqpacket",
    "datagram",
    "pair",
    "datagram_pair",
    "unaccepted",
    "unaccepted_inside",
    "listener",
    "sendto",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=KINDS, default="stream")
    parser.add_argument("--absolute", action="store_true")


options = arguments(add)
kind = socket.SOCK_STREAM
if options.kind in ("datagram", "datagram_pair", "sendto"):
    kind = socket.SOCK_DGRAM
elif options.kind == "seqpacket":
    kind = socket.SOCK_SEQPACKET
path = f"{os.path.abspath(options.log) if options.absolute else options.log}.socket"
server = socket.socket(socket.AF_UNIX, kind)


def serve() -> None:
    if kind == socket.SOCK_DGRAM:
        while True:
            server.recv(64)
    elif options.kind == "unaccepted":
        time.sleep(options.seconds)
    connection, _ = server.accept()
    while connection.recv(64):
        pass


def send(k: int) -> None:
    if options.kind == "sendto":
        client.sendto(b"%d" % k, path)
    else:
        client.send(b"%d" % k)


def connect() -> None:
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(path)
        while visitor.send(b"x"):
            time.sleep(0.05)


if options.kind in ("pair", "datagram_pair"):
    client, theirs = socket.socketpair(socket.AF_UNIX, kind)

    def read() -> None:
        client.close()
        while theirs.recv(64):
            pass

    stranger(read, options.seconds)
    theirs.close()
elif options.kind == "unaccepted_inside":
    server.bind(path)
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
elif options.kind == "listener":
    server.bind(path)
    server.listen()
    stranger(lambda: (server.close(), connect())[0], options.seconds)
    client, _ = server.accept()
else:
    server.bind(path)
    if kind != socket.SOCK_DGRAM:
        server.listen()
    stranger(serve, options.seconds)
    server.close()
    client = socket.socket(socket.AF_UNIX, kind)
    if options.kind != "sendto":
        client.connect(path)


def step(k: int) -> None:
    if options.kind == "listener":
        check(client.recv(64), "the visitor went away")
    elif not options.kind.startswith("unaccepted"):
        send(k)


run(step, options)
