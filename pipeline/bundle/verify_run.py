"""`pipeline verify-run`: is a run still what it was, and are these the inputs that it was made from?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.bundle.find import recorded_bundle
from pipeline.data.cases_again import find_cases_again
from pipeline.data.file_digests import file_digest
from pipeline.data.layouts import SUFFIXES, Folder
from pipeline.data.provenance import RECORD, bundle_identity, environment, input_digests, run_digests
from pipeline.errors import BundleError, ConfigError, PipelineError


@dataclass
class RunCheck:
    """What was found.

    Args:
        differs: what is no longer what the run was made with or has made, a sentence each.
        remarks: what is otherwise here and now (versions, hardware, the bundle), and what was not checked.
        same: how many files were found as they were, by what they are.
    """

    differs: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    same: dict[str, int] = field(default_factory=lambda: {"files": 0, "weights": 0, "inputs": 0})

    def compare(self, what: str, name: str, recorded: str | None, found: str | None) -> None:
        """Counts one file, or says how it differs."""
        if found == recorded:
            self.same[what] += 1
        else:
            self.differs.append(f"{name}: {'is gone' if found is None else 'another content than the run recorded'}")


def verify_run(
    run: str | Path,
    data: str | Path | None = None,
    *,
    layout: str | None = None,
    pseudonyms: str | Path | None = None,
) -> RunCheck:
    """Compares the digests in a run's ``run.json`` with what is there.

    Args:
        run: folder of a training, an evaluation, a prediction or a measurement.
        data: the dataset that it was made from; of a measurement, a folder that holds both kinds of label maps, which
            are known by their content. Inputs are not checked without it.
        layout, pseudonyms: as the run was started with.

    Raises:
        BundleError: no record, one of an earlier version, or one of a run that has not ended.
        DataError: a dataset that can't be listed.
    """
    folder = Path(run)
    record = _read(folder)
    check = RunCheck()
    for name, digest in record["files"].items():
        file = folder / name
        check.compare("files", name, digest, file_digest(file) if file.is_file() else None)
    new = sorted(set(run_digests(folder)) - set(record["files"]))
    if new:
        check.remarks.append(f"written after the run: {', '.join(new)}")
    for weights in record.get("weights") or []:
        _check_weights(check, weights)
    _check_bundle(check, record)
    now = environment()["versions"]
    for name, version in record["versions"].items():
        # Earlier versions recorded torch without its build (+cpu, +cu130).
        if version not in (now.get(name), str(now.get(name)).partition("+")[0]):
            check.remarks.append(f"{name} {version} then, {now.get(name)} now")
    if data is None:
        check.remarks.append(f"inputs of {len(record['inputs'])} cases not checked (--data DATASET)")
    elif record["kind"] == "measure":
        _check_by_content(check, record["inputs"], Path(data))
    else:
        _check_inputs(check, record["inputs"], data, layout, pseudonyms)
    return check


def _read(folder: Path) -> dict[str, Any]:
    file = folder / RECORD
    if not file.is_file():
        raise BundleError(f"no {RECORD}", file=folder, expected="the folder of a run")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        status = record["status"]
        whole = all(isinstance(record.get(name), dict) for name in ("files", "inputs", "versions")) and "kind" in record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError("a damaged record", file=file, expected="a run.json as a run writes it") from error
    if not whole:
        raise BundleError(
            f"a record without digests, of a run that is {status}",
            file=file,
            expected="the record of a run of this version that has ended",
            fix="go on with it by pipeline train --resume, or run it again",
        )
    return record


def _check_weights(check: RunCheck, recorded: Mapping[str, Any]) -> None:
    file = Path(recorded["file"])
    if file.is_file() and file.is_absolute():
        check.compare("weights", f"weights {file}", recorded["digest"], file_digest(file))
    else:
        check.remarks.append(f"weights {file.name} (digest {recorded['digest']}) are not where they were: not checked")


def _check_bundle(check: RunCheck, record: Mapping[str, Any]) -> None:
    recorded = record.get("bundle")
    if recorded is None:
        return
    folder = recorded_bundle(record)
    try:
        own = None if folder is None else bundle_identity(folder)
    except PipelineError:  # damaged since
        own = None
    if own is None:
        check.remarks.append(f"no bundle {recorded['name']} here: not compared")
        return
    if own["configs"] != recorded["configs"]:
        changed = sorted(name for name, digest in recorded["configs"].items() if own["configs"].get(name) != digest)
        version = f"version {recorded['version']} then, {own['version']} now"
        check.remarks.append(f"bundle {recorded['name']} has other configs now ({version}): {', '.join(changed)}")


def _check_inputs(
    check: RunCheck,
    recorded: Mapping[str, Mapping[str, str]],
    data: str | Path,
    layout: str | None,
    pseudonyms: str | Path | None,
) -> None:
    channels = list(dict.fromkeys(name for files in recorded.values() for name in files if name != "label"))
    cases, _ = find_cases_again(data, channels, layout, pseudonyms)
    items = [
        {"case_id": case.case_id, "image": case.image} | ({"label": case.label} if case.label else {})
        for case in cases.values()
        if case.case_id in recorded
    ]
    found = input_digests(items)
    if recorded and not found:
        check.remarks.append("no case has the id of an input: is it another dataset, or one for --pseudonyms?")
    for case_id, files in recorded.items():
        if case_id not in found:
            check.differs.append(f"case {case_id}: not in the dataset")
            continue
        for name, digest in files.items():
            check.compare("inputs", f"case {case_id}, {name}", digest, found[case_id].get(name))
    others = len(cases) - len(found)
    if others:
        check.remarks.append(f"{others} cases of the dataset are not among the run's inputs")


def _check_by_content(check: RunCheck, recorded: Mapping[str, Mapping[str, str]], data: Path) -> None:
    if not data.is_dir():
        raise ConfigError(f"--data {data}", expected="a folder that holds the label maps that were measured")
    there = {file_digest(file.path) for dims in SUFFIXES for file in Folder(data, dims).files if file.path.is_file()}
    for case_id, files in recorded.items():
        for name, digest in files.items():
            role = "reference" if name == "label" else name
            check.compare("inputs", f"case {case_id}, {role}", digest, digest if digest in there else None)
