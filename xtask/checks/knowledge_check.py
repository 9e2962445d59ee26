"""Holds knowledge against Cranfield (1,400 documents, 225 questions, graded judgements), as the binary makes and searches it.

usage: knowledge_check.py NARTHEX FOLDER [ENCODER]

FOLDER holds `cran.all.1400`, `cran.qry` and `cranqrel` as the collection is passed on. ENCODER is a model folder in the
layout of sentence-transformers, such as all-MiniLM-L6-v2; with it vectors and both together are measured too, and the
vectors' order is compared with a full sort by numpy over vectors that `narthex embed` gives.

Documents are one passage each. The judgement -1, one for each question, counts as the best in one reading and as nothing in the
other: the collection's words call it of no interest, but these documents are about just what is asked. Needs numpy with ENCODER.
"""

import collections
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile

narthex, data = sys.argv[1], pathlib.Path(sys.argv[2])
encoder = pathlib.Path(sys.argv[3]).resolve() if len(sys.argv) > 3 else None
GRADES = {1: 4, 2: 3, 3: 2, 4: 1, 5: 0}


def documents():
    text = (data / "cran.all.1400").read_text(encoding="latin-1")
    for part in re.split(r"^\.I ", text, flags=re.M)[1:]:
        number, rest = part.split("\n", 1)
        yield int(number), re.split(r"^\.W\n", rest, flags=re.M)[1].strip()


def questions():
    # The judgements count questions from 1 to 225, whatever `.I` says.
    parts = re.split(r"^\.I \d+\s*\n\.W\n", (data / "cran.qry").read_text(encoding="latin-1"), flags=re.M)[1:]
    return [" ".join(part.split()) for part in parts]


def judgements():
    judged = collections.defaultdict(dict)
    for line in (data / "cranqrel").read_text().splitlines():
        fields = line.split()
        if len(fields) >= 3:
            judged[int(fields[0])][int(fields[1])] = int(fields[2])
    return judged


def ndcg(ranked, judged, minus_one):
    gain = {document: GRADES.get(grade, minus_one) for document, grade in judged.items()}
    discounted = sum(gain.get(document, 0) / math.log2(place + 2) for place, document in enumerate(ranked[:10]))
    ideal = sum(g / math.log2(place + 2) for place, g in enumerate(sorted(gain.values(), reverse=True)[:10]))
    return discounted / ideal if ideal else 0.0


def call(folder, *arguments):
    return subprocess.run([narthex, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


with tempfile.TemporaryDirectory() as made:
    folder = pathlib.Path(made)
    (folder / "docs").mkdir()
    for number, text in documents():
        (folder / "docs" / f"{number:04}.txt").write_text(text + "\n")
    asked = questions()
    (folder / "questions.txt").write_text("\n".join(asked) + "\n")
    model = 'model = "encoder"\n' if encoder else ""
    source = f'[sources.encoder]\npath = "{encoder}"\nformat = "huggingface"\nlicense = "Apache-2.0"\n' if encoder else ""
    (folder / "narthex.toml").write_text(
        '[project]\nname = "cranfield"\n[sources.docs]\npath = "docs"\n[steps.cranfield]\nkind = "knowledge"\nfrom = "docs"\n'
        + model + '[steps.cranfield.split]\nunit = "characters"\nsize = 100000\noverlap = 0\n'
        '[steps.cranfield.search]\ncandidates = 200\n' + source)
    call(folder, "run")
    judged, lists = judgements(), {}
    for mode in ["words", "vectors", "hybrid"] if encoder else ["words"]:
        lines = call(folder, "search", "cranfield", "--mode", mode, "--limit", "200", "--file", "questions.txt").splitlines()
        found = [json.loads(line)["found"] for line in lines]
        lists[mode] = [[int(pathlib.Path(hit["passage"]["file"]).stem) for hit in hits] for hits in found]
        best, none = (
            sum(ndcg(ranked, judged[q], minus_one) for q, ranked in enumerate(lists[mode], 1)) / len(asked)
            for minus_one in (5, 0)
        )
        print(f"{mode:8} {len(asked)} questions  nDCG@10 {best:.4f} (-1 as the best)  {none:.4f} (-1 as nothing)", flush=True)
    if encoder:
        import numpy as np

        texts = [text for _, text in documents() if text]
        numbers = [number for number, text in documents() if text]
        flat = lambda lines: "\n".join(" ".join(line.split()) for line in lines) + "\n"
        (folder / "texts.txt").write_text(flat(texts))
        vectors = lambda name: np.array([json.loads(v) for v in call(folder, "embed", str(encoder), "--file", name).splitlines()])
        rows, wanted = vectors("texts.txt"), vectors("questions.txt")
        order = np.argsort(-(wanted @ rows.T), axis=1, kind="stable")[:, :10]
        same = sum(len({numbers[i] for i in row} & set(ranked[:10])) for row, ranked in zip(order, lists["vectors"]))
        print(f"numpy    {same} of {10 * len(asked)} of the first ten are the same")
