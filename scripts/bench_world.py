"""What the cases of scripts/bench work with: far sides, daemons, files, and a clock.

All of it lives in one directory on tmpfs, named for this process; it is taken away at the
end, also after a failure or a signal, and what a killed run left behind by the next one.
"""
import ctypes
import fcntl
import http.client
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from typing import NamedTuple

MIB = 1 << 20
STEP = 64 << 10  # bytes: data and zeros come in whole ones
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHM = "/dev/shm"
PREFIX = "replicad-bench-"
TARGET = "iqn.2026-11.example:bench"
NOISE = os.urandom(4 * MIB + 512)  # odd, so that a block in the wrong place differs
ENDED = (7, 8, 9, 10)  # JobState: Completed, Terminated, Killed, Exception
QUIET = 0.05  # of the CPUs: a round counts from which the machine's host took no more
PATIENCE = 4  # times the rounds wanted: not quiet, the quietest of so many count


class Sample(NamedTuple):
    """One run. Seconds; @far is the CPU time of the far side."""
    wall: float
    cpu: float
    far: float = 0.0
    job: dict = {}


def spread(values, digits=2):
    return (f"{statistics.median(values):.{digits}f} "
            f"[{min(values):.{digits}f}..{max(values):.{digits}f}]")


# -- the machine's host ------------------------------------------------------------------

class Host:
    """What it took from our CPUs (steal of proc(5)) while something was timed. What is timed
    enters it as a context; on a machine of one's own it takes nothing."""

    def __init__(self):
        self.forget()

    def forget(self):
        self.taken = self.had = 0.0

    def share(self):
        return self.taken / self.had if self.had else 0.0

    @staticmethod
    def stolen():
        with open("/proc/stat", encoding="ascii") as file:
            return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")

    def __enter__(self):
        self.before, self.began = self.stolen(), time.monotonic()

    def __exit__(self, *_):
        self.taken += self.stolen() - self.before
        self.had += (time.monotonic() - self.began) * os.cpu_count()


HOST = Host()


def rounds(wanted, once):
    """Results of @wanted rounds of @once, and words that tell which. A host that takes CPUs
    away slows one side of a round and not the other: those that it left alone are counted,
    whatever they say."""
    done = []
    while sum(share <= QUIET for share, _ in done) < wanted and len(done) < PATIENCE * wanted:
        HOST.forget()
        result = once()
        done.append((HOST.share(), result))
    counted = sorted(done, key=lambda one: one[0])[:wanted]
    words = f"the host took up to {counted[-1][0] * 100:.0f} % of the CPUs"
    if len(done) > wanted:
        words += f", the quietest {wanted} of {len(done)} rounds"
    return [result for _, result in counted], words


# -- processes ---------------------------------------------------------------------------

def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def run(*command, check=True, env=None):
    """To its end; its output is shown only when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, env=env, timeout=900)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout.strip()[-500:]}")
    return done


def spawn(command, **options):
    options.setdefault("stdout", subprocess.DEVNULL)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
                            start_new_session=True, **options)


def stop(process, patience=10):
    """By the process id alone: first politely."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def process_cpu(pid):
    """User and system seconds of all its threads, ended ones too, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's clock of another process


def process_peak(pid):
    """The largest resident size so far, in MiB."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


class Running:
    """A peer's command under way. @stderr is kept for the message of a failure."""

    def __init__(self, command):
        self.command, self.stderr = command, tempfile.TemporaryFile()
        self.process = spawn(command, stderr=self.stderr)

    def finish(self):
        """Its CPU seconds."""
        try:
            _, status, usage = os.wait4(self.process.pid, 0)
        except BaseException:
            stop(self.process)
            raise
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode:
            self.stderr.seek(0)
            raise RuntimeError(f"{' '.join(self.command)}: {self.stderr.read()[-500:]}")
        return usage.ru_utime + usage.ru_stime

    def peak(self):
        """Watches until it ends; the largest resident size in MiB, nearly."""
        most = 0.0
        while os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            most = max(most, process_peak(self.process.pid))
            time.sleep(0.005)
        self.finish()
        return most


# -- the far side ------------------------------------------------------------------------

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Tgt:
    """One tgtd with one target; LUNs over files on tmpfs."""

    def __init__(self, world, segment=None):
        self.port = free_port()
        self.directory = tempfile.mkdtemp(dir=world.shm)
        # The control socket is ours alone, hence its number may be any.
        self.environment = dict(os.environ, TGT_IPC_SOCKET=self.directory + "/socket")
        self.process = spawn(["tgtd", "-f", "-C", "1", "--iscsi",
                              f"portal=127.0.0.1:{self.port}"],
                             env=self.environment, stderr=subprocess.DEVNULL)
        world.keep(self)
        deadline = time.monotonic() + 10
        while self.admin("--mode", "sys", "--op", "show", check=False).returncode:
            if time.monotonic() > deadline or self.process.poll() is not None:
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
        return run("tgtadm", "-C", "1", "--lld", "iscsi", *words, check=check,
                   env=self.environment)

    def lun(self, number, path, thin=False, store=None):
        unit = ("--mode", "logicalunit", "--tid", "1", "--lun", str(number))
        self.admin(*unit, "--op", "new", "-b", path, *(("-E", store) if store else ()))
        params = f"scsi_id=B{self.port}{number},scsi_sn=B{self.port}{number}"
        self.admin(*unit, "--op", "update", "--params",
                   params + (",thin_provisioning=1" if thin else ""))
        return f"iscsi://127.0.0.1:{self.port}/{TARGET}/{number}"

    def cpu(self):
        return process_cpu(self.process.pid)

    def written(self):
        """When, and how many bytes it has written by then, answers to hosts included."""
        while True:
            before = time.monotonic()
            with open(f"/proc/{self.process.pid}/io", encoding="ascii") as file:
                count = next(int(line.split()[1]) for line in file if line.startswith("wchar"))
            if time.monotonic() - before < 0.001:  # else somebody had our CPU in between
                return before, count

    def stop(self):
        self.process.kill()  # it does not end politely while sessions are open
        self.process.wait()


# -- ours --------------------------------------------------------------------------------

class Daemon:
    def __init__(self, world, *options, pool=None, data=None):
        self.directory = tempfile.mkdtemp(dir=world.shm)
        self.pool = pool or os.path.join(self.directory, "pool")
        self.log = open(os.path.join(self.directory, "log"), "w+", encoding="utf-8")
        self.process = spawn(
            [world.binary, "--data-dir", data or os.path.join(self.directory, "data"),
             "--http", "127.0.0.1:0", "--log-level", "error", "--pool", f"default={self.pool}",
             *(() if "--iscsi" in options else ("--iscsi", "127.0.0.1:0")), *options],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        world.keep(self)
        ready = self.process.stdout.readline()
        if not ready.startswith("replicad ready "):
            self.log.seek(0)
            raise RuntimeError(f"replicad does not start: {self.log.read()[-500:]}")
        addresses = dict(word.split("=", 1) for word in ready.split()[2:])
        self.http, self.iscsi = addresses["http"], addresses["iscsi"]

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.http, timeout=120)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None,
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text}")
        return json.loads(text) if text else None

    def element(self, address, kind="StorageVolume"):
        return self.call("POST", "/elements", {"Type": kind, "ElementName": "bench",
                                               "Address": address})["Id"]

    def file_element(self, path):
        return self.element("pool:default/" + os.path.basename(path), "LogicalFile")

    def export(self, element):
        """Its LUN, for anybody."""
        answer = self.call("PUT", f"/elements/{element}/export", {"Initiators": ["*"]})
        return f"iscsi://{self.iscsi}/{answer['TargetName']}/0"

    def attach(self, source, target, copy_type=5, goal=None):
        body = {"SourceElement": source, "CopyType": copy_type}
        if goal:
            body["Goal"] = goal
        return self.call("POST", f"/replicas/{target}/attach", body)

    def job(self, path):
        """The job when it is over; told by the service, not asked for again and again."""
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            job = self.call("GET", path + "?wait=60")
            if job["JobState"] in ENDED:
                if job["JobState"] != 7:
                    raise RuntimeError(f"the job failed: {job['ErrorDescription']}")
                return job
        raise RuntimeError(f"the job does not end: {job}")

    def cpu(self):
        return process_cpu(self.process.pid)

    def peak(self):
        return process_peak(self.process.pid)

    def stop(self):
        stop(self.process)
        self.log.close()


# -- the world ---------------------------------------------------------------------------

class World:
    """Of one case; everything it made is taken away after it."""

    def __init__(self, arguments):
        self.pairs, self.size = arguments.pairs, arguments.size * MIB
        self.binary = arguments.replicad
        self.things, self.mounts, self.directories = [], [], []
        self.shm = self.directory(SHM)

    def directory(self, parent):
        path = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent)
        self.directories.append(path)
        return path

    def keep(self, thing):
        self.things.append(thing)

    def file(self, name, dense=1.0, directory=None, **options):
        path = os.path.join(directory or self.shm, name)
        self.fill(path, dense, **options)
        os.chmod(path, 0o600)
        return path

    def fill(self, path, dense=1.0, size=None, longest=4, holes=False):
        """Noise. @dense: the share of it, in runs of 1 to @longest STEPs, the rest zeros,
        or @holes. The file stays the same one: a far side may have it open."""
        size = size or self.size
        with open(path, "ab") as file:
            file.truncate(0)
        with open(path, "r+b") as file:
            file.truncate(size)
            if dense == 1.0:
                self.noise(file, 0, size)
                return
            for at, end, data in self.runs(size, dense, longest):
                if data:
                    self.noise(file, at, end)
                elif not holes:
                    file.seek(at)
                    for _ in range(at, end, STEP):
                        file.write(bytes(STEP))

    @staticmethod
    def runs(size, dense, longest):
        draw, at, data = random.Random(1), 0, True
        while at < size:
            length = STEP * draw.randint(1, longest)
            if not data:
                share = (1 - dense) / dense * (1 + longest) / 2
                length = STEP * max(1, round(share * draw.uniform(0.5, 1.5)))
            yield at, min(at + length, size), data
            at, data = at + length, not data

    @staticmethod
    def noise(file, at, end):
        file.seek(at)
        while at < end:
            piece = NOISE[at % len(NOISE):][:end - at]
            file.write(piece)
            at += len(piece)

    def spoil(self, path):
        """Garbage in some places, the last block too: a run that does nothing is found."""
        garbage = os.urandom(STEP)
        with open(path, "r+b") as file:
            for at in [*range(0, self.size - STEP, 32 * MIB + STEP), self.size - STEP]:
                file.seek(at)
                file.write(garbage)

    def far_cpu(self):
        return sum(process_cpu(thing.process.pid) for thing in self.things
                   if isinstance(thing, Tgt))

    def timed(self, daemon, start):
        """From the call to the end of its job."""
        with HOST:
            cpu, far, began = daemon.cpu(), self.far_cpu(), time.monotonic()
            answer = start()
            job = daemon.job(answer["Job"])
            wall = time.monotonic() - began
        return Sample(wall, daemon.cpu() - cpu, self.far_cpu() - far, job)

    def timed_command(self, *commands):
        """Of all of them at once, to the end of the last."""
        with HOST:
            far, began = self.far_cpu(), time.monotonic()
            running = [Running(command) for command in commands]
            cpu = sum(one.finish() for one in running)
            wall = time.monotonic() - began
        return Sample(wall, cpu, self.far_cpu() - far)

    def mount(self, image, folder):
        run("mount", "-o", "loop", image, folder)
        self.mounts.append(folder)

    def close(self):
        for thing in reversed(self.things):
            thing.stop()
        for folder in reversed(self.mounts):
            run("umount", folder, check=False)
        for path in self.directories:
            shutil.rmtree(path, ignore_errors=True)


def equal(*paths):
    run("cmp", *paths)


def claim():
    """One run at a time on a machine; the lock is held while the result lives. Clears what
    a killed run has left."""
    lock = open(os.path.join(SHM, "replicad-bench.lock"), "w", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SystemExit("bench: another one is running on this machine") from error
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            if line.split()[1].startswith(os.path.join(SHM, PREFIX)):
                run("umount", line.split()[1], check=False)
    os.makedirs(os.path.join(ROOT, "build"), exist_ok=True)
    for parent in (SHM, os.path.join(ROOT, "build")):
        for name in os.listdir(parent):
            if name.startswith(PREFIX) and name.split("-")[2].isdigit():
                shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
    return lock


def room_for(size):
    """Two volumes, and as much again as slack."""
    with open("/proc/meminfo", encoding="ascii") as info:
        free = next(int(line.split()[1]) << 10 for line in info
                    if line.startswith("MemAvailable"))
    most = min(free, shutil.disk_usage(SHM).free)
    if most < 3 * size:
        raise SystemExit(f"bench: volumes of {size // MIB} MiB want {3 * size // MIB} MiB of "
                         f"memory and {SHM}, {most // MIB} are free; see --size")
