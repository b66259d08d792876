#!/usr/bin/env python3
"""Writes the hand-made inputs of fuzz_scsi beside it: one command of every row in every shape
of unit, and some lives of several commands. Finds are added as files of their own."""
import os

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "scsi")
ROWS = 60  # as many as the table has, or more: the fuzzer takes the remainder


def command(slot, row, how=0, expected=8, cdb=b"", answer=1):
    """Byte 0 of a CDB names a row of the table."""
    body = (bytes([row]) + cdb).ljust(16, b"\0")
    return bytes([4 | slot << 3, answer, how]) + body + bytes([expected])


def turn(count=31):
    return bytes([3 | count << 3, 1])


def save(name, data):
    os.makedirs(HERE, exist_ok=True)
    with open(os.path.join(HERE, name), "wb") as out:
        out.write(data)


for shape in range(8):
    every = bytes([shape])
    every += command(0, 0) + command(1, 0, how=4) + turn()  # the attentions
    for row in range(ROWS):
        every += command(row % 12, row, how=2 if row % 2 else 0) + turn() + turn()
    save(f"every_row_{shape}", every)

for shape in (1, 5):
    life = bytes([shape]) + command(0, 0) + command(1, 0, how=4) + turn()
    for slot in range(12):
        life += command(slot, slot * 5, expected=40, answer=0, cdb=b"\0\0\0\0\1\0\0\x40")
    life += bytes([0 | 3 << 3, 0]) + turn() + bytes([1, 1, 4]) + turn()
    life += bytes([2 | 5 << 3, 0]) + turn()
    save(f"aborted_{shape}", life)
