"""The iSCSI target beside tgt: the same file on tmpfs, the same load, in turn.

The load is scripts/bench.peer/load.c (libiscsi) and, once, iscsi-perf. The client takes most
of a CPU, so it bounds what a fast target can show; CPU a request is of the target alone.
"""
import contextlib
import os
import re
import statistics
import subprocess
import time

from bench_world import HOST, MIB, ROOT, Daemon, Tgt, process_cpu, rounds, run, spawn, spread

SECONDS = 3
SHORTER = 6  # at depth 1: so many times the pairs, of runs so much shorter


class Load:
    """load.c, built once a case; @seconds a run."""

    def __init__(self, world, seconds=SECONDS):
        self.seconds = seconds
        self.path = os.path.join(world.shm, "load")
        words = run("pkg-config", "--cflags", "--libs", "libiscsi").stdout.split()
        run("cc", "-std=gnu17", "-O2", os.path.join(ROOT, "scripts/bench.peer/load.c"), *words,
            "-o", self.path)

    def run(self, server, url, what, pinned=False):
        """Requests a second, and the server's CPU microseconds a request."""
        words = [self.path, url, *map(str, what), str(self.seconds)]
        cpu = server.cpu()
        with HOST:
            done = run(*(["taskset", "-c", "0"] if pinned else []), *words)
        answers, seconds = done.stdout.split()
        return int(answers) / float(seconds), (server.cpu() - cpu) / int(answers) * 1e6


def perf(server, url):
    """iscsi-perf, 4 KiB random reads, 32 out. Where no command ends in its last second it
    never looks at its clock again in time, and goes on for ever: it is interrupted then."""
    with HOST:
        done = run("timeout", "--signal=INT", str(3 * SECONDS), "iscsi-perf", "-m", "32",
                   "-b", "8", "-t", str(SECONDS), "-r", url)
    rates = re.findall(r"iops average (\d+)", done.stdout)
    if not rates:
        raise RuntimeError(f"iscsi-perf: {done.stdout[-300:]}")
    return float(rates[-1]), 0.0


def pin(process, cpus):
    for thread in os.listdir(f"/proc/{process.pid}/task"):
        with contextlib.suppress(ProcessLookupError):  # it may end meanwhile
            os.sched_setaffinity(int(thread), cpus)


class Sides:
    """The same volume served by ours and by tgtd, which stores by @store."""

    def __init__(self, world, store=None):
        world.size = min(world.size, 1024 * MIB)
        self.daemon = Daemon(world)
        mine = world.file("mine", directory=self.daemon.pool)
        theirs = world.file("theirs")
        self.ours_url = self.daemon.export(self.daemon.element("pool:default/mine"))
        self.tgt = Tgt(world, 262144)
        self.tgt_url = self.tgt.lun(1, theirs, store=store)

    def pairs(self, world, measure):
        """One uncounted run of each, then pairs of (rate, CPU microseconds), and words."""
        def once():
            return measure(self.daemon, self.ours_url), measure(self.tgt, self.tgt_url)

        once()
        return rounds(world.pairs, once)


def tell(goal, say, name, what, measured, rate=None, cpu=None):
    pairs, quiet = measured
    rates = [ours[0] / theirs[0] for ours, theirs in pairs]
    words = [goal(name, what, rates, ">=", rate) if rate else f"{what} {spread(rates)}"]
    if pairs[0][0][1]:
        costs = [ours[1] / theirs[1] for ours, theirs in pairs]
        words.append(goal(name, f"{what}, CPU", costs, "<=", cpu) if cpu else
                     f"CPU {spread(costs)}")
    say(f"{name}: {'; '.join(words)}")
    say("  " + ", ".join(
        f"{who} {statistics.median(pair[side][0] for pair in pairs):.0f}/s, "
        f"{statistics.median(pair[side][1] for pair in pairs):.1f} us"
        for side, who in ((0, "ours"), (1, "tgt"))) + f"; {quiet}")


def against_default(world, goal, say):
    sides, load = Sides(world), Load(world)
    for what, words, rate in (("4 KiB random read, depth 32", ("read", "random", 4096, 32), 3.5),
                              ("4 KiB random write, depth 32", ("write", "random", 4096, 32), 2.5),
                              ("128 KiB sequential read, depth 32",
                               ("read", "sequential", 131072, 32), 2.5)):
        tell(goal, say, "target", what,
             sides.pairs(world, lambda server, url, w=words: load.run(server, url, w)), rate, 0.4)
    tell(goal, say, "target", "iscsi-perf, 4 KiB random read, depth 32",
         sides.pairs(world, perf))
    say(f"  peak memory {sides.daemon.peak():.0f} MiB")


def against_aio(world, goal, say):
    sides, load = Sides(world, store="aio"), Load(world)
    for what, words, rate in (("4 KiB random read, depth 32", ("read", "random", 4096, 32), 2.5),
                              ("4 KiB random write, depth 32", ("write", "random", 4096, 32), 1.5)):
        tell(goal, say, "target-aio", what,
             sides.pairs(world, lambda server, url, w=words: load.run(server, url, w)), rate)


def depth_one(world, goal, say):
    """What a request takes drifts here with the machine's clock: in short runs both sides of a
    pair have the same, and there are more of them."""
    world.pairs *= SHORTER
    sides, load = Sides(world), Load(world, SECONDS / SHORTER)
    words = ("read", "random", 4096, 1)
    tell(goal, say, "target-depth-1", "4 KiB random read, depth 1, unpinned",
         sides.pairs(world, lambda server, url: load.run(server, url, words)), 1.0)
    pin(sides.daemon.process, {0})
    pin(sides.tgt.process, {0})
    tell(goal, say, "target-depth-1", "4 KiB random read, depth 1, on one CPU",
         sides.pairs(world, lambda server, url: load.run(server, url, words, True)), 2.0)


def copy(world, compare):
    """One daemon of ours copies between exports of two others, and between two tgtds."""
    sides = Sides(world), Sides(world)
    copier = Daemon(world, "--iscsi", "none")
    ours = [copier.element(side.ours_url) for side in sides]
    theirs = [copier.element(side.tgt_url) for side in sides]
    compare(world, "target-copy", lambda: world.timed(copier, lambda: copier.attach(*ours)),
            [("the same copy between two tgtds",
              lambda: world.timed(copier, lambda: copier.attach(*theirs)))], 1.0)


# -- a hostile initiator beside a healthy one --------------------------------------------

HOSTILE = os.path.join(ROOT, "scripts/bench.peer/hostile.py")


class Beside:
    """hostile.py while something is measured; @share: of a CPU, that it took."""

    def __init__(self, *words):
        self.process = spawn(["python3", HOSTILE, *map(str, words)], stdout=subprocess.PIPE)
        self.share = 0.0

    def __enter__(self):
        if self.process.stdout.readline() != b"under way\n":
            raise RuntimeError("the hostile initiator does not start")
        self.began, self.used = time.monotonic(), process_cpu(self.process.pid)
        return self

    def __exit__(self, *_):
        alive = self.process.poll() is None
        if alive:
            self.share = ((process_cpu(self.process.pid) - self.used) /
                          (time.monotonic() - self.began))
        self.process.kill()
        self.process.wait()
        if not alive:
            raise RuntimeError("the hostile initiator gave up")


def hostile(world, goal, say):
    """A hostile client takes CPU as such, which on few CPUs is taken from the healthy one: the
    goal is for the healthy session beside it against beside a process that takes as much CPU
    and talks to nobody. Against alone is told too."""
    world.size = min(world.size, 256 * MIB)
    daemon, load = Daemon(world), Load(world)
    world.file("mine", directory=daemon.pool)
    url = daemon.export(daemon.element("pool:default/mine"))
    other = daemon.export(daemon.call("POST", "/elements", {
        "Type": "StorageVolume", "Pool": "default", "Size": MIB})["Id"])
    address, port = daemon.iscsi.rsplit(":", 1)
    words = ("read", "random", 4096, 32)

    def rate():
        return load.run(daemon, url, words)[0]

    rate()
    for kind in ("logins", "nops", "immediates", "connects"):
        def once(kind=kind):
            alone = rate()
            with Beside(address, port, other.split("/")[3], kind) as enemy:
                beside = rate()
            with Beside("busy", f"{enemy.share:.3f}"):
                neighbour = rate()
            return beside / neighbour, beside / alone, enemy.share

        done, quiet = rounds(world.pairs, once)
        against_busy, against_alone, shares = map(list, zip(*done))
        say(f"target-hostile, {kind}: " +
            goal("target-hostile", f"{kind}, of the IOPS beside a busy process", against_busy,
                 ">=", 0.8) +
            f"; of those alone {spread(against_alone)}; it took {spread(shares)} of a CPU; {quiet}")
    say(f"  peak memory {daemon.peak():.0f} MiB")
