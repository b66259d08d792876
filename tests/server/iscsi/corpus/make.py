#!/usr/bin/env python3
"""Writes the hand-made inputs of the fuzzers beside it: what a peer really sends, so that they
begin beyond the first check. Finds are added as files of their own."""
import hashlib
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
INITIATOR = b"InitiatorName=iqn.2026-11.org.example:host\0"
TARGET = b"TargetName=iqn.2026-11.org.example:disk\0"
DISCOVERY = b"SessionType=Discovery\0"
KEYS = (b"HeaderDigest=CRC32C,None\0DataDigest=None,CRC32C\0InitialR2T=No\0ImmediateData=Yes\0"
        b"MaxRecvDataSegmentLength=262144\0MaxBurstLength=262144\0FirstBurstLength=65536\0"
        b"DefaultTime2Wait=2\0DefaultTime2Retain=0\0MaxOutstandingR2T=1\0MaxConnections=1\0"
        b"ErrorRecoveryLevel=0\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0"
        b"TaskReporting=RFC3720,FastAbort\0iSCSIProtocolLevel=1\0IFMarker=No\0OFMarkInt=1~2\0"
        b"X#NodeArchitecture=x\0X-org.example=1\0")
CHALLENGE = bytes(range(1, 33))
NAMES = {5: "md5", 6: "sha1", 7: "sha256", 8: "sha3_256"}
OTHER = b"CHAP_I=200\0CHAP_C=0x030a11181f262d343b424950575e656c\0"


def save(folder, name, data):
    os.makedirs(os.path.join(HERE, folder), exist_ok=True)
    with open(os.path.join(HERE, folder, name), "wb") as out:
        out.write(data)


def response(number):
    digest = hashlib.new(NAMES[number], b"\x27" + b"open sesame 12345" + CHALLENGE)
    return b"0x" + digest.hexdigest().encode()


def login(access, *pdus):
    data = bytes([access])
    for flags, text, *broken in pdus:
        data += bytes([flags, broken[0] if broken else 0]) + struct.pack(">H", len(text)) + text
    return data


def logins():
    save("login", "open", login(0, (0x87, INITIATOR + TARGET + KEYS)) + b"SendTargets=\0")
    save("login", "discovery", login(0, (0x87, INITIATOR + DISCOVERY)) + b"SendTargets=All\0")
    save("login", "stages", login(0, (0x00, INITIATOR + TARGET), (0x81, b"AuthMethod=None\0"),
                                  (0x04, KEYS), (0x87, b"")))
    save("login", "pieces", login(0, (0x44, INITIATOR + TARGET[:9]), (0x87, TARGET[9:])))
    small = b"".join(b"X-org.example.a-long-unknown-key-%d=1\0" % i for i in range(30))
    save("login", "answer_in_pieces", login(
        0, (0x87, INITIATOR + TARGET + b"MaxRecvDataSegmentLength=512\0" + small),
        *[(0x87, b"")] * 5))
    for number in NAMES:
        for mutual in (b"", OTHER):
            save("login", f"chap_{number}{'_mutual' if mutual else ''}", login(
                1, (0x81, INITIATOR + TARGET + b"AuthMethod=CHAP,None\0"),
                (0x00, b"CHAP_A=%d\0" % number),
                (0x83, b"CHAP_N=host\0CHAP_R=" + response(number) + b"\0" + mutual)))
    save("login", "chap_discovery", login(
        1, (0x00, INITIATOR + DISCOVERY + b"AuthMethod=CHAP\0"), (0x00, b"CHAP_A=8,7,6,5\0"),
        (0x83, b"CHAP_N=host\0CHAP_R=" + response(8) + b"\0")) + b"SendTargets=All\0")
    save("login", "forbidden", login(4, (0x87, INITIATOR + TARGET)))
    save("login", "opcode", login(0, (0x04, INITIATOR + TARGET), (0x04, b"", 0xc1)))
    save("login", "header", login(0, (0x04, INITIATOR + TARGET), (0x87, b"", 8)))


def chaps():
    for number in NAMES:
        save("chap", f"good_{number}", b"\n".join([
            b"%d" % number, b"host", response(number), b"200", b"0x030a1118"]))
    save("chap", "base64", b"5,6,7,8\nhost\n0b3Squu67oFT1PfyGz0Bgp1Q==\n0x10\n0bAQID")
    save("chap", "reflected", b"8\nhost\n0x00\n39\n0x" + CHALLENGE.hex().encode())
    save("chap", "odd", b"8\nhost\n0x123\n-1\n0x1")


def pdu(opcode, flags, data=b"", tag=1, expected=0):
    header = bytearray(48)
    header[0], header[1] = opcode, flags
    header[5:8] = len(data).to_bytes(3, "big")
    header[16:20] = tag.to_bytes(4, "big")
    header[20:24] = expected.to_bytes(4, "big")
    return bytes(header) + data + b"\0" * (-len(data) % 4)


def pdus():
    stream = [pdu(0x40, 0x80), pdu(0x01, 0xc1, expected=512), pdu(0x01, 0xa1, b"x" * 17, 2, 17),
              pdu(0x05, 0x80, b"data"), pdu(0x42, 0x81), pdu(0x04, 0x80, b"SendTargets=All\0"),
              pdu(0x46, 0x80)]
    save("pdu", "session", b"\0" + b"".join(stream))
    save("pdu", "discovery", b"\1" + stream[0] + stream[5] + stream[6])
    save("pdu", "opcodes", b"\2" + b"".join(pdu(code, 0x80) for code in (0x10, 0x02, 0x3f)))
    save("pdu", "too_long", b"\2" + pdu(0x04, 0x80, b"y" * 513))


logins()
chaps()
pdus()
