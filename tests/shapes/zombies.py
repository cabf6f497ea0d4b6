"""A parent that does not reap: two dead children, one by exit and one by a signal, whose statuses must stay."""

import os
import signal
import time

from shape import arguments, check, run

options = arguments()
exited = os.fork()
if exited == 0:
    os._exit(7)
killed = os.fork()
if killed == 0:
    time.sleep(600)
os.kill(killed, signal.SIGKILL)
NO_REAP = os.WEXITED | os.WNOWAIT
os.waitid(os.P_PID, killed, NO_REAP)
os.waitid(os.P_PID, exited, NO_REAP)


def step(k: int) -> None:
    for pid, code, status in ((exited, os.CLD_EXITED, 7), (killed, os.CLD_KILLED, signal.SIGKILL)):
        result = os.waitid(os.P_PID, pid, NO_REAP | os.WNOHANG)
        check(result and (result.si_code, result.si_status) == (code, status), f"zombie {pid} is not as it was")


run(step, options)
