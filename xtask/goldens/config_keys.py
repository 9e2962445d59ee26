"""The keys of `config.json` that transformers acts on, with their defaults, for each family that is read: writes
crates/model/src/arch/keys.json.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python xtask/goldens/config_keys.py
"""

import dataclasses
import json
import pathlib
import re

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

ROOT = pathlib.Path(__file__).resolve().parents[2] / "crates/model/src/arch"
ENCODERS = ["bert", "roberta", "xlm-roberta", "modernbert"]
FAMILIES = re.findall(r'model_type: "(\w+)"', "".join(path.read_text() for path in sorted(ROOT.glob("*.rs"))))


def default(field):
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def main():
    keys = {"made by": f"transformers {transformers.__version__}, xtask/goldens/config_keys.py", "families": {}}
    for family in sorted(set(FAMILIES) | {"llama"} | set(ENCODERS)):
        kind = CONFIG_MAPPING[family]
        common = {field.name: default(field) for field in dataclasses.fields(PreTrainedConfig)}
        fields = {field.name: default(field) for field in dataclasses.fields(kind)}
        own = {name: value for name, value in fields.items() if name not in common or common[name] != value}
        theta = getattr(kind, "default_theta", None)
        keys["families"][family] = {
            "defaults": own,
            "rope_theta": theta if not isinstance(theta, dict) else theta["global"],
            "aliases": kind.attribute_map,
        }
    lines = [f' {json.dumps(name)}: {json.dumps(value)}' for name, value in keys["families"].items()]
    text = '{"made by": ' + json.dumps(keys["made by"]) + ', "families": {\n' + ",\n".join(lines) + "\n}}\n"
    (ROOT / "keys.json").write_text(text)
    print(len(lines), "families")


main()
