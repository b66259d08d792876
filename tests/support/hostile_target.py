#!/usr/bin/env python3
"""An iSCSI target that misbehaves by plan: a disk in memory, one LUN, no security.

    hostile_target.py [--address A] [--blocks N] [--block-size B] [--lun N]
                      [--thin [--garbage]] [RULE ...]

A RULE is WHAT:ACTION[*TIMES]; WHAT is the hex opcode of a SCSI command (9e with its service
action: 9e10, 9e12), "login", "tmf", "logout", or "room": a command that expects more than 1 MiB
of data; it strikes the first TIMES (default: all) of them, then the next rule for the same
WHAT is in force, then honesty. With --garbage LBPRZ is 0, and blocks read as anything once
they are given back. Prints "port N" when it listens; serves until it is killed.
"""
import argparse
import socket
import struct
import sys
import threading

CHECK, BUSY, BLOCKED = 0x02, 0x08, 0xFFFFFFFF


class Disk:
    def __init__(self, blocks, block_size, thin, garbage):
        self.blocks, self.block_size, self.thin = blocks, block_size, thin
        self.garbage = garbage
        self.bytes = bytearray(blocks * block_size)
        self.serial, self.gone = b"hostile-1", False
        self.lock = threading.Lock()


class Rules:
    def __init__(self, texts):
        self.rows = []
        for text in texts:
            what, _, action = text.partition(":")
            action, _, times = action.partition("*")
            self.rows.append([what, action, int(times) if times else -1])
        self.lock = threading.Lock()

    def take(self, what):
        with self.lock:
            for row in self.rows:
                if row[0] == what and row[2] != 0:
                    row[2] -= row[2] > 0
                    return row[1]
        return "good"


class Session:
    def __init__(self, sock, disk, rules, lun):
        self.sock, self.disk, self.rules, self.lun = sock, disk, rules, lun
        self.stat_sn, self.exp_cmd_sn = 1, 1

    def read(self, length):
        data = b""
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def send(self, opcode, flags, fields, data=b"", status=True):
        """@fields: (offset, format, value) beyond the common ones."""
        header = bytearray(48)
        header[0], header[1] = opcode, flags
        header[5:8] = struct.pack(">I", len(data))[1:]
        struct.pack_into(">III", header, 24, self.stat_sn if status else 0, self.exp_cmd_sn,
                         self.exp_cmd_sn + 64)
        for offset, layout, value in fields:
            struct.pack_into(layout, header, offset, value)
        if status:
            self.stat_sn += 1
        self.sock.sendall(bytes(header) + data + b"\0" * (-len(data) % 4))

    def serve(self):
        try:
            while True:
                header = self.read(48)
                length = struct.unpack(">I", b"\0" + header[5:8])[0]
                data = self.read(length + (-length % 4))[:length]
                self.itt = struct.unpack_from(">I", header, 16)[0]
                opcode = header[0] & 0x3F
                if opcode in (0x01, 0x02, 0x06) and not header[0] & 0x40:
                    self.exp_cmd_sn = struct.unpack_from(">I", header, 24)[0] + 1
                if opcode == 0x03:
                    self.login(header, data)
                elif opcode == 0x01:
                    self.command(header, data)
                elif opcode == 0x02:
                    self.task_management()
                elif opcode == 0x06:
                    if self.rules.take("logout") == "mute":
                        continue
                    self.send(0x26, 0x80, [(16, ">I", self.itt)])
                    return
                elif opcode == 0x00 and self.itt != BLOCKED:
                    self.send(0x20, 0x80, [(16, ">I", self.itt), (20, ">I", BLOCKED)], data)
        except (ConnectionError, OSError):
            pass
        finally:
            self.sock.close()

    def login(self, header, data):
        action = self.rules.take("login")
        flags, stage = header[1], header[1] >> 2 & 3
        keys, status = b"", 0
        if action == "mute":
            return
        if action == "close":
            raise ConnectionError
        if action == "redirect":
            keys, status, flags = b"TargetAddress=127.0.0.1:9,1\0", 0x0101, flags & ~0x80
        elif action.startswith("status="):
            status, flags = int(action[7:], 16), flags & ~0x80
        elif stage == 0:
            keys = b"AuthMethod=None\0"
        else:
            keys = (b"HeaderDigest=None\0DataDigest=None\0InitialR2T=Yes\0ImmediateData=Yes\0"
                    b"MaxRecvDataSegmentLength=262144\0MaxBurstLength=262144\0"
                    b"FirstBurstLength=262144\0DefaultTime2Wait=0\0DefaultTime2Retain=0\0"
                    b"MaxConnections=1\0MaxOutstandingR2T=1\0ErrorRecoveryLevel=0\0")
        self.exp_cmd_sn = struct.unpack_from(">I", header, 24)[0]
        self.send(0x23, flags, [(8, ">Q", struct.unpack_from(">Q", header, 8)[0] | 1),
                                (16, ">I", self.itt), (36, ">H", status)], keys)

    def task_management(self):
        action = self.rules.take("tmf")
        if action == "mute":
            return
        response = int(action[9:], 16) if action.startswith("response=") else 0
        self.send(0x22, 0x80, [(2, ">B", response), (16, ">I", self.itt)])

    def response(self, status=0, data=b"", residual=0):
        flags = 0x80 | (0x02 if residual > 0 else 0x04 if residual < 0 else 0)
        self.send(0x21, flags, [(3, ">B", status), (16, ">I", self.itt),
                                (44, ">I", abs(residual))], data)

    def sense(self, key, asc, ascq, descriptor=False):
        if descriptor:
            data = bytes([0x72, key, asc, ascq, 0, 0, 0, 0])
        else:
            data = bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])
        self.response(CHECK, struct.pack(">H", len(data)) + data)

    def data_in(self, data, expected, skip=(), residual=None, empty=False):
        """@skip: numbers of the 4 KiB pieces that are not sent."""
        residual = expected - len(data) if residual is None else residual
        pieces = [(i, data[i:i + 4096]) for i in range(0, len(data), 4096)]
        pieces = [p for n, p in enumerate(pieces) if n not in skip] or [(0, b"")]
        for n, (offset, piece) in enumerate(pieces):
            last = n == len(pieces) - 1
            flags = (0x81 if last else 0)
            if last and residual:
                flags |= 0x02 if residual > 0 else 0x04
            self.send(0x25, flags, [(16, ">I", self.itt), (20, ">I", BLOCKED),
                                    (36, ">I", n), (40, ">I", offset),
                                    (44, ">I", abs(residual) if last else 0)],
                      b"" if empty else piece, status=last)

    def command(self, header, data):
        cdb, expected = header[32:48], struct.unpack_from(">I", header, 20)[0]
        lun = struct.unpack_from(">H", header, 8)[0]
        right = self.lun if self.lun < 256 else 0x4000 | self.lun
        what = "%02x" % cdb[0] if cdb[0] != 0x9E else "9e%02x" % (cdb[1] & 0x1F)
        what = what if expected <= 1 << 20 else "room"
        action = self.rules.take(what)
        if action == "mute":
            return
        if action == "close":
            raise ConnectionError
        if action.startswith(("sense=", "descriptor=")):
            self.sense(*(int(x, 16) for x in action.split("=")[1].split("/")),
                       descriptor=action[0] == "d")
        elif action.startswith("sensebytes="):
            self.response(CHECK, b"\0\x12\x70\0\x03\0\0\0\0\0"[:int(action[11:])])
        elif action.startswith("status="):
            self.response(int(action[7:], 16))
        elif action == "shrink":
            self.disk.blocks //= 2
            self.sense(6, 0x2A, 9)
        elif action == "grow":
            self.disk.blocks *= 2
            self.sense(6, 0x2A, 9)
        elif action == "vanish":
            self.disk.gone = True
            self.sense(6, 0x3F, 0x0E)
        elif action == "rename":
            self.disk.serial = b"hostile-2"
            self.sense(6, 0x3F, 0x03)
        elif action == "async":
            self.send(0x32, 0x80, [(16, ">I", BLOCKED), (36, ">B", 1)])
        elif action == "stranger":
            self.itt ^= 0x5555
            self.response()
        elif lun != right or (self.disk.gone and cdb[0] != 0x12):
            self.sense(5, 0x25, 0)
        else:
            self.execute(cdb, expected, data, action)

    def execute(self, cdb, expected, data, action):
        disk, op = self.disk, cdb[0]
        lba, count = struct.unpack_from(">Q", cdb, 2)[0], struct.unpack_from(">I", cdb, 10)[0]
        at, size = lba * disk.block_size, count * disk.block_size
        if op in (0x88, 0x8A) and lba + count > disk.blocks:
            self.sense(5, 0x21, 0)
        elif op == 0x88:
            self.read_command(bytes(disk.bytes[at:at + size]).ljust(size, b"\0"), expected,
                              action)
        elif op == 0x8A:
            with disk.lock:
                disk.bytes[at:at + size] = data
            self.response(residual=512 if action == "residual" else 0)
        elif op == 0x12:
            self.inquiry(cdb, expected)
        elif op == 0x9E and cdb[1] & 0x1F == 0x10:
            length = expected if action == "long" else 32
            if action == "longer" and expected > 32:
                length = expected + 4096
            thin = 0 if not disk.thin else 0x80 if disk.garbage else 0xC0 # LBPME, LBPRZ
            self.data_in(struct.pack(">QIHB", disk.blocks - 1, disk.block_size, 0,
                                     thin).ljust(length, b"\0"), expected)
        elif op == 0x9E and cdb[1] & 0x1F == 0x12 and disk.thin:
            self.lba_status(lba, expected, action)
        elif op == 0x93 and disk.thin:
            unmap = disk.garbage and cdb[1] & 0x08
            disk.bytes[at:at + size] = b"\xdb" * size if unmap else data * count
            self.response()
        elif op in (0x00, 0x35):
            self.response()
        else:
            self.sense(5, 0x20, 0)

    def read_command(self, data, expected, action):
        if action == "short":
            self.data_in(data[:-self.disk.block_size], expected, residual=0)
        elif action == "gap":
            self.data_in(data, expected, skip=(1,))
        elif action == "residual":
            self.data_in(data, expected, residual=512)
        elif action == "nodata":
            self.response()
        elif action == "empty":
            self.data_in(b"", expected, residual=0)
        elif action == "long":
            self.data_in(data + bytes(4096), expected, residual=0)
        else:
            self.data_in(data, expected)

    def lba_status(self, lba, expected, action):
        """Runs of eight blocks: deallocated when they are zeros."""
        disk, runs, end = self.disk, b"", len(self.disk.bytes) // self.disk.block_size
        while lba < end:
            count = min(8 - lba % 8, end - lba)
            piece = disk.bytes[lba * disk.block_size:(lba + count) * disk.block_size]
            runs += struct.pack(">QIB3x", lba, count, not any(piece))
            lba += count
        data = (struct.pack(">II", len(runs) + 4, 0) + runs)[:expected]
        if action == "nodata":
            self.response()
        elif action == "header": # and none of the runs it speaks of, nor a residual
            self.data_in(data[:8], expected, residual=0)
        else:
            self.data_in(data, expected)

    def inquiry(self, cdb, expected):
        if self.disk.gone:
            page = b"\x7f\0\6\2\x1f".ljust(36, b"\0")
        elif not cdb[1] & 1:
            page = b"\0\0\6\2\x1f\0\0\0REPLICADhostile         0001"
        elif cdb[2] == 0x80:
            page = bytes([0, 0x80, 0, len(self.disk.serial)]) + self.disk.serial
        elif cdb[2] == 0xB2 and self.disk.thin:
            page = bytes([0, 0xB2, 0, 4, 0, 0xC0, 2, 0])
        elif cdb[2] == 0x83:
            naa = bytes([0x60] + [7] * 15)
            page = bytes([0, 0x83, 0, 4 + len(naa), 1, 3, 0, len(naa)]) + naa
        else:
            self.sense(5, 0x24, 0)
            return
        self.data_in(page[:expected], expected)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--blocks", type=int, default=4096)
    parser.add_argument("--block-size", type=int, default=512)
    parser.add_argument("--lun", type=int, default=0)
    parser.add_argument("--thin", action="store_true")
    parser.add_argument("--garbage", action="store_true")
    parser.add_argument("rules", nargs="*")
    options = parser.parse_args()
    disk = Disk(options.blocks, options.block_size, options.thin, options.garbage)
    rules = Rules(options.rules)
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    listener = socket.socket(family)
    listener.bind((options.address, 0))
    listener.listen()
    print("port", listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(sock, disk, rules, options.lun)
        threading.Thread(target=session.serve, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
