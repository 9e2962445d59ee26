#!/usr/bin/env python3
"""Runs the MCP conformance suite against given binaries, for both revisions, and counts every check.

  cargo build --release -p narthex-mcp --examples
  xtask/checks/agents/mcp_conformance.py --suite DIR --server "target/release/examples/fixture 0" \
      --client target/release/examples/conformance_client [--out DIR]

DIR is a folder in which `npm i @modelcontextprotocol/conformance@0.2.0-alpha.12 node@22` was run: the suite does not
start on Node 20. A scenario passes if it has at least one check that succeeded and none that failed or warned; single
greens are not trusted, so the checks are counted too. Exit code 1 if a scenario that is required is missing or fails.
"""
import argparse, json, pathlib, re, shutil, subprocess, sys, tempfile

WANTED = {"server": {"2026-07-28": 37, "2025-11-25": 30}, "client": {"2026-07-28": 32, "2025-11-25": 18}}
SECONDS = 400


def required(suite, side, revision):
    """Names of the scenarios that count: the suite's own list, frozen at the revision's release."""
    file = pathlib.Path(suite) / f"node_modules/@modelcontextprotocol/conformance/requirements/{revision}.yaml"
    names, inside = set(), False
    for line in file.read_text().splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            inside = line.startswith(side + ":")
        elif inside and line.strip().startswith("- "):
            names.add(line.strip()[2:])
    return names


def scenario(folder, side):
    """`server-tools-list-2026-…Z` -> `tools-list`; slashes of client scenarios are folders or dashes."""
    name = re.sub(r"-\d{4}-\d{2}-\d{2}T[\d-]+Z$", "", str(folder))
    return name.removeprefix(side + "-") if side == "server" else name


def counts(folder, side, scored):
    """Of each scenario, its checks by status."""
    found = {}
    for file in sorted(pathlib.Path(folder).rglob("checks.json")):
        name = scenario(file.parent.relative_to(folder), side)
        statuses = found.setdefault(name, {})
        for check in json.loads(file.read_text()):
            statuses[check["status"]] = statuses.get(check["status"], 0) + 1
            if check["status"] in ("FAILURE", "WARNING") and name in scored:
                why = check.get("errorMessage") or json.dumps(check.get("details", ""))
                print(f"    {name}: {check['status']} {check['id']}: {str(why)[:400]}")
    return found


def run(suite, side, revision, target, out):
    suite = pathlib.Path(suite)
    node = suite / "node_modules/node/bin/node"
    index = suite / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    folder = pathlib.Path(out) / f"{side}-{revision}"
    shutil.rmtree(folder, ignore_errors=True)
    flag = ["--url", target] if side == "server" else ["--command", target]
    command = [node, index, side, *flag, "--requirements", revision, "-o", folder]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=SECONDS)
    (pathlib.Path(out) / f"{side}-{revision}.log").write_text(done.stdout + done.stderr)
    scored = required(suite, side, revision)
    scenarios = counts(folder, side, scored)
    good = {name for name, all in scenarios.items()
            if all.get("SUCCESS", 0) and not all.get("FAILURE") and not all.get("WARNING")}
    totals = {}
    for name in scored & set(scenarios):
        for status, number in scenarios[name].items():
            totals[status] = totals.get(status, 0) + number
    wanted = WANTED[side][revision]
    passed = scored & good
    print(f"{side} {revision}: {len(passed)} of {len(scored)} required scenarios pass (expected {wanted}), "
          f"checks of these {dict(sorted(totals.items()))}, exit {done.returncode}")
    for name in sorted(scored - passed):
        print(f"  not passed: {name} {scenarios.get(name, 'did not run')}")
    extra = set(scenarios) - scored
    print(f"  not required: {len(extra & good)} of {len(extra)} pass; the others: {sorted(extra - good)}")
    return len(passed) == len(scored) == wanted


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", required=True)
    parser.add_argument("--server", help="command that serves and prints its URL")
    parser.add_argument("--client", help="command; the suite appends the URL")
    parser.add_argument("--out")
    parser.add_argument("--revision", choices=["2026-07-28", "2025-11-25"], action="append")
    options = parser.parse_args()
    out = options.out or tempfile.mkdtemp()
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    good = True
    for revision in options.revision or ["2026-07-28", "2025-11-25"]:
        if options.server:
            server = subprocess.Popen(options.server.split(), stdout=subprocess.PIPE, text=True)
            try:
                good &= run(options.suite, "server", revision, server.stdout.readline().strip(), out)
            finally:
                server.kill()
                server.wait()
        if options.client:
            good &= run(options.suite, "client", revision, options.client, out)
    print("results in", out)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
