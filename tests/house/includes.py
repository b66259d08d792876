#!/usr/bin/env python3
"""Who may include whom: the table of the house, checked on every source file.

usage: includes.py ROOT          exit 0 when all includes keep the table
       includes.py --planted     exit 0 when planted sins are found (the gate can fail)
"""
import os
import re
import sys
import tempfile

# room -> (rooms it may include, libraries that live there)
TABLE = {
    "replica/base": ((), ("isa-l", "xxhash.h", "gnutls/")),
    "replica/loop": (("replica/base",), ("uv.h",)),
    "replica/block": (("replica/base", "replica/loop"), ("iscsi/", "liburing")),
    "replica/copy": (("replica/base", "replica/loop", "replica/block"), ()),
    "replica/mirror": (("replica/base", "replica/loop", "replica/block"), ()),
    "replica": (("replica/base", "replica/loop", "replica/block", "replica/copy",
                 "replica/mirror"), ()),
    "store": (("replica/base",), ("sqlite3.h",)),
    "api/cim": ((), ()),
    "api/json": (("replica/base", "api/cim"), ("jansson.h",)),
    "api": (("replica/base", "api/cim", "api/json"), ()),
    "server/http": (("replica/base",), ("microhttpd.h",)),
    "server/iscsi": (("replica/base", "replica/loop", "replica/block"), ()),
    "server": (("replica/base",), ("cyaml/",)),
}
# Single headers of a room that others may include: its face.
FACES = {
    "api": ("replica/engine.h", "store/store.h", "store/rows.h"),
    "server/http": ("api/api.h", "api/calls.tbl.h", "api/verdicts.tbl.h"),
    "server": ("api/api.h", "server/http/http.h", "server/http/endpoint.h",
               "server/iscsi/target.h", "replica/engine.h"),
}
# A library that is kept to one file of its room.
ONE_FILE = {"iscsi/": 1, "liburing": 1}
LIBRARIES = sorted({lib for _, libs in TABLE.values() for lib in libs})
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.M)


def room_of(path):
    """The longest room that is a folder of @path, or None."""
    folder = os.path.dirname(path)
    while folder:
        if folder in TABLE:
            return folder
        folder = os.path.dirname(folder)
    return None


def library_of(name):
    return next((lib for lib in LIBRARIES if name.startswith(lib)), None)


def check(root):
    """Returns (files, includes, sins)."""
    files = includes = 0
    sins = []
    users = {}
    for top in sorted({room.split("/")[0] for room in TABLE}):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if not name.endswith((".c", ".h")):
                    continue
                path = os.path.relpath(os.path.join(folder, name), root)
                room = room_of(path)
                files += 1
                if room is None:
                    sins.append(f"{path}: is in no room of the table")
                    continue
                with open(os.path.join(root, path), encoding="utf-8") as text:
                    found = INCLUDE.findall(text.read())
                for quote, wanted in found:
                    includes += 1
                    library = library_of(wanted)
                    if library:
                        users.setdefault(library, set()).add(path)
                        if library not in TABLE[room][1]:
                            sins.append(f"{path}: <{wanted}> does not live in {room}")
                    elif quote == '"':
                        other = room_of(wanted)
                        if other is None:
                            sins.append(f'{path}: "{wanted}" names no room')
                        elif other != room and other not in TABLE[room][0] \
                                and wanted not in FACES.get(room, ()):
                            sins.append(f"{path}: {room} may not include {wanted}")
    for library, most in ONE_FILE.items():
        if len(users.get(library, ())) > most:
            sins.append(f"<{library}>: in more than one file: {sorted(users[library])}")
    return files, includes, sins


PLANTED = {
    "replica/copy/sin.c": '#include "store/store.h"\n',
    "store/sin.c": '#include "replica/engine.h"\n',
    "api/sin.c": "#include <jansson.h>\n",
    "server/http/sin.c": '#include "api/service.h"\n',
    "server/iscsi/sin.c": '#include "api/api.h"\n',
    "replica/block/sin.h": "# include <sqlite3.h>\n",
    "replica/base/sin.c": '#include "replica/loop/loop.h"\n',
    "replica/block/one.c": "#include <iscsi/iscsi.h>\n",
    "replica/block/two.c": "#include <iscsi/iscsi.h>\n",
}


def planted():
    """Each sin alone must be found, and a virtuous file must pass."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in PLANTED.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
        good = os.path.join(root, "replica/copy/good.c")
        with open(good, "w", encoding="utf-8") as file:
            file.write('#include "replica/block/device.h"\n#include <stdint.h>\n')
        _, _, sins = check(root)
    guilty = {sin.split(":")[0] for sin in sins}
    wanted = {p for p in PLANTED if not p.endswith(("one.c", "two.c"))} | {"<iscsi/>"}
    print(f"{len(guilty)} planted sins found: {sorted(guilty)}")
    return guilty == wanted


def main():
    if sys.argv[1] == "--planted":
        return 0 if planted() else 1
    files, includes, sins = check(sys.argv[1])
    for sin in sins:
        print(sin)
    print(f"{files} files, {includes} includes, {len(sins)} against the table")
    if files < 50 or includes < 200:
        print("too few to have checked the house")
        return 1
    return 1 if sins else 0


if __name__ == "__main__":
    sys.exit(main())
