"""A hostile initiator beside a healthy one, or what takes as much of a CPU and harms nobody.

usage: hostile.py ADDRESS PORT TARGET logins|nops|immediates|connects
       hostile.py busy SHARE          (SHARE of one CPU)

Prints a line when it is under way; goes on until it is killed.
"""
import os
import select
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../tests/support"))
from scripted_initiator import Closed, Session, Silence  # noqa: E402

ELSEWHERE = ("127.0.0.2", 0)  # what one address may hold is not to be taken from the healthy
SLOW = 32
BATCH = 64


def started():
    print("under way", flush=True)


def connection(address, port):
    return socket.create_connection((address, port), 10, ELSEWHERE)


def logins(address, port, _):
    """Always so many that have sent a byte of their login and no more."""
    slow = {}
    started()
    while True:
        while len(slow) < SLOW:
            one = connection(address, port)
            try:
                one.sendall(b"\x43")
            except OSError:
                pass
            slow[one] = None
        for one in select.select(list(slow), [], [], 1)[0]:
            del slow[one]
            one.close()


def connects(address, port, _):
    started()
    while True:
        connection(address, port).close()


def storm(session, data):
    """The same bytes again and again; what comes back is read, to keep it going."""
    session.sock.setblocking(False)
    left = memoryview(data)
    while True:
        readable, writable, _ = select.select([session.sock], [session.sock], [], 10)
        if readable and not session.sock.recv(1 << 20):
            raise Closed
        if writable:
            left = left[session.sock.send(left):] or memoryview(data)


def storms(address, port, target, build):
    started_once = False
    while True:
        try:
            session = Session(address, port).login(target)
            session.test_unit_ready()
            data = b"".join(session.encode(build(session)) for _ in range(BATCH))
            if not started_once:
                started()
            started_once = True
            storm(session, data)
        except (Closed, Silence, OSError):
            session.close()  # cut off: it comes again


def nops(address, port, target):
    storms(address, port, target, lambda session: session.nop(b"x" * 4096))


def immediates(address, port, target):
    storms(address, port, target, lambda session: session.command(bytes(6), immediate=True))


def busy(share):
    started()
    while True:
        began = time.monotonic()
        used = time.thread_time()
        while time.thread_time() - used < 0.005 * share:
            pass
        time.sleep(max(0.0, 0.005 - (time.monotonic() - began)))


KINDS = {"logins": logins, "nops": nops, "immediates": immediates, "connects": connects}

if __name__ == "__main__":
    if sys.argv[1] == "busy":
        busy(float(sys.argv[2]))
    else:
        KINDS[sys.argv[4]](sys.argv[1], int(sys.argv[2]), sys.argv[3])
