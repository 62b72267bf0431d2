"""set-features.py DIR: the image in DIR needs a register state (XCR0 bit 62) that no CPU has; all sums are put right."""

import struct
import sys

TREE = 0x43521000


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def find_record(data):
    """Where the fixed part of the first record of type TREE begins."""
    offset, size, count = struct.unpack_from("<Q14xHH", data, 32)
    for i in range(count):
        kind, _, at, _, _, length = struct.unpack_from("<IIQQQQ", data, offset + i * size)
        end = at + length
        while kind == 4 and at < end:
            name, desc, note = struct.unpack_from("<III", data, at)
            start = at + 12 + (name + 3 & ~3)
            if note == TREE:
                return start
            at = start + (desc + 3 & ~3)
    sys.exit("no record of the tree")


def main(directory):
    with open(directory + "/tree", "r+b") as f:
        data = bytearray(f.read())
        at = find_record(data) + 16  # head, version, root_pid
        struct.pack_into("<Q", data, at, struct.unpack_from("<Q", data, at)[0] | 1 << 62)
        f.seek(0)
        f.write(data)
    with open(directory + "/manifest", encoding="ascii") as f:
        lines = f.read().splitlines()
    for i, line in enumerate(lines):
        words = line.split()
        if words[:2] == ["file", "tree"]:
            start, end = int(words[5]), int(words[6])
            words[8] = f"{crc32c(data[:start] + data[end:] if end > start else data):08x}"
            lines[i] = " ".join(words)
    text = "\n".join(lines[:-1]) + "\n"
    with open(directory + "/manifest", "w", encoding="ascii") as f:
        f.write(text + f"sum {crc32c(text.encode()):08x}\n")


main(sys.argv[1])
