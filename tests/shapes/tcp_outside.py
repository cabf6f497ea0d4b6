"""A TCP connection to a server outside the tree, as trackers keep one.

A client that loses the connection connects again, unless --strict: then it must be the same connection.
"""

import contextlib
import socket
import threading

from shape import answer, arguments, check, run, stranger

options = arguments(lambda parser: parser.add_argument("--strict", action="store_true"))
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()


def serve() -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=reply, args=(connection,), daemon=True).start()


def reply(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        while request := connection.recv(64):
            connection.sendall(answer(int(request)))


stranger(serve, options.seconds)
listener.close()
client = socket.create_connection(address)
local = client.getsockname()


def step(k: int) -> None:
    global client
    try:
        client.sendall(b"%d" % k)
        got = client.recv(8)
    except OSError as error:
        check(not options.strict, f"the connection is lost: {error}")
        got = b""
    if not got:
        check(not options.strict, "the connection is lost: it was closed")
        client.close()
        client = socket.create_connection(address)
        client.sendall(b"%d" % k)
        got = client.recv(8)
    check(got == answer(k), "the server answered wrongly")
    check(not options.strict or client.getsockname() == local, "another connection")


run(step, options)
