"""Every test starts from the same random numbers; a run says loudly which tests could not run, and for want of what."""

from __future__ import annotations

import os
import signal

# Before torch is loaded, and for the processes that tests start: the problems are too small for a second thread, which
# would only wait for the first, and results that are compared to the bit must not depend on how work was divided.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import pytest
import torch
from support import shapes

shapes.install()  # before anything of the package is imported
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is loaded: its kernels run on a CPU then

from support.ode_records import make_record  # noqa: E402, F401  (a fixture)

from kansciml.reporting import style  # noqa: E402

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: tests of Ctrl-C would wait for ever
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    shapes.calls.clear()


@pytest.fixture(autouse=True)
def same_random_numbers_whatever_ran_before():
    """Modules take their first weights from torch's global generator: no test may depend on which tests came first."""
    torch.manual_seed(0)


EVERY_FORMAT, style.FORMATS = style.FORMATS, style.FORMATS[:1]
"""Pictures are written as SVG alone, which is a quarter of the work."""


@pytest.fixture
def every_format(monkeypatch):
    """Pictures are written as users get them."""
    monkeypatch.setattr(style, "FORMATS", EVERY_FORMAT)


def pytest_terminal_summary(terminalreporter) -> None:
    """One line per marker whose tests were skipped, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    for marker in ("julia", "gpu", "triton", "browser"):
        found = [report for report in skipped if marker in report.keywords]
        if found:
            reasons = {report.longrepr[2].removeprefix("Skipped: ") for report in found}
            terminalreporter.section(f"{len(found)} tests marked {marker} DID NOT RUN", sep="!")
            for reason in sorted(reasons):
                terminalreporter.write_line(reason)
