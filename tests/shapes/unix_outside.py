"""A unix socket whose other end is outside the tree.

--kind stream, seqpacket: connected to a stranger's server; CRIU cannot save half of a connection.
datagram: connected to a stranger's named socket, as syslog has it. pair: one end of a stream socket pair.
unaccepted: connected to a server that never accepts. listener: our server, the stranger is its client.
"""

import os
import socket
import time

from shape import arguments, check, run, stranger

KINDS = ("stream", "seqpacket", "datagram", "pair", "datagram_pair", "unaccepted", "listener", "sendto")
options = arguments(lambda parser: parser.add_argument("--kind", choices=KINDS, default="stream"))
kind = socket.SOCK_STREAM
if options.kind in ("datagram", "datagram_pair", "sendto"):
    kind = socket.SOCK_DGRAM
elif options.kind == "seqpacket":
    kind = socket.SOCK_SEQPACKET
path = f"{options.log}.socket"
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
    elif options.kind != "unaccepted":
        send(k)


run(step, options)
