"""Children that lead a session and a group of their own, one of them stopped."""

import os
import signal
import time

from shape import arguments, ask, check, child, run, serve

options = arguments()
ask_read, ask_write = os.pipe()
answer_read, answer_write = os.pipe()


def session() -> None:
    os.setsid()
    os.close(ask_write)
    os.close(answer_read)
    serve(ask_read, answer_write)


def group() -> None:
    os.setpgid(0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


leader, stopped = child(session), child(group)
os.close(ask_read)
os.close(answer_write)
os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)


def step(k: int) -> None:
    ask(k, ask_write, answer_read)
    check(os.getsid(leader) == leader, "the child no longer leads its session")
    check(os.getpgid(stopped) == stopped, "the child no longer leads its group")
    with open(f"/proc/{stopped}/stat") as stat:
        check(stat.read().rpartition(")")[2].split()[0] == "T", "the stopped child is not stopped")


run(step, options)
