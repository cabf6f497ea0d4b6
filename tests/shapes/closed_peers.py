"""Sockets and a pipe whose other end was closed, by which their holder must still be told of the end."""

import os
import socket

from shape import arguments, check, run

options = arguments()
stream, closed = socket.socketpair()
closed.sendall(b"last words")
closed.close()
half, other = socket.socketpair()
half.shutdown(socket.SHUT_WR)
read, write = os.pipe()
os.close(write)


def step(k: int) -> None:
    check(stream.recv(64, socket.MSG_PEEK) == b"last words", "the last words of the peer are lost")
    check(os.read(read, 1) == b"", "the pipe is not at its end")
    other.sendall(b"x")
    check(half.recv(1) == b"x" and other.recv(1) == b"", "the half-closed pair is another")


run(step, options)
