#!/usr/bin/env python3
"""The OpenAPI document against the tables of the code: numbers and names of CIM, routes,
calls, problems. Standard library only; fails when a comparison found nothing to compare."""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
API = json.loads((ROOT / "openapi/openapi.json").read_text())
SCHEMAS = API["components"]["schemas"]
wrong = []


def same(what, have, want):
    if have != want:
        wrong.append(f"{what}: the document has {have}, the table {want}")


def table(name, macro):
    """Arguments of each row MACRO(...) of a .tbl.h, strings without their quotes."""
    text = (ROOT / name).read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = []
    for row in re.findall(macro + r'\(((?:[^()"]|"(?:[^"\\]|\\.)*")*)\)', text):
        cells = re.findall(r'(?:\s*"(?:[^"\\]|\\.)*")+|[^,]+', row)
        found.append(
            ["".join(re.findall(r'"([^"]*)"', c)) if '"' in c else c.strip() for c in cells]
        )
    return found


def check_words():
    """Every map of api/cim is in the document, and the document has no other."""
    used = set()
    count = 0
    for name, schema in SCHEMAS.items():
        words = schema.get("x-cim-map")
        if not words:
            continue
        used.add(words)
        rows = table(f"api/cim/{words}.tbl.h", "ROW")
        if schema["type"] == "integer":
            same(name, schema["enum"], [int(row[0]) for row in rows])
        else:
            names = [cell for row in rows for cell in row[2:]]
            same(name, schema["enum"], list(dict.fromkeys(names)))
        count += len(rows)
    have = {path.name.split(".")[0] for path in (ROOT / "api/cim").glob("*.tbl.h")}
    same("maps", used, have - {"legality"})
    for name, schema in SCHEMAS.items():
        numbers = schema.get("type") == "integer" and "enum" in schema
        if numbers and "x-cim-map" not in schema:
            wrong.append(f"{name}: numbers without a table")
    return count


def camel(symbol):
    first, *rest = symbol.lower().split("_")
    return first + "".join(part.capitalize() for part in rest)


def operations():
    return {
        (method.upper(), re.sub(r"\{[^}]*\}", "{id}", path)): operation
        for path, item in API["paths"].items()
        for method, operation in item.items()
    }


def check_routes():
    """The router and the document have the same methods and paths, by the same names."""
    file = ROOT / "server/http/routes.tbl.h"
    methods = {row[0]: row[1] for row in table("api/calls.tbl.h", "CALL")}
    rows = table(file, "ROUTE")
    have = operations()
    want = {(row[0], row[1]): row for row in rows}
    same("paths", sorted(have), sorted(want))
    for key in have.keys() & want.keys():
        operation, (_, _, serve, call, body) = have[key], want[key]
        symbol = call if serve == "CALL" else serve
        same(f"{key} operationId", operation["operationId"], camel(symbol))
        method = methods.get(call, "")
        if method:
            same(f"{key} x-cim-method", operation.get("x-cim-method"), method)
        media = set(operation.get("requestBody", {}).get("content", {}))
        json_types = {"application/json"} if body != "NONE" else set()
        patch = {"application/merge-patch+json"} if body == "PATCH" else set()
        same(f"{key} media types", media, json_types | patch)
    same("calls", set(methods) - {row[3] for row in rows}, set())
    return len(rows)


def check_filters():
    """What a list takes in its query, and what the document says of it."""
    count = 0
    gets = {path: item["get"] for path, item in API["paths"].items() if "get" in item}
    for file in sorted((ROOT / "api").glob("*.c")):
        text = file.read_text()
        rows = re.search(r"list_members\[\] = \{(.*?)\n\};", text, re.S)
        served = re.search(r'list_serve\(call, \w+, "(/\w+)"', text)
        if not rows or not served:
            continue
        have = {p["name"] for p in gets[served.group(1)]["parameters"] if "name" in p}
        want = set(re.findall(r'\.name = "(\w+)"', rows.group(1)))
        same(f"filters of {served.group(1)}", sorted(have), sorted(want))
        count += len(want)
    return count


def check_details():
    """What a linter does not ask: refusals everywhere, closed requests, known problems."""
    count = 0
    for key, operation in operations().items():
        responses = operation["responses"]
        need = {"400", "403", "414", "421"}
        if "requestBody" in operation:
            need |= {"413", "415", "422"}
        if "{id}" in key[1]:
            need |= {"404"}
        missing = need - set(responses)
        if missing:
            wrong.append(f"{key}: no {sorted(missing)}")
        for media in operation.get("requestBody", {}).get("content", {}).values():
            name = media["schema"]["$ref"].split("/")[-1]
            for part in SCHEMAS[name].get("oneOf", [{"$ref": "/" + name}]):
                schema = SCHEMAS[part["$ref"].split("/")[-1]]
                if schema.get("additionalProperties") is not False:
                    wrong.append(f"{key}: {part} takes unknown members")
                if not schema.get("examples"):
                    wrong.append(f"{key}: {part} has no example")
        count += 1
    return count


def main():
    checked = {c.__name__: c() for c in (check_words, check_routes, check_filters,
                                              check_details)}
    print(", ".join(f"{name}: {count}" for name, count in checked.items()))
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong or not all(checked.values()) else 0


sys.exit(main())
