"""A log that was truncated and opened without O_APPEND, as shells do it with `>`."""

from shape import arguments, run

options = arguments()
run(lambda k: None, options, open(options.log, "w", buffering=1))
