"""What others make of the schemas of JSONSchemaBench: whether they take each, and whether values that fit pass and others do not.

    bench/schemas/compare.py DATA --tokenizer FOLDER [--every 20] [--vllm FOLDER] [--seconds 60] [--report FILE] [--ours FILE]

DATA: `maskbench/data` of guidance-ai/jsonschemabench; every Nth file in the order of names, as `xtask/checks/schema_check.py`
takes them, whose --report --ours reads to put Narthex beside them. --tokenizer: a folder with a `tokenizer.json`.
--vllm: the folder `vllm` of its package or source; its own tests of a schema are read from there, so that the outcome is that
of `--structured-outputs-config.backend auto`: xgrammar, else guidance, else outlines. A running llama-server is asked by
`schema_check.py` itself.

Taken does not mean kept: an engine may take what it then ignores, which is what the values show. They are
written as Python's `json.dumps` writes them. Needs xgrammar, llguidance, outlines_core and transformers. Each schema has a
process of its own, with --seconds of time and 8 GB.
"""

import argparse
import ast
import collections
import json
import multiprocessing
import pathlib
import resource
import statistics
import time
from importlib.metadata import version

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("--tokenizer", required=True)
parser.add_argument("--every", type=int, default=20)
parser.add_argument("--vllm", type=pathlib.Path)
parser.add_argument("--seconds", type=float, default=60)
parser.add_argument("--report", type=pathlib.Path)
parser.add_argument("--ours", type=pathlib.Path)
options = parser.parse_args()

import llguidance  # noqa: E402
import llguidance.hf  # noqa: E402
import transformers  # noqa: E402
import xgrammar  # noqa: E402

tokenizer = transformers.AutoTokenizer.from_pretrained(options.tokenizer)
xgrammar_tokens = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
llguidance_tokens = llguidance.hf.from_tokenizer(tokenizer)


def functions(path, *names):
    """Functions of a file, with what they need of it, without what it imports."""
    tree = ast.parse(path.read_text())
    kept = [node for node in tree.body
            if isinstance(node, ast.FunctionDef) or isinstance(node, ast.Assign) and isinstance(node.value, (ast.Set, ast.Constant, ast.Call))
            and all(isinstance(target, ast.Name) and target.id.isupper() for target in node.targets)]
    for node in kept:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list, node.returns = [], None
            for argument in node.args.args + node.args.kwonlyargs:
                argument.annotation = None
    scope = {"Any": object}
    exec(compile(ast.Module(kept, []), str(path), "exec"), scope)  # noqa: S102
    return [scope[name] for name in names]


if options.vllm:
    folder = options.vllm / "v1" / "structured_output"
    [unsupported] = functions(folder / "backend_xgrammar.py", "has_xgrammar_unsupported_json_features")
    [unguided] = functions(folder / "backend_guidance.py", "has_guidance_unsupported_json_features")


class Xgrammar:
    """xgrammar by itself, as vLLM calls it: any white space, and no more properties than are named."""

    def __init__(self, schema):
        xgrammar.Grammar.from_json_schema(schema)
        compiler = xgrammar.GrammarCompiler(xgrammar_tokens, max_threads=1)
        self.compiled = compiler.compile_json_schema(json.dumps(schema), any_whitespace=True)

    def passes(self, text):
        matcher = xgrammar.GrammarMatcher(self.compiled, terminate_without_stop_token=True)
        return matcher.accept_string(text) and (matcher.is_terminated() or matcher.is_completed())


class Guidance:
    """llguidance as vLLM calls it."""

    def __init__(self, schema):
        grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": True})
        wrong = llguidance.LLMatcher.validate_grammar(grammar, llguidance_tokens)
        if wrong:
            raise ValueError(wrong)
        self.grammar = grammar

    def passes(self, text):
        matcher = llguidance.LLMatcher(llguidance_tokens, self.grammar)
        ids = llguidance_tokens.tokenize_str(text)
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


class Outlines:
    """outlines_core, to which vLLM turns last: a regular expression."""

    def __init__(self, schema):
        import re

        from outlines_core import json_schema

        self.pattern = re.compile(json_schema.build_regex_from_schema(json.dumps(schema)))

    def passes(self, text):
        return self.pattern.fullmatch(text) is not None


def vllm(schema):
    """The first of vLLM's three that takes a schema, by vLLM's own tests."""
    if not unsupported(schema):
        try:
            return Xgrammar(schema)
        except Exception:  # noqa: BLE001
            pass
    return Outlines(schema) if unguided(schema) else Guidance(schema)


ENGINES = {"xgrammar": Xgrammar, "llguidance": Guidance} | ({"vLLM auto": vllm} if options.vllm else {})


def judged(engine, file, answers):
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    try:
        begun = time.monotonic()
        made = ENGINES[engine](file["schema"])
        answers.put({"ms": (time.monotonic() - begun) * 1000})
    except Exception as error:  # noqa: BLE001
        answers.put({"refused": str(error)[:300]})
        return
    answers.put({"used": type(made).__name__, "values": [[test["valid"], bool(made.passes(json.dumps(test["data"], ensure_ascii=False)))]
                                                         for test in file["tests"]]})


def outcome(engine, file):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=judged, args=(engine, file, answers))
    process.start()
    found, deadline = {}, time.monotonic() + options.seconds
    while "values" not in found and "refused" not in found:
        try:
            found |= answers.get(timeout=0.2)
        except Exception:  # noqa: BLE001
            if not process.is_alive() and answers.empty():
                found |= {"refused": f"died with {process.exitcode}"} if "ms" not in found else {"values": [], "died": process.exitcode}
            elif time.monotonic() > deadline:
                process.kill()
                found |= {"refused": "too slow"} if "ms" not in found else {"values": [], "died": "too slow"}
    process.join()
    return found


def main():
    files = [(path.stem, json.loads(path.read_text())) for path in sorted(options.data.glob("*.json"))[:: options.every]]
    report = options.report.open("w") if options.report else None
    print(f"{len(files)} schemas; xgrammar {version('xgrammar')}, llguidance {version('llguidance')}")
    for engine in ENGINES:
        taken, times, values, why, used, died = set(), [], collections.Counter(), collections.Counter(), collections.Counter(), []
        for name, file in files:
            found = outcome(engine, file)
            if report:
                report.write(json.dumps({"engine": engine, "schema": name, **found}) + "\n")
            if "refused" in found:
                why[found["refused"].split("\n")[0][:60]] += 1
                continue
            taken.add(name)
            times.append(found["ms"])
            used[found.get("used", "?")] += 1
            if "died" in found:
                died.append((name, found["died"]))
            values.update(map(tuple, found["values"]))
        times.sort()
        print(f"{engine}: {len(taken)} taken ({len(taken) / len(files):.1%}); to compile {statistics.median(times):.1f} ms p50,"
              f" {times[int(len(times) * 0.99)]:.0f} p99; by {dict(used)}")
        print(f"  values that fit: {values[True, True]} pass, {values[True, False]} refused;"
              f" values that do not: {values[False, False]} refused, {values[False, True]} pass")
        print(f"  refused: {dict(why.most_common(6))}; died with the values: {died[:5]}")
    if options.ours:
        rows = [json.loads(line) for line in options.ours.read_text().splitlines()]
        mine = [row for row in rows if "accepted" in row]
        print(f"Narthex: {sum(row['accepted'] for row in mine)} of {len(mine)} taken")


if __name__ == "__main__":
    main()
