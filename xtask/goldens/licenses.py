"""The licences that are recognised by their text, with what their texts leave open: writes crates/base/licenses/templates.txt
from the XML of SPDX's licence list (https://github.com/spdx/license-list-XML, licence of the list's data: CC0-1.0).

    git clone --depth 1 https://github.com/spdx/license-list-XML
    python3 xtask/goldens/licenses.py license-list-XML/src

Each licence begins with a line `==== identifier | name`. Its text follows in the markup of SPDX's templates (SPDX 2.3,
annex B): `<<beginOptional>>`, `<<endOptional>>`, `<<var;original="…";match="…">>`.
"""

import pathlib
import re
import sys
import xml.etree.ElementTree as ET

IDS = """
0BSD AFL-3.0 AGPL-3.0-only Apache-2.0 Artistic-1.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent
BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause BSL-1.0 BUSL-1.1 BlueOak-1.0.0 C-UDA-1.0
CC-BY-1.0 CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0 CC-BY-NC-1.0 CC-BY-NC-2.0 CC-BY-NC-2.5 CC-BY-NC-3.0 CC-BY-NC-4.0
CC-BY-NC-ND-2.0 CC-BY-NC-ND-2.5 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0 CC-BY-NC-SA-2.0 CC-BY-NC-SA-2.5 CC-BY-NC-SA-3.0
CC-BY-NC-SA-4.0 CC-BY-ND-2.0 CC-BY-ND-2.5 CC-BY-ND-3.0 CC-BY-ND-4.0 CC-BY-SA-2.0 CC-BY-SA-2.5 CC-BY-SA-3.0 CC-BY-SA-4.0
CC0-1.0 CDDL-1.0 CDDL-1.1 CDLA-Permissive-1.0 CDLA-Permissive-2.0 CDLA-Sharing-1.0 CECILL-2.1 DL-DE-BY-2.0
ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 Elastic-2.0 etalab-2.0 GFDL-1.2-only GFDL-1.3-only GPL-1.0-only GPL-2.0-only
GPL-3.0-only HPND ISC JSON LGPL-2.0-only LGPL-2.1-only LGPL-3.0-only LGPLLR LPPL-1.3c MIT MIT-0 MIT-CMU MPL-1.1 MPL-2.0
MPL-2.0-no-copyleft-exception MS-PL MS-RL MulanPSL-2.0 NCSA ODC-By-1.0 ODbL-1.0 OFL-1.1 OGL-UK-3.0 OSL-3.0 OpenSSL PDDL-1.0
PolyForm-Noncommercial-1.0.0 PolyForm-Small-Business-1.0.0 PostgreSQL PSF-2.0 Python-2.0 SSPL-1.0 UPL-1.0 Unicode-3.0
Unlicense Vim WTFPL X11 ZPL-2.1 Zlib zlib-acknowledgement
""".split()

# Wordings in wide use that the list lacks: (identifier, a part of its pattern, the part with them).
WORDINGS = [
    # Meta's: "Neither the name Facebook, nor Meta, nor the names of its contributors may".
    ("BSD-3-Clause", r"(Neither\s+the\s+names?\s+of.+nor\s+the\s+names\s+of\s+its\s+contributors\s+may)",
     r"(Neither\s+the\s+names?\s.+nor\s+the\s+names\s+of\s+its\s+contributors\s+may)"),
]

SPACE = re.compile(r"\s+")


def tidy(text):
    return SPACE.sub(" ", text or "")


def variable(name, original, match):
    return f'<<var;original="{tidy(original).strip()}";match="{match}">>'


def render(node, out):
    """Appends the markup of an element's content."""
    tag = node.tag.split("}")[1]
    if tag == "alt":
        original = "".join(node.itertext())
        out.append(" " if node.get("spacing") not in ("none", "before") else "")
        out.append(variable("alt", original, node.get("match")))
    elif tag == "bullet":
        out.append(variable("bullet", "".join(node.itertext()), ".{0,20}") + " ")
    elif tag == "copyrightText":
        out.append("\n" + variable("copyright", "".join(node.itertext()), ".{0,5000}") + "\n")
    else:
        optional = tag in ("optional", "titleText")
        out.append("<<beginOptional>>" if optional else "")
        out.append(tidy(node.text))
        for child in node:
            render(child, out)
            out.append(tidy(child.tail))
        out.append("<<endOptional>>" if optional else "")
        out.append("\n" if tag in ("p", "br", "item", "titleText", "list") else "")


def main():
    source = pathlib.Path(sys.argv[1])
    parts = []
    for name in IDS:
        root = ET.parse(source / f"{name}.xml").getroot()
        license = root.find("{*}license")
        out = []
        render(license.find("{*}text"), out)
        text = "".join(out)
        text = re.sub(r" *\n\s*", "\n", text).strip()
        for _, old, new in [wording for wording in WORDINGS if wording[0] == name]:
            assert old in text, (name, old)
            text = text.replace(old, new)
        parts.append(f"==== {license.get('licenseId')} | {tidy(license.get('name'))}\n{text}\n")
    path = pathlib.Path(__file__).resolve().parents[2] / "crates/base/licenses/templates.txt"
    path.write_text("".join(parts), encoding="utf-8")
    print(len(parts), path.stat().st_size)


main()
