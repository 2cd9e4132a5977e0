"""The 3D viewer of a report: NiiVue (BSD-2-Clause) out of an installed package, and the volumes that it shows.

NiiVue comes from the wheel of ``ipyniivue``, which holds it as one JavaScript module; it is copied, compressed, into
the pages that use it and nowhere else, with its licence. The page alone is enough: no server, no network.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import metadata, util
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from pipeline.data.case_volumes import CaseVolumes
from pipeline.handlers.panel import PREDICTION_COLOURS, REFERENCE_COLOURS, robust_window

PACKAGE = "ipyniivue"
MOST_VOXELS = 2**22
"""Of a case in the viewer; of a larger one every second (third...) voxel along each axis is kept."""
_CLASS = re.compile(r'"Creating new Niivue instance"\).{0,200}?=new ([A-Za-z_$][\w$]*)\(', re.DOTALL)
_GET_IT = "pip install 'monai-volume-pipeline[viewer]'"


def viewer_script() -> tuple[str, str]:
    """NiiVue as base64 of its compressed module, and its licence; or an empty text, and the reason.

    The module of the widget exports the widget alone: what is exported besides is the class that it makes.
    """
    found = util.find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or ()) if found else []
    file = Path(folders[0]) / "static" / "widget.js" if folders else None
    if file is None or not file.is_file():
        return "", f"The 3D viewer is not installed. To have it in this page: {_GET_IT}, then make the report again."
    script = file.read_text(encoding="utf-8")
    name = _CLASS.search(script)
    version = metadata.version(PACKAGE)
    if name is None:
        return "", f"{PACKAGE} {version} holds NiiVue in another form than this version can use: {_GET_IT} fits it."
    module = f"{script}\nexport {{ {name[1]} as Niivue }};\n"
    packed = base64.b64encode(gzip.compress(module.encode("utf-8"), 9, mtime=0)).decode("ascii")
    texts = [f for f in metadata.files(PACKAGE) or () if "dist-info" in str(f) and f.name.startswith("LICENSE")]
    licence = "\n".join(Path(str(text.locate())).read_text(encoding="utf-8") for text in texts)
    return packed, f"NiiVue, from {PACKAGE} {version}\n{licence}"


def viewer(cases: Sequence[tuple[str, CaseVolumes]], classes: Mapping[int, str]) -> str:
    """The viewer's part of a page.

    Args:
        cases: words to choose each by, and its volumes.
        classes: id -> name.
    """
    volumes = [(words, case) for words, case in cases if case.image.ndim == 3]
    if not volumes:
        return ""
    script, words = viewer_script()
    if not script:
        return f'<p class="note">{escape(words)}</p>'
    shown = [_packed(label, case) for label, case in volumes]
    thinned = [case["label"] for case in shown if case["step"] > 1]
    note = (
        f"<p>To keep the page small, only every {max(c['step'] for c in shown)}. voxel along each axis is in it, of: "
        f"{escape(', '.join(thinned))}. The measures and the pictures above are of all voxels.</p>"
        if thinned
        else ""
    )
    ids = sorted(classes)
    colours = {
        role: {"I": [0, *ids], "A": [0, *(255 for _ in ids)], "labels": ["", *(classes[i] for i in ids)]}
        | {c: [0, *(table[(i - 1) % len(table)][n] for i in ids)] for n, c in enumerate("RGB")}
        for role, table in (("reference", REFERENCE_COLOURS), ("prediction", PREDICTION_COLOURS))
    }
    options = "".join(f'<option value="{i}">{escape(case["label"])}</option>' for i, case in enumerate(shown))
    content = _inert(json.dumps({"cases": shown, "colours": colours}, ensure_ascii=True))
    return f"""{note}<div id="viewer" class="viewer">
<form class="filters" id="viewer-controls" hidden>
<label>case <select id="v-case">{options}</select></label>
<label>view <select id="v-view"><option value="3">three planes and 3D</option><option value="0">axial</option>
<option value="1">coronal</option><option value="2">sagittal</option><option value="4">3D</option></select></label>
<label>image <input id="v-image" type="range" min="0" max="1" step="0.05" value="1"></label>
<label>reference <input id="v-reference" type="range" min="0" max="1" step="0.05" value="0.6"></label>
<label>prediction <input id="v-prediction" type="range" min="0" max="1" step="0.05" value="0.6"></label>
<label>black at <input id="v-low" type="number" step="any"></label>
<label>white at <input id="v-high" type="number" step="any"></label>
<label><input id="v-outline" type="checkbox"> outlines alone</label>
</form>
<div class="stage" id="v-stage"><button type="button" id="v-start">Show the cases in 3D</button></div>
<p class="hint" id="v-words" role="status">Drag to move the cross hair or to turn; the wheel moves through slices. By
keyboard: arrows, and Page Up and Page Down through slices. The patient's right is on the left.</p>
<p class="hint" id="v-place"></p>
</div>
<!-- {escape(words)} -->
<script type="application/octet-stream" id="niivue">{script}</script>
<script type="application/json" id="viewer-cases">{content}</script>"""


def _packed(label: str, case: CaseVolumes) -> dict[str, Any]:
    step = 1
    while np.prod([-(-n // step) for n in case.image.shape]) > MOST_VOXELS:
        step += 1
    part = tuple(slice(None, None, step) for _ in range(3))
    affine = case.grid.affine @ np.diag([step, step, step, 1.0])
    low, high = robust_window(case.image)
    packed: dict[str, Any] = {"label": label, "step": step, "window": [low, high]}
    image = np.nan_to_num(case.image[part].astype(np.float32), posinf=high, neginf=low)
    packed["image"] = _nifti(image, affine, np.int16)
    for role, ids in (("reference", case.reference), ("prediction", case.prediction)):
        packed[role] = None if ids is None else _nifti(ids[part].astype(np.int16), affine, np.int16)
    return packed


def _nifti(array: np.ndarray, affine: np.ndarray, kind: type) -> str:
    """A volume as base64 of a compressed NIfTI file that holds its grid and nothing else."""
    image = nibabel.Nifti1Image(array, affine)
    image.set_data_dtype(kind)
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode("ascii")


def _inert(content: str) -> str:
    """JSON that can't end the script element that it stands in."""
    return content.replace("<", "\\u003c")
