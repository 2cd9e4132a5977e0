"""Pictures and pages from finished work: what a person looks at after a run.

Each function here takes arrays or a run's folder and writes one file; nothing is shown on a screen, no global plotting
state is touched. To add one: a file of its own, the function in `__all__`; volumes come in with RAS+ axes.
`report_page` and `augmentation_figure`, which need torch, are imported from their files; the style and scripts of a
page lie in ``page/``.
"""

from pipeline.report.check_page import check_page
from pipeline.report.figure import FigureCase, case_figure, demo_figure
from pipeline.report.run_results import RunResults, read_run
from pipeline.report.serve import serve

__all__ = ["FigureCase", "RunResults", "case_figure", "check_page", "demo_figure", "read_run", "serve"]
