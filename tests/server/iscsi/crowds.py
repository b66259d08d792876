#!/usr/bin/env python3
"""Scenes of many initiators, and of what the worst of them leave behind: nothing.

    crowds.py NAME PORT PORT6     as scenarios.py
"""
import sys

import scenarios
from scenarios import *  # noqa: F403


def nobody():
    """All of them are gone, from every list there is."""
    assert ask("crowd 0 0") == 0, "somebody stays for ever"


def text_pdu(session, data, flags=FINAL, immediate=False, ttt=NO_TAG):
    return Pdu(TEXT | (IMMEDIATE if immediate else 0), flags, data, itt=session.tag(), ttt=ttt,
               cmdsn=session.number(immediate), expstatsn=session.expstatsn)


def bad_texts():
    """Each ends its connection, and whatever else it had begun; more of them than there is
    place for at once."""
    lies = (b"=\0", b"SendTargets\0", b"SendTargets=All", b"X=1\0X=1\0", b"\1=2\0",
            b"MaxRecvDataSegmentLength=0\0", b"HeaderDigest=\x07\0", b"TargetAddress=me\0")
    for n in range(80):
        session = enter(None if n % 2 else OPEN)
        if n % 4 == 0:
            ask("hold 0")
            session.send(session.read_pdu(0, 8), session.write_pdu(8, 256))
            ask("held 0 1")
        session.send(text_pdu(session, lies[n % len(lies)], immediate=n % 3 == 0),
                     session.nop(b"behind it"))
        if n % 4 == 0:
            ask("let 0")
        session.expect_closed()
        session.close()
    nobody()
    assert ask("withdraw 0 60000") == 0
    assert ask("publish 0") == 0
    healthy()


def texts_without_a_buffer():
    session = enter()
    session.send(*[session.write_pdu(0, 512) for _ in range(6)])
    for _ in range(4):
        session.expect(R2T)
    session.send(text_pdu(session, b""))
    session.expect_closed()
    session.close()
    nobody()
    healthy()


# -- many -----------------------------------------------------------------------------------------

def discover(source):
    return Session("127.0.0.1", scenarios.PORT, name=named("stranger"),
                   source=source).login(None)


def alive(session):
    try:
        nop = session.nop()
        session.send(nop)
        session.expect(NOP_IN, nop["itt"])
        return True
    except Closed:
        return False


def strangers_who_discover():
    """Those who are idle take nothing from hosts, and keep no newcomer out; of those that one
    address has, its own go first."""
    talks = discover("127.0.0.2")
    idle = []
    for n in range(64):
        idle.append(discover(f"127.0.1.{n + 1}"))
        assert alive(talks), "one that talks had to go"
    near = [discover("127.0.0.9") for _ in range(8)]
    assert [alive(session) for session in near] == [False] * 4 + [True] * 4
    assert [alive(session) for session in idle] == [False] * 53 + [True] * 11
    assert alive(talks)
    hosts = [enter(name=named(f"host-{n // 4}")) for n in range(16)]
    enter(PRIVATE, name=named("only")).read(0, 1)
    assert alive(talks) and alive(idle[-1])
    for session in hosts + idle + near + [talks]:
        session.close()


def a_discovery_ends():
    """However well it answers."""
    session = enter(None)
    try:
        for _ in range(60):
            ping = session.expect(NOP_IN)
            session.send(session.nop(itt=NO_TAG, ttt=ping["ttt"]))
        raise AssertionError("it stays")
    except Closed:
        pass
    nobody()


def many_disks():
    """A host with twenty disks by two paths; four paths to one disk, and no more."""
    assert ask("more 0 20") == 0
    names = [BASE % (4 + n) for n in range(20)]
    paths = [enter(name) for name in names for _ in range(2)]
    for path in paths:
        path.read(0, 1)
    paths += [enter(names[0]) for _ in range(2)]
    expect_status(bare_login(names[0]), 0x0302)
    paths += [enter(name) for name in names[1:]]
    for path in paths:
        path.read(0, 1)
        path.close()
    nobody()


def ask_on(session, answer, itt, flags=FINAL):
    session.send(Pdu(TEXT, flags, itt=itt, ttt=answer["ttt"], cmdsn=session.number(),
                     expstatsn=session.expstatsn))
    return session.expect(TEXT_RESPONSE, itt)


def targets_of(whole):
    """The names, each with its address behind it."""
    parts = [part for part in whole.decode().split("\0") if part]
    assert whole.endswith(b"\0") and len(parts) % 2 == 0
    assert set(parts[1::2]) == {f"TargetAddress=127.0.0.1:{scenarios.PORT},1"}, parts[1::2]
    return [part.partition("TargetName=")[2] for part in parts[::2]]


def many_targets():
    """A list of any length, in pieces of any size, also when it is longer than the buffer that
    it is told from; what comes and goes does not disturb it."""
    assert ask("more 0 3000") == 0
    wanted = {OPEN} | {BASE % (4 + n) for n in range(3000)}
    for size in (262144, 8192, 512):
        session = enter(None, MaxRecvDataSegmentLength=str(size))
        pdu = session.send_targets()
        session.send(pdu)
        answer = session.expect(TEXT_RESPONSE, pdu["itt"])
        whole, pieces = answer.data, 1
        if size == 8192:
            assert ask("withdraw 0 60000") == 0 and ask("publish 0") == 0  # the newest now
        while not answer.flags & FINAL:
            assert answer.flags == 0x40 and answer["ttt"] != NO_TAG
            answer = ask_on(session, answer, pdu["itt"])
            assert len(answer.data) <= size
            whole, pieces = whole + answer.data, pieces + 1
        names = targets_of(whole)
        assert answer["ttt"] == NO_TAG and len(names) == len(set(names))
        assert set(names) == (wanted - {OPEN} if size == 8192 else wanted), len(names)
        assert pieces <= len(whole) // size + 3, pieces
        session.close()
    for length in (10, 36, 62):  # whatever is left at the buffer's end, a target is told whole
        session = enter(None)
        pdu = text_pdu(session, b"X" * length + b"=1\0SendTargets=All\0")
        session.send(pdu)
        answer = session.expect(TEXT_RESPONSE, pdu["itt"])
        said, whole = b"X" * length + b"=NotUnderstood\0", answer.data
        while not answer.flags & FINAL:
            answer = ask_on(session, answer, pdu["itt"])
            whole += answer.data
        assert whole.startswith(said) and set(targets_of(whole[len(said):])) == wanted
        session.close()
    one = enter(None)
    pdu = one.send_targets(BASE % 1000)
    one.send(pdu)
    assert targets_of(one.expect(TEXT_RESPONSE, pdu["itt"]).data) == [BASE % 1000]


def asking_on():
    """Half an answer is kept for who asks on with its tag and nothing else; a new question
    forgets it; who may have more to say has the last word."""
    ask("more 0 20")
    session = enter(None, MaxRecvDataSegmentLength="512")
    pdu = session.send_targets()
    session.send(pdu)
    first = session.expect(TEXT_RESPONSE, pdu["itt"])
    session.send(session.send_targets(None, ttt=first["ttt"] + 1))
    assert session.expect(REJECT).response == 9
    session.send(session.send_targets("All", ttt=first["ttt"]))
    assert session.expect(REJECT).response == 9
    session.send(session.send_targets(BASE % 10))
    assert targets_of(session.expect(TEXT_RESPONSE).data) == [BASE % 10]
    session.send(session.send_targets(None, ttt=first["ttt"]))
    assert session.expect(REJECT).response == 9
    session.send(pdu := session.send_targets())
    answer = session.expect(TEXT_RESPONSE, pdu["itt"])
    whole = answer.data
    while answer.flags:
        answer = ask_on(session, answer, pdu["itt"], flags=0)
        whole += answer.data
        assert not answer.flags & FINAL and answer["ttt"] != NO_TAG
    assert len(targets_of(whole)) == 21
    answer = ask_on(session, answer, pdu["itt"])
    assert answer.flags == FINAL and answer["ttt"] == NO_TAG and not answer.data
    session.close()
    nobody()


# -- anything -------------------------------------------------------------------------------------

WORDS = ("SendTargets=All", "SendTargets=", "SendTargets=" + OPEN, "SendTargets=no name",
         "MaxRecvDataSegmentLength=512", "MaxRecvDataSegmentLength=0", "HeaderDigest=CRC32C",
         "X=1", "=", "junk", "InitiatorName=iqn.x")
CDBS = [bytes.fromhex(cdb) for cdb in
        ("8a000000000000000000000000080000", "88000000000000000000000000080000", "000000000000",
         "120000006000", "35000000000000000000", "91000000000000000000000000000000",
         "89000000000000000000000000010000", "42000000000000001800",
         "93080000000000000000000000400000", "8e020000000000000000000000080000",
         "5e000000000000010000", "a00000000000000001000000", "4d000000000000000000")]


def some_command(pdu, tags):
    cdb = RANDOM.choice(CDBS)
    writes = cdb[0] in (0x8A, 0x89, 0x42, 0x93, 0x8E)
    wanted = {0x8A: 4096, 0x8E: 4096, 0x89: 1024, 0x93: 512, 0x42: 24, 0x88: 4096}.get(cdb[0], 96)
    pdu.header[1] = RANDOM.choice((FINAL, FINAL, 0)) | RANDOM.randrange(4) | (
        WRITE if writes else READ)
    pdu.header[32:32 + len(cdb)] = cdb
    pdu["expected"] = RANDOM.choice((wanted, wanted, wanted, 0, 511, 1 << 20, NO_TAG))
    if writes:
        pdu.data = noise(RANDOM.choice((0, 512, wanted)))
    tags.append(pdu["itt"])


def some_pdu(number, tags):
    """Half of them could be meant."""
    opcode = RANDOM.choice((0, 1, 1, 1, 1, 1, 2, 2, 4, 4, 5, 5, 5, 6, 0x10, RANDOM.randrange(64)))
    pdu = Pdu(opcode | RANDOM.choice((0, 0, IMMEDIATE)), RANDOM.choice((FINAL, FINAL, 0)),
              itt=RANDOM.choice((RANDOM.randrange(12), RANDOM.getrandbits(32))),
              ttt=RANDOM.choice((NO_TAG, NO_TAG, RANDOM.getrandbits(32))),
              cmdsn=number + RANDOM.choice((0, 0, 0, 0, 0, 1, 2, -1, 31, 40)))
    if opcode == COMMAND:
        some_command(pdu, tags)
    elif opcode == TEXT:
        pdu.data = text(RANDOM.choice(WORDS).partition("=")[::2] for _ in
                        range(RANDOM.randrange(4)))
    elif opcode == TMF:
        pdu.header[1] = FINAL | RANDOM.randrange(10)
        pdu["ttt"] = RANDOM.choice(tags or [0])
        pdu["refcmdsn"] = number
    elif opcode == DATA_OUT:
        pdu.data = noise(RANDOM.choice((0, 512, 4096)))
        pdu["itt"] = RANDOM.choice(tags or [0])
        pdu["offset"] = RANDOM.choice((0, 512, 4096, RANDOM.getrandbits(32)))
    elif opcode == LOGOUT:
        pdu.header[1] = FINAL | RANDOM.choice((0, 1, 2, 5))
    else:
        pdu.data = noise(RANDOM.choice((0, 0, 100)))
    pdu.header[5:8] = len(pdu.data).to_bytes(3, "big")
    if RANDOM.random() < 0.02:
        pdu.header[RANDOM.randrange(48)] ^= 1 << RANDOM.randrange(8)
    return pdu


def some_life():
    """A login, anything at all, and an end of any kind."""
    session = enter(RANDOM.choice((None, OPEN, OPEN)),
                    name=named(f"any-{RANDOM.randrange(3)}"), isid=b"\x80\0\0\0\0" +
                    bytes([RANDOM.randrange(3)]), InitialR2T=RANDOM.choice(("Yes", "No")),
                    MaxRecvDataSegmentLength=RANDOM.choice(("512", "8192", "262144")))
    number, tags, out = session.cmdsn, [], b""
    for _ in range(RANDOM.randrange(1, 25)):
        pdu = some_pdu(number, tags)
        number += pdu["cmdsn"] == number and not pdu.header[0] & IMMEDIATE
        out += session.encode(pdu)
    out = out[:RANDOM.choice((len(out), len(out), RANDOM.randrange(len(out))))]
    try:
        session.send_raw(out)
        for _ in range(RANDOM.randrange(8)):
            session.receive(RANDOM.choice((0.001, 0.05)))
    except (Closed, Silence):
        pass
    if RANDOM.random() < 0.5:
        session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.close()


def anything():
    for _ in range(300):
        some_life()
    nobody()
    healthy()


def main():
    scenarios.PORT, scenarios.PORT6 = int(sys.argv[2]), int(sys.argv[3])
    print(f"{sys.argv[1]}: REPLICAD_SEED={SEED}", file=sys.stderr)
    globals()[sys.argv[1]]()


if __name__ == "__main__":
    main()
