"""The rules for texts in Narthex and in datatrove: documents a second on one core.

    bench/data/corpus.py CORPUS
    cargo build --release -p narthex-curate --example rules
    bench/data/rules.py target/release/examples/rules CORPUS/text.jsonl [--count 600] [--times 3]

FineWeb's four rules in a row (repetition, quality, C4 without terminal punctuation, FineWeb's own) and MinHash's signatures,
which are all but 3 % of its time with the peer; ours include the clusters. Both read the same documents, judge on one thread
and keep the same number; they alternate, each time as a new process. Needs datatrove 0.10.1, spacy and xxhash below 3.6.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from importlib.metadata import version


def theirs(path: str, count: int) -> dict[str, tuple[float, int]]:
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    texts = [json.loads(line)["text"] for line in itertools.islice(open(path), count)]
    rules = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]
    rules[0].filter(Document(text="What the first text pays is the tables.", id="warm"))
    start, kept = time.process_time(), 0
    for text in texts:
        document = Document(text=text, id="")
        kept += all(rule.filter(document) is True for rule in rules)
    fineweb = len(texts) / (time.process_time() - start)
    signer, start = MinhashDedupSignature("/tmp/none", MinhashConfig()), time.process_time()
    for text in texts:
        shingles = signer.get_shingles(text)
        if shingles.size:
            signer.get_signature(shingles)
    return {"fineweb": (fineweb, kept), "minhash": (len(texts) / (time.process_time() - start), 0)}


def ours(program: str, path: str, count: int) -> dict[str, tuple[float, int]]:
    out = subprocess.run([program, path, str(count)], check=True, capture_output=True, text=True).stdout
    rows = {row["name"]: (row["documents_s"], row["kept"]) for row in map(json.loads, out.splitlines()) if "name" in row}
    return {name: rows[name] for name in ("fineweb", "minhash")}


def main() -> None:
    if sys.argv[1:2] == ["--peer"]:
        print(json.dumps(theirs(sys.argv[2], int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("program")
    parser.add_argument("documents")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    rates = {"ours": [], "datatrove": []}
    for _ in range(arguments.times):
        rates["ours"].append(ours(arguments.program, arguments.documents, arguments.count))
        peer = [sys.executable, __file__, "--peer", arguments.documents, str(arguments.count)]
        rates["datatrove"].append(json.loads(subprocess.run(peer, check=True, capture_output=True, text=True).stdout))
    print(f"{arguments.count} documents, {arguments.times} times, datatrove {version('datatrove')}, documents a second")
    for name in ("fineweb", "minhash"):
        each = {who: [run[name][0] for run in runs] for who, runs in rates.items()}
        middle = {who: statistics.median(values) for who, values in each.items()}
        listed = "; ".join(f"{who} {middle[who]:.1f} ({' '.join(f'{v:.1f}' for v in each[who])})" for who in each)
        print(f"{name:8} {listed}; {middle['ours'] / middle['datatrove']:.1f} times as many")
    kept = {who: runs[0]["fineweb"][1] for who, runs in rates.items()}
    print("kept by FineWeb's rules:", kept)
    sys.exit(kept["ours"] != kept["datatrove"])


if __name__ == "__main__":
    main()
