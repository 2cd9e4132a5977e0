"""What `compile_loops` makes ready is all that measuring needs."""

import numpy as np
import pytest

from pipeline.metrics import compiled_loops as loops
from pipeline.metrics import measure_case
from pipeline.metrics.compile_loops import compile_loops


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.float32, bool])
def test_nothing_is_left_to_compile_for_the_first_case(dtype):
    functions = (loops.class_boxes, loops.row_distances, loops.count_surface, loops.nearest, loops.count_runs)
    compile_loops()
    before = [list(function.signatures) for function in (*functions, loops.components)]
    assert all(before)
    rng = np.random.default_rng(0)
    for shape in ((6, 5, 4), (7, 8)):
        prediction, reference = rng.integers(0, 2, (2, *shape)).astype(dtype)
        measure_case(prediction, np.asfortranarray(reference), (1.0,) * len(shape), {1: "any"})
    assert [list(function.signatures) for function in (*functions, loops.components)] == before
