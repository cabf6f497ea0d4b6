"""One process that holds both ends of a TCP connection and the listening socket, as a rendezvous store does."""

import socket

from shape import arguments, check, run

options = arguments()
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()


def step(k: int) -> None:
    text = f"{k}".encode()
    client.sendall(text)
    check(server.recv(64) == text, "the connection lost data")


run(step, options)
