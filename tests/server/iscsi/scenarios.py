#!/usr/bin/env python3
"""Scenes that initiators play before the target, honest and hostile ones.

    scenarios.py NAME PORT PORT6     one scene; exit status 0 when all went as it must

The rig (target_rig.c) that serves the target answers lines on standard output: "hold 0",
"held 0 N", "let 0", "sessions 0 [N]", "crowd 0 N" (waits until so many sessions and
connections are there, says how many), "more 0 N" (exports), "withdraw 0 MS", "publish 0",
"change 0 NAME [MS|no]", "secret 1 SECRET", "stand 1" (its loop does nothing more), "go 1",
"descriptors 0 no|again" (that could be opened), "idle 0" (what its loop had to do is done).
"""
import os
import random
import select
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "support"))
from scripted_initiator import *  # noqa: E402,F403

BASE = "iqn.2026-11.org.replicad:00000000-0000-7000-8000-%012d"
OPEN, LOCKED, PRIVATE = BASE % 1, BASE % 2, BASE % 3
CHAP = {"user": "alice", "secret": "alice-has-a-secret"}
MUTUAL = ("target", "target-has-its-own")
PORT = PORT6 = 0
SEED = int(os.environ.get("REPLICAD_SEED") or random.SystemRandom().randrange(1 << 32))
RANDOM = random.Random(SEED)


def ask(line):
    print(line, flush=True)
    return int(sys.stdin.readline())


def noise(length):
    return RANDOM.randbytes(length)


def connect(**how):
    return Session("127.0.0.1", PORT, **how)


def enter(target=OPEN, isid=None, name=None, chap=None, **changes):
    how = {"isid": isid}
    if name:
        how["name"] = name
    session = connect(**how).login(target, chap, **changes)
    return session.test_unit_ready() if target else session


def healthy():
    """The target still serves others."""
    session = enter()
    data = noise(4096)
    session.write(8, data)
    assert session.read(8, 8) == data
    session.send(session.logout())
    session.expect(LOGOUT_RESPONSE)
    session.close()


def expect_status(answer, status):
    assert answer[36] >> 16 == status, f"login status {answer[36] >> 16:04x}"


# -- honest ---------------------------------------------------------------------------------------

def transfers():
    """Every way that data can take, with each pair of digests."""
    for header, data in (("None", "None"), ("CRC32C", "None"), ("None", "CRC32C"),
                         ("CRC32C", "CRC32C")):
        for initial, immediate in (("No", "Yes"), ("Yes", "Yes"), ("No", "No"), ("Yes", "No")):
            session = enter(HeaderDigest=header, DataDigest=data, InitialR2T=initial,
                            ImmediateData=immediate, FirstBurstLength="8192",
                            MaxBurstLength="16384", MaxRecvDataSegmentLength="1024")
            for blocks in (1, 3, 16, 100, 700):
                payload = noise(blocks * 512)
                session.write(blocks, payload, immediate=4096 if immediate == "Yes" else 0)
                assert session.read(blocks, blocks) == payload
            session.close()


def unsolicited():
    """Data-Out that nobody asked for, up to the first burst, in pieces of odd sizes."""
    session = enter(InitialR2T="No", FirstBurstLength="16384")
    payload = noise(64 * 512)
    for first in (0, 512, 4096):
        pdu = session.write_pdu(100, 64, payload[:first], final=False)
        itt, at, datasn = pdu["itt"], first, 0
        session.send(pdu)
        while at < 16384:
            length = min(RANDOM.randrange(1, 5000), 16384 - at)
            session.send(session.data_out(itt, NO_TAG, datasn, at, payload[at:at + length],
                                          at + length == 16384))
            at, datasn = at + length, datasn + 1
        assert session.feed(itt, payload, 3000).status == 0
        assert session.read(100, 64) == payload


def unsolicited_of_a_failure():
    """A command that fails at once still hears its unsolicited data, then answers."""
    session = enter(InitialR2T="No")
    pdu = session.write_pdu(0x7FFFFFFF, 16, b"x" * 512, final=False)
    session.send(pdu)
    nop = session.nop()
    session.send(nop)
    session.expect(NOP_IN, nop["itt"])  # and not the response
    session.send(session.data_out(pdu["itt"], NO_TAG, 0, 512, b"x" * 512, True))
    assert session.expect(RESPONSE, pdu["itt"]).status == 2
    assert session.read(0, 1) is not None


def reset_of_a_failure():
    """Of a command that failed and was aborted then, nothing is heard any more."""
    session = enter(InitialR2T="No")
    for function in (1, 2, 5):
        pdu = session.write_pdu(0x7FFFFFFF, 16, b"x" * 512, final=False)
        session.send(pdu)
        tmf = session.tmf(function, pdu["itt"] if function == 1 else NO_TAG, pdu["cmdsn"])
        session.send(tmf)
        assert session.expect(TMF_RESPONSE, tmf["itt"]).response == 0
        session.send(session.data_out(pdu["itt"], NO_TAG, 0, 512, b"x" * 512, True))
        nop = session.nop()
        session.send(nop)
        session.expect(NOP_IN, nop["itt"])
    session.test_unit_ready()
    session.read(0, 1)


def bursts():
    """Large commands: R2T as agreed, data-in sequences end where bursts do."""
    session = enter(MaxBurstLength="65536", MaxOutstandingR2T="8",
                    MaxRecvDataSegmentLength="8192")
    payload = noise(2 << 20)
    session.write(0, payload, immediate=0)
    pdu = session.read_pdu(0, 4096)
    session.send(pdu)
    data = b""
    while True:
        part = session.expect(DATA_IN, pdu["itt"])
        assert len(part.data) <= 8192 and part["offset"] == len(data)
        data += part.data
        assert bool(part.flags & FINAL) == (len(data) % 65536 == 0)
        if part.flags & 1:
            break
    assert data == payload
    outstanding = session.write_pdu(0, 1024)
    session.send(outstanding)
    r2ts = [session.expect(R2T) for _ in range(4)]
    assert [r["offset"] for r in r2ts] == [0, 65536, 131072, 196608]
    for r2t in r2ts:
        session.send(*session.burst(outstanding["itt"], r2t, payload, 8192))
    assert session.feed(outstanding["itt"], payload, r2tsn=4).status == 0


def windows():
    """Numbers wrap, the window holds 32, what is outside is not heard."""
    for start in (1, 0x7FFFFFF0, 0xFFFFFFF0, 0xFFFFFFFF, 0):
        session = connect()
        session.cmdsn = start
        session.login(OPEN).test_unit_ready()
        for _ in range(40):
            session.read(0, 1)
        nop = session.nop()
        session.send(nop)
        answer = session.expect(NOP_IN, nop["itt"])
        assert answer["expcmdsn"] == session.cmdsn, "ExpCmdSN"
        assert answer["maxcmdsn"] == session.cmdsn + 31 & NO_TAG, "MaxCmdSN"
        far = session.read_pdu(0, 1)
        far["cmdsn"] = answer["maxcmdsn"] + 1
        old = session.read_pdu(0, 1)
        old["cmdsn"] = start - 1
        session.cmdsn = session.cmdsn - 2 & NO_TAG
        session.send(far, old)
        session.read(0, 1)  # the next to answer is this one
        for _ in range(70):  # and nothing of the old one is left
            session.read(0, 1)


def full_window():
    """32 commands and no more; the window is shut while none is answered."""
    session = enter()
    ask("hold 0")
    pdus = [session.read_pdu(n, 1) for n in range(32)]
    session.send(*pdus)
    ask("held 0 32")
    nop = session.nop()
    session.send(nop)
    answer = session.expect(NOP_IN, nop["itt"])
    assert answer["maxcmdsn"] == session.cmdsn - 1 & NO_TAG, "a shut window"
    one_more = session.read_pdu(0, 1)
    session.send(one_more)  # beyond it: not heard
    session.cmdsn -= 1
    ask("let 0")
    done = {session.expect(DATA_IN)["itt"] for _ in range(32)}
    assert done == {pdu["itt"] for pdu in pdus}
    session.read(0, 1)


def window_after_a_reset():
    """Commands that another session's reset ends are not answered; that they hold the window no
    more is told at once all the same, or who filled it would wait for the next ping."""
    session, other = enter(), enter()
    ask("hold 0")
    session.send(*[session.read_pdu(n, 1) for n in range(32)])
    ask("held 0 32")
    tmf, probe = other.tmf(5), other.nop()
    other.send(tmf, probe)
    other.expect(NOP_IN, probe["itt"])
    ask("let 0")
    assert other.expect(TMF_RESPONSE, tmf["itt"]).response == 0
    told = session.expect(NOP_IN, NO_TAG)
    assert told["ttt"] == NO_TAG, "a ping, after all that silence"
    assert told["expcmdsn"] == session.cmdsn, told
    assert (told["maxcmdsn"] - session.cmdsn & NO_TAG) < 32, "still shut"
    session.test_unit_ready()
    session.read(0, 1)


def holes():
    """What comes before its turn waits; what fills the hole lets it go, in order."""
    session = enter()
    promised = session.maxcmdsn
    pdus = [session.read_pdu(n, 1) for n in range(6)]
    nop = session.nop(b"in turn", immediate=False)
    session.send(nop, *reversed(pdus[1:]))
    session.send(Pdu(header=pdus[3].header))  # twice: the second is not heard
    probe = session.nop(b"now")
    session.send(probe)
    answer = session.expect(NOP_IN, probe["itt"])
    assert answer["expcmdsn"] == pdus[0]["cmdsn"] and answer.data == b"now"
    assert answer["maxcmdsn"] == promised, "the window shrank"
    session.send(pdus[0])
    answers = {pdu["itt"]: pdu for pdu in (session.receive() for _ in range(7))}
    assert all(answers[pdu["itt"]].flags & 1 for pdu in pdus)
    assert answers[nop["itt"]].data == b"in turn"
    session.read(0, 1)


def discovery():
    """Each name hears what it may use, by the portal that it came in on."""
    session = enter(None)
    session.send(session.send_targets())
    answer = session.expect(TEXT_RESPONSE)
    assert answer.data == text([("TargetName", OPEN),
                                ("TargetAddress", f"127.0.0.1:{PORT},1")]), answer.data
    session.send(session.read_pdu(0, 1))
    session.expect_closed()
    session = Session("::1", PORT6, name="iqn.2026-11.org.replicad:only").login(None)
    session.send(session.send_targets())
    answer = session.expect(TEXT_RESPONSE)
    assert f"[::1]:{PORT6},1".encode() in answer.data and OPEN.encode() in answer.data
    assert PRIVATE.encode() in answer.data and LOCKED.encode() not in answer.data
    session.send(session.logout())
    session.expect(LOGOUT_RESPONSE)
    session.expect_closed()
    session = enter()
    session.send(session.send_targets(""))
    assert OPEN.encode() in session.expect(TEXT_RESPONSE).data
    session.send(session.send_targets(LOCKED))
    assert LOCKED.encode() not in session.expect(TEXT_RESPONSE).data


def text_in_pieces():
    """An answer longer than the peer takes at once."""
    ask("change 2 *")
    ask("more 0 6")
    session = enter(None, MaxRecvDataSegmentLength="512")
    whole = b""
    pdu = session.send_targets()
    session.send(pdu)
    for _ in range(64):
        answer = session.expect(TEXT_RESPONSE)
        assert len(answer.data) <= 512
        whole += answer.data
        if answer.flags & FINAL:
            break
        assert answer.flags == 0x40 and answer["ttt"] != NO_TAG, answer
        session.send(session.send_targets(None, ttt=answer["ttt"], itt=pdu["itt"]))
    assert answer["ttt"] == NO_TAG
    assert whole.count(b"TargetName=") == 8, whole
    session.send(session.send_targets(None, ttt=0x1234))
    assert session.expect(REJECT).response == 9


def text_twice():
    """A second question before the first is answered is rejected, and not answered too."""
    session = enter()
    nop = session.nop(immediate=False)
    first, second = session.send_targets(""), session.send_targets("", immediate=True)
    session.send(first, second)  # the first waits for the number before it
    assert session.expect(REJECT).response == 4
    session.send(nop)
    session.expect(NOP_IN, nop["itt"])
    assert OPEN.encode() in session.expect(TEXT_RESPONSE, first["itt"]).data
    session.read(0, 1)


def chap():
    """All four algorithms, one way and both; wrong ones and strangers are refused."""
    for algorithm in (5, 6, 7, 8):
        for mutual in (None, MUTUAL):
            how = {**CHAP, "algorithm": algorithm, "mutual": mutual}
            session = enter(LOCKED, chap=how)
            session.write(0, noise(8192))
            session.close()
    expect_status(connect().chap(LOCKED, **CHAP, spoil=True), 0x0201)
    expect_status(connect().chap(LOCKED, "bob", "bob-has-a-secret"), 0x0201)
    bare = connect()
    expect_status(bare.login_step(1, 3, bare.names(LOCKED)), 0x0201)
    expect_status(bare_login(PRIVATE), 0x0202)
    expect_status(bare_login(BASE % 9), 0x0203)
    for _ in range(8):
        connect().chap(LOCKED, **CHAP, spoil=True)
    expect_status(connect().login_step(0, 0, connect().names(LOCKED) +
                                       [("AuthMethod", "CHAP")], False), 0x0201)
    other = connect(name="iqn.2026-11.org.replicad:another")
    assert other.login(LOCKED, CHAP).test_unit_ready()  # only the name that failed waits


def bare_login(target):
    session = connect()
    return session.login_step(1, 3, session.names(target) + session.offers({}))


def discovery_with_chap():
    """When no open export is there, discovery wants to know who asks."""
    ask("change 0 iqn.2026-11.org.replicad:nobody")
    expect_status(bare_login(None), 0x0201)
    session = enter(None, chap=CHAP)
    session.send(session.send_targets())
    assert LOCKED.encode() in session.expect(TEXT_RESPONSE).data


def steady():
    """After the login no command costs an allocation, whichever way its data comes."""
    sessions = [enter(InitialR2T=initial, ImmediateData=immediate, HeaderDigest=digest,
                      DataDigest=digest, MaxRecvDataSegmentLength="8192")
                for initial, immediate, digest in (("No", "Yes", "None"), ("Yes", "No", "CRC32C"))]
    payload = noise(300 * 512)

    def everything():
        for session in sessions:
            for blocks in (1, 16, 17, 300):
                session.write(7, payload[:blocks * 512],
                              immediate=4096 if session is sessions[0] else 0)
                assert session.read(7, blocks) == payload[:blocks * 512]
            pdus = [session.read_pdu(n, 8) for n in range(32)]
            session.send(*pdus)
            for pdu in pdus:
                session.collect(pdu["itt"])
            nop = session.nop(b"x" * 100)
            session.send(nop)
            session.expect(NOP_IN, nop["itt"])
            tmf = session.tmf(2)
            session.send(tmf)
            session.expect(TMF_RESPONSE, tmf["itt"])

    for _ in range(5):
        everything()
    assert (ask("allocations 0") > 0) == bool(ask("counts 0"))
    for _ in range(30):
        everything()
    assert ask("allocations 0") == 0


# -- task management ------------------------------------------------------------------------------

def abort_in_flight():
    """ABORT TASK and its kin answer when the command has really ended."""
    for function in (1, 2, 4, 5, 6):
        session = enter()
        ask("hold 0")
        victims = [session.write_pdu(n, 1, b"v" * 512) for n in range(3)]
        session.send(*victims)
        ask("held 0 3")
        tmf = session.tmf(function, victims[0]["itt"])
        session.send(tmf)
        time.sleep(0.2)
        probe = session.nop()
        session.send(probe)
        session.expect(NOP_IN, probe["itt"])  # nothing else before it
        ask("let 0")
        answers = [session.receive() for _ in range(3 if function == 1 else 1)]
        last = answers[-1] if function != 1 else next(
            a for a in answers if a.opcode == TMF_RESPONSE)
        assert last.opcode == TMF_RESPONSE and last.response == 0, last
        assert not any(a["itt"] == victims[0]["itt"] for a in answers)
        session.test_unit_ready()
        session.read(0, 1)
        session.close()


def abort_while_wanting():
    """Data that was asked for is not waited for, whatever ended its command. What comes late is
    let go, though by then another command has the same tag and waits for data of its own."""
    session = enter(InitialR2T="Yes", ImmediateData="No")
    for function in (1, 2, 4, 5, 6):
        pdu = session.write_pdu(0, 16)
        session.send(pdu)
        r2t = session.expect(R2T, pdu["itt"])
        tmf = session.tmf(function, pdu["itt"] if function == 1 else NO_TAG)
        session.send(tmf)
        assert session.expect(TMF_RESPONSE, tmf["itt"]).response == 0
        session.test_unit_ready()
        fresh, again = noise(8192), session.write_pdu(0, 16, itt=pdu["itt"])
        session.send(again)
        asked = session.expect(R2T, again["itt"])
        assert asked["ttt"] != r2t["ttt"]
        session.send(session.data_out(pdu["itt"], r2t["ttt"], 0, 0, b"l" * 8192),
                     session.data_out(again["itt"], asked["ttt"], 0, 0, fresh))
        end = session.expect(RESPONSE, again["itt"])
        assert end.status == 0, end
        assert session.read(0, 16) == fresh
    session.write(0, noise(8192), immediate=0)


def aborted_and_never_fed():
    """Of a command that was aborted no data is owed any more, wherever it stood: in the unit, at
    its end, or behind a hole. What comes all the same is let go."""
    session = enter(InitialR2T="No", ImmediateData="Yes")
    other = enter(name=named("other"))
    for function in (1, 2, 5):
        begun = session.write_pdu(0, 64, b"x" * 512, final=False)
        failed = session.write_pdu(0x7FFFFFFF, 16, b"x" * 512, final=False)
        session.send(begun, failed)
        for pdu in (begun, failed):
            tmf = session.tmf(function, pdu["itt"] if function == 1 else NO_TAG, pdu["cmdsn"])
            session.send(tmf)
            assert session.expect(TMF_RESPONSE, tmf["itt"]).response == 0
        time.sleep(1.5)
        session.send(session.data_out(begun["itt"], NO_TAG, 0, 512, b"x" * 512, True))
        session.send(session.data_out(failed["itt"], NO_TAG, 0, 512, b"x" * 512, False))
        session.test_unit_ready().read(0, 1)
        other.test_unit_ready()
    filler = session.nop(immediate=False)
    held = session.write_pdu(0, 64, b"x" * 512, final=False)
    session.send(held)
    tmf = session.tmf(1, held["itt"], held["cmdsn"])
    session.send(tmf)
    assert session.expect(TMF_RESPONSE, tmf["itt"]).response == 0
    session.send(filler)
    session.expect(NOP_IN, filler["itt"])
    session.send(session.data_out(held["itt"], NO_TAG, 0, 512, b"x" * 512, True))
    session.read(0, 1)
    healthy()


def slow_link():
    """What is owed last may come as late as all the rest takes."""
    session = enter(ImmediateData="No", InitialR2T="Yes")
    payload = noise(262144)
    pdus = [session.write_pdu(0, 512) for _ in range(8)]
    session.send(*pdus)
    r2ts = [session.expect(R2T) for _ in pdus]
    for r2t in r2ts[:-1]:
        session.send(*session.burst(r2t["itt"], r2t, payload))
        assert session.expect(RESPONSE, r2t["itt"]).status == 0
    time.sleep(2)  # of which each MiB has paid for 32 s
    session.send(*session.burst(r2ts[-1]["itt"], r2ts[-1], payload))
    assert session.expect(RESPONSE, r2ts[-1]["itt"]).status == 0
    assert session.read(0, 512) == payload


def owed_in_drops():
    """One that sends what it owes a few bytes at a time is not waited for."""
    session = enter(ImmediateData="No", InitialR2T="Yes")
    pdu = session.write_pdu(0, 512)
    session.send(pdu)
    r2t = session.expect(R2T, pdu["itt"])
    for n in range(100):
        try:
            session.send(session.data_out(pdu["itt"], r2t["ttt"], n, n * 4, b"drop", False))
        except Closed:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("it may go on for ever")
    healthy()


def taken_in_drops():
    """One that takes its answers a few bytes at a time does not keep them for ever."""
    session = enter()
    session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    session.send(*[session.read_pdu(0, 16384) for _ in range(8)])
    for _ in range(100):
        session.sock.recv(4096)
        if ask("sessions 0") == 0:
            break
        time.sleep(0.2)
    else:
        raise AssertionError("it may go on for ever")
    healthy()


def slow_readers():
    """They ask for more than there are buffers and take nothing: others are served, large and
    small, and nobody is sent away for it."""
    lazy = [enter(name=named("lazy")) for _ in range(4)]
    for session in lazy:
        session.send(*[session.read_pdu(0, 512) for _ in range(32)])
        session.send(session.write_pdu(0, 512))
    for _ in range(20):
        healthy()
    host = enter(name=named("host"))
    payload = noise(262144)
    for _ in range(20):
        host.write(0, payload)
        assert host.read(0, 512) == payload
    assert ask("sessions 0") == 5, "somebody was sent away"
    for session in lazy:
        got = 0
        while got < 32:
            pdu = session.receive()
            got += pdu.opcode == DATA_IN and pdu.flags & 1
    host.read(0, 1)


def abort_strangers():
    """RefCmdSN decides what an unknown tag means; wrong units and functions are told apart."""
    session = enter()
    pdu = session.tmf(1, 0x9999, refcmdsn=session.cmdsn - 1)
    session.send(pdu)
    assert session.expect(TMF_RESPONSE, pdu["itt"]).response == 1
    for function, response, lun in ((3, 5, 0), (7, 5, 0), (8, 4, 0), (9, 5, 0), (5, 2, 3),
                                    (1, 2, 3), (6, 0, 3)):
        pdu = session.tmf(function, 0x9999, lun=lun)
        session.send(pdu)
        answer = session.expect(TMF_RESPONSE, pdu["itt"])
        assert answer.response == response, (function, answer)
    session.test_unit_ready()
    lost = session.number()  # a command that never arrives
    behind = session.read_pdu(0, 1)
    session.send(behind)
    pdu = session.tmf(1, 0x8888, refcmdsn=lost)
    session.send(pdu)
    answers = {session.receive().opcode: 1 for _ in range(2)}
    assert set(answers) == {DATA_IN, TMF_RESPONSE}
    session.read(0, 1)


def wrong_units():
    session = enter()
    pdu = session.command(bytes(6), lun=5)
    session.send(pdu)
    end = session.collect(pdu["itt"])[1]
    assert end.status == 2 and end.sense == (5, 0x2500), end.sense
    pdu = session.command(bytes([0x12, 0, 0, 0, 96, 0]), FINAL | READ, 96, lun=5)
    session.send(pdu)
    data, end = session.collect(pdu["itt"])
    assert end.status == 0 and data[0] >> 5 == 3, data


def residuals():
    session = enter()
    for blocks, expected, flag, residual in ((1, 0, 4, 512), (1, 10000, 2, 9488),
                                             (1, 200, 4, 312), (2, 512, 4, 512)):
        pdu = session.read_pdu(0, blocks)
        pdu["expected"] = expected
        session.send(pdu)
        data, end = session.collect(pdu["itt"])
        assert end.status == 0 and len(data) == min(expected, blocks * 512)
        assert end.flags & 6 == flag and end["residual"] == residual, end
    pdu = session.write_pdu(0, 2, b"w" * 512)
    pdu["expected"] = 512
    session.send(pdu)
    end = session.feed(pdu["itt"], b"w" * 512)
    assert end.flags & 6 == 4 and end["residual"] == 512, end
    pdu = session.write_pdu(0, 1, b"w" * 1024)
    pdu["expected"] = 1024
    session.send(pdu)
    end = session.feed(pdu["itt"], b"w" * 1024)
    assert end.flags & 6 == 2 and end["residual"] == 512, end


# -- sessions -------------------------------------------------------------------------------------

def reinstatement():
    """The same name and ISID again: the old session's commands end, then the new one is in."""
    old = enter(isid=b"\x80\1\2\3\4\5")
    ask("hold 0")
    old.send(*[old.write_pdu(n, 1, b"o" * 512) for n in range(4)])
    ask("held 0 4")
    new = connect(isid=b"\x80\1\2\3\4\5")
    new.send(new.login_pdu(1, 3, new.names(OPEN) + new.offers({})))
    try:
        new.receive(0.5)
        raise AssertionError("in before the old one has ended")
    except Silence:
        pass
    old.expect_closed()
    ask("let 0")
    expect_status(new.expect(LOGIN_RESPONSE), 0)
    new.test_unit_ready()
    assert ask("sessions 0 1") == 1
    stranger = enter(isid=b"\x80\1\2\3\4\5", name="iqn.2026-11.org.replicad:stranger")
    new.read(0, 1)  # another name's ISID is another's
    stranger.read(0, 1)
    thief = connect(isid=b"\x80\1\2\3\4\5")
    thief.chap(LOCKED, **CHAP, spoil=True)
    new.read(0, 1)


def session_limits():
    sessions = [enter() for _ in range(4)]
    expect_status(bare_login(OPEN), 0x0302)
    again = connect(isid=sessions[0].isid).login(OPEN)  # takes the place of its own
    sessions[0].expect_closed()
    sessions[0] = again
    for n in range(12):
        sessions.append(enter(name=f"iqn.2026-11.org.replicad:more-{n // 4}"))
    other = connect(name="iqn.2026-11.org.replicad:last")
    expect_status(other.login_step(1, 3, other.names(OPEN) + other.offers({})), 0x0302)
    assert ask("sessions 0") == 16
    sessions.pop().close()
    assert ask("sessions 0 15") == 15
    enter(name="iqn.2026-11.org.replicad:last")


def logout():
    """Its commands end first; then it is answered, and the connection closed."""
    session = enter()
    ask("hold 0")
    session.send(session.write_pdu(0, 1, b"x" * 512))
    ask("held 0 1")
    out = session.logout()
    session.send(out)
    try:
        session.receive(0.3)
        raise AssertionError("answered before its command has ended")
    except Silence:
        pass
    ask("let 0")
    assert session.expect(LOGOUT_RESPONSE, out["itt"]).response == 0
    session.expect_closed()
    session = enter()
    out = session.logout(reason=2)
    session.send(out)
    assert session.expect(LOGOUT_RESPONSE, out["itt"]).response == 2
    out = session.logout(reason=1, cid=7)
    session.send(out)
    assert session.expect(LOGOUT_RESPONSE, out["itt"]).response == 1
    out = session.logout(reason=1, cid=0)
    session.send(out)
    assert session.expect(LOGOUT_RESPONSE, out["itt"]).response == 0
    session.expect_closed()


def withdrawn():
    """Sessions are asked to leave, then made to; what is in flight ends first."""
    session = enter()
    ask("hold 0")
    session.send(session.write_pdu(0, 1, b"x" * 512))
    ask("held 0 1")
    assert ask("withdraw 0 1000") == -110
    pdu = session.expect(ASYNC)
    assert pdu.header[36] == 1 and pdu["itt"] == NO_TAG
    session.expect_closed()
    expect_status(bare_login(OPEN), 0x0203)
    ask("let 0")
    assert ask("withdraw 0 60000") in (0, -2)
    assert ask("publish 0") == 0
    healthy()
    session = enter()
    assert ask("change 0 iqn.2026-11.org.replicad:nobody") == 0
    session.expect_closed()
    expect_status(bare_login(OPEN), 0x0202)


def named(name):
    return "iqn.2026-11.org.replicad:" + name


def changed_names():
    """Who still may notices nothing; who may not ends, commands first."""
    stays, goes = enter(name=named("stays")), enter(name=named("goes"))
    assert ask("change 0 %s no" % named("stays")) == 0  # held ready, and forgotten
    goes.write(0, noise(512))
    enter(name=named("goes")).close()
    assert ask("sessions 0 2") == 2
    ask("hold 0")
    pdu = stays.write_pdu(8, 1, b"s" * 512)
    stays.send(pdu)
    goes.send(goes.write_pdu(16, 1, b"g" * 512))
    ask("held 0 2")
    assert ask("change 0 %s 300" % named("stays")) == -110  # its command has not ended
    goes.expect_closed()
    assert ask("sessions 0") == 2
    ask("let 0")
    assert ask("change 0 %s" % named("stays")) == 0
    assert ask("sessions 0") == 1
    assert stays.expect(RESPONSE, pdu["itt"]).status == 0
    data = noise(4096)
    stays.write(0, data)
    assert stays.read(0, 8) == data
    late = connect(name=named("goes"))
    expect_status(late.login_step(1, 3, late.names(OPEN) + late.offers({})), 0x0202)
    enter(name=named("stays")).close()


def changed_on_the_way():
    """One that has logged in and waits for its older session does not come in any more."""
    older = enter(name=named("goes"))
    ask("hold 0")
    older.send(older.write_pdu(0, 1, b"o" * 512))
    ask("held 0 1")
    newer = connect(name=named("goes"), isid=older.isid)
    newer.send(newer.login_pdu(1, 3, newer.names(OPEN) + newer.offers({})))
    assert ask("sessions 0 2") == 2
    assert ask("change 0 %s 300" % named("stays")) == -110
    said = newer.expect_closed()
    assert all(pdu[36] >> 16 for pdu in said), said
    ask("let 0")
    assert ask("sessions 0 0") == 0


def changed_between_loops():
    """One on its way to the loop of its export, which has heard of a change before it."""
    who = named("goes")
    older = enter(LOCKED, name=named("stays"), chap=CHAP)
    ask("stand 1")
    assert ask("change 1 * 100") == 0  # the loop will look once, for both changes
    newer = connect(name=who)
    answer = newer.chap(LOCKED, **CHAP)
    assert not answer[36] >> 16, answer
    newer.send(newer.login_pdu(1, 3, newer.offers({})))
    assert ask("sessions 1 2") == 2
    assert ask("change 1 %s 100" % named("stays")) == -110
    ask("go 1")
    said = newer.expect_closed()
    assert said and said[-1][36] >> 16 == 0x0202, said
    assert ask("sessions 1 1") == 1
    older.read(0, 1)


def changed_secrets():
    """New logins show the new one, one that is half over too; sessions stay; guesses at the old
    one are forgotten, but not for a change that changes no secret."""
    new = {**CHAP, "secret": "alice-has-a-new-one"}
    session = enter(LOCKED, chap=CHAP)
    halfway = connect(name=named("halfway"))
    assert not halfway.chap(LOCKED, **CHAP)[36] >> 16
    hasty = connect(name=named("hasty"))
    for _ in range(6):
        expect_status(connect(name=hasty.name).chap(LOCKED, **new), 0x0201)
    assert ask("secret 1 " + CHAP["secret"]) == 0
    expect_status(connect(name=hasty.name).chap(LOCKED, **CHAP), 0x0201)
    assert ask("secret 1 " + new["secret"]) == 0
    hasty.login(LOCKED, new).test_unit_ready()
    expect_status(halfway.login_step(1, 3, halfway.offers({})), 0x0301)
    expect_status(connect().chap(LOCKED, **CHAP), 0x0201)
    connect().login(LOCKED, new).test_unit_ready()
    data = noise(8192)
    session.write(0, data)
    assert session.read(0, 16) == data
    slow = named("slow")
    for _ in range(6):
        expect_status(connect(name=slow).chap(LOCKED, **CHAP), 0x0201)
    expect_status(connect(name=slow).chap(LOCKED, **new), 0x0201)
    assert ask("withdraw 1 60000") == 0
    assert ask("publish 1") == 0
    connect(name=slow).login(LOCKED, CHAP).test_unit_ready()


def pings():
    """A silent peer is asked; one that answers stays, one that does not is dropped."""
    session = enter()
    for _ in range(3):
        ping = session.expect(NOP_IN)
        assert ping["itt"] == NO_TAG and ping["ttt"] != NO_TAG
        session.send(session.nop(itt=NO_TAG, ttt=ping["ttt"]))
    said = session.expect_closed()
    assert [pdu.opcode for pdu in said] == [NOP_IN], said


# -- hostile --------------------------------------------------------------------------------------

def digests_broken():
    session = enter(HeaderDigest="CRC32C", DataDigest="CRC32C")
    pdu = session.write_pdu(0, 1, b"d" * 512)
    session.send(pdu, damage_data=True)
    assert session.expect(REJECT).response == 2
    end = session.expect(RESPONSE, pdu["itt"])
    assert end.status == 2 and end.sense == (11, 0x4705), end.sense
    pdu = session.write_pdu(0, 32)
    session.send(pdu)
    r2t = session.expect(R2T)
    outs = session.burst(pdu["itt"], r2t, b"d" * 16384, 4096)
    session.send(outs[0])
    session.send(outs[1], damage_data=True)
    session.send(*outs[2:])
    assert session.expect(REJECT).response == 2
    assert session.expect(RESPONSE, pdu["itt"]).sense == (11, 0x4705)
    nop = session.nop(b"abcde")
    session.send(nop, damage_data=True)
    assert session.expect(REJECT).response == 2
    session.read(0, 1)
    session.send(session.read_pdu(0, 1), damage_header=True)
    assert session.expect_closed() == []
    healthy()


def lies_about_data():
    """Each of them ends the connection, none of them the target."""
    def r2t_of(session):
        pdu = session.write_pdu(0, 16)
        session.send(pdu)
        return pdu["itt"], session.expect(R2T)["ttt"]

    def wrong_offset(session):
        itt, ttt = r2t_of(session)
        session.send(session.data_out(itt, ttt, 0, 512, b"x" * 512, False))

    def too_much(session):
        itt, ttt = r2t_of(session)
        session.send(session.data_out(itt, ttt, 0, 0, b"x" * 8704))

    def too_little(session):
        itt, ttt = r2t_of(session)
        session.send(session.data_out(itt, ttt, 0, 0, b"x" * 512, True))

    def nothing(session):
        itt, ttt = r2t_of(session)
        session.send(session.data_out(itt, ttt, 0, 0, b"", True))

    def other_unit(session):
        itt, ttt = r2t_of(session)
        pdu = session.data_out(itt, ttt, 0, 0, b"x" * 512, False)
        pdu.header[9] = 7
        session.send(pdu)

    def beyond_first_burst(session):
        pdu = session.write_pdu(0, 512, b"x" * 65536, final=False)
        session.send(pdu)

    def beyond_first_burst_later(session):
        pdu = session.write_pdu(0, 512, b"x" * 512, final=False)
        session.send(pdu, session.data_out(pdu["itt"], NO_TAG, 0, 512, b"x" * 65536))

    def immediate_beyond_expected(session):
        pdu = session.write_pdu(0, 1, b"x" * 1024)
        session.send(pdu)

    def data_of_a_read(session):
        pdu = session.read_pdu(0, 1)
        pdu.data = b"x" * 512
        pdu.header[5:8] = b"\0\2\0"
        session.send(pdu)

    def oversized(session):
        pdu = session.nop()
        pdu.header[5:8] = b"\xff\xff\xff"
        session.send(pdu)

    def with_ahs(session):
        pdu = session.read_pdu(0, 1)
        pdu.header[4] = 2
        session.send(pdu)
        session.send_raw(bytes(8))

    def login_again(session):
        session.send(session.login_pdu(1, 3, session.names(OPEN)))

    def unknown_opcode(session):
        session.send(Pdu(0x1D, FINAL, itt=5))

    for lie in (wrong_offset, too_much, too_little, nothing, other_unit, beyond_first_burst,
                beyond_first_burst_later, immediate_beyond_expected, data_of_a_read, oversized,
                with_ahs, login_again):
        session = enter()
        lie(session)
        said = session.expect_closed()
        assert all(pdu.opcode in (REJECT, R2T) for pdu in said), (lie.__name__, said)
        session.close()
    session = enter()
    unknown_opcode(session)
    assert session.expect(REJECT).response in (4, 5)
    healthy()


def unknown_tags():
    """They are rejected, their data let go; the session lives."""
    session = enter()
    session.send(session.data_out(77, 0x123456, 0, 0, b"x" * 4096))
    assert session.expect(REJECT).response == 9
    session.send(session.data_out(77, NO_TAG, 0, 0, b"x" * 4096))
    assert session.expect(REJECT).response == 9
    pdu = session.write_pdu(0, 16)
    session.send(pdu)
    r2t = session.expect(R2T)
    session.send(session.data_out(pdu["itt"], r2t["ttt"] ^ 0x100, 0, 0, b"x" * 8192))
    assert session.expect(REJECT).response == 9
    session.send(session.data_out(pdu["itt"], r2t["ttt"], 0, 0, b"y" * 8192))
    assert session.expect(RESPONSE, pdu["itt"]).status == 0
    session.send(Pdu(SNACK, FINAL, itt=5))
    assert session.expect(REJECT).response == 3
    pdu = session.write_pdu(0, 16)
    session.send(pdu)
    r2t = session.expect(R2T)
    again = session.write_pdu(0, 16, itt=pdu["itt"])
    session.send(again)
    assert session.expect(REJECT).response == 7
    session.send(session.data_out(pdu["itt"], r2t["ttt"], 0, 0, b"y" * 8192))
    assert session.expect(RESPONSE, pdu["itt"]).status == 0
    both = session.command(bytes(10), FINAL | READ | WRITE, 512)
    session.send(both)
    assert session.expect(REJECT).response == 5
    assert session.read(0, 16) == b"y" * 8192


def wrong_data_numbers():
    session = enter(ImmediateData="No", InitialR2T="Yes")
    for numbers in ((0, 0), (1, 0), (27, 28), (0xFFFFFFFF, 0)):
        pdu = session.write_pdu(0, 2)
        session.send(pdu)
        r2t = session.expect(R2T)
        for at, number in enumerate(numbers):
            session.send(session.data_out(pdu["itt"], r2t["ttt"], number, at * 512, b"n" * 512,
                                          at == 1))
        assert session.expect(RESPONSE, pdu["itt"]).sense == (11, 0x4705)
    session.read(0, 1)


def storm_of_immediates():
    """Eight are served at a time, the others rejected; nobody else is in their way."""
    session = enter()
    ask("hold 0")
    pdus = [session.read_pdu(n, 1, immediate=True) for n in range(30)]
    session.send(*pdus)
    for _ in range(22):
        assert session.expect(REJECT).response == 6
    ask("let 0")
    for _ in range(8):
        assert session.expect(DATA_IN).flags & 1
    session.read(0, 1)


def full_of_immediates():
    """Where 32 commands and 8 immediate ones owe data, one more does not stand before it."""
    session = enter()
    block = noise(512)
    pdus = [session.write_pdu(n, 1) for n in range(32)]
    pdus += [session.write_pdu(32 + n, 1, immediate=True) for n in range(8)]
    session.send(*pdus)
    r2ts = [session.expect(R2T) for _ in pdus]
    session.send(session.nop())
    assert session.expect(REJECT).response == 6
    session.send(*[session.data_out(r2t["itt"], r2t["ttt"], 0, 0, block) for r2t in r2ts])
    for _ in pdus:
        assert session.expect(RESPONSE).status == 0
    assert session.read(0, 40) == block * 40


def storm_of_nops():
    """Thousands at once, all of them answered though the peer reads late."""
    session = enter(HeaderDigest="CRC32C")
    count, payload = 3000, noise(1000)
    tags = []
    answers = []

    def reader():
        while len(answers) < count:
            pdu = session.receive()
            answers.append(pdu)

    def batch(size):
        pdus = [session.nop(payload) for _ in range(size)]
        tags.extend(pdu["itt"] for pdu in pdus)
        return b"".join(session.encode(pdu) for pdu in pdus)

    data = batch(count)
    thread = threading.Thread(target=reader)
    timer = threading.Timer(0.3, thread.start)
    timer.start()
    session.send_raw(data)
    timer.join()
    thread.join()
    good = [pdu for pdu in answers if pdu.opcode == NOP_IN]
    assert all(pdu.data == payload for pdu in good) and len(good) >= 8
    assert all(pdu.response == 6 for pdu in answers if pdu.opcode == REJECT)
    assert len(answers) == count
    ghost = session.nop(itt=NO_TAG, ttt=0x77777)  # answers a ping that never was
    session.send(ghost)
    session.read(0, 1)


def nops_out_of_nowhere():
    """A NOP-Out with a tag that we never gave is no reason for anything."""
    session = enter()
    pdu = session.nop(itt=NO_TAG)
    session.send(pdu)
    session.read(0, 1)


def login_flood():
    """Slow logins: at most four of an address, and a healthy session does not notice."""
    session = enter(name="iqn.2026-11.org.replicad:healthy")
    slow = []
    for n in range(40):
        try:
            one = connect()
            one.send_raw(b"\x43"[: n % 2])
            slow.append(one)
        except (Closed, ConnectionError):
            pass
    for n in range(50):
        session.write(n, noise(4096))
    alive = 0
    for one in slow:
        try:
            one.receive(0.02)
        except Silence:
            alive += 1
        except Closed:
            pass
    assert alive <= 4, alive
    for one in slow:
        one.expect_closed(30)  # 3 s for a PDU that does not come
    healthy()


def login_garbage():
    """Whatever comes before a login is over does no harm."""
    for n in range(60):
        session = connect()
        junk = bytearray(noise(RANDOM.randrange(1, 400)))
        if n % 3:
            junk[0] = LOGIN | IMMEDIATE
        if n % 3 == 2 and len(junk) > 8:
            junk[4] = 0
            junk[5:8] = b"\0\0\x40"
        session.send_raw(bytes(junk))
        session.sock.shutdown(1)
        try:
            session.expect_closed()
        finally:
            session.close()
    session = connect()
    pdu = session.login_pdu(1, 3, session.names(OPEN))
    pdu.header[5:8] = b"\xff\xff\xff"
    session.send(pdu)
    session.expect_closed()
    healthy()


def half_open():
    """Peers that go away in every state, in every way."""
    def reset(session):
        session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        session.close()

    ask("hold 0")
    waits = []
    for leave in (Session.close, reset):
        leave(connect())
        one = connect()
        one.send_raw(bytes(one.login_pdu(1, 3, one.names(OPEN)).header)[:20])
        leave(one)
        one = connect()
        one.login_step(0, 0, one.names(LOCKED) + [("AuthMethod", "CHAP")], False)
        leave(one)
        for state in ("idle", "header", "data", "wanting", "unsolicited", "busy", "reading"):
            one = connect().login(OPEN)
            for _ in range(2):  # unit attention
                pdu = one.command(bytes(6))
                one.send(pdu)
                one.collect(pdu["itt"])
            if state == "header":
                one.send_raw(bytes(one.read_pdu(0, 1).header)[:30])
            elif state == "data":
                one.send_raw(one.encode(one.write_pdu(0, 16, b"x" * 8192))[:1000])
            elif state == "wanting":
                one.send(one.write_pdu(0, 64))
                one.expect(R2T)
            elif state == "unsolicited":
                one.send(one.write_pdu(0, 64, b"x" * 512, final=False))
            elif state == "busy":
                one.send(one.write_pdu(0, 1, b"x" * 512))
                waits.append(one)
            elif state == "reading":
                one.send(*[one.read_pdu(0, 1024) for _ in range(8)])
            leave(one)
    ask("let 0")
    assert ask("sessions 0 0") == 0
    healthy()


def one_at_a_time():
    session = enter()
    for _ in range(300):
        session.read(0, 8)


def one_in_a_while():
    """Asks when the loop has nothing more to do."""
    session = enter()
    for _ in range(300):
        session.read(0, 8)
        ask("idle 0")


def does_not_read():
    """A peer that asks for much and reads nothing holds no more than its window."""
    lazy = enter(name="iqn.2026-11.org.replicad:lazy")
    lazy.send(*[lazy.read_pdu(0, 8192) for _ in range(32)])
    for _ in range(20):
        healthy()
    got = 0
    while got < 32:
        pdu = lazy.receive()
        got += pdu.opcode == DATA_IN and pdu.flags & 1
    lazy.read(0, 1)


def serve(owed, payload, statuses=(0,)):
    """Answers every R2T until no session is @owed a response any more."""
    while any(owed.values()):
        ready = select.select([s.sock for s in owed], [], [], DEADLINE)[0]
        assert ready, "nothing more comes"
        for session in (s for s in owed if s.sock in ready):
            pdu = session.receive()
            if pdu.opcode == R2T:
                session.send(*session.burst(pdu["itt"], pdu, payload))
            elif pdu.opcode == RESPONSE:
                assert pdu.status in statuses, pdu
                owed[session].remove(pdu["itt"])


def starved():
    """Few buffers, many writers that owe data: all of them come through in the end."""
    sessions = [enter(name=f"iqn.2026-11.org.replicad:w{n}") for n in range(3)]
    payload = noise(262144)
    owed = {session: set() for session in sessions}
    for session in sessions:
        pdus = [session.write_pdu(0, 512) for _ in range(6)]
        pdus.append(session.write_pdu(0, 16, payload[:8192]))
        session.send(*pdus)
        owed[session] = {pdu["itt"] for pdu in pdus}
    serve(owed, payload, (0, 0x28))
    healthy()


def heard(session):
    """What was sent on another connection of its loop before this has been read."""
    for _ in range(3):
        nop = session.nop()
        session.send(nop)
        session.expect(NOP_IN, nop["itt"])


def no_descriptors():
    """Who comes while there are none is let in when there are some again."""
    session = enter()
    ask("descriptors 0 no")
    late = [connect() for _ in range(2)]
    heard(session)
    ask("descriptors 0 again")
    for one in late:
        one.login(OPEN).test_unit_ready().read(0, 1)
    healthy()


def starved_between_pieces():
    """A piece is written, the next one waits for a buffer, and then data of it comes unasked."""
    payload = noise(262144)
    first = enter(InitialR2T="No", FirstBurstLength="262144")
    other = enter(name=named("other"))
    owed = {first: set(), other: set()}
    ask("hold 0")
    pdu = first.write_pdu(0, 512, payload[:65536], final=False)
    first.send(pdu)
    owed[first].add(pdu["itt"])
    ask("held 0 1")
    pdus = [other.write_pdu(1024, 512) for _ in range(4)]
    other.send(*pdus)
    owed[other] = {pdu["itt"] for pdu in pdus}
    r2ts = [other.expect(R2T) for _ in range(3)]  # and no buffer is left
    ask("let 0")
    r2ts.append(other.expect(R2T))  # in place of the one that was written
    first.send(*[first.data_out(pdu["itt"], NO_TAG, n, 65536 * (n + 1),
                                payload[65536 * (n + 1):65536 * (n + 2)], n == 2)
                 for n in range(3)])
    heard(connect(name=named("third")).login(OPEN))
    for r2t in r2ts:
        other.send(*other.burst(r2t["itt"], r2t, payload))
    serve(owed, payload)
    assert first.read(0, 512) == payload and first.read(1024, 512) == payload
    healthy()


def starved_by_first_bursts():
    """Commands that came with all their data, of which the device takes a part at a time: each
    goes on with the buffer that it has."""
    session = enter(InitialR2T="No", FirstBurstLength="262144")
    payload = noise(262144)
    for _ in range(2):
        pdus = [session.write_pdu(0, 512, payload) for _ in range(20)]
        session.send(*pdus)
        for _ in pdus:
            assert session.expect(RESPONSE).status in (0, 0x28)
        assert session.read(0, 512) == payload
    rest = session.write_pdu(100, 1024, payload[:100 * 512], final=False)
    session.send(rest, session.data_out(rest["itt"], NO_TAG, 0, 100 * 512,
                                        payload[100 * 512:], True))
    assert session.feed(rest["itt"], payload * 2).status == 0
    assert session.read(100, 1024) == payload * 2


def aborted_without_a_buffer():
    """Data waits for a buffer when its command is aborted by somebody else."""
    first = enter(InitialR2T="No", FirstBurstLength="262144")
    other = enter(PRIVATE, name=named("only"))
    third = enter(name=named("third"))
    ask("hold 0")
    pdu = first.write_pdu(0, 512, noise(65536), final=False)
    first.send(pdu)
    ask("held 0 1")
    other.send(*[other.write_pdu(0, 512) for _ in range(3)])
    for _ in range(3):
        other.expect(R2T)
    first.send(first.data_out(pdu["itt"], NO_TAG, 0, 65536, noise(65536), True))
    heard(other)
    tmf = third.tmf(5)
    third.send(tmf)
    heard(third)
    ask("let 0")
    assert third.expect(TMF_RESPONSE, tmf["itt"]).response == 0
    first.test_unit_ready().read(0, 1)


def main():
    global PORT, PORT6
    PORT, PORT6 = int(sys.argv[2]), int(sys.argv[3])
    print(f"{sys.argv[1]}: REPLICAD_SEED={SEED}", file=sys.stderr)
    globals()[sys.argv[1]]()


if __name__ == "__main__":
    main()
