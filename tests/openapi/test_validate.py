#!/usr/bin/env python3
"""The validator validated: what agrees passes, each lie is told, nothing checked fails. The
examples of the document go through it as answers and as requests."""

import copy
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
API = json.loads((HERE / "../../openapi/openapi.json").read_text())
SCHEMAS = API["components"]["schemas"]
ID = "0193a5b0-7c3e-7000-8000-00000000000a"
JSON = "application/json"
PROBLEM = "application/problem+json"


def example(name):
    return copy.deepcopy(SCHEMAS[name]["examples"][0])


def exchange(method, path, status, body=None, kind=JSON, request=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        headers["Content-Type"] = kind
    line = {"method": method, "path": path, "status": status, "headers": headers}
    if body is not None:
        line["body"] = body
    if request is not None:
        line["request"] = request
    return line


def started(**more):
    return dict(
        exchange(
            "POST", "/replicas", 202, example("CreateReplicaAnswer"),
            request=example("ReplicaCreate"), Location=f"/jobs/{ID}", Retry_After="2",
        ),
        **more,
    )


def listed(path, name):
    return exchange("GET", path, 200, {"Members": [example(name)], "Next": None})


def one(path, name):
    return exchange("GET", path + "/" + ID, 200, example(name), ETag='"r1"')


def problem(status, **members):
    body = dict(example("Problem"), status=status, **members)
    return exchange("POST", "/replicas", status, body, PROBLEM)


GOOD = [
    started(),
    started(request=dict(example("ReplicaCreate"), CopyType="Async", TargetPool=None)),
    started(body=json.dumps(example("CreateReplicaAnswer"))),
    one("/replicas", "Replica"),
    one("/elements", "Element"),
    one("/jobs", "Job"),
    one("/settings", "Setting"),
    one("/pipes", "Pipe"),
    one("/results", "Result"),
    listed("/replicas?limit=5&CopyType=2,Sync", "Replica"),
    listed("/elements", "Element"),
    listed("/jobs", "Job"),
    listed("/pools", "Pool"),
    listed("/settings", "Setting"),
    listed("/pipes", "Pipe"),
    listed("/results", "Result"),
    listed(f"/jobs/{ID}/errors", "Error"),
    exchange("GET", "/capabilities", 200, example("Capabilities"), ETag='"r1"'),
    exchange("GET", f"/elements/{ID}/export", 200, example("Export"), ETag='"r1"'),
    exchange("PATCH", f"/elements/{ID}", 200, example("Element"), ETag='"r2"',
             request=example("ElementPatch")),
    exchange("DELETE", f"/settings/{ID}", 204),
    exchange("GET", f"/jobs/{ID}?wait=3", 304, ETag='"r1"'),
    exchange("HEAD", "/jobs", 200, **{"Content_Type": JSON}),
    exchange("GET", "/livez", 200, "ok", "text/plain; charset=utf-8"),
    exchange("GET", "/readyz", 200, example("Health")),
    exchange("GET", "/metrics", 200, "a 1\n", "text/plain; version=0.0.4"),
    exchange("GET", "/events", 200, "retry: 3000\n\n", "text/event-stream"),
    exchange("GET", "/openapi.json", 200, API),
    problem(409),
    problem(404),
    problem(422, ReturnValue=5, ReturnValueName="Invalid Parameter"),
    exchange("GET", "/nowhere", 404, dict(example("Problem"), status=404), PROBLEM),
    exchange("PUT", "/jobs", 405, dict(example("Problem"), status=405), PROBLEM,
             Allow="GET, HEAD"),
    exchange("GET", "/jobs", 421, dict(example("Problem"), status=421), PROBLEM),
]


def without(line, name):
    line = copy.deepcopy(line)
    del line["body"][name]
    return line


def changed(line, **members):
    line = copy.deepcopy(line)
    line["body"].update(members)
    return line


JOB = one("/jobs", "Job")
BAD = [
    without(JOB, "JobState"),
    without(JOB, "Actions"),
    changed(JOB, Colour="red"),
    changed(JOB, Differences=[{"Offset": 0, "Length": 512, "Colour": "red"}]),
    changed(JOB, JobState=1),
    changed(JOB, JobState="Running"),
    changed(JOB, JobStateName="Suspended"),
    changed(JOB, PercentComplete=101),
    changed(JOB, TimeSubmitted="yesterday"),
    changed(JOB, SourceElement=ID),
    changed(JOB, Id=ID.upper()),
    changed(JOB, Actions=["Resume"]),
    changed(one("/replicas", "Replica"), CopyTypeName="Sync"),
    changed(one("/replicas", "Replica"), Operations=["Copy"]),
    changed(one("/elements", "Element"), Size=-1),
    changed(one("/elements", "Element"), Size="1"),
    without(listed("/jobs", "Job"), "Next"),
    changed(listed("/jobs", "Job"), Members=[{}]),
    dict(JOB, headers={"Content-Type": JSON}),
    dict(JOB, headers={"Content-Type": "text/plain", "ETag": '"r1"'}),
    dict(JOB, headers={"ETag": '"r1"'}),
    dict(JOB, status=201),
    dict(JOB, body="{"),
    dict(JOB, body=None),
    dict(JOB, method="POST"),
    dict(JOB, path="/job/" + ID),
    dict(JOB, path=f"/jobs/{ID}/"),
    started(headers={"Content-Type": JSON, "Location": f"/jobs/{ID}"}),
    started(headers={"Content-Type": JSON, "Retry-After": "2"}),
    started(headers={"Content-Type": JSON, "Location": "/jobs/x", "Retry-After": "0"}),
    started(request={"SourceElement": ID}),
    started(request=dict(example("ReplicaCreate"), Goal={})),
    started(request=dict(example("ReplicaCreate"), CopyType=6)),
    problem(418),
    dict(problem(409), status=422),
    changed(problem(409), type="about:blank"),
    changed(problem(409), ReturnValue=7),
    without(problem(409), "RequestId"),
    dict(problem(409), headers={"Content-Type": JSON}),
    exchange("DELETE", f"/settings/{ID}", 204, {}),
    exchange("DELETE", f"/settings/{ID}", 200, {}),
    exchange("PUT", "/jobs", 405, dict(example("Problem"), status=405), PROBLEM),
    exchange("PUT", "/jobs", 405, dict(example("Problem"), status=405), PROBLEM,
             Allow="GET, HEAD, POST"),
    exchange("GET", "/jobs", 405, dict(example("Problem"), status=405), PROBLEM,
             Allow="GET, HEAD"),
    exchange("GET", "/nowhere", 200, {}),
    exchange("GET", "/metrics", 200, "", "text/plain"),
    {"method": "GET", "path": "/jobs"},
    [],
]


def validate(lines, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
        file.flush()
        done = subprocess.run([HERE / "validate", *options, file.name], text=True,
                              capture_output=True, check=False)
    return done.returncode, done.stdout + done.stderr


def main():
    failed = 0
    code, said = validate(GOOD)
    if code != 0:
        print("good exchanges are refused:\n" + said)
        failed += 1
    # All lies in one run: each line must be named.
    code, said = validate(BAD)
    for number, line in enumerate(BAD, 1):
        if f".jsonl:{number}: " not in said:
            print("passed:", json.dumps(line)[:300])
            failed += 1
    if code != 1:
        failed += 1
    code, said = validate([], "--examples")
    print(said.strip())
    if code != 0:
        failed += 1
    if validate(GOOD[:1], "--complete")[0] != 1:
        print("most operations were never seen, and that is no failure")
        failed += 1
    if validate([])[0] != 2:
        print("a file with no line in it is no failure")
        failed += 1
    print(f"{len(GOOD)} good, {len(BAD)} bad, {failed} wrong")
    return 1 if failed or not GOOD or not BAD else 0


sys.exit(main())
