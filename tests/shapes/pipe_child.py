"""A child that answers over two pipes."""

import os

from shape import arguments, ask, child, run, serve

options = arguments()
ask_read, ask_write = os.pipe()
answer_read, answer_write = os.pipe()


def partner() -> None:
    os.close(ask_write)
    os.close(answer_read)
    serve(ask_read, answer_write)


child(partner)
os.close(ask_read)
os.close(answer_write)
run(lambda k: ask(k, ask_write, answer_read), options)
