"""Main text of pages in Narthex and in trafilatura: precision, recall and F on trafilatura's own evaluation set, pages a second
on one core, peak memory.

    git clone https://github.com/adbar/trafilatura
    cargo build --release -p narthex-curate --example extract
    bench/data/extract.py target/release/examples/extract trafilatura/tests [--worst 20] [--half given|heldout] [--only]

The folder has `evaldata.json` and the pages in `cache/` and `eval/`. Each page names pieces of text that belong to it (`with`) and
pieces that do not (`without`); a piece counts as found where the extracted text contains it, white space apart. A page is in the
half `given`, on which our rules were tuned, or `heldout`, by a bit of the SHA-256 of its file's name. The peer has the options
that datatrove gives it: precision, no comments, no duplicates. Both read whole files, judge on one thread, and run in turn, each
as a new process. Needs trafilatura 1.11.0 and lxml_html_clean.
"""

import argparse
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from importlib.metadata import version


def half(name: str) -> str:
    return "given" if hashlib.sha256(name.encode()).digest()[0] & 1 else "heldout"


def pages(folder: str) -> list[tuple[str, dict]]:
    rows = json.load(open(os.path.join(folder, "evaldata.json"), encoding="utf-8")).values()
    found = []
    for row in rows:
        paths = (os.path.join(folder, place, row["file"]) for place in ("cache", "eval"))
        path = next(filter(os.path.isfile, paths), None)
        if path is None:
            sys.exit(f"{row['file']} is in neither {folder}/cache nor {folder}/eval")
        found.append((path, row))
    return found


def peer(paths: list[str]) -> None:
    import logging

    from trafilatura import extract

    logging.disable(logging.CRITICAL)
    sources = [open(path, "rb").read() for path in paths]
    extract("<html><body><p>What the first page pays is the tables.</p></body></html>")
    start = time.process_time()
    texts = [extract(source, favor_precision=True, include_comments=False, deduplicate=True) for source in sources]
    seconds = time.process_time() - start
    for path, text in zip(paths, texts):
        print(json.dumps({"path": path, "text": text}))
    print(json.dumps({"pages_s": len(paths) / seconds, "mb_s": sum(map(len, sources)) / 1e6 / seconds}))


def run(command: list[str], paths: list[str]) -> tuple[dict[str, str | None], dict]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate("\n".join(paths) + "\n")
    if process.returncode != 0:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    rows = [json.loads(line) for line in out.splitlines()]
    return {row["path"]: row.get("text") for row in rows if "path" in row}, rows[-1]


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def judge(row: dict, text: str | None) -> tuple[list[str], list[str]]:
    """The pieces that are missing and those that should not be there."""
    text = flat(text or "")
    missing = [piece for piece in row["with"] if flat(piece) not in text]
    return missing, [piece for piece in row["without"] if flat(piece) in text]


def score(rows: list[tuple[str, dict]], texts: dict[str, str | None]) -> str:
    hits = misses = wrong = 0
    for path, row in rows:
        missing, extra = judge(row, texts[path])
        misses += len(missing)
        hits += len(row["with"]) - len(missing)
        wrong += len(extra)
    precision, recall = hits / (hits + wrong), hits / (hits + misses)
    return f"P {precision:.4f}  R {recall:.4f}  F {2 * precision * recall / (precision + recall):.4f}  {len(rows)} pages"


def processor() -> str:
    lines = open("/proc/cpuinfo").read().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    if sys.argv[1:2] == ["--peer"]:
        return peer(sys.stdin.read().splitlines())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("--half", choices=["given", "heldout"], help="only this half")
    parser.add_argument("--worst", type=int, default=0, help="show so many pages with the most mistakes")
    parser.add_argument("--only", action="store_true", help="without the peer")
    arguments = parser.parse_args()
    rows = [
        (path, row)
        for path, row in pages(arguments.folder)
        if arguments.half in (None, half(row["file"]))
    ]
    paths = [path for path, _ in rows]
    commands = {"narthex": [arguments.program]}
    if not arguments.only:
        commands[f"trafilatura {version('trafilatura')}"] = [sys.executable, __file__, "--peer"]
    print(processor())
    for name, command in commands.items():
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        texts, speed = run(command, paths)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        memory = f"{peak // 1024} MiB" if peak > before else f"at most {peak // 1024} MiB"
        print(f"{name}: {speed['pages_s']:.1f} pages/s, {speed['mb_s']:.1f} MB/s, {memory}")
        for part in ("given", "heldout"):
            chosen = [(path, row) for path, row in rows if half(row["file"]) == part]
            if chosen:
                print(f"  {part:8}{score(chosen, texts)}")
        print(f"  {'all':8}{score(rows, texts)}")
        if arguments.worst and name == "narthex":
            judged = [(row["file"], judge(row, texts[path]), len(texts[path] or "")) for path, row in rows]
            judged.sort(key=lambda page: (-len(page[1][0]) - len(page[1][1]), page[0]))
            for file, (missing, extra), length in judged[: arguments.worst]:
                print(f"  {file} ({length})\n    missing {missing}\n    extra   {extra}")


if __name__ == "__main__":
    main()
