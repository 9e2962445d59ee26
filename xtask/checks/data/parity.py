"""The rules for texts beside datatrove's, on many real documents.

    xtask/checks/data/parity.py DOCUMENTS.jsonl CASES.jsonl [--count 3000] [--peer datatrove] -- COMMAND ARG…

DOCUMENTS: JSON lines with `text` (bench/data/corpus.py makes some). CASES: where datatrove's answers are kept, so that they are
made once. COMMAND answers cases as `cargo xtask data-cases` does. Every answer must be the same: words, sentences, verdicts,
reasons, rewritten texts, signatures. Needs datatrove 0.10.1 and spacy.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import time


def answers(documents: pathlib.Path, count: int):
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.utils.text import simplify_text, split_into_sentences, split_into_words

    signer = MinhashDedupSignature("/tmp/none", MinhashConfig())
    filters = {
        "gopher_quality": [({}, GopherQualityFilter())],
        "gopher_repetition": [({}, GopherRepetitionFilter())],
        "c4_quality": [
            ({}, C4QualityFilter()),
            ({"filter_no_terminal_punct": False}, C4QualityFilter(filter_no_terminal_punct=False)),
        ],
        "fineweb_quality": [({}, FineWebQualityFilter())],
    }
    with documents.open() as file:
        for index, line in zip(range(count), file):
            text = json.loads(line)["text"]

            def case(function, expected, params={}):
                return {"id": f"{function}-{index}-{len(params)}", "function": function, "params": params, "input": text,
                        "expected": expected}

            yield case("words", split_into_words(text))
            yield case("sentences", split_into_sentences(text))
            yield case("simplify_text", simplify_text(text))
            for function, variants in filters.items():
                for params, each in variants:
                    document = Document(text=text, id=str(index))
                    try:
                        said = each.filter(document)
                    except ZeroDivisionError:
                        continue
                    kept, reason = said if isinstance(said, tuple) else (said, None)
                    expected = {"kept": bool(kept), "reason": reason}
                    if kept and document.text != text:
                        expected["text"] = document.text
                    yield case(function, expected, params)
            shingles = signer.get_shingles(text)
            signature = [[str(x) for x in band] for band in signer.get_signature(shingles)] if shingles.size else None
            listed = [str(x) for x in shingles[:50, 0].tolist()] if shingles.size else []
            yield case("minhash_signature", {"shingles": listed, "n_shingles": int(shingles.size), "signature": signature})


def told(answer):
    """Without what is null, which an answer has or leaves out."""
    return {k: v for k, v in answer.items() if v is not None} if isinstance(answer, dict) else answer


def main() -> None:
    at = sys.argv.index("--")
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("documents", type=pathlib.Path)
    parser.add_argument("cases", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=3000)
    arguments = parser.parse_args(sys.argv[1:at])
    if not arguments.cases.exists():
        start, part = time.process_time(), arguments.cases.with_suffix(".part")
        with part.open("w") as file:
            for case in answers(arguments.documents, arguments.count):
                file.write(json.dumps(case, ensure_ascii=False) + "\n")
        part.rename(arguments.cases)
        print(f"datatrove answered in {time.process_time() - start:.0f} s of CPU", flush=True)
    tally, shown = collections.defaultdict(lambda: [0, 0]), 0
    process = subprocess.Popen(sys.argv[at + 1 :], stdin=arguments.cases.open(), stdout=subprocess.PIPE, text=True)
    with arguments.cases.open() as file:
        for line, answer in zip(file, process.stdout):
            case, answer = json.loads(line), json.loads(answer)
            assert case["id"] == answer["id"], (case["id"], answer["id"])
            count = tally[case["function"]]
            count[1] += 1
            expected, output = told(case["expected"]), told(answer["output"])
            if expected == output:
                count[0] += 1
            elif shown < 12:
                shown += 1
                print("DIFFERENT", case["id"], case["params"])
                if isinstance(expected, list):
                    first = next((i for i, (a, b) in enumerate(zip(expected, output)) if a != b), len(output))
                    around = slice(max(0, first - 2), first + 5)
                    print("   theirs", expected[around], "\n   ours  ", output[around])
                else:
                    print("   theirs", str(expected)[:400], "\n   ours  ", str(output)[:400])
    for function, (same, count) in sorted(tally.items()):
        print(f"{function:20} {same:6} of {count}")
    bad = process.wait() != 0 or any(same < count for same, count in tally.values())
    sys.exit(bad)


if __name__ == "__main__":
    main()
