"""A process whose first thread has ended while another goes on; with --joined it waits for that one."""

import threading
import time

from shape import arguments, libc, run

options = arguments(lambda parser: parser.add_argument("--joined", action="store_true"))


def work() -> None:
    time.sleep(0.2)
    run(lambda k: None, options)


threading.Thread(target=work).start()
if not options.joined:
    libc.syscall(60, 0)
