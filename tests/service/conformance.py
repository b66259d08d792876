#!/usr/bin/env python3
"""libiscsi's conformance suite against an export of the real daemon, family by family.

usage: conformance.py REPLICAD [FAMILY...]     exit 0 when nothing failed and every skip is allowed
       conformance.py --planted                exit 0 when planted failures are found

Its own summary counts a skipped test as passed; here a skip is a skip, and must stand in ALLOWED
with what the device honestly is not.
"""
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

LIMIT = 300  # seconds a family may take, however slow the machine
MIB = 1 << 20
SIZE = 192 * MIB  # WRITE SAME to the end of a unit wants more than 128 MiB
FAR = "iqn.2026-11.example:far"

# What an export is not, by family or FAMILY.TEST; "thin:" and "full:" for one kind alone.
FULL = "the unit is fully provisioned"
PHYSICAL = "its logical blocks are its physical ones"
ALLOWED = {
    "ExtendedCopy": "EXTENDED COPY is left out: its access checks have been everybody's hole",
    "ReceiveCopyResults": "goes with EXTENDED COPY",
    "NoMedia": "the medium is not removable",
    "PreventAllow": "the medium is not removable",
    "StartStopUnit": "the medium is not removable",
    "ReadOnly": "the unit is not write protected",
    "ReadDefectData10": "there are no defect lists",
    "ReadDefectData12": "there are no defect lists",
    "Sanitize": "the unit has no sanitize operations: SANITIZE is optional, 20h/00h says so",
    "WriteAtomic16":
        "the unit has no atomic writes: they are optional, 20h/00h and VPD B0h say so",
    "ModeSense6.Control-SWP": "the unit is not write protected by software",
    "Reserve6.TargetColdReset": "TARGET COLD RESET is refused: it is a tool to deny service",
    "CompareAndWrite.InvalidDataOutSize": PHYSICAL,
    "WriteSame10.InvalidDataOutSize": PHYSICAL,
    "WriteSame16.InvalidDataOutSize": PHYSICAL,
    "WriteSame10.UnmapUnaligned": PHYSICAL,
    "WriteSame16.UnmapUnaligned": PHYSICAL,
    "ReportSupportedOpcodes.OneCommand":
        "the suite says so when it gets the 24h/00h that it asks for itself",
    "full:Unmap": FULL,
    "full:GetLBAStatus": FULL,
    "full:Inquiry.BlockLimits": FULL,
    "full:WriteSame10.Unmap": FULL,
    "full:WriteSame10.UnmapUntilEnd": FULL,
    "full:WriteSame10.UnmapVPD": FULL,
    "full:WriteSame16.Unmap": FULL,
    "full:WriteSame16.UnmapUntilEnd": FULL,
    "full:WriteSame16.UnmapVPD": FULL,
}

# Tests that contradict the standard, with the clause.
CONTRADICT = {
    "thin:WriteSame10.UnmapUntilEnd":
        "SBC-3, WRITE SAME and unmap operations: it sends FFh with UNMAP=1 and wants zeros back; "
        "later reads return what was sent",
}

TEST = re.compile(r"^  Test: (\S+) \.\.\.", re.M)


def judge(output):
    """{test: "pass" | "skip" | "fail"} of one family's output, and its text by test."""
    verdicts, texts = {}, {}
    body = output.split("Run Summary:")[0]
    found = list(TEST.finditer(body))
    for at, match in enumerate(found):
        end = found[at + 1].start() if at + 1 < len(found) else len(body)
        text = body[match.start():end]
        name = match.group(1)
        if re.search(r"(^|\.\.\.)FAILED", text, re.M):
            verdict = "fail"
        elif "[SKIPPED]" in text:
            verdict = "skip"
        elif re.search(r"(^|\.\.\.)passed", text, re.M):
            verdict = "pass"
        else:
            verdict = "fail"  # it never said
        verdicts[name], texts[name] = verdict, text
    return verdicts, texts


def allowed(kind, family, test, table=None):
    return any(f"{prefix}{name}" in (ALLOWED if table is None else table)
               for prefix in ("", kind + ":") for name in (family, f"{family}.{test}"))


class FarSide:
    """A tgtd with one LUN that is fully provisioned: what a file never quite is."""

    def __init__(self, directory):
        self.environment = dict(os.environ, TGT_IPC_SOCKET=os.path.join(directory, "tgt"))
        if not any(self.start() for _ in range(10)):
            raise SystemExit("tgtd does not start")
        path = os.path.join(directory, "full.img")
        with open(path, "wb") as full:
            os.posix_fallocate(full.fileno(), 0, SIZE)
        unit = ("--mode", "logicalunit", "--tid", "1", "--lun", "1")
        if not (self.admin("--mode", "target", "--op", "new", "--tid", "1", "-T", FAR) and
                self.admin("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL") and
                self.admin(*unit, "--op", "new", "-b", path)):
            raise SystemExit("tgtd refuses")
        self.address = f"iscsi://127.0.0.1:{self.port}/{FAR}/1"

    def start(self):
        """On a port that was free; somebody else may have taken it since."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            ["tgtd", "-f", "-C", "1", "--iscsi", f"portal=127.0.0.1:{self.port}"],
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            if self.admin("--mode", "sys", "--op", "show"):
                return True
            time.sleep(0.02)
        self.stop()
        return False

    def admin(self, *words):
        return subprocess.run(["tgtadm", "-C", "1", "--lld", "iscsi", *words], check=False,
                              env=self.environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0

    def stop(self):
        self.process.kill()
        self.process.wait()


class Daemon:
    def __init__(self, binary):
        self.far = None
        self.directory = tempfile.TemporaryDirectory(prefix="replicad-cu-")
        self.pool = os.path.join(self.directory.name, "pool")
        os.mkdir(self.pool)
        self.log = open(os.path.join(self.directory.name, "log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [binary, "--data-dir", os.path.join(self.directory.name, "data"),
             "--http", "127.0.0.1:0", "--iscsi", "127.0.0.1:0", "--iscsi", "127.0.0.1:0",
             "--pool", f"default={self.pool}"],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        found = re.match(r"replicad ready http=(\S+) iscsi=(\S+),(\S+) health", line)
        if not found:
            raise SystemExit(f"the daemon does not start: {line}{self.tail()}")
        self.http, *self.portals = found.groups()

    def tail(self):
        self.log.seek(0)
        return self.log.read()[-4000:]

    def call(self, method, path, body):
        request = urllib.request.Request(
            f"http://{self.http}{path}", method=method, data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def export(self, body):
        element = self.call("POST", "/elements", dict(body, Type="StorageVolume"))
        export = self.call("PUT", element["Self"] + "/export", {"Initiators": ["*"]})
        return [f"iscsi://{portal}/{export['TargetName']}/0" for portal in self.portals]

    def export_of(self, kind):
        if kind == "thin":
            return self.export({"Pool": "default", "Size": SIZE})
        self.far = FarSide(self.directory.name)
        return self.export({"Address": self.far.address})

    def stop(self):
        self.process.terminate()
        status = self.process.wait(60)
        tail = self.tail()
        if self.far:
            self.far.stop()
        self.directory.cleanup()
        return status, tail


def families():
    listed = subprocess.run(["iscsi-test-cu", "--list"], capture_output=True, text=True,
                            check=False)
    found = re.findall(r"^ALL\.([^.\s]+)$", listed.stdout + listed.stderr, re.M)
    return list(dict.fromkeys(found))


def run_family(urls, family):
    """Two paths only where they are the matter: elsewhere they only double the time."""
    paths = urls if family == "MultipathIO" else urls[:1]
    try:
        done = subprocess.run(
            ["iscsi-test-cu", "-d", "-v", "-t", f"ALL.{family}", *paths],
            capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired as late:
        text = late.stdout or b""
        return (text.decode(errors="replace") if isinstance(text, bytes) else text) + \
            f"\n(not over after {LIMIT} s)\n"
    return done.stdout + done.stderr


def run_kind(daemon, kind, wanted):
    urls = daemon.export_of(kind)
    counts = {"pass": 0, "skip": 0, "contradict": 0, "fail": 0}
    bad = []
    for family in wanted:
        output = run_family(urls, family)
        verdicts, texts = judge(output)
        if not verdicts:
            bad.append(f"{kind} {family}: no test ran\n{output[-2000:]}")
        for test, verdict in verdicts.items():
            if verdict == "fail" and allowed(kind, family, test, CONTRADICT):
                verdict = "contradict"
            counts[verdict] += 1
            if verdict == "fail" or (verdict == "skip" and not allowed(kind, family, test)):
                bad.append(f"{kind} {family}.{test}: {verdict}\n{texts[test][-1500:]}")
    print(f"{kind}: {sum(counts.values())} tests in {len(wanted)} families: "
          f"{counts['pass']} pass, {counts['fail']} fail, {counts['skip']} skip, "
          f"{counts['contradict']} contradict the standard")
    return bad, sum(counts.values())


PLANTED = """
Suite: Some
  Test: Good ...passed
  Test: Quiet ...    [SKIPPED] Media is not removable.
passed
  Test: Bad ...    [FAILED] it went wrong
FAILED
    1. test.c:1  - CU_ASSERT_EQUAL(_r,0)
  Test: Silent ...    and then it hung
"""


def planted():
    verdicts, _ = judge(PLANTED)
    wanted = {"Good": "pass", "Quiet": "skip", "Bad": "fail", "Silent": "fail"}
    fine = verdicts == wanted and not allowed("thin", "Some", "Quiet") and \
        allowed("thin", "NoMedia", "NoMediaSBC")
    print("planted failures are found" if fine else f"wrong: {verdicts}")
    return 0 if fine else 1


def main(arguments):
    if arguments == ["--planted"]:
        return planted()
    daemon = Daemon(arguments[0])
    wanted = arguments[1:] or families()
    bad, tests = [], 0
    for kind in ("thin", "full"):
        more, count = run_kind(daemon, kind, wanted)
        bad += more
        tests += count
    status, tail = daemon.stop()
    if status != 0:
        bad.append(f"the daemon ended with {status}\n{tail}")
    for text in bad:
        print(text)
    return 0 if tests and not bad else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
