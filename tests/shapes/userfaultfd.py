"""A userfaultfd. CRIU cannot save it."""

from shape import arguments, libc, need, run

options = arguments()
need(libc.syscall(323, 0) >= 0, "no userfaultfd")
run(lambda k: None, options)
