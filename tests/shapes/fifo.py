"""A child that answers over two named pipes."""

import os

from shape import arguments, ask, child, run, serve

options = arguments()
names = [f"{options.log}.ask", f"{options.log}.answer"]
for name in names:
    os.mkfifo(name)


def partner() -> None:
    serve(os.open(names[0], os.O_RDONLY), os.open(names[1], os.O_WRONLY))


child(partner)
send, receive = os.open(names[0], os.O_WRONLY), os.open(names[1], os.O_RDONLY)
run(lambda k: ask(k, send, receive), options)
