"""Writes crates/curate/assets/english.json: what spaCy's blank English and datatrove's rules stand on.

    xtask/goldens/english.py

Special cases of the tokenizer, what is cut off in front and behind, classes of characters as ranges of code points, and
three sets of marks. The forms of the affixes' regular expressions (which mark needs which neighbour) are in Rust:
crates/curate/src/tokens/affixes.rs. Needs spacy 3.8.18 (MIT) and datatrove 0.10.1 (Apache-2.0).
"""

import json
import pathlib
import re
from importlib.metadata import version

from datatrove.utils.text import PUNCTUATION, TERMINAL_PUNCTUATION
from spacy.lang import char_classes, punctuation
from spacy.lang.en import English
from spacy.lang.en.tokenizer_exceptions import TOKENIZER_EXCEPTIONS
from spacy.pipeline.sentencizer import Sentencizer
from spacy.symbols import ORTH

ASSET = pathlib.Path(__file__).parents[2] / "crates/curate/assets/english.json"


def ranges(characters: str) -> list[list[int]]:
    """The code points of a class of a regular expression."""
    pattern, found = re.compile(f"[{characters}]"), []
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000 and pattern.match(chr(code)):
            if found and found[-1][1] == code - 1:
                found[-1][1] = code
            else:
                found.append([code, code])
    return found


def plain(pieces: list[str]) -> list[str]:
    return [re.sub(r"\\(.)", r"\1", piece) for piece in pieces if piece.strip()]


def main() -> None:
    assert (version("spacy"), version("datatrove")) == ("3.8.18", "0.10.1")
    # What affixes.rs knows by heart.
    assert punctuation.TOKENIZER_PREFIXES[:6] == ["§", "%", "=", "—", "–", r"\+(?![0-9])"]
    assert len(English.Defaults.infixes) == len(char_classes.LIST_ELLIPSES) + len(char_classes.LIST_ICONS) + 5
    c = char_classes
    before_dot = f"0-9{c.ALPHA_LOWER}%²\\-\\+{c.PUNCT}(?:{c.CONCAT_QUOTES})"
    assert any(before_dot in suffix for suffix in punctuation.TOKENIZER_SUFFIXES)
    data = {
        "special_cases": {text: [token[ORTH] for token in tokens] for text, tokens in sorted(TOKENIZER_EXCEPTIONS.items())},
        "prefixes_plain": punctuation.TOKENIZER_PREFIXES[:5],
        "punctuation": plain(c.LIST_PUNCT),
        "quotes": plain(c.LIST_QUOTES),
        "currency": plain(c.LIST_CURRENCY),
        "units": c.LIST_UNITS,
        "letters": ranges(c.ALPHA),
        "lower": ranges(c.ALPHA_LOWER),
        "upper": ranges(c.ALPHA_UPPER),
        "icons": ranges(c.CONCAT_ICONS),
        "lower_or_quote": ranges(c.ALPHA_LOWER + c.CONCAT_QUOTES),
        "upper_or_quote": ranges(c.ALPHA_UPPER + c.CONCAT_QUOTES),
        "before_final_dot": ranges(before_dot),
        "marks_punctuation": "".join(sorted(set(PUNCTUATION))),
        "marks_terminal": "".join(sorted(TERMINAL_PUNCTUATION)),
        "marks_sentence": "".join(sorted(set(Sentencizer.default_punct_chars))),
    }
    lines = []
    for key, value in data.items():
        if key == "special_cases":
            cases = [f"{json.dumps(text)}: {json.dumps(pieces)}" for text, pieces in value.items()]
            lines.append(f"{json.dumps(key)}: {{\n" + ",\n".join(cases) + "\n}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}")
    ASSET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
