"""Where the binary is, and how it is called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Iterator, Sequence


class NarthexError(Exception):
    """What the binary, or a server, said was wrong.

    ``code`` is the exit code of the binary or the status of the answer, where there is one.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


def find_binary() -> Path:
    """The binary of this installation, or else the first of that name on ``PATH``.

    Looks where installers put scripts: of this environment, of the user, and beside a folder that was chosen with
    ``pip install --target``.

    Raises:
        NarthexError: if there is none.
    """
    places = [Path(sysconfig.get_path("scripts"))]
    user = sysconfig.get_preferred_scheme("user") if hasattr(sysconfig, "get_preferred_scheme") else f"{os.name}_user"
    if user in sysconfig.get_scheme_names():
        places.append(Path(sysconfig.get_path("scripts", scheme=user)))
    places.append(Path(__file__).resolve().parent.parent / "bin")
    places.append(Path(sys.executable).parent)
    for place in places:
        candidate = place / "narthex"
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which("narthex")
    if found:
        return Path(found)
    searched = ", ".join(str(place) for place in places)
    raise NarthexError(f"there is no binary `narthex` in {searched} or on PATH; install the wheel again")


def call(arguments: Sequence[str | os.PathLike[str]]) -> str:
    """What the binary writes to its standard output.

    Raises:
        NarthexError: if it ends with another exit code than 0, with what it said.
    """
    command = [os.fspath(part) for part in (find_binary(), *arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        raise NarthexError(done.stderr.strip() or f"exit code {done.returncode}", done.returncode)
    return done.stdout


def call_json(arguments: Sequence[str | os.PathLike[str]]) -> Any:
    """The JSON value that the binary writes."""
    return json.loads(call([*arguments, "--json"]))


def call_lines(arguments: Sequence[str | os.PathLike[str]]) -> Iterator[dict[str, Any]]:
    """The JSON lines that the binary writes, while it runs; what it tells people goes on to stderr.

    Raises:
        NarthexError: after the last line, if it ends with another exit code than 0.
    """
    command = [os.fspath(part) for part in (find_binary(), *arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace") as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.strip():
                    yield json.loads(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise NarthexError(f"`narthex {arguments[0]}` ended with exit code {process.returncode}", process.returncode)
