"""The cases of scripts/bench: replicad beside a named peer, in turn, A B A B.

Every ratio is the median over pairs, with the smallest and the largest in brackets:
throughput is the peer's wall time over ours, CPU is ours over the peer's. Ours counts all
CPU time of the daemon's process between the call and the end of its job, the peer's that
of its finished process. Both sides end with the data flushed. The peer's setting is the
one with the best median in runs before the pairs; where a goal names another, that one
runs in every round too and is judged beside it. After every run of ours the target is
compared with the source by cmp; before every run of either it is spoiled. On a machine whose
host takes CPUs away for others, rounds are repeated until enough were left alone.
"""
import argparse
import datetime
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time

import bench_http
import bench_target
from bench_world import (ENDED, HOST, MIB, ROOT, STEP, Daemon, Running, Sample, Tgt, World, claim,
                         equal, room_for, rounds, run, spread)

BINARY = os.path.join(ROOT, "build/release/replicad")
PEER = os.path.join(ROOT, "scripts/bench.peer")
CASES = {}
VERDICTS = []


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def say(text):
    print(text, flush=True)


def goal(name, what, values, relation, limit, digits=2):
    """One figure beside its goal, remembered for the last line."""
    values = values if isinstance(values, list) else [values]
    figure = statistics.median(values)
    met = figure >= limit if relation == ">=" else figure <= limit
    VERDICTS.append((name, what, met, figure / limit if limit else figure))
    shown = spread(values, digits) if len(values) > 1 else f"{figure:.{digits}f}"
    return f"{what} {shown}, goal {relation} {limit}: {'met' if met else 'MISSED'}"


def seconds(samples, part):
    return statistics.median(getattr(sample, part) for sample in samples)


# -- peers -------------------------------------------------------------------------------

def choose(candidates, named=None, runs=3):
    """The candidates to pair with, (name, function) each: the one with the smallest median
    wall time, and behind it the one whose settings are @named, where that is another."""
    medians = {}
    for name, function in candidates.items():
        function()
        medians[name] = statistics.median(one.wall for one in rounds(runs, function)[0])
    say("  settings: " + ", ".join(f"{n} {m:.2f} s" for n, m in medians.items()))
    best = min(medians, key=medians.get)
    others = [name for name in candidates if named and name != best and name.endswith(named)]
    return [(name, candidates[name]) for name in (best, *others)]


def convert(source, target, *words):
    return ["qemu-img", "convert", "-t", "none", "-f", "raw", "-O", "raw", *words, source, target]


NAMED = "-W -m 2"  # the goals' own setting of qemu-img
QEMU = (("-W", "-m", "2"), ("-W", "-m", "4"), ("-W", "-m", "8"), ("-m", "8"))


def qemu(world, source, target, before=None, new=False, settings=QEMU):
    """Candidates for choose(): name -> one timed run."""
    def candidate(words):
        def once():
            if before:
                before()
            return world.timed_command(convert(source, target, *words))
        return once
    kept = () if new else ("-n",)
    return {f"qemu-img {' '.join(words)}": candidate((*kept, *words)) for words in settings}


def compare(world, name, ours, peers, throughput=None, cpu=None):
    """One uncounted run of ours, then rounds of ours and each of @peers. Returns our samples
    and those of the first peer."""
    ours()
    done, quiet = rounds(world.pairs, lambda: [ours(), *(peer() for _, peer in peers)])
    mine, *theirs = zip(*done)
    for samples, (peer_name, _) in zip(theirs, peers):
        judge(name, mine, samples, peer_name, throughput, cpu)
    say(f"  {quiet}")
    return mine, theirs[0]


def judge(name, mine, theirs, peer_name, throughput, cpu):
    ratios = [t.wall / m.wall for m, t in zip(mine, theirs)]
    words = [goal(name, "throughput", ratios, ">=", throughput) if throughput else
             f"throughput {spread(ratios)}"]
    ratios = [m.cpu / max(t.cpu, 1e-3) for m, t in zip(mine, theirs)]
    words.append(goal(name, "CPU", ratios, "<=", cpu) if cpu else f"CPU {spread(ratios)}")
    say(f"{name}: {'; '.join(words)}; against {peer_name}")
    say(f"  ours {seconds(mine, 'wall'):.2f} s, CPU {seconds(mine, 'cpu'):.2f} s; "
        f"the peer {seconds(theirs, 'wall'):.2f} s, CPU {seconds(theirs, 'cpu'):.2f} s")


def far_side(mine, theirs):
    """How far from the floor: all CPU time that was used, spread over all CPUs."""
    floors = [(m.cpu + m.far) / os.cpu_count() for m in mine]
    say(f"  far side's CPU {seconds(mine, 'far'):.2f} s with ours, "
        f"{seconds(theirs, 'far'):.2f} s with the peer; ours is "
        f"{spread([m.wall / f for m, f in zip(mine, floors)])} x its floor of "
        f"{statistics.median(floors):.2f} s (CPU of daemon and far side / {os.cpu_count()})")


def peaks(daemon, command=None):
    words = f"  equal by cmp after every run; peak memory {daemon.peak():.0f} MiB"
    if command:
        words += f", the peer's {Running(command).peak():.0f}"
    say(words)


# -- LUN to LUN --------------------------------------------------------------------------

def pair_case(world, name, source, target, source_file, target_file, before, goals,
              settings=QEMU, daemon=None, a=None, b=None):
    """Ours from @source to @target, which exist, against qemu-img doing the same."""
    daemon = daemon or Daemon(world)
    a, b = a or daemon.element(source), b or daemon.element(target)

    def ours():
        before()
        sample = world.timed(daemon, lambda: daemon.attach(a, b))
        equal(source_file, target_file)
        return sample

    candidates = qemu(world, source, target, before, settings=settings)
    peers = choose(candidates, NAMED)
    mine, theirs = compare(world, name, ours, peers, *goals)
    far_side(mine, theirs)
    peaks(daemon, convert(source, target, "-n", *peers[0][0].split()[1:]))
    return mine


def lun_to_lun(world, name, goals, segment=262144, thin=False, before=None, settings=QEMU,
               **content):
    sides = Tgt(world, segment), Tgt(world, segment)
    source_file = world.file("source", **content)
    target_file = world.file("target")
    source, target = sides[0].lun(1, source_file, thin), sides[1].lun(1, target_file, thin)
    refill = before or world.spoil
    return pair_case(world, name, source, target, source_file, target_file,
                     lambda: refill(target_file), goals, settings)


@case
def lun_dense(world):
    """dense LUN to LUN, far side with 256 KiB segments"""
    lun_to_lun(world, "lun-dense", (1.2, 0.75))


@case
def lun_dense_default(world):
    """dense LUN to LUN, far side with its default segments of 8 KiB"""
    lun_to_lun(world, "lun-dense-default", (1.3, 0.6), segment=None)


@case
def lun_zeros(world):
    """90 % zeros, LUN to a thick LUN full of garbage"""
    mine = lun_to_lun(world, "lun-zeros", (1.45,), before=world.fill, dense=0.1, longest=8,
                      settings=(*QEMU, ("-W", "-m", "2", "-S", "0")))
    say(f"  skipped {mine[-1].job['BytesSkipped'] // MIB} MiB")


@case
def lun_zeros_fresh(world):
    """90 % zeros, LUN to a fresh pool element; qemu-img: to the thick LUN, to a new file"""
    sides = Tgt(world, 262144), Tgt(world, 262144)
    source_file, thick_file = world.file("source", dense=0.1, longest=8), world.file("thick")
    source, thick = sides[0].lun(1, source_file), sides[1].lun(1, thick_file)
    daemon = Daemon(world)
    a = daemon.element(source)
    made = []

    def ours():
        while made:
            daemon.call("DELETE", f"/elements/{made.pop()}")
        sample = world.timed(daemon, lambda: daemon.call(
            "POST", "/replicas", {"SourceElement": a, "CopyType": 5}))
        made.append(sample.job["TargetElement"].rsplit("/", 1)[1])
        equal(source_file, os.path.join(daemon.pool, made[0] + ".raw"))
        return sample

    new = os.path.join(world.shm, "new")

    def remove():
        if os.path.exists(new):
            os.unlink(new)

    peers = choose(qemu(world, source, thick, lambda: world.fill(thick_file)), NAMED)
    far_side(*compare(world, "lun-zeros-fresh, the peer to the thick LUN", ours, peers, 2.3))
    peers = choose(qemu(world, source, new, remove, new=True))
    far_side(*compare(world, "lun-zeros-fresh, the peer to a new file", ours, peers))
    peaks(daemon)


@case
def lun_zeros_proven(world):
    """90 % zeros, LUN to a thin LUN without a block"""
    sides = Tgt(world, 262144), Tgt(world, 262144)
    source_file = world.file("source", dense=0.1, longest=8)
    target_file = world.file("target", holes=True, dense=0.1)
    source, target = sides[0].lun(1, source_file), sides[1].lun(1, target_file, thin=True)
    pair_case(world, "lun-zeros-proven", source, target, source_file, target_file,
              lambda: empty(target_file, world.size), (2.3,),
              (*QEMU, ("-W", "-m", "2", "--target-is-zero")))


def empty(path, size):
    os.truncate(path, 0)
    os.truncate(path, size)


def thin(world, name, before):
    lun_to_lun(world, name, (10,), thin=True, before=before, dense=0.045, longest=1, holes=True)


@case
def lun_thin(world):
    """thin and sparse LUN to a thin LUN without a block"""
    thin(world, "lun-thin", lambda path: empty(path, world.size))


@case
def lun_thin_used(world):
    """thin and sparse LUN to a thin LUN with garbage in half of its blocks"""
    thin(world, "lun-thin-used", lambda path: world.fill(path, 0.5, longest=64, holes=True))


# -- files -------------------------------------------------------------------------------

@case
def lun_to_file(world):
    """dense, LUN to a file on tmpfs"""
    source_file = world.file("source")
    source = Tgt(world, 262144).lun(1, source_file)
    daemon = Daemon(world)
    target = world.file("target", directory=daemon.pool)
    pair_case(world, "lun-to-file", source, target, source_file, target,
              lambda: world.spoil(target), (1.1,), daemon=daemon,
              b=daemon.file_element(target))


@case
def file_to_lun(world):
    """dense, file on tmpfs to a LUN"""
    target_file = world.file("target")
    target = Tgt(world, 262144).lun(1, target_file)
    daemon = Daemon(world)
    source = world.file("source", directory=daemon.pool)
    pair_case(world, "file-to-lun", source, target, source, target_file,
              lambda: world.spoil(target_file), (1.15,), daemon=daemon,
              a=daemon.file_element(source))


@case
def file_to_file(world):
    """dense, file to file without reflink, the best of cp, dd, ddpt, each with sync"""
    daemon = Daemon(world)
    source, target = (world.file(name, directory=daemon.pool) for name in ("source", "target"))
    a, b = daemon.file_element(source), daemon.file_element(target)

    def ours():
        world.spoil(target)
        sample = world.timed(daemon, lambda: daemon.attach(a, b))
        equal(source, target)
        return sample

    def shell(words):
        def once():
            world.spoil(target)
            return world.timed_command(["sh", "-c", f"{words} && sync {target}"])
        return once

    peers = choose({
        "cp": shell(f"cp {source} {target}"),
        "dd bs=1M": shell(f"dd if={source} of={target} bs=1M"),
        "dd bs=1M conv=notrunc": shell(f"dd if={source} of={target} bs=1M conv=notrunc"),
        "ddpt": shell(f"ddpt if={source} of={target} bs=512 bpt=2048")})
    compare(world, "file-to-file", ours, peers, 1.0)
    peaks(daemon)


@case
def clone(world):
    """reflink clone of 10 GiB on XFS, against cp --reflink and sync"""
    image, folder = os.path.join(world.shm, "image"), os.path.join(world.shm, "xfs")
    os.mkdir(folder)
    run("truncate", "-s", "16G", image)
    run("mkfs.xfs", "-q", image)
    world.mount(image, folder)
    golden = os.path.join(folder, "golden")
    with open(golden, "wb") as file:  # 1,280 extents
        file.truncate(10 << 30)
        for at in range(0, 10 << 30, 8 * MIB):
            file.seek(at)
            file.write(os.urandom(4096))
    os.chmod(golden, 0o600)
    run("sync", golden)
    daemon = Daemon(world, pool=folder)
    a, copy = daemon.file_element(golden), os.path.join(folder, "copy")

    def once(proven=False):
        with HOST:
            began = time.monotonic()
            answer = daemon.call("POST", "/replicas", {"SourceElement": a, "CopyType": 5})
            mine = (time.monotonic() - began) * 1000
        if answer["ReturnValue"] != 0:
            raise RuntimeError(f"no clone: {answer}")
        theirs = world.timed_command(
            ["sh", "-c", f"cp --reflink=always {golden} {copy} && sync {copy}"]).wall * 1000
        if proven:
            equal(golden, folder + "/" + answer["TargetElement"].rsplit("/", 1)[1] + ".raw")
        daemon.call("DELETE", answer["TargetElement"])
        os.unlink(copy)
        return mine, mine - theirs

    once()
    done, quiet = rounds(world.pairs, once)
    once(proven=True)
    mine, differences = map(list, zip(*done))
    say("clone: " + goal("clone", "ms behind cp --reflink", differences, "<=", 100, 1) +
        f"; ours {statistics.median(mine):.1f} ms, return 0, equal by cmp; {quiet}")


# -- delta -------------------------------------------------------------------------------

@case
def delta(world):
    """1 % of 64 KiB blocks changed, LUN to LUN, against a full copy and reading alone"""
    sides = Tgt(world, 262144), Tgt(world, 262144)
    source_file, target_file = world.file("source"), world.file("target")
    source, target = sides[0].lun(1, source_file), sides[1].lun(1, target_file)
    daemon = Daemon(world)
    a, b = daemon.element(source), daemon.element(target)
    daemon.job(daemon.attach(a, b, 4)["Job"])
    blocks = world.size // STEP
    changed = max(1, blocks // 100)

    def ours():
        with open(source_file, "r+b") as file:
            for n in range(changed):
                file.seek((n * 97 + 13) % blocks * STEP)
                file.write(os.urandom(STEP))
        sample = world.timed(daemon, lambda: daemon.call(
            "POST", f"/replicas/{b}/modify", {"Operation": 4}))
        equal(source_file, target_file)
        return sample

    def reading(size, depth):
        count = world.size // (size << 10)
        return lambda: world.timed_command(
            ["qemu-img", "bench", "-t", "none", "-f", "raw", "-c", str(count), "-s",
             f"{size}K", "-d", str(depth), source])

    [(read_name, read)] = choose({f"reading {size} KiB x {depth}": reading(size, depth)
                              for size, depth in ((256, 16), (1024, 4), (1024, 8))})
    [(name, full)] = choose(qemu(world, source, target))

    def full_and_read():
        return full()._replace(job={"reading": read()})

    mine, theirs = compare(world, "delta", ours, [(f"a full {name}", full_and_read)], 1.3)
    reads = [sample.job["reading"] for sample in theirs]
    job = mine[-1].job
    say("  " + goal("delta", "of the rate of reading alone",
                    [r.wall / m.wall for m, r in zip(mine, reads)], ">=", 0.9) +
        f" ({read_name}: {seconds(reads, 'wall'):.2f} s)")
    say("  " + goal("delta", "written / changed",
                    [m.job["BytesWritten"] / (changed * STEP) for m in mine], "<=", 1.1) +
        f"; mode {job['Mode']}; skipped {job['BytesSkipped'] // MIB} MiB")
    peaks(daemon)


# -- several, limits ---------------------------------------------------------------------

def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@case
def four_at_once(world):
    """four copies at once, LUN to LUN; and the daemon's peak memory"""
    sides = Tgt(world, 262144), Tgt(world, 262144)
    daemon = Daemon(world, "--max-jobs", "4")
    world.size //= 4
    files = [(world.file(f"source{n}"), world.file(f"target{n}")) for n in range(1, 5)]
    luns = [(sides[0].lun(n, s), sides[1].lun(n, t)) for n, (s, t) in enumerate(files, 1)]
    ids = [(daemon.element(s), daemon.element(t)) for s, t in luns]

    def spoil():
        for _, target in files:
            world.spoil(target)

    def ours():
        spoil()
        with HOST:
            cpu, far, began = daemon.cpu(), world.far_cpu(), time.monotonic()
            jobs = [daemon.job(path) for path in [daemon.attach(a, b)["Job"] for a, b in ids]]
            wall = time.monotonic() - began
        times = [moment(job["EndTime"]) - moment(job["StartTime"]) for job in jobs]
        for pair in files:
            equal(*pair)
        return Sample(wall, daemon.cpu() - cpu, world.far_cpu() - far,
                      {"slowest": max(times) / min(times)})

    def four(words):
        def once():
            spoil()
            return world.timed_command(*(convert(s, t, "-n", *words) for s, t in luns))
        return once

    peers = choose({f"4 x qemu-img {' '.join(words)}": four(words) for words in QEMU})
    mine, theirs = compare(world, "four-at-once", ours, peers, 1.3)
    far_side(mine, theirs)
    say("  " + goal("four-at-once", "slowest / fastest", [m.job["slowest"] for m in mine],
                    "<=", 1.3))
    say("  equal by cmp after every run; " +
        goal("four-at-once", "peak memory in MiB", daemon.peak(), "<=", 64, 0))


@case
def throttle(world):
    """the limit of 10, 100, 400 MiB/s: what the far side writes in windows of 2 s"""
    world.size = max(world.size, 2048 * MIB)
    daemon, far = Daemon(world), Tgt(world, 262144)
    a = daemon.file_element(world.file("source", directory=daemon.pool))
    b = daemon.element(far.lun(1, world.file("target")))
    for limit in (10, 100, 400):
        rates = []
        while len(rates) < world.pairs:
            job = daemon.attach(a, b, goal={"BandwidthLimit": limit * MIB})["Job"]
            rates += windows(far, limit * MIB, world.pairs - len(rates), world.size)
            daemon.call("POST", job + "/request-state-change", {"RequestedState": "Kill"})
            while daemon.call("GET", job + "?wait=60")["JobState"] not in ENDED:
                pass
            daemon.call("DELETE", f"/replicas/{b}")
        say("throttle: " + goal("throttle", f"{limit} MiB/s, worst error in %",
                                max(abs(rate - 1) * 100 for rate in rates), "<=", 5) +
            f"; held at {spread(rates, 3)} of it")


def windows(far, limit, wanted, size):
    """Rates over 2 s as shares of @limit. The target is a file that is there already: a new
    one on tmpfs measures how fast the machine gets memory."""
    began = far.written()[1]

    def landed():
        at, count = far.written()
        return at, count - began

    rates = []
    while landed()[1] < limit // 2:  # past the start
        time.sleep(0.01)
    then, bytes_then = landed()
    while len(rates) < wanted and bytes_then + 2.2 * limit < size:
        time.sleep(max(0, then + 2 - time.monotonic()))
        now, bytes_now = landed()
        rates.append((bytes_now - bytes_then) / (now - then) / limit)
        then, bytes_then = now, bytes_now
    return rates


@case
def cost(world):
    """what a piece (a read and a write of 4 KiB) costs the engine, memory to memory"""
    pump = os.path.join(world.shm, "pump")
    rooms = [os.path.join(ROOT, f"build/release/replica/{room}/libreplica_{room}.a")
             for room in ("copy", "block", "loop", "base")]
    libraries = run("pkg-config", "--libs", "libuv", "libiscsi", "liburing", "libisal",
                    "libxxhash", "gnutls").stdout.split()
    run("cc", "-std=gnu17", "-O2", "-g", "-I", ROOT, os.path.join(PEER, "pump.c"), *rooms,
        *libraries, "-lpthread", "-o", pump)

    def counted(pieces):
        """CPU nanoseconds and allocations."""
        return [int(word) for word in run(pump, str(pieces)).stdout.split()]

    def instructions(pieces):
        done = run("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", pump,
                   str(pieces))
        return int(re.search(r"Collected : (\d+)", done.stdout).group(1))

    few, many = 10000, 110000
    costs = [(counted(many)[0] - counted(few)[0]) / (many - few) for _ in range(world.pairs)]
    steady = counted(many)[1] - counted(few)[1]
    exact = (instructions(2000) - instructions(1000)) / 1000
    say(f"cost: a piece {spread(costs, 0)} ns of CPU, {exact:.0f} instructions by callgrind; " +
        goal("cost", "allocations in steady state", steady, "<=", 0, 0))


# -- the iSCSI target --------------------------------------------------------------------

@case
def target(world):
    """the iSCSI target against tgt's default store, depth 32"""
    bench_target.against_default(world, goal, say)


@case
def target_aio(world):
    """the iSCSI target against tgt's aio store, depth 32"""
    bench_target.against_aio(world, goal, say)


@case
def target_depth_one(world):
    """the iSCSI target against tgt at depth 1, on one CPU and on any"""
    bench_target.depth_one(world, goal, say)


@case
def target_copy(world):
    """a copy between exports of two replicad processes, against the same through tgt"""
    bench_target.copy(world, compare)


@case
def target_hostile(world):
    """a healthy session's IOPS with a hostile initiator beside it"""
    bench_target.hostile(world, goal, say)


# -- the API -----------------------------------------------------------------------------

@case
def http(world):
    """durable POST /settings and GET /jobs/ID at 64 clients, against node with fastify"""
    bench_http.against_node(world, goal, say)


# -- all of them -------------------------------------------------------------------------

def header(arguments):
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as file:
        congestion = file.read().strip()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    ours = arguments.replicad
    if ours == BINARY:
        ours = run("git", "-C", ROOT, "describe", "--always", "--dirty", check=False).stdout.strip()
    say(f"replicad {ours}, {datetime.date.today()}: {os.cpu_count()} CPUs "
        f"({model.group(1).strip() if model else platform.machine()}), Linux "
        f"{platform.release()}, TCP {congestion}, load {os.getloadavg()[0]:.1f}; "
        f"{arguments.pairs} pairs, volumes of {arguments.size} MiB on tmpfs")
    versions = [run("dpkg-query", "-W", "-f", "${Package} ${Version}", package,
                    check=False).stdout for package in ("qemu-utils", "tgt", "ddpt", "wrk")]
    say("  peers: " + ", ".join(versions))


def summary():
    met = sum(ok for _, _, ok, _ in VERDICTS)
    missed = [f"{name} {what} ({ratio:.2f} of it)" for name, what, ok, ratio in VERDICTS if not ok]
    say(f"{met} of {len(VERDICTS)} goals met" + ("; missed: " if missed else "") +
        "; ".join(missed))


def options():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--list", action="store_true", help="the cases, a line each")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--size", type=int, default=2048, metavar="MIB", help="of a volume")
    parser.add_argument("--replicad", default=BINARY, metavar="FILE", help="another build; nothing is built then")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}")
    return arguments


def run_case(name, arguments):
    world = World(arguments)
    try:
        CASES[name](world)
        return True
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        say(f"{name}: failed: {error}")
        return False
    finally:
        world.close()


def main():
    arguments = options()
    if arguments.list:
        for name, function in CASES.items():
            print(f"{name:20} {function.__doc__}")
        return 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a script ignores it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lock = claim()
    room_for(arguments.size * MIB)
    header(arguments)
    good = all([run_case(name, arguments) for name in arguments.cases or CASES])
    summary()
    lock.close()
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
