"""The API beside a small service in node: the same two calls, the same load, in turn.

The load is wrk. Both keep what they answer in SQLite, with synchronous=FULL, on a disk. What
was answered must be there after SIGKILL.
"""
import json
import os
import re
import statistics
import subprocess

from bench_world import (HOST, MIB, ROOT, Daemon, free_port, process_cpu, process_peak, rounds, run,
                         spawn)

PEER = os.path.join(ROOT, "scripts/bench.peer")


class NodePeer:
    """scripts/bench.peer/server.js over a database of its own, with one job in it."""

    def __init__(self, world, folder, processes, job):
        self.port = free_port()
        with open(os.path.join(folder, "job.json"), "w", encoding="utf-8") as file:
            json.dump(job, file)
        self.process = spawn(
            ["node", os.path.join(PEER, "server.js"), str(self.port), folder, str(processes)],
            env=dict(os.environ, NODE_PATH=os.path.join(ROOT, "build/bench-peer/node_modules"),
                     NODE_ENV="production"),
            stdout=subprocess.PIPE, text=True)
        world.keep(self)
        self.driver = self.process.stdout.readline().strip()
        if not self.driver:
            raise RuntimeError("the node peer does not start; see build/bench-peer/install.log")
        self.http = f"127.0.0.1:{self.port}"

    def cpu(self):
        return sum(process_cpu(pid) for pid in self.pids())

    def pids(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                  encoding="ascii") as children:
            return [self.process.pid, *map(int, children.read().split())]

    def peak(self):
        return sum(process_peak(pid) for pid in self.pids())

    def stop(self):
        self.process.terminate()
        self.process.wait()


def wrk(server, script, path, length=4):
    """Answers a second, CPU microseconds of the server an answer, and how many there were."""
    cpu = server.cpu()
    with HOST:
        done = run("wrk", "-t1", "-c64", f"-d{length}s", "--timeout", "30s", "-s",
                   os.path.join(PEER, script), f"http://{server.http}{path}")
    cpu = server.cpu() - cpu
    total, bad, rate = re.search(r"answers (\d+) bad (\d+) rate ([\d.]+)", done.stdout).groups()
    if int(bad) or not int(total):
        raise RuntimeError(f"wrk {path}: {bad} of {total} answers are bad: {done.stdout[-300:]}")
    return float(rate), cpu / int(total) * 1e6, int(total)


def against_node(world, goal, say):
    """A durable POST /settings, and GET of a job, at 64 clients."""
    folder = world.directory(os.path.join(ROOT, "build"))  # a disk, where fsync costs
    world.size = MIB
    data = os.path.join(folder, "data")
    daemon = Daemon(world, data=data)
    files = [world.file(name, directory=daemon.pool) for name in ("source", "target")]
    a, b = map(daemon.file_element, files)
    job = daemon.job(daemon.attach(a, b)["Job"])
    peers, posted = {}, 0
    for n in (1, 2):
        os.mkdir(os.path.join(folder, f"node{n}"))
        peers[n] = NodePeer(world, os.path.join(folder, f"node{n}"), n, job)
    for script, path, name, wanted in (("post.lua", "/settings", "durable POST", 8),
                                       ("get.lua", job["Self"], "GET", 1.5)):
        medians = {n: statistics.median(wrk(peer, script, path, 2)[0] for _ in range(3))
                   for n, peer in peers.items()}
        best = max(medians, key=medians.get)
        posted += wrk(daemon, script, path, 2)[2] if script == "post.lua" else 0
        every = []

        def once(every=every, ours=(daemon, script, path), theirs=(peers[best], script, path)):
            every.append(wrk(*ours))
            return every[-1], wrk(*theirs)

        done, quiet = rounds(world.pairs, once)
        mine, theirs = zip(*done)
        posted += sum(one[2] for one in every) if script == "post.lua" else 0
        say("http: " + goal("http", name, [m[0] / t[0] for m, t in zip(mine, theirs)],
                            ">=", wanted) +
            f"; against node {node_version()}, fastify, {peers[best].driver}, {best} processes")
        say(f"  ours {statistics.median(m[0] for m in mine):.0f}/s, CPU "
            f"{statistics.median(m[1] for m in mine):.0f} us each; the peer "
            f"{statistics.median(t[0] for t in theirs):.0f}/s, "
            f"{statistics.median(t[1] for t in theirs):.0f} us; node's processes: " +
            ", ".join(f"{n}: {m:.0f}/s" for n, m in medians.items()) + f"; {quiet}")
    say(f"  peak memory {daemon.peak():.0f} MiB, the peer's {peers[1].peak():.0f}; "
        f"{posted} POSTs answered, {settings_after_kill(world, daemon, data, posted)} there after "
        "SIGKILL and a new start")


def settings_after_kill(world, daemon, data, posted):
    daemon.process.kill()
    daemon.process.wait()
    again = Daemon(world, data=data, pool=daemon.pool)
    count, path = 0, "/settings?limit=500"
    while path:
        page = again.call("GET", path)
        count, path = count + len(page["Members"]), page["Next"]
    if count < posted:
        raise RuntimeError(f"{posted} POSTs were answered, {count} settings are there")
    return count


def node_version():
    return run("node", "--version").stdout.strip()
