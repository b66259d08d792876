"""An iSCSI initiator that says exactly what a script wants, right or wrong.

    session = Session(address, port).login(target)
    session.write(0, b"..."); session.read(0, 1)

Every PDU can be built by hand (Pdu), sent as it is, damaged, in pieces. Speaks header and data
digests and CHAP with all four algorithms. Every wait has a deadline: silence is a failure.
"""
import hashlib
import os
import socket
import struct
import time

NOP_OUT, COMMAND, TMF, LOGIN, TEXT, DATA_OUT, LOGOUT, SNACK = 0, 1, 2, 3, 4, 5, 6, 0x10
NOP_IN, RESPONSE, TMF_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE = 0x20, 0x21, 0x22, 0x23, 0x24
DATA_IN, LOGOUT_RESPONSE, R2T, ASYNC, REJECT = 0x25, 0x26, 0x31, 0x32, 0x3F
IMMEDIATE, FINAL, READ, WRITE, NO_TAG = 0x40, 0x80, 0x40, 0x20, 0xFFFFFFFF
DEADLINE = 60.0
ALGORITHMS = {5: hashlib.md5, 6: hashlib.sha1, 7: hashlib.sha256, 8: hashlib.sha3_256}


class Closed(Exception):
    """The target ended the connection."""


class Silence(Exception):
    """Nothing came in time."""


def crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC = crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def pad(data):
    return data + b"\0" * (-len(data) % 4)


class Pdu:
    """A header of 48 bytes, and data. Fields by name; what has no name, by offset."""

    FIELDS = {"itt": 16, "ttt": 20, "expected": 20, "cmdsn": 24, "statsn": 24, "expstatsn": 28,
              "expcmdsn": 28, "maxcmdsn": 32, "refcmdsn": 32, "datasn": 36, "r2tsn": 36,
              "offset": 40, "length": 44, "residual": 44}

    def __init__(self, opcode=0, flags=FINAL, data=b"", header=None, **fields):
        self.header = bytearray(header if header else 48)
        self.data = data
        if header is None:
            self.header[0], self.header[1] = opcode, flags
            self.header[5:8] = struct.pack(">I", len(data))[1:]
        for name, value in fields.items():
            self[name] = value

    def __getitem__(self, name):
        at = self.FIELDS[name] if isinstance(name, str) else name
        return struct.unpack_from(">I", self.header, at)[0]

    def __setitem__(self, name, value):
        at = self.FIELDS[name] if isinstance(name, str) else name
        struct.pack_into(">I", self.header, at, value & 0xFFFFFFFF)

    @property
    def opcode(self):
        return self.header[0] & 0x3F

    @property
    def flags(self):
        return self.header[1]

    @property
    def response(self):
        return self.header[2]

    @property
    def status(self):
        return self.header[3]

    @property
    def sense(self):
        """(key, asc << 8 | ascq) of a response, or None."""
        if len(self.data) < 16:
            return None
        sense = self.data[2:]
        if sense[0] & 0x7F in (0x72, 0x73):
            return sense[1] & 15, sense[2] << 8 | sense[3]
        return sense[2] & 15, sense[12] << 8 | sense[13]

    def __repr__(self):
        return (f"<{self.opcode:02x} flags {self.flags:02x} resp {self.response:02x} "
                f"status {self.status:02x} itt {self['itt']:x} {len(self.data)} bytes>")


def text(pairs):
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs)


def pairs_of(data):
    return dict(part.decode().split("=", 1) for part in data.split(b"\0") if part)


class Session:
    OFFERS = [("HeaderDigest", "None"), ("DataDigest", "None"), ("InitialR2T", "No"),
              ("ImmediateData", "Yes"), ("MaxBurstLength", "262144"),
              ("FirstBurstLength", "65536"), ("MaxRecvDataSegmentLength", "262144"),
              ("MaxOutstandingR2T", "4"), ("DefaultTime2Wait", "0"),
              ("DefaultTime2Retain", "0"), ("ErrorRecoveryLevel", "0"),
              ("MaxConnections", "1"), ("DataPDUInOrder", "Yes"),
              ("DataSequenceInOrder", "Yes")]

    def __init__(self, address, port, name="iqn.2026-11.org.replicad:tester", isid=None,
                 source=None):
        self.address, self.port, self.name = address, port, name
        self.isid = isid or b"\x80" + os.urandom(5)
        self.header_digest = self.data_digest = False
        self.cmdsn, self.expstatsn, self.next_itt = 1, 0, 1
        self.maxcmdsn = self.expcmdsn = None
        self.tsih = 0
        self.queue = []
        self.sock = socket.create_connection((address, port), DEADLINE, source and (source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # -- PDUs -------------------------------------------------------------------------------

    def encode(self, pdu, damage_header=False, damage_data=False):
        out = bytes(pdu.header)
        if self.header_digest:
            digest = crc32c(out)
            out += bytes([digest[0] ^ 1]) + digest[1:] if damage_header else digest
        out += pad(pdu.data)
        if self.data_digest and pdu.data:
            digest = crc32c(pad(pdu.data))
            out += bytes([digest[0] ^ 1]) + digest[1:] if damage_data else digest
        return out

    def send(self, *pdus, **how):
        self.send_raw(b"".join(self.encode(pdu, **how) for pdu in pdus))

    def send_raw(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as gone:
            raise Closed from gone

    def take(self, length, until):
        out = b""
        while len(out) < length:
            left = until - time.monotonic()
            if left <= 0:
                raise Silence
            self.sock.settimeout(left)
            try:
                part = self.sock.recv(length - len(out))
            except socket.timeout as late:
                raise Silence from late
            except ConnectionResetError as gone:
                raise Closed from gone
            if not part:
                raise Closed
            out += part
        return out

    def receive(self, seconds=DEADLINE):
        """The next PDU; its digests are checked, our numbers follow it."""
        until = time.monotonic() + seconds
        pdu = Pdu(header=self.take(48, until))
        if self.header_digest:
            assert self.take(4, until) == crc32c(pdu.header), "header digest"
        length = struct.unpack(">I", b"\0" + bytes(pdu.header[5:8]))[0]
        padded = self.take(length + -length % 4, until)
        if self.data_digest and length:
            assert self.take(4, until) == crc32c(padded), "data digest"
        pdu.data = padded[:length]
        if pdu.opcode != DATA_IN or pdu.flags & 1:
            if pdu.opcode in (RESPONSE, TMF_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE, REJECT,
                              DATA_IN, LOGOUT_RESPONSE, ASYNC) or (
                                  pdu.opcode == NOP_IN and pdu["itt"] != NO_TAG):
                self.expstatsn = pdu["statsn"] + 1 & NO_TAG
        self.expcmdsn, self.maxcmdsn = pdu["expcmdsn"], pdu["maxcmdsn"]
        return pdu

    def expect(self, opcode, itt=None, seconds=DEADLINE):
        """The next PDU must be this; pings are answered on the way."""
        while True:
            pdu = self.receive(seconds)
            if pdu.opcode == NOP_IN and pdu["itt"] == NO_TAG and opcode != NOP_IN:
                if pdu["ttt"] != NO_TAG:
                    self.send(Pdu(NOP_OUT | IMMEDIATE, itt=NO_TAG, ttt=pdu["ttt"],
                                  cmdsn=self.cmdsn, expstatsn=self.expstatsn))
                continue
            assert pdu.opcode == opcode, f"{pdu}, not {opcode:02x}"
            assert itt is None or pdu["itt"] == itt, f"{pdu}, not of {itt:x}"
            return pdu

    def expect_closed(self, seconds=DEADLINE):
        """Whatever it still says, then its end."""
        said = []
        try:
            while True:
                said.append(self.receive(seconds))
        except Closed:
            return said

    def close(self):
        self.sock.close()

    # -- login ------------------------------------------------------------------------------

    def login_pdu(self, stage, following, pairs, transit=True, **fields):
        flags = stage << 2 | (0x80 | following if transit else 0)
        pdu = Pdu(LOGIN | IMMEDIATE, flags, text(pairs), itt=0, cmdsn=self.cmdsn,
                  expstatsn=self.expstatsn)
        pdu.header[8:14] = self.isid
        struct.pack_into(">H", pdu.header, 14, self.tsih)
        for name, value in fields.items():
            pdu[name] = value
        return pdu

    def login_step(self, *arguments, **fields):
        self.send(self.login_pdu(*arguments, **fields))
        return self.expect(LOGIN_RESPONSE)

    def names(self, target):
        who = [("InitiatorName", self.name)]
        if target is None:
            return who + [("SessionType", "Discovery")]
        return who + [("SessionType", "Normal"), ("TargetName", target)]

    def offers(self, changes):
        changes = dict(changes)
        rows = [(key, changes.pop(key, value)) for key, value in self.OFFERS]
        return [row for row in rows + list(changes.items()) if row[1] is not None]

    def chap(self, target, user, secret, algorithm=7, mutual=None, spoil=False):
        """Stage 0 until it is over; returns the last answer."""
        answer = self.login_step(0, 0, self.names(target) + [("AuthMethod", "CHAP")], False)
        if answer[36] >> 16:
            return answer
        answer = self.login_step(0, 0, [("CHAP_A", str(algorithm))], False)
        if answer[36] >> 16:
            return answer
        keys = pairs_of(answer.data)
        assert keys["CHAP_A"] == str(algorithm), keys
        challenge = bytes.fromhex(keys["CHAP_C"][2:])
        identifier = bytes([int(keys["CHAP_I"])])
        response = ALGORITHMS[algorithm](identifier + secret.encode() + challenge).digest()
        if spoil:
            response = bytes([response[0] ^ 1]) + response[1:]
        pairs = [("CHAP_N", user), ("CHAP_R", "0x" + response.hex())]
        ours = os.urandom(24)
        if mutual:
            pairs += [("CHAP_I", "77"), ("CHAP_C", "0x" + ours.hex())]
        answer = self.login_step(0, 1, pairs)
        if mutual and not answer[36] >> 16:
            keys = pairs_of(answer.data)
            assert keys["CHAP_N"] == mutual[0], keys
            wanted = ALGORITHMS[algorithm](bytes([77]) + mutual[1].encode() + ours).digest()
            assert bytes.fromhex(keys["CHAP_R"][2:]) == wanted, "the target's own response"
        return answer

    def login(self, target=None, chap=None, **changes):
        """All of it; @chap: keywords of chap(). Returns self, or raises what was answered."""
        stage_pairs = self.offers(changes)
        if chap:
            answer = self.chap(target, **chap)
            assert not answer[36] >> 16, f"login status {answer[36] >> 16:04x}"
        else:
            stage_pairs = self.names(target) + stage_pairs
        answer = self.login_step(1, 3, stage_pairs)
        status = answer[36] >> 16
        assert status == 0, f"login status {status:04x}"
        self.agreed = pairs_of(answer.data)
        self.tsih = struct.unpack_from(">H", answer.header, 14)[0]
        self.header_digest = self.agreed.get("HeaderDigest") == "CRC32C"
        self.data_digest = self.agreed.get("DataDigest") == "CRC32C"
        return self

    # -- requests ---------------------------------------------------------------------------

    def tag(self):
        self.next_itt += 1
        return self.next_itt

    def number(self, immediate=False):
        number = self.cmdsn
        if not immediate:
            self.cmdsn = self.cmdsn + 1 & NO_TAG
        return number

    def command(self, cdb, flags=FINAL, expected=0, data=b"", immediate=False, lun=0, itt=None,
                attribute=1):
        pdu = Pdu(COMMAND | (IMMEDIATE if immediate else 0), flags | attribute, data,
                  itt=self.tag() if itt is None else itt, expected=expected,
                  cmdsn=self.number(immediate), expstatsn=self.expstatsn)
        pdu.header[9] = lun
        pdu.header[32:32 + len(cdb)] = cdb
        return pdu

    def read_pdu(self, lba, blocks, size=512, **how):
        return self.command(struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0), FINAL | READ,
                            blocks * size, **how)

    def write_pdu(self, lba, blocks, data=b"", size=512, final=True, **how):
        flags = (FINAL if final else 0) | WRITE
        return self.command(struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0), flags,
                            blocks * size, data, **how)

    def data_out(self, itt, ttt, datasn, offset, data, final=True):
        return Pdu(DATA_OUT, FINAL if final else 0, data, itt=itt, ttt=ttt, datasn=datasn,
                   offset=offset, expstatsn=self.expstatsn)

    def nop(self, data=b"", immediate=True, itt=None, ttt=NO_TAG):
        return Pdu(NOP_OUT | (IMMEDIATE if immediate else 0), FINAL, data,
                   itt=self.tag() if itt is None else itt, ttt=ttt,
                   cmdsn=self.number(immediate), expstatsn=self.expstatsn)

    def tmf(self, function, referenced=NO_TAG, refcmdsn=0, immediate=True, lun=0):
        pdu = Pdu(TMF | (IMMEDIATE if immediate else 0), FINAL | function, itt=self.tag(),
                  ttt=referenced, cmdsn=self.number(immediate), expstatsn=self.expstatsn,
                  refcmdsn=refcmdsn)
        pdu.header[9] = lun
        return pdu

    def logout(self, reason=0, cid=0):
        pdu = Pdu(LOGOUT | IMMEDIATE, FINAL | reason, itt=self.tag(), cmdsn=self.cmdsn,
                  expstatsn=self.expstatsn)
        struct.pack_into(">H", pdu.header, 20, cid)
        return pdu

    def send_targets(self, what="All", immediate=False, ttt=NO_TAG, itt=None):
        data = text([("SendTargets", what)]) if what is not None else b""
        return Pdu(TEXT | (IMMEDIATE if immediate else 0), FINAL, data,
                   itt=self.tag() if itt is None else itt, ttt=ttt,
                   cmdsn=self.number(immediate), expstatsn=self.expstatsn)

    # -- whole exchanges --------------------------------------------------------------------

    def collect(self, itt):
        """Data-In and status of a command: (data, the PDU that has the status)."""
        data, datasn = b"", 0
        while True:
            pdu = self.receive()
            if pdu.opcode == NOP_IN and pdu["itt"] == NO_TAG:
                continue
            assert pdu["itt"] == itt, f"{pdu}, not of {itt:x}"
            if pdu.opcode == DATA_IN:
                assert pdu["datasn"] == datasn and pdu["offset"] == len(data), pdu
                data, datasn = data + pdu.data, datasn + 1
                if not pdu.flags & 1:
                    continue
                assert pdu.flags & FINAL, "status without the final bit"
                return data, pdu
            assert pdu.opcode == RESPONSE, pdu
            return data, pdu

    def read(self, lba, blocks, size=512):
        pdu = self.read_pdu(lba, blocks, size)
        self.send(pdu)
        data, end = self.collect(pdu["itt"])
        assert end.status == 0, (end, end.sense)
        return data

    def feed(self, itt, payload, piece=65536, r2tsn=0):
        """Answers R2T, from the @r2tsn-th, with @payload's bytes until the status comes."""
        while True:
            pdu = self.receive()
            if pdu.opcode == NOP_IN and pdu["itt"] == NO_TAG:
                continue
            assert pdu["itt"] == itt, f"{pdu}, not of {itt:x}"
            if pdu.opcode == RESPONSE:
                return pdu
            assert pdu.opcode == R2T and pdu["r2tsn"] == r2tsn, pdu
            r2tsn += 1
            self.send(*self.burst(itt, pdu, payload, piece))

    def burst(self, itt, r2t, payload, piece=65536):
        at, end, datasn, pdus = r2t["offset"], r2t["offset"] + r2t["length"], 0, []
        assert end <= len(payload), "R2T beyond the command"
        while at < end:
            length = min(piece, end - at)
            pdus.append(self.data_out(itt, r2t["ttt"], datasn, at, payload[at:at + length],
                                      at + length == end))
            at, datasn = at + length, datasn + 1
        return pdus

    def write(self, lba, payload, size=512, immediate=8192, **how):
        pdu = self.write_pdu(lba, len(payload) // size, payload[:immediate], size, **how)
        self.send(pdu)
        end = self.feed(pdu["itt"], payload)
        assert end.status == 0, (end, end.sense)

    def test_unit_ready(self):
        """Until unit attentions are told; False when it will not be ready."""
        for _ in range(10):
            pdu = self.command(bytes(6))
            self.send(pdu)
            if self.collect(pdu["itt"])[1].status == 0:
                return self
        raise AssertionError("never ready")
