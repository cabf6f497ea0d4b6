"""A unix stream server in a child, at a path or an abstract name, and a client connected to it."""

import socket

from shape import arguments, ask, child, run, serve

options = arguments(lambda parser: parser.add_argument("--abstract", action="store_true"))
name = f"\0{options.log}" if options.abstract else f"{options.log}.socket"
listener = socket.socket(socket.AF_UNIX)
listener.bind(name)
listener.listen()


def partner() -> None:
    connection, _ = listener.accept()
    serve(connection.fileno(), connection.fileno())


child(partner)
client = socket.socket(socket.AF_UNIX)
client.connect(name)
run(lambda k: ask(k, client.fileno(), client.fileno()), options)
