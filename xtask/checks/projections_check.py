"""What Narthex writes for others is read by the readers of those others. All offline.

    pip install spdx-python-model "cyclonedx-python-lib[json-validation]" huggingface_hub pyyaml mlcroissant openlineage-python
    NARTHEX_PROJECTIONS=FOLDER cargo test -p narthex-openness --lib -- --ignored projections_to_files
    python xtask/checks/projections_check.py FOLDER/X.spdx.json FOLDER/X.cdx.json FOLDER/X.card.md FOLDER/X.croissant.json FOLDER/X.openlineage.ndjson

Reads an SPDX document with spdx-python-model (nothing may be missing that is referred to), a CycloneDX document with the
strict validator and the model of cyclonedx-python-lib, the metadata of a card with huggingface_hub, a Croissant description
with mlcroissant (and a row of each of its record sets, where its files lie beside it), and OpenLineage events, one a
line, with OpenLineage's client, which must write them again as they were. Every reader is also given a broken document, which
it must refuse.
"""

import argparse
import io
import json
import logging
import pathlib
import sys
import tempfile

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ["spdx", "cyclonedx", "card", "croissant", "openlineage"]:
    parser.add_argument(name, type=pathlib.Path)
options = parser.parse_args()
logging.getLogger("absl").setLevel(logging.ERROR)  # the warnings are printed once, below
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(f"{'ok    ' if good else 'FAILED'} {name} {detail}".rstrip())


def refuses(name, read, text, suffix):
    """A reader must not take a broken document."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"broken{suffix}"
        path.write_text(text)
        try:
            complaint = read(path)
        except Exception as error:
            complaint = type(error).__name__
    check(f"{name}: refuses what is broken", bool(complaint), str(complaint)[:80])


def spdx(path):
    import spdx_python_model

    model, objects = spdx_python_model.load(path)
    model.JSONLDSerializer().write(objects, io.BytesIO())  # raises where a required property is missing
    return objects.missing_ids


def cyclonedx(path):
    from cyclonedx.model.bom import Bom
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    document = json.loads(path.read_text())
    complaint = JsonStrictValidator(SchemaVersion.from_version(document["specVersion"])).validate_str(path.read_text())
    if complaint is None:
        Bom.from_json(document).validate()  # raises where a dependency dangles
    return complaint


def card(path):
    from huggingface_hub import DatasetCard, ModelCard, metadata_load

    is_model = "pipeline_tag" in metadata_load(path)
    return not (ModelCard if is_model else DatasetCard).load(path).data.license


def croissant(path):
    import mlcroissant

    issues = mlcroissant.Dataset(jsonld=path).metadata.issues
    return issues.errors


def openlineage(path):
    from openlineage.client import event_v2 as events
    from openlineage.client.serde import Serde

    differing = set()
    for line in filter(None, path.read_text().splitlines()):
        document = json.loads(line)
        event = events.RunEvent(
            eventType=events.RunState(document["eventType"]),
            eventTime=document["eventTime"],
            producer=document["producer"],
            run=events.Run(**document["run"]),
            job=events.Job(**document["job"]),
            inputs=[events.InputDataset(**dataset) for dataset in document["inputs"]],
            outputs=[events.OutputDataset(**dataset) for dataset in document["outputs"]],
        )
        written = json.loads(Serde.to_json(event))
        for dataset in written["inputs"]:
            # The client writes the facets that an input does not have as an empty table.
            if not dataset.get("inputFacets", True):
                del dataset["inputFacets"]
        differing |= {key for key in document if document[key] != written.get(key)}
    return differing


def rows():
    import mlcroissant

    description = mlcroissant.Dataset(jsonld=options.croissant)
    beside = options.croissant.parent
    files = [file["contentUrl"] for file in json.loads(options.croissant.read_text())["distribution"]]
    if not all((beside / file).is_file() for file in files):
        return print("       croissant: the files are not beside it: no rows are read")
    for records in description.metadata.record_sets:
        first = next(iter(description.records(record_set=records.id)))
        check(f"croissant: a row of {records.id}", bool(first), str(first)[:80])


def main():
    for name, read, path in [
        ("spdx", spdx, options.spdx),
        ("cyclonedx", cyclonedx, options.cyclonedx),
        ("card", card, options.card),
        ("croissant", croissant, options.croissant),
        ("openlineage", openlineage, options.openlineage),
    ]:
        complaint = read(path)
        check(f"{name}: {path.name}", not complaint, str(complaint or "")[:300])
    import mlcroissant

    warnings = mlcroissant.Dataset(jsonld=options.croissant).metadata.issues.warnings
    for warning in sorted(warnings):
        print(f"       croissant warns: {str(warning)[:150]}")
    rows()
    text = options.spdx.read_text()
    refuses("spdx", spdx, text.replace('#artifact",', '#elsewhere",', 1), ".json")
    refuses("cyclonedx", cyclonedx, options.cyclonedx.read_text().replace('"BLAKE3"', '"BLAKE4"'), ".json")
    refuses("card", card, "---\nlicense: mit\npipeline_tag: text-generation\nmodel-index:\n- name: x\n  results:\n  - dataset: {}\n---\n", ".md")
    refuses("croissant", croissant, options.croissant.read_text().replace('"encodingFormat"', '"form"'), ".json")
    refuses("openlineage", openlineage, options.openlineage.read_text().replace('"runId":"', '"runId":"x'), ".ndjson")
    print(f"{failures} failed")
    return failures


sys.exit(bool(main()))
