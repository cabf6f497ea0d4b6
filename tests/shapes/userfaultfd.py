"""A userfaultfd. CRIU cannot save it."""

from shape import arguments, check, libc, run

options = arguments()
check(libc.syscall(323, 0) >= 0, "no userfaultfd")
run(lambda k: None, options)
