"""The cases of scripts/bench: replicad beside a named peer, in turn, A B A B.

Every figure is the median over pairs of peer/ours (wall, more is better for us) and
ours/peer (CPU seconds of the client, less is better for us), with the smallest and the
largest pair in brackets. The daemon's CPU is its own utime and stime; the peer's is that
of its finished process. Both sides end with the data flushed.
"""
import argparse
import json
import os
import platform
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

MIB = 1 << 20
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.path.join(ROOT, "build/release/replicad")
TARGET = "iqn.2026-11.example:bench"
TICK = os.sysconf("SC_CLK_TCK")
CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*command, check=True, **options):
    return subprocess.run(command, check=check, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, **options)


def run_timed(command):
    """Wall and CPU seconds of one finished command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    run(*command)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


class Tgt:
    """One tgtd with one target; LUNs over files on tmpfs."""

    def __init__(self, world, segment=None):
        self.port, self.control = free_port(), free_port()
        self.directory = tempfile.mkdtemp(dir=world.shm)
        self.environment = dict(os.environ, TGT_IPC_SOCKET=self.directory + "/socket")
        self.process = subprocess.Popen(
            ["tgtd", "-f", "-C", str(self.control), "--iscsi", f"portal=127.0.0.1:{self.port}"],
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while self.admin("--mode", "sys", "--op", "show", check=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("tgtd does not start")
            time.sleep(0.05)
        self.admin("--mode", "target", "--op", "new", "--tid", "1", "-T", TARGET)
        self.admin("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL")
        if segment:
            for key in ("MaxRecvDataSegmentLength", "MaxXmitDataSegmentLength",
                        "FirstBurstLength", "MaxBurstLength"):
                self.admin("--mode", "target", "--op", "update", "--tid", "1",
                           "--name", key, "--value", str(segment))

    def admin(self, *words, check=True):
        return run("tgtadm", "-C", str(self.control), "--lld", "iscsi", *words, check=check,
                   env=self.environment)

    def lun(self, number, path, thin=False):
        self.admin("--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", str(number),
                   "-b", path)
        params = f"scsi_id=B{self.port}{number},scsi_sn=B{self.port}{number}"
        if thin:
            params += ",thin_provisioning=1"
        self.admin("--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun",
                   str(number), "--params", params)
        return f"iscsi://127.0.0.1:{self.port}/{TARGET}/{number}"

    def cpu(self):
        return process_cpu(self.process.pid)

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def process_cpu(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Daemon:
    def __init__(self, world, *options, pool=None):
        self.directory = tempfile.mkdtemp(dir=world.shm)
        self.pool = pool or os.path.join(self.directory, "pool")
        self.process = subprocess.Popen(
            [BINARY, "--data-dir", os.path.join(self.directory, "data"),
             "--http", "127.0.0.1:0", "--iscsi", "127.0.0.1:0", "--log-level", "error",
             "--pool", f"default={self.pool}", *options],
            stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        self.http = dict(word.split("=", 1) for word in ready.split()[2:])["http"]

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://{self.http}{path}", method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=100) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()}") from error
        return json.loads(text) if text else None

    def element(self, address, kind="StorageVolume"):
        return self.call("POST", "/elements", {"Type": kind, "ElementName": "bench",
                                               "Address": address})["Id"]

    def attach(self, source, target, copy_type=5, goal=None):
        body = {"SourceElement": source, "CopyType": copy_type}
        if goal:
            body["Goal"] = goal
        return self.call("POST", f"/replicas/{target}/attach", body)

    def job(self, path):
        while True:
            job = self.call("GET", path + "?wait=60")
            if job["JobState"] in (7, 8, 9, 10):
                if job["JobState"] != 7:
                    raise RuntimeError(f"the job failed: {job['ErrorDescription']}")
                return job

    def cpu(self):
        return process_cpu(self.process.pid)

    def peak(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) / 1024
        return 0.0

    def written(self):
        """Bytes handed to write system calls: sockets and files."""
        with open(f"/proc/{self.process.pid}/io", encoding="ascii") as io:
            return int(dict(line.split(": ") for line in io)["wchar"])

    def timed(self, start):
        """Wall and CPU seconds from the call to the end of its job, and the job."""
        cpu, began = self.cpu(), time.monotonic()
        job = self.job(start()["Job"])
        return time.monotonic() - began, self.cpu() - cpu, job

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class World:
    """What a case works with; everything it made is taken away after it."""

    def __init__(self, arguments):
        self.pairs, self.size = arguments.pairs, arguments.size * MIB
        self.shm = tempfile.mkdtemp(prefix="replicad-bench-", dir="/dev/shm")
        self.things = []

    def tgt(self, **options):
        return self.keep(Tgt(self, **options))

    def daemon(self, *options, **more):
        return self.keep(Daemon(self, *options, **more))

    def keep(self, thing):
        self.things.append(thing)
        return thing

    def file(self, name, size, dense=1.0, directory=None, holes=False):
        """Noise; with @dense below 1, that share of 64 KiB blocks in runs, the rest zeros."""
        path = os.path.join(directory or self.shm, name)
        noise, step = os.urandom(4 * MIB), 64 << 10
        with open(path, "wb") as file:
            if dense == 1.0:
                for _ in range(0, size, len(noise)):
                    file.write(noise[:size - file.tell()])
            else:
                period = int(step / dense)
                if not holes:
                    for _ in range(0, size, len(noise)):
                        file.write(bytes(len(noise)))
                for n, at in enumerate(range(0, size - step, period)):
                    file.seek(at - at % step)
                    file.write(noise[n % 64 * step:][:step])
            file.truncate(size)
        os.chmod(path, 0o600)
        return path

    def close(self):
        for thing in reversed(self.things):
            thing.stop()
        shutil.rmtree(self.shm, ignore_errors=True)


def spread(values):
    return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"


def compare(world, name, peer_name, ours, peer, goal):
    """@ours and @peer give (wall, cpu); run in turn after one uncounted run of each."""
    ours(), peer()
    mine, theirs = [], []
    for _ in range(world.pairs):
        mine.append(ours())
        theirs.append(peer())
    wall = spread([t[0] / m[0] for m, t in zip(mine, theirs)])
    cpu = spread([m[1] / max(t[1], 0.01) for m, t in zip(mine, theirs)])
    print(f"{name}: throughput {wall} x {peer_name}, CPU {cpu} x; "
          f"median {statistics.median(m[0] for m in mine):.3f} s against "
          f"{statistics.median(t[0] for t in theirs):.3f} s; goal {goal}", flush=True)


def best_of(candidates, runs=3):
    """The candidate with the smallest median wall time: (name, function)."""
    medians = {}
    for name, function in candidates.items():
        function()
        medians[name] = statistics.median(function()[0] for _ in range(runs))
    name = min(medians, key=medians.get)
    print("  peer's settings: " + ", ".join(f"{n} {m:.2f} s" for n, m in medians.items()),
          flush=True)
    return name, candidates[name]


def qemu_img(source, target, *options):
    return lambda: run_timed(["qemu-img", "convert", "-n", "-t", "none", "-f", "raw", "-O",
                              "raw", *options, source, target])


def qemu_best(source, target):
    return best_of({f"qemu-img {' '.join(words)}": qemu_img(source, target, *words)
                    for words in (("-W", "-m", "2"), ("-W", "-m", "8"), ("-m", "8"))})


def lun_to_lun(world, name, goal, segment=None, thin=False, refill=None, **content):
    source_side, target_side = world.tgt(segment=segment), world.tgt(segment=segment)
    source_file = world.file("source", world.size, **content)
    target_file = world.file("target", world.size, dense=0.5 if thin else 1.0, holes=thin)
    source = source_side.lun(1, source_file, thin)
    target = target_side.lun(1, target_file, thin)
    daemon = world.daemon()
    a, b = daemon.element(source), daemon.element(target)

    def ours():
        if refill:
            refill(target_file)
        wall, cpu, _ = daemon.timed(lambda: daemon.attach(a, b))
        return wall, cpu

    peer_name, peer = qemu_best(source, target)

    def theirs():
        if refill:
            refill(target_file)
        return peer()

    compare(world, name, peer_name, ours, theirs, goal)
    run("cmp", source_file, target_file)
    print(f"  compared equal by cmp; peak memory {daemon.peak():.0f} MiB", flush=True)


@case
def lun_dense(world):
    """dense LUN to LUN, far side with 256 KiB segments"""
    lun_to_lun(world, "lun-dense", "throughput >= 1.2, CPU <= 0.75", segment=262144)


@case
def lun_dense_default(world):
    """dense LUN to LUN, far side with its default segments"""
    lun_to_lun(world, "lun-dense-default", "throughput >= 1.3, CPU <= 0.6")


@case
def lun_zeros(world):
    """90 % zero in runs of 64 KiB and more, thick target that is not zero"""
    noise = os.urandom(MIB)

    def refill(path):
        with open(path, "r+b") as file:
            for _ in range(0, world.size, MIB):
                file.write(noise)

    lun_to_lun(world, "lun-zeros", "throughput >= 1.45", segment=262144, dense=0.1,
               refill=refill)


@case
def lun_zeros_fresh(world):
    """90 % zero, LUN to a fresh pool element, against qemu-img to a new file"""
    side = world.tgt(segment=262144)
    source_file = world.file("source", world.size, dense=0.1)
    source = side.lun(1, source_file)
    daemon = world.daemon()
    a = daemon.element(source)
    made = []

    def ours():
        if made:
            daemon.call("DELETE", f"/elements/{made.pop()}")
        wall, cpu, job = daemon.timed(lambda: daemon.call(
            "POST", "/replicas", {"SourceElement": a, "CopyType": 5}))
        made.append(job["TargetElement"].rsplit("/", 1)[1])
        return wall, cpu

    out = os.path.join(world.shm, "peer")

    def peer(*words):
        def once():
            if os.path.exists(out):
                os.unlink(out)
            return run_timed(["qemu-img", "convert", "-t", "none", "-f", "raw", "-O", "raw",
                              *words, source, out])
        return once

    name, best = best_of({f"qemu-img {' '.join(w)}": peer(*w)
                          for w in (("-W", "-m", "2"), ("-W", "-m", "8"), ("-m", "8"))})
    compare(world, "lun-zeros-fresh", name, ours, best, "throughput >= 2.3")
    run("cmp", source_file, os.path.join(daemon.pool, made[0] + ".raw"))


@case
def lun_thin(world):
    """thin and sparse LUN to thin LUN"""
    lun_to_lun(world, "lun-thin", "throughput >= 10", segment=262144, thin=True, dense=0.02,
               holes=True)


@case
def lun_to_file(world):
    """dense, LUN to file on tmpfs"""
    side = world.tgt(segment=262144)
    source_file = world.file("source", world.size)
    source = side.lun(1, source_file)
    daemon = world.daemon()
    target_file = world.file("target", world.size, directory=daemon.pool)
    a, b = daemon.element(source), daemon.element("pool:default/target", "LogicalFile")
    peer_name, peer = qemu_best(source, target_file)
    compare(world, "lun-to-file", peer_name,
            lambda: daemon.timed(lambda: daemon.attach(a, b))[:2], peer, "throughput >= 1.1")
    run("cmp", source_file, target_file)


@case
def file_to_lun(world):
    """dense, file on tmpfs to LUN"""
    side = world.tgt(segment=262144)
    target_file = world.file("target", world.size)
    target = side.lun(1, target_file)
    daemon = world.daemon()
    source_file = world.file("source", world.size, directory=daemon.pool)
    a, b = daemon.element("pool:default/source", "LogicalFile"), daemon.element(target)
    peer_name, peer = qemu_best(source_file, target)
    compare(world, "file-to-lun", peer_name,
            lambda: daemon.timed(lambda: daemon.attach(a, b))[:2], peer, "throughput >= 1.15")
    run("cmp", source_file, target_file)


@case
def file_to_file(world):
    """dense, file to file without reflink, the best of cp, dd, ddpt, each with sync"""
    daemon = world.daemon()
    source = world.file("source", world.size, directory=daemon.pool)
    target = world.file("target", world.size, directory=daemon.pool)
    a = daemon.element("pool:default/source", "LogicalFile")
    b = daemon.element("pool:default/target", "LogicalFile")

    def shell(words):
        return lambda: run_timed(["sh", "-c", f"{words} && sync {target}"])

    name, peer = best_of({
        "cp": shell(f"cp --sparse=never {source} {target}"),
        "dd bs=1M": shell(f"dd if={source} of={target} bs=1M conv=notrunc"),
        "ddpt": shell(f"ddpt if={source} of={target} bs=512 bpt=2048 oflag=nowrap")})
    compare(world, "file-to-file", name,
            lambda: daemon.timed(lambda: daemon.attach(a, b))[:2], peer, "throughput >= 1.0")
    run("cmp", source, target)


@case
def clone(world):
    """reflink clone of 10 GiB on XFS, against cp --reflink and sync"""
    image = os.path.join(world.shm, "image")
    folder = os.path.join(world.shm, "xfs")
    os.mkdir(folder)
    run("truncate", "-s", "16G", image)
    run("mkfs.xfs", "-q", image)
    run("mount", "-o", "loop", image, folder)
    try:
        daemon = world.daemon(pool=folder)
        golden = os.path.join(folder, "golden")
        with open(golden, "wb") as file:
            file.truncate(10 << 30)
            for at in range(0, 10 << 30, 16 * MIB):
                file.seek(at)
                file.write(os.urandom(4096))
        os.chmod(golden, 0o600)
        a = daemon.element("pool:default/golden", "LogicalFile")
        differences = []
        for n in range(world.pairs):
            began = time.monotonic()
            answer = daemon.call("POST", "/replicas", {"SourceElement": a, "CopyType": 5})
            ours = time.monotonic() - began
            if answer["ReturnValue"] != 0:
                raise RuntimeError(f"no clone: {answer}")
            peer, _ = run_timed(["sh", "-c", f"cp --reflink=always {golden} {folder}/c{n} && "
                                 f"sync {folder}/c{n}"])
            differences.append((ours - peer) * 1000)
        print(f"clone: ours - cp --reflink: {spread(differences)} ms; goal <= 100", flush=True)
        daemon.stop()
        world.things.remove(daemon)
    finally:
        run("umount", "-l", folder)


@case
def delta(world):
    """2 GiB with 1 % of 64 KiB blocks changed, LUN to LUN"""
    source_side, target_side = world.tgt(segment=262144), world.tgt(segment=262144)
    source_file = world.file("source", world.size)
    target_file = world.file("target", world.size)
    source, target = source_side.lun(1, source_file), target_side.lun(1, target_file)
    daemon = world.daemon()
    a, b = daemon.element(source), daemon.element(target)
    daemon.job(daemon.attach(a, b, 4)["Job"])
    step, changed = 64 << 10, max(1, world.size // (64 << 10) // 100)

    def change():
        with open(source_file, "r+b") as file:
            for n in range(changed):
                file.seek((n * 97 + 13) % (world.size // step) * step)
                file.write(os.urandom(step))

    jobs = []

    def ours():
        change()
        wall, cpu, job = daemon.timed(
            lambda: daemon.call("POST", f"/replicas/{b}/modify", {"Operation": 4}))
        jobs.append(job)
        return wall, cpu

    name, full = qemu_best(source, target)
    compare(world, "delta", f"a full {name}", ours, full, "throughput >= 1.3")
    run_timed(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, target])
    reading = statistics.median(run_timed(
        ["qemu-img", "bench", "-f", "raw", "-c", str(world.size // MIB), "-s", "1M", "-d", "8",
         source])[0] for _ in range(3))
    median = statistics.median(ours()[0] for _ in range(world.pairs))
    moved = [job.get("BytesWritten") for job in jobs[-3:]]
    print(f"  reading that LUN alone (qemu-img bench) {reading:.2f} s, ours {median:.2f} s: "
          f"{reading / median:.2f} of the reading rate; goal >= 0.9; mode "
          f"{jobs[-1].get('ModeName', jobs[-1].get('Mode'))}, written {moved} of "
          f"{changed * step} changed", flush=True)
    run("cmp", source_file, target_file)


@case
def four_at_once(world):
    """four copies at once, LUN to LUN; and the daemon's peak memory"""
    size = world.size // 4
    source_side, target_side = world.tgt(segment=262144), world.tgt(segment=262144)
    daemon = world.daemon("--max-jobs", "4")
    pairs = []
    for n in range(1, 5):
        source = source_side.lun(n, world.file(f"source{n}", size))
        target = target_side.lun(n, world.file(f"target{n}", size))
        pairs.append((source, target, daemon.element(source), daemon.element(target)))
    ratios = []

    def ours():
        cpu, began = daemon.cpu(), time.monotonic()
        jobs = [daemon.attach(a, b)["Job"] for _, _, a, b in pairs]
        times = []
        for job in jobs:
            daemon.job(job)
        wall = time.monotonic() - began
        for job in jobs:
            row = daemon.call("GET", job)
            times.append(moment(row["EndTime"]) - moment(row["StartTime"]))
        ratios.append(max(times) / min(times))
        return wall, daemon.cpu() - cpu

    def peer():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        running = [subprocess.Popen(["qemu-img", "convert", "-n", "-W", "-m", "2", "-t",
                                     "none", "-f", "raw", "-O", "raw", source, target])
                   for source, target, _, _ in pairs]
        for process in running:
            if process.wait():
                raise RuntimeError("qemu-img failed")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.monotonic() - began, (after.ru_utime + after.ru_stime
                                          - before.ru_utime - before.ru_stime)

    compare(world, "four-at-once", "four qemu-img -W -m 2", ours, peer, "throughput >= 1.3")
    print(f"  slowest / fastest of ours {spread(ratios)}, goal <= 1.3; "
          f"peak memory {daemon.peak():.0f} MiB, goal < 64", flush=True)


def moment(text):
    whole, _, rest = text.rstrip("Z").partition(".")
    return time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + (rest or "0"))


@case
def throttle(world):
    """the bandwidth limit at 10, 100, 400 MiB/s, over windows of 2 s"""
    daemon = world.daemon()
    world.file("source", world.size, directory=daemon.pool)
    world.file("target", world.size, directory=daemon.pool)
    a = daemon.element("pool:default/source", "LogicalFile")
    b = daemon.element("pool:default/target", "LogicalFile")
    for limit in (10, 100, 400):
        answer = daemon.attach(a, b, 5, {"BandwidthLimit": limit * MIB})
        time.sleep(1)
        rates = []
        for _ in range(min(5, max(1, world.size // MIB // limit // 2 - 1))):
            before, began = daemon.written(), time.monotonic()
            time.sleep(2)
            rates.append((daemon.written() - before) / (time.monotonic() - began) / MIB / limit)
        daemon.call("POST", answer["Job"] + "/request-state-change", {"RequestedState": 5})
        try:
            daemon.job(answer["Job"])
        except RuntimeError:
            pass
        daemon.call("DELETE", f"/replicas/{b}")
        print(f"throttle: {limit} MiB/s held at {spread(rates)} of it; goal 0.95..1.05",
              flush=True)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--list", action="store_true", help="the cases, a line each")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--size", type=int, default=2048, help="MiB of a volume")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    arguments = parser.parse_args()
    if arguments.list:
        for name, function in CASES.items():
            print(f"{name:20} {function.__doc__}")
        return 0
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}")
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as file:
        congestion = file.read().strip()
    print(f"{os.cpu_count()} CPUs, Linux {platform.release()}, TCP {congestion}, "
          f"{arguments.pairs} pairs, volumes of {arguments.size} MiB on tmpfs", flush=True)
    for name in arguments.cases or CASES:
        world = World(arguments)
        try:
            CASES[name](world)
        finally:
            world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
