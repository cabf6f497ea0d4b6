"""A netlink socket, as resolvers and system libraries open them."""

import socket

from shape import arguments, check, run

options = arguments()
routes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
routes.bind((0, 0))
run(lambda k: check(routes.getsockname()[0] > 0, "the netlink socket has no port"), options)
