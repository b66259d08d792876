#!/usr/bin/env python3
"""Every operation of the document asked of a running service, good and bad, and each answer
recorded: one exchange a line, as validate reads them.

usage: walk.py REPLICAD OUT. Starts REPLICAD in a directory of its own, on a free port."""

import http.client
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

SIZE = 4 << 20
NOBODY = "0193a5b0-7c3e-7000-8000-00000000000a"


class Service:
    """One replicad: started, asked, stopped; what was said goes to @out."""

    def __init__(self, binary, folder, out):
        self.out = out
        self.pool = folder / "pool"
        self.pool.mkdir()
        self.process = subprocess.Popen(
            [binary, "--data-dir", folder / "data", "--pool", f"default={self.pool}",
             "--http", "127.0.0.1:0", "--health", "127.0.0.1:0", "--iscsi", "127.0.0.1:0",
             "--log-level", "warn"],
            stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        words = dict(word.split("=") for word in line.split() if "=" in word)
        self.port = int(words["http"].split(":")[1])
        self.lines = 0

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)

    def ask(self, method, path, request=None, headers=None, raw=None, read=None):
        """The status, body and headers of one answer; recorded."""
        headers = dict(headers or {})
        body = raw if raw is not None else json.dumps(request) if request is not None else None
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = (answer.read1(read) if read else answer.read()).decode()
        connection.close()
        line = {"method": method, "path": path, "status": answer.status,
                "headers": dict(answer.getheaders())}
        if body is not None:
            line["request"] = request if raw is None else raw
        kind = answer.getheader("Content-Type", "")
        value = json.loads(text) if text and "json" in kind else text
        if text:
            line["body"] = value
        self.out.write(json.dumps(line) + "\n")
        self.lines += 1
        return answer.status, value, answer

    def until(self, path, state):
        """The job at @path when it is in @state, or over."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            _, job, _ = self.ask("GET", path + ("?wait=10" if state >= 7 else ""))
            if job["JobState"] >= 7 or job["JobState"] == state:
                return job
        raise TimeoutError(path)


def make_element(service, name, size=SIZE, **more):
    _, element, _ = service.ask("POST", "/elements", dict(
        {"Type": "StorageVolume", "ElementName": name, "Pool": "default", "Size": size}, **more))
    return element


def walk_elements(service):
    ask = service.ask
    source = make_element(service, "source")
    part = {"Type": "StorageExtent", "Of": source["Self"], "Offset": 1 << 20, "Size": 1 << 20}
    _, extent, _ = ask("POST", "/elements", part)
    ask("GET", source["Self"])
    _, _, answer = ask("GET", "/elements/" + source["Id"])
    tag = answer.getheader("ETag")
    ask("GET", source["Self"], headers={"If-None-Match": tag})
    ask("HEAD", source["Self"])
    ask("PATCH", source["Self"], {"ElementName": "renamed"}, {"If-Match": tag})
    ask("PATCH", source["Self"], {"ElementName": "again"}, {"If-Match": tag})
    ask("PATCH", source["Self"], {"ElementName": "again"},
        {"Content-Type": "application/merge-patch+json"})
    ask("PATCH", source["Self"], {"Size": 1})
    ask("GET", "/elements?limit=1")
    ask("GET", "/elements?Type=StorageVolume&Usage=2,Other&Remote=false")
    ask("GET", "/elements?Of=" + source["Id"] + "&Address=" + source["Address"])
    ask("GET", "/elements?Colour=red")
    ask("GET", "/elements?limit=0")
    for bad in ({"Type": "StorageVolume"}, {"Type": "Cube", "Pool": "default", "Size": 512},
                {"Type": "FileSystem", "Pool": "default", "Size": 512},
                {"Type": "LogicalFile", "Address": "pool:default/../../etc/passwd"},
                {"Type": "LogicalFile", "Address": "pool:default/missing.img"},
                {"Type": "StorageVolume", "Address": "iscsi://192.0.2.1:3260/iqn.2026-11.x:y/0"},
                {"Type": "StorageVolume", "Address": "iscsi://127.0.0.1:1/iqn.2026-11.x:y/0"},
                {"Type": "StorageVolume", "Pool": "default", "Size": 1 << 62},
                {"Type": "StorageVolume", "Pool": "nowhere", "Size": 512}):
        ask("POST", "/elements", bad)
    ask("GET", "/elements/" + NOBODY)
    ask("GET", "/elements/no-id")
    ask("DELETE", source["Self"])
    ask("DELETE", extent["Self"])
    ask("DELETE", source["Self"])
    ask("DELETE", source["Self"])
    golden = {"Type": "LogicalFile", "ElementName": "golden", "Address": "pool:default/golden.img"}
    (service.pool / "golden.img").write_bytes(random.Random(1).randbytes(SIZE))
    _, source, _ = ask("POST", "/elements", golden)
    ask("POST", "/elements", golden)
    return source


def walk_exports(service, element):
    for method, request in (("GET", None), ("PUT", {"Initiators": ["*"]}), ("DELETE", None)):
        service.ask(method, element["Self"] + "/export", request)
        service.ask(method, f"/elements/{NOBODY}/export", request)


def walk_pools(service):
    _, pools, _ = service.ask("GET", "/pools")
    service.ask("GET", pools["Members"][0]["Self"])
    service.ask("GET", "/pools?limit=1")
    service.ask("GET", "/pools/nowhere")


def walk_settings(service):
    ask = service.ask
    goal = {"ElementName": "slow", "ReplicationPriority": 4, "BandwidthLimit": 1 << 20,
            "DesiredCopyMethodology": 3}
    _, setting, answer = ask("POST", "/settings", goal)
    ask("GET", setting["Self"])
    ask("GET", "/settings?ElementName=slow")
    ask("PATCH", setting["Self"], {"DesiredRPO": 60, "ReplicationPriority": "Low"},
        {"If-Match": answer.getheader("ETag")})
    ask("PATCH", setting["Self"], {"DesiredRPO": None})
    ask("PATCH", setting["Self"], {"AutoDelete": True})
    ask("POST", "/settings", {"DesiredRPO": 1})
    ask("POST", "/settings", {"FailedCopyStopsHostIO": True})
    _, second, _ = ask("POST", "/settings", {
        "InitialSynchronization": 2, "CopyRecoveryMode": "Manual", "FailedCopyStopsHostIO": False,
        "ThinProvisionedPoolType": 9, "ThinProvisionedInitialReserve": 0, "Verify": True})
    ask("DELETE", second["Self"])
    ask("DELETE", second["Self"])
    ask("GET", second["Self"])
    return setting


def walk_pipes(service):
    ask = service.ask
    _, pipe, _ = ask("POST", "/pipes", {"ElementName": "p", "SourceSystem": "a",
                                        "TargetSystem": "b", "TargetEndpoint": ["127.0.0.1:3261"],
                                        "BandwidthLimit": 0})
    ask("GET", pipe["Self"])
    ask("GET", "/pipes")
    ask("PATCH", pipe["Self"], {"BandwidthLimit": 1024})
    ask("POST", "/pipes", {"TargetEndpoint": ["example.com:3260"]})
    ask("POST", "/pipes", {})
    ask("DELETE", pipe["Self"])
    ask("GET", pipe["Self"])


def walk_jobs(service, source, setting):
    """A copy that takes its time: looked at, turned, held, ended."""
    ask = service.ask
    body = {"SourceElement": source["Self"], "CopyType": 4, "ElementName": "held",
            "TargetSettingGoal": setting["Self"]}
    _, answer, _ = ask("POST", "/replicas", body, {"Idempotency-Key": '"k1"'})
    ask("POST", "/replicas", body, {"Idempotency-Key": '"k1"'})
    ask("POST", "/replicas", dict(body, CopyType=5), {"Idempotency-Key": '"k1"'})
    job, replica = answer["Job"], answer["Replica"]
    ask("GET", job)
    ask("GET", "/jobs?JobState=4,New&SourceElement=" + source["Id"])
    ask("DELETE", job)
    ask("DELETE", replica)
    ask("GET", replica)
    ask("POST", replica + "/modify", {"Operation": "Resync"})
    ask("POST", job + "/request-state-change", {"RequestedState": 3})
    service.until(job, 5)
    ask("POST", job + "/request-state-change", {"RequestedState": "Start"})
    ask("POST", job + "/request-state-change", {"RequestedState": 9})
    ask("PATCH", job, {"BandwidthLimit": 1 << 30})
    ask("PATCH", job, {"BandwidthLimit": -1})
    service.until(job, 7)
    ask("POST", job + "/request-state-change", {"RequestedState": "Suspend"})
    ask("GET", job + "/errors")
    ask("GET", f"/jobs/{NOBODY}/errors")
    ask("DELETE", job)
    ask("GET", job)
    ask("GET", "/jobs?cursor=nothing")
    return replica


def walk_replicas(service, source, replica):
    ask = service.ask
    ask("GET", replica)
    ask("GET", "/replicas?CopyType=UnSyncAssoc,2&SyncState=14&SourceElement=" + source["Self"])
    ask("GET", "/replicas?SystemElement=" + source["Id"] + "&ReplicationPipe=" + NOBODY)
    ask("PATCH", replica, {"CopyPriority": "High"})
    ask("PATCH", replica, {"CopyPriority": 9})
    for operation in ("Fracture", "Unquiesce", 4):
        ask("POST", replica + "/modify", {"Operation": operation}, {"Prefer": "wait=30"})
    ask("POST", replica + "/verify", None, {"Prefer": "wait=30"})
    ask("POST", replica + "/modify", {"Operation": 14})
    ask("POST", replica + "/modify", {})
    for bad in ({}, {"SourceElement": source["Self"]},
                {"SourceElement": source["Self"], "CopyType": 1},
                {"SourceElement": source["Self"], "CopyType": 6},
                {"SourceElement": source["Self"], "CopyType": 40000},
                {"SourceElement": source["Self"], "CopyType": 3},
                {"SourceElement": NOBODY, "CopyType": 5},
                {"SourceElement": source["Self"], "CopyType": 5, "Goal": {}}):
        ask("POST", "/replicas", bad)
    _, done, _ = ask("POST", "/replicas", {"SourceElement": source["Self"], "CopyType": 5},
                     {"Prefer": "wait=30"})
    ask("GET", done["TargetElement"])
    target = make_element(service, "target")
    attach = {"SourceElement": source["Self"], "CopyType": 2, "Goal": {"DesiredRPO": 60}}
    _, answer, _ = ask("POST", f"/replicas/{target['Id']}/attach", attach)
    service.until(answer["Job"], 7)
    ask("POST", answer["Replica"] + "/attach", attach)
    ask("POST", answer["Replica"] + "/attach",
        dict(attach, Goal="instance of CIM_StorageSetting { ReplicationPriority = 4; };"))
    ask("POST", answer["Replica"] + "/attach", dict(attach, CopyType=4))
    ask("POST", answer["Replica"] + "/attach", dict(attach, SourceElement=target["Self"]))
    ask("GET", answer["Replica"])
    ask("DELETE", target["Self"])
    ask("DELETE", answer["Replica"])
    ask("GET", answer["Replica"])
    ask("DELETE", target["Self"])


def walk_service(service):
    ask = service.ask
    _, results, _ = ask("GET", "/results?limit=3")
    ask("GET", results["Next"])
    ask("GET", results["Members"][0]["Self"])
    ask("GET", "/results?ReturnValue=5,6&MethodName=CreateReplica")
    ask("GET", "/results/" + NOBODY)
    ask("GET", "/capabilities")
    ask("GET", "/events?Type=Job&last_event_id=0", read=65536)
    ask("GET", "/events?Type=%20")
    for probe in ("livez", "readyz", "healthz"):
        ask("GET", "/" + probe)
        ask("GET", f"/{probe}?verbose")
        ask("GET", "/" + probe, headers={"Accept": "application/json"})
        ask("GET", f"/{probe}?no")
    ask("GET", "/metrics")
    ask("GET", "/openapi.json")
    ask("GET", "/problems/in-use")
    ask("GET", "/problems/out-of-luck")


def walk_refusals(service):
    """What never reaches a method."""
    ask = service.ask
    ask("POST", "/replicas", raw="{")
    ask("POST", "/replicas", raw='{"CopyType":2,"CopyType":3}')
    ask("POST", "/replicas", raw="[" * 100)
    ask("POST", "/replicas", raw="{}", headers={"Content-Type": "text/plain"})
    ask("POST", "/replicas", raw="{" + " " * 70000 + "}")
    ask("GET", "/nowhere")
    ask("PUT", "/replicas", {})
    ask("DELETE", "/jobs")
    ask("POST", "/livez", {})
    ask("GET", "/jobs", headers={"Host": "example.com"})
    ask("GET", "/jobs", headers={"Origin": "http://example.com"})
    ask("GET", "/jobs?" + "x" * 5000)


def main():
    binary, target = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    with tempfile.TemporaryDirectory() as folder, open(target, "w", encoding="utf-8") as out:
        service = Service(binary, pathlib.Path(folder), out)
        try:
            source = walk_elements(service)
            walk_exports(service, source)
            walk_pools(service)
            setting = walk_settings(service)
            walk_pipes(service)
            replica = walk_jobs(service, source, setting)
            walk_replicas(service, source, replica)
            walk_service(service)
            walk_refusals(service)
        finally:
            code = service.stop()
    print(f"{service.lines} exchanges recorded, replicad exits {code}")
    return code


sys.exit(main())
