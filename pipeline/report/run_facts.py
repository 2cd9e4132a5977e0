"""What was run, for people: the lines of ``run.json`` that say whether a result is what it is taken for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pipeline.report.run_results import RunResults

_KINDS = {
    "train": "training, measured on its validation fold",
    "evaluate": "evaluation",
    "predict": "prediction",
    "measure": "label maps, measured against references",
}
_DIGITS = 12  # of a digest, in a table for people; run.json has all


def facts(run: RunResults) -> list[tuple[str, str]]:
    """(what, how), in the order in which they are asked for. No folder is among them: a page is passed on."""
    r = run.record
    bundle: Mapping[str, Any] = r.get("bundle") or {}
    found = [
        ("kind", _KINDS.get(run.kind, run.kind)),
        ("status", r.get("status")),
        ("bundle", " ".join(filter(None, (bundle.get("name"), bundle.get("version"))))),
        ("weights", ", ".join(f"{PurePath(w['file']).name} (SHA-256 {_short(w['digest'])})" for w in _weights(r))),
        ("cases", _counts(r.get("cases"))),
        ("seed", r.get("seed")),
        ("trained for", _trained(r)),
        ("precision", (r.get("precision") or {}).get("chosen")),
        ("settings", _settings(r.get("settings"))),
        ("started, ended", ", ".join(filter(None, (r.get("started"), r.get("ended"))))),
        ("seconds", r.get("seconds")),
        ("hardware", ", ".join(str(part) for part in (r.get("gpu"), r.get("processor"), r.get("system")) if part)),
        ("versions", ", ".join(f"{name} {version}" for name, version in (r.get("versions") or {}).items() if version)),
        *(("command", " ".join(map(without_folder, command))) for command in r.get("commands") or ()),
        *((f"refused: {refused['case']}", _reason(refused["reason"])) for refused in _refused(run)),
    ]
    return [(what, str(how)) for what, how in found if how not in (None, "")]


def digests(run: RunResults) -> list[tuple[str, str]]:
    """(file, digest) of configs, files of the run, and inputs by case."""
    r = run.record
    configs = {f"bundle, {name}": d for name, d in ((r.get("bundle") or {}).get("configs") or {}).items()}
    inputs = {f"{case}, {name}": d for case, of in (r.get("inputs") or {}).items() for name, d in of.items()}
    return [(name, _short(digest)) for name, digest in {**configs, **(r.get("files") or {}), **inputs}.items()]


def without_folder(word: str) -> str:
    """A word of a command without the folders in it, whose names may be a patient's.

    >>> without_folder("/data/smith/scans"), without_folder("split_file=/a/b.json"), without_folder("--budget")
    ('…/scans', 'split_file=…/b.json', '--budget')
    """
    key, equals, value = word.partition("=")
    head, path = (f"{key}=", value) if equals and not re.search(r"[/\\]", key) else ("", word)
    parts = [part for part in re.split(r"[/\\]", path) if part]
    return f"{head}…/{parts[-1]}" if len(parts) > 1 or (path[:1] in ("/", "\\") and parts) else word


def _weights(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return record.get("weights") or ()


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:_DIGITS]


def _counts(counts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{number} {part}" for part, number in (counts or {}).items())


def _trained(record: Mapping[str, Any]) -> str | None:
    if record.get("kind") != "train" or not record.get("iterations"):
        return None
    return f"{record['iterations']} iterations, {record.get('epochs')} epochs on {record.get('device')}"


def _settings(settings: Any) -> str:
    if isinstance(settings, Mapping):
        return ", ".join(f"{name}={value}" for name, value in settings.items() if value is not None)
    return ", ".join(without_folder(str(text)) for text in settings or ())


def _refused(run: RunResults) -> list[dict[str, str]]:
    recorded = [{"case": r["case"], "reason": r["reason"]} for r in run.record.get("refused") or ()]
    pairs = [{"case": o["case_id"], "reason": o["reason"]} for o in run.outcomes if o["status"] != "done"]
    return recorded + pairs


def _reason(text: str) -> str:
    """Why, without the file's place."""
    return text.partition(": found ")[2] or " ".join(map(without_folder, text.split(" ")))
