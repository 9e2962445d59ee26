#!/usr/bin/env python3
"""Training speed and memory of Narthex beside PyTorch and candle, as a Markdown table.

Needs nothing but Python; ../train.sh builds the engines and calls this. For each shape and precision every engine is
started once and warmed up, then they take turns: round by round each runs its steps while the others wait, so that a
machine that gets slower or faster meets them all. An engine that does not start, or dies, stays in the table with its
last error line.
"""
import argparse
import json
import os
import platform
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENGINES = ["narthex", "pytorch-eager", "pytorch-compiled", "candle"]
PRECISIONS = {"candle": ["f32"]}  # the others know both
QUIET = 0.05  # of the machine may go to others


class Failed(Exception):
    pass


class Engine:
    """One resident process that runs steps when asked to."""

    def __init__(self, name, shape, precision, command):
        self.name, self.shape, self.precision, self.command = name, shape, precision, command
        self.process, self.rounds, self.error = None, [], None

    def __str__(self):
        return f"{self.name} {self.shape} {self.precision}"

    def start(self, wait):
        self.errors = tempfile.TemporaryFile()
        self.pending = b""
        try:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
            )
        except OSError as error:
            raise Failed(str(error)) from None
        line = self.line(wait)
        if line != "ready":
            raise Failed(f"said {line!r} where ready was expected")

    def run(self, wait):
        before = self.cpu_seconds()
        try:
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it died; the missing answer brings out why
        result = json.loads(self.line(wait))
        if not isinstance(result, dict) or "tokens_per_second" not in result:
            raise Failed("its answer has no tokens_per_second")
        # With one thread this tells even on a busy machine what the steps cost; narthex's first has its warm-up in it.
        self.rounds.append(result | {"cpu_seconds": round(self.cpu_seconds() - before, 2)})

    def line(self, wait):
        deadline = time.monotonic() + wait
        while b"\n" not in self.pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failed(f"no answer within {wait} s")
            got = os.read(self.process.stdout.fileno(), 65536)
            if not got:
                raise Failed(self.last_error())
            self.pending += got
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode().strip()

    def last_error(self):
        code = self.process.wait()
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        # Advice or a backtrace may follow the error itself; a panic's message stands on the line after.
        telling = re.findall(r"^[\w.]*error\b.*|panicked at .*\n.*", text, re.IGNORECASE | re.MULTILINE)
        telling = telling or text.splitlines() or ["no message"]
        return f"{' '.join(telling[-1].split())} (exit {code})"

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def median(self, key):
        values = [one[key] for one in self.rounds if one.get(key) is not None]
        return statistics.median(values) if values and not self.error else None

    def spread(self):
        """Half the distance from the slowest to the fastest round, as a part of the median."""
        speeds = [one["tokens_per_second"] for one in self.rounds]
        return (max(speeds) - min(speeds)) / 2 / statistics.median(speeds)

    def cpu_seconds(self):
        """What the process and those that it has started used."""
        times, parents = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            process = int(stat.parent.name)
            times[process], parents[process] = int(fields[11]) + int(fields[12]), int(fields[1])

        def is_ours(process):
            while process in parents and process != self.process.pid:
                process = parents[process]
            return process == self.process.pid

        return sum(time for process, time in times.items() if is_ours(process)) / os.sysconf("SC_CLK_TCK")


def say(text):
    print(text, file=sys.stderr, flush=True)


def machine_cpu_seconds():
    """What all processes of this machine used, and what its host gave to other machines."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def guard(engine, action, *arguments):
    if engine.error:
        return
    try:
        action(*arguments)
    except (Failed, ValueError) as error:
        engine.error = str(error)
        say(f"{engine}: {error}")
        engine.stop()


def measure(engines, rounds, wait):
    """Returns the part of the machine that strangers took while the rounds ran."""
    try:
        for engine in engines:
            say(f"{engine}: start and warm up")
            guard(engine, engine.start, wait)
        begin, before = time.monotonic(), machine_cpu_seconds()
        for number in range(1, rounds + 1):
            for engine in engines:
                guard(engine, engine.run, wait)
                if not engine.error:
                    say(f"{engine}: round {number}, {engine.rounds[-1]['tokens_per_second']:.0f} tokens/s")
        ours = sum(one["cpu_seconds"] for engine in engines for one in engine.rounds)
        capacity = (time.monotonic() - begin) * os.cpu_count()
        return max(0.0, machine_cpu_seconds() - before - ours) / capacity
    finally:
        for engine in engines:
            engine.stop()


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def describe(arguments, engines):
    processor = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    version = {}
    for engine in engines:
        for one in engine.rounds:
            version[engine.name.partition("-")[0]] = one.get("version")
            if "isa" in one:
                version["isa"] = one["isa"]
    program = output_of(arguments.narthex, "--version").removeprefix("narthex ")
    commit = output_of("git", "-C", str(HERE), "describe", "--always", "--dirty")
    names = {"pytorch": "PyTorch", "candle": "candle"}
    parts = [f"narthex {program} ({commit}, {version['isa']})"] if "isa" in version else []
    parts += [f"{name} {version[key]}" for key, name in names.items() if version.get(key)]
    parts += [output_of("rustc", "--version").partition(" (")[0], f"Python {platform.python_version()}"]
    return {
        "processor": processor.group(1) if processor else platform.machine(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "versions": ", ".join(part for part in parts if part),
    }


def ratio(upper, lower, digits=2):
    return f"{upper / lower:.{digits}f}" if upper and lower else "—"


def table(head, rows):
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def render(machine, engines, names, strangers, arguments):
    found = {(engine.shape, engine.precision, engine.name): engine for engine in engines}
    cases = list(dict.fromkeys((engine.shape, engine.precision) for engine in engines))

    def cell(case, name, key, show):
        engine = found.get((*case, name))
        value = engine and engine.median(key)
        return "failed" if engine and engine.error else show(engine, value) if value is not None else "—"

    def value(case, name, key):
        engine = found.get((*case, name))
        return engine and engine.median(key)

    speeds, memory = [], []
    for case in cases:
        both = ["pytorch-eager", "pytorch-compiled"]
        faster = max((value(case, name, "tokens_per_second") or 0.0 for name in both))
        leaner = min((value(case, name, "peak_rss_mb") or float("inf") for name in both))
        ours, candle = value(case, "narthex", "tokens_per_second"), value(case, "candle", "tokens_per_second")
        mfu = value(case, "narthex", "mfu")
        speed = lambda engine, found: f"{found:,.0f} ±{100 * engine.spread():.0f} %"
        speeds.append([
            *case, *(cell(case, name, "tokens_per_second", speed) for name in names),
            ratio(ours, faster), ratio(ours, candle), f"{100 * mfu:.0f} %" if mfu else "—",
        ])
        memory.append([
            *case, *(cell(case, name, "peak_rss_mb", lambda _, found: f"{found:,.0f}") for name in names),
            ratio(value(case, "narthex", "peak_rss_mb"), leaner if leaner < float("inf") else None),
        ])
    titles = [name.replace("pytorch-", "PyTorch ") for name in names]
    parts = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads'] or 'all'} threads. "
        f"{machine['versions']}. {arguments.rounds} rounds of {arguments.steps} steps in turn.",
        "Tokens per second: the median over the rounds ± half their range. A round's value is the median step.",
        table(["shape", "precision", *titles, "narthex / faster PyTorch", "narthex / candle", "narthex MFU"], speeds),
        "Peak resident memory in MB (10^6 bytes); for compiled PyTorch the compilation is in it.",
        table(["shape", "precision", *titles, "narthex / leaner PyTorch"], memory),
    ]
    failures = [f"- {engine}: {engine.error}" for engine in engines if engine.error]
    if failures:
        parts.append("Failed:\n\n" + "\n".join(failures))
    shares = ", ".join(f"{shape} {100 * share:.0f} %" for shape, share in strangers.items())
    parts.append(f"Share of the machine that other programs took meanwhile: {shares}.")
    if max(strangers.values()) > QUIET:
        parts.append(
            "**The machine was not free.** Engines that deal work out in equal parts, as PyTorch does, suffer more "
            "from that than those whose threads steal it: don't quote these ratios."
        )
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narthex", default="narthex", help="the binary")
    parser.add_argument("--candle", default="candle-train", help="the binary built from candle/")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--shapes", default="llama-10m,llama-100m")
    parser.add_argument("--precisions", default="f32,bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, help="the same for every engine; all by default")
    parser.add_argument("--wait", type=int, default=1800, help="seconds after which an engine counts as stuck")
    parser.add_argument("--failed", action="append", default=[], metavar="ENGINE=WHY", help="could not be built")
    parser.add_argument("--out", help="write all rounds as JSON, too")
    arguments = parser.parse_args()
    names = [name for name in re.split(r"[,\s]+", arguments.engines) if name]
    if unknown := set(names) - set(ENGINES):
        parser.error(f"no engine {', '.join(sorted(unknown))}; there are {', '.join(ENGINES)}")
    unbuilt = dict(entry.split("=", 1) for entry in arguments.failed)
    script = [arguments.python, str(HERE / "pytorch.py"), "--mode"]
    programs = {
        "narthex": [arguments.narthex, "bench", "train"],
        "pytorch-eager": [*script, "eager"],
        "pytorch-compiled": [*script, "compiled"],
        "candle": [arguments.candle],
    }

    engines, strangers = [], {}
    for shape in re.split(r"[,\s]+", arguments.shapes):
        # One precision after the other: seven resident engines need more memory than many machines have.
        for precision in re.split(r"[,\s]+", arguments.precisions):
            ours = []
            for name in names:
                if precision not in PRECISIONS.get(name, [precision]):
                    continue
                command = [*programs[name], "--shape", shape, "--precision", precision, "--repeat"]
                command += ["--steps", str(arguments.steps)]
                command += ["--threads", str(arguments.threads)] if arguments.threads else []
                engine = Engine(name, shape, precision, command)
                engine.error = unbuilt.get(name.partition("-")[0])
                ours.append(engine)
            engines += ours
            strangers[f"{shape} {precision}"] = measure(ours, arguments.rounds, arguments.wait)

    machine = describe(arguments, engines)
    print(render(machine, engines, names, strangers, arguments))
    if arguments.out:
        results = [
            {"engine": engine.name, "shape": engine.shape, "precision": engine.precision, "error": engine.error,
             "rounds": engine.rounds}
            for engine in engines
        ]
        with open(arguments.out, "w") as file:
            json.dump({**machine, "strangers": strangers, "results": results}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
