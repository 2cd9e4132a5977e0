"""What is written down of each case of a cohort: that it was begun, and how it ended."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.data.file_digests import file_sha256
from pipeline.data.pseudonyms import MARK, without_paths
from pipeline.engines.cohort_history import History
from pipeline.engines.cohort_kept import others_work, require_no_other
from pipeline.engines.cohort_reason import explained
from pipeline.engines.cohort_result import DONE, CaseKey, CaseOutcome
from pipeline.errors import DataError
from pipeline.geometry import Grid

logger = logging.getLogger(__name__)

Item = Mapping[Hashable, Any]

REMARKS = "remarks"
"""Entry of an item with sentences about the case that its outcome is to bear."""


@dataclass
class Work:
    """A case on its way.

    Args:
        place: in the order of the run.
        source: the item of the data list.
        prepared: what the network needs of it.
        inputs: channel -> SHA-256.
        kept: its outcome, where an earlier result holds.
        error: why it could not be prepared.
        seconds: that it was worked on so far.
        earlier: the outcome that it had.
        begun: whether it has come as far as that its results' place is the run's own.
        others: files in that place which no run had written when it was begun, see `others_work`.
    """

    place: int
    source: Item
    prepared: Item = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    kept: CaseOutcome | None = None
    error: Exception | None = None
    seconds: float = 0.0
    earlier: CaseOutcome | None = None
    begun: bool = False
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> CaseKey:
        return str(self.source.get("relative", ".")), str(self.source["case_id"])


@dataclass
class Ledger:
    """Begins and ends cases: each in the journal, before anything else is done with it.

    Args:
        output_dir: where results go.
        history: whose journal it is.
        names: id -> class.
        made_with: see `pipeline.engines.cohort.predict_cohort`, as are ``redo`` and ``suffix``.
        log: for the traces of failures.
        device: where the network runs.
    """

    output_dir: Path
    history: History
    names: Mapping[int, str]
    made_with: str
    redo: bool
    suffix: str
    log: Path
    device: torch.device
    _journal_failed: bool = False

    def begin(self, work: Work) -> None:
        """Make the place of its results the run's own.

        Raises:
            DataError: something lies there that no run has written.
        """
        files = work.earlier.files if work.earlier else {}
        before = self.history.unfinished.get(work.key)
        work.others = others_work({self._place(work), *files}, files, before, self.output_dir)
        if not self.redo:  # what is known of its files has been looked at
            require_no_other([name for name in work.others if name not in files], self.output_dir)
        self._note(lambda: self.history.begin(work.key, work.others))
        work.begun = True

    def failed(self, work: Work, error: Exception) -> CaseOutcome:
        """It has no result, or not all of it."""
        status, reason = explained(error, work.source, self.log)
        about, left = self._common(work, work.prepared), work.earlier.files if work.earlier else {}
        if file := next((name for name in left if (self.output_dir / name).exists()), None):
            reason += f"; the result of an earlier run still lies in {file}"
            about |= {"files": left, "grid": work.earlier.grid if work.earlier else {}}  # somebody may have changed it
        if work.begun:  # what has come to lie there since is no work of somebody's either
            with contextlib.suppress(DataError):  # one that can't be read stays what it was on record
                names = {self._place(work), *left}
                own = others_work(names, work.others, None, self.output_dir)  # what the others' work is not
                about["files"] = {**about.get("files", {}), **own}
        outcome = CaseOutcome(**about, status=status, reason=reason, seconds=round(work.seconds, 3))
        self._note(lambda: self.history.end(outcome))
        return outcome

    def done(self, work: Work, prepared: Item, result: Item, seconds: float) -> CaseOutcome:
        """Its files are written.

        Args:
            prepared: what the network was given.
            result: item with ``pred``, labels on the case's own grid, and where they were written.
        """
        labels, about = result["pred"], self._common(work, prepared)
        if labels.ndim == 4:
            grid = Grid(tuple(labels.shape[1:]), labels.affine.cpu().numpy())
            voxels = torch.bincount(labels.as_tensor().flatten(), minlength=max(self.names, default=0) + 1).tolist()
            about["volumes_ml"] = {name: voxels[label] * grid.voxel_volume_ml for label, name in self.names.items()}
            about["grid"] = {"shape": list(grid.shape), "affine": grid.affine.tolist()}
        if "pred_instances" in result:
            about["instances"] = int(result["pred_instances"].max())
        written = result.get("written") or [result[key] for key in ("pred_path",) if key in result]
        outcome = CaseOutcome(
            **about,
            status=DONE,
            output=_below(Path(result["pred_path"]), self.output_dir) if "pred_path" in result else "",
            files={_below(Path(path), self.output_dir): file_sha256(Path(path)) for path in written},
            seconds=seconds,
        )
        self._note(lambda: self.history.end(outcome))
        return outcome

    def _place(self, work: Work) -> str:
        relative, case = work.key
        return _below(self.output_dir / relative / f"{case}{self.suffix}", self.output_dir)

    def _common(self, work: Work, prepared: Item) -> dict[str, Any]:
        repairs = getattr(prepared.get("image"), "meta", {}).get("repairs", "")
        return {
            "case": work.key[1],
            "relative": work.key[0],
            "inputs": work.inputs,
            "repairs": (*work.source.get(REMARKS, ()), *without_paths(repairs, work.source).splitlines()),
            "made_with": self.made_with,
            "device": str(self.device),
            "pseudonymous": bool(work.source.get(MARK)),
        }

    def _note(self, write: Callable[[], None]) -> None:
        """What the journal did not take is still in the tables at the end."""
        try:
            write()
        except DataError as error:
            if not self._journal_failed:
                logger.error("%s", error)
            self._journal_failed = True


def _below(path: Path, folder: Path) -> str:
    """Relative to ``folder`` where it lies in it, so that a table can move with its files."""
    path, folder = path.parent.resolve() / path.name, folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
