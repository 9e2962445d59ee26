"""Narthex from Python: the binary's verbs over ``--json``, and its server over HTTP. Needs nothing but Python.

Runs and artifacts: :func:`run`, :func:`events`, :func:`artifacts`, :func:`artifact`, :func:`show`, :func:`metrics`,
:func:`frame`. A server: :class:`Client`. The binary itself: :func:`find_binary`, :func:`call`, :func:`call_json`.
"""

from narthex._binary import NarthexError, call, call_json, find_binary
from narthex._client import Client
from narthex._project import Artifact, artifact, artifacts, events, frame, metrics, run, show, version

__all__ = [
    "Artifact",
    "Client",
    "NarthexError",
    "artifact",
    "artifacts",
    "call",
    "call_json",
    "events",
    "find_binary",
    "frame",
    "metrics",
    "run",
    "show",
    "version",
]
