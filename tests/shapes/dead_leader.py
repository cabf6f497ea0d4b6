"""A process whose first thread has ended while another goes on."""

import threading
import time

from shape import arguments, libc, run

options = arguments()


def work() -> None:
    time.sleep(0.2)
    run(lambda k: None, options)


threading.Thread(target=work).start()
libc.syscall(60, 0)
