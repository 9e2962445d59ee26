"""Projects and their artifacts, as the binary's ``--json`` shows them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Sequence

from narthex._binary import NarthexError, call, call_json, call_lines

if TYPE_CHECKING:
    import pandas

    PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Artifact:
    """Something that was made, or taken in: a folder of files that never changes.

    Attributes:
        name: a name that points to it, or the step that made it.
        kind: ``model``, ``documents``, ``tokens``, …
        digest: its identity.
        path: its folder.
        license: an expression of SPDX; ``None`` where undeclared.
        created: seconds since 1970.
        bytes: the size of its files.
        figures: numbers that the same recipe always gives.
        measured: what the run measured, such as seconds.
    """

    name: str
    kind: str
    digest: str
    path: Path
    license: str | None
    created: int
    bytes: int
    figures: dict[str, float]
    measured: dict[str, float]

    def file(self, name: str) -> Path:
        """A file of it.

        Raises:
            NarthexError: if it has none of that name.
        """
        path = self.path / name
        if not path.exists():
            raise NarthexError(f"{self.name} has no file {name}")
        return path


def run(project: PathLike = ".", *arguments: str) -> list[dict[str, Any]]:
    """Makes everything in a project that is not made yet; the report's rows, one for each step.

    Args:
        project: a folder with a ``narthex.toml``.
        arguments: further ones of ``narthex run``, such as ``"--to", "base"``.
    """
    rows: list[dict[str, Any]] = []
    for event in events(project, *arguments):
        if event.get("type") == "report":
            rows = event["rows"]
    return rows


def events(project: PathLike = ".", *arguments: str) -> Iterator[dict[str, Any]]:
    """The same, event by event while it runs: ``metric``, ``progress``, ``sample``, …, and last ``report``."""
    return call_lines(["run", os.fspath(project), *arguments, "--json"])


def artifacts(project: PathLike = ".", kind: str | None = None, all: bool = False) -> list[Artifact]:
    """The artifacts of a project, newest first: those that names point to now, or ``all``; of one kind, or of any."""
    arguments = ["ls", "--project", os.fspath(project)]
    arguments += ["--kind", kind] if kind else []
    arguments += ["--all"] if all else []
    return [_artifact(row, _folder(project, row["digest"])) for row in call_json(arguments)]


def artifact(reference: str, project: PathLike = ".") -> Artifact:
    """The artifact that a reference names: a step, ``name@digest-prefix`` or a digest."""
    shown = show(reference, project)
    for found in artifacts(project, all=True):
        if found.digest == shown["digest"]:
            return found
    raise NarthexError(f"{reference} is in no list of the project")


def show(reference: str, project: PathLike = ".") -> dict[str, Any]:
    """All that ``narthex show`` tells of an artifact: folder, manifest and the record of its run."""
    shown: dict[str, Any] = call_json(["show", reference, "--project", os.fspath(project)])
    return shown


def metrics(reference: str, project: PathLike = ".") -> list[dict[str, Any]]:
    """What a run logged while it made an artifact, one dict for each time it did; :func:`frame` makes a table of it.

    Where a run kept no curve, the list is empty.
    """
    folder = Path(show(reference, project)["folder"])
    for path in (folder / "run" / "metrics.jsonl", folder / "metrics.jsonl"):
        if path.is_file():
            with path.open(encoding="utf-8") as lines:
                return [json.loads(line) for line in lines if line.strip()]
    return []


def frame(rows: Sequence[dict[str, Any]]) -> pandas.DataFrame:
    """Dicts as a table of pandas, with nested values under dotted names.

    Raises:
        NarthexError: if pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise NarthexError("pandas is not installed: `pip install pandas`") from error
    return pandas.json_normalize(list(rows))


def version() -> str:
    """The version of the binary."""
    return call(["--version"]).split()[-1]


def _folder(project: PathLike, digest: str) -> Path:
    root = Path(project)
    root = root.parent if root.is_file() else root
    return root / ".narthex" / "artifacts" / digest


def _artifact(row: dict[str, Any], path: Path) -> Artifact:
    return Artifact(
        name=row["name"],
        kind=row["kind"],
        digest=row["digest"],
        path=path,
        license=row.get("license"),
        created=row["created"],
        bytes=row["bytes"],
        figures=dict(row.get("figures", {})),
        measured=dict(row.get("measured", {})),
    )
