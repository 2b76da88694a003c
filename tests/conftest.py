"""What every test run says loudly: how many tests of Julia or of a GPU could not run."""

from __future__ import annotations


def pytest_terminal_summary(terminalreporter) -> None:
    """One line per marker whose tests were skipped, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    for marker in ("julia", "gpu"):
        found = [report for report in skipped if marker in report.keywords]
        if found:
            reasons = {report.longrepr[2].removeprefix("Skipped: ") for report in found}
            terminalreporter.section(f"{len(found)} tests marked {marker} DID NOT RUN", sep="!")
            for reason in sorted(reasons):
                terminalreporter.write_line(reason)
