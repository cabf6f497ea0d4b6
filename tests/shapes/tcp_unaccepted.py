"""A TCP server with a connection that it has not accepted yet, from inside the tree or (--outside) from a stranger."""

import socket
import time

from shape import arguments, check, run, stranger

options = arguments(lambda parser: parser.add_argument("--outside", action="store_true"))
listener = socket.create_server(("127.0.0.1", 0))
if options.outside:

    def visit() -> None:
        visitor = socket.create_connection(listener.getsockname())
        listener.close()
        time.sleep(options.seconds)
        visitor.close()

    stranger(visit, options.seconds)
    time.sleep(0.3)
else:
    client = socket.create_connection(listener.getsockname())
run(lambda k: check(listener.fileno() >= 0, "no listener"), options)
