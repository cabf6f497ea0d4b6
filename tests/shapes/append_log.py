"""A log opened for appending, as shells do it with `>>`: the plain case of every other shape."""

from shape import arguments, run

run(lambda k: None, arguments())
