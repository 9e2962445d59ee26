"""A corpus of real documents of this machine, for the rules for texts.

    bench/data/corpus.py FOLDER [--pages PAGES] [--seed 1] [FROM …]

Writes FOLDER/text.jsonl (`text`, `url`, `kind`) with what stands in FROM (by default /usr/share/doc, /usr/share/man,
/usr/lib/python3*, /usr/include): documentation, man pages of all languages, code; and FOLDER/dups.jsonl with near copies of
a fifth of them and FOLDER/truth.jsonl that says of what and how near. PAGES: a folder of HTML pages, of which the text goes
along as trafilatura extracts it. The order is drawn by the seed. Needs xxhash, and trafilatura for pages.
"""

import argparse
import glob
import gzip
import html
import json
import pathlib
import random
import re

import xxhash

LEAST, MOST = 200, 200_000


def read(path: pathlib.Path) -> str | None:
    try:
        data = gzip.open(path).read(4 << 20) if path.suffix == ".gz" else path.open("rb").read(4 << 20)
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError, gzip.BadGzipFile):
        return None


def plain(path: pathlib.Path, text: str) -> tuple[str, str]:
    """The kind of a file, and its text without marks of its form."""
    name = path.name.removesuffix(".gz")
    if re.search(r"\.[1-9][a-z]*$", name) and "/man/" in str(path):
        text = re.sub(r"^['.]\\\".*$", "", text, flags=re.M)
        text = re.sub(r"^[.'][A-Za-z]+ ?", "", text, flags=re.M)
        text = re.sub(r"\\f[BIRP]|\\&|\\-", lambda m: "-" if m[0] == r"\-" else "", text)
        return "man", text
    if name.endswith((".html", ".htm", ".xhtml")):
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", text)
        text = re.sub(r"(?i)</?(p|br|div|li|h[1-6]|tr|pre)\b[^>]*>", "\n", text)
        return "html", html.unescape(re.sub(r"<[^>]*>", "", text))
    if name.endswith((".py", ".h", ".c", ".sh", ".pl", ".js")):
        return "code", text
    return "doc", text


def documents(roots: list[str]):
    for root in roots:
        for path in sorted(pathlib.Path(root).rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            text = read(path)
            if text is None or "\0" in text:
                continue
            kind, text = plain(path, text)
            for at in range(0, len(text), MOST):
                part = text[at : at + MOST]
                if len(part) >= LEAST:
                    yield {"text": part, "url": f"file://{path}#{at}", "kind": kind}


def pages(folder: str):
    from trafilatura import extract

    for path in sorted(glob.glob(folder + "/**/*.html", recursive=True)):
        text = read(pathlib.Path(path))
        found = extract(text, favor_precision=True, include_comments=False, deduplicate=True) if text else None
        if found and len(found) >= LEAST:
            yield {"text": found, "url": f"file://{path}", "kind": "page"}


def edited(text: str, rate: float, draw: random.Random) -> str:
    """A near copy: so many of the words are replaced, left out or doubled."""
    parts = re.split(r"(\s+)", text)
    words = [part for part in parts if part.strip()]
    for at in range(0, len(parts), 2):
        if draw.random() < rate:
            parts[at] = draw.choice([draw.choice(words), "", parts[at] + " " + parts[at]])
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("roots", nargs="*", metavar="FROM")
    parser.add_argument("--pages")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    roots = arguments.roots or ["/usr/share/doc", "/usr/share/man", *glob.glob("/usr/lib/python3*"), "/usr/include"]
    draw = random.Random(arguments.seed)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    seen, rows = set(), []
    for row in [*documents(roots), *(pages(arguments.pages) if arguments.pages else [])]:
        key = xxhash.xxh128_hexdigest(row["text"].encode())
        if key not in seen:
            seen.add(key)
            rows.append(row)
    draw.shuffle(rows)
    copies, truth = [], []
    for index, row in enumerate(rows):
        copies.append((index, row["text"]))
        if draw.random() < 0.2:
            kind = draw.choice(["exact", "header", "cut", "case", 0.01, 0.02, 0.05, 0.1])
            text = row["text"]
            if kind == "header":
                text = "Skip to content\nMenu Home About\n\n" + text
            elif kind == "cut":
                text = text[: int(len(text) * 0.95)]
            elif kind == "case":
                text = text.upper()
            elif kind != "exact":
                text = edited(text, kind, draw)
            copies.append((index, text))
            truth.append({"copy": len(copies) - 1, "of": index, "kind": str(kind)})
    with (arguments.folder / "text.jsonl").open("w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (arguments.folder / "dups.jsonl").open("w") as file:
        for _, text in copies:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    with (arguments.folder / "truth.jsonl").open("w") as file:
        for row in truth:
            file.write(json.dumps(row) + "\n")
    sizes = [(name, (arguments.folder / name).stat().st_size >> 20) for name in ("text.jsonl", "dups.jsonl")]
    print(len(rows), "documents,", len(copies), "with copies;", sizes, "MiB")


if __name__ == "__main__":
    main()
