"""A TCP server in a child, and a client connected to it, over IPv4 or IPv6, or an IPv4 client of an IPv6 server."""

import socket

from shape import arguments, ask, child, run, serve

FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6, "mapped": socket.AF_INET6}
options = arguments(lambda parser: parser.add_argument("--family", choices=FAMILIES, default="4"))
listener = socket.socket(FAMILIES[options.family])
if options.family == "mapped":
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind({"4": ("127.0.0.1", 0), "6": ("::1", 0), "mapped": ("::", 0)}[options.family])
listener.listen()


def partner() -> None:
    connection, _ = listener.accept()
    serve(connection.fileno(), connection.fileno())


child(partner)
client = socket.create_connection(("::1" if options.family == "6" else "127.0.0.1", listener.getsockname()[1]))
run(lambda k: ask(k, client.fileno(), client.fileno()), options)
