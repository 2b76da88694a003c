"""Write ode_end_states.json: states of the five systems to 30 digits, by `tests/tasks/ode/taylor.py`.

    python tests/reference/make_ode_end_states.py

Each state is computed twice, at order 40 with local error 1e-48 and at order 31 with 1e-42, and the script refuses to
write unless both agree to 1e-28; their largest difference is recorded. Takes about a minute, nearly all of it Pleiades.
"""

from __future__ import annotations

import json
import os
import sys
from decimal import Decimal, localcontext
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tasks" / "ode"))

from support.taylor import integrate  # noqa: E402  (the helper lies beside the tests that use it)

# Training end, test end, and times in between; for Pleiades around the closest encounter at t = 1.679.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "lotka": (["1", "1"], ["3.4", "3.5", "10.3", "14"]),
    "fitzhugh": (["1", "1"], ["7.4", "20", "33.2", "50"]),
    "rigid": (["1", "0", "0.9"], ["7.4", "20", "31.2", "40"]),
    "spiral": (["2", "0"], ["0.75", "1.5", "2.25", "3"]),
    "pleiades": (
        "3 3 -1 -3 2 -2 2  3 -3 2 0 0 -4 4  0 0 0 0 0 1.75 -1.5  0 0 0 -1.25 1 0 0".split(),
        ["0.7", "1.4", "1.65", "1.7", "3"],
    ),
}
AGREEMENT = Decimal("1e-28")


def main() -> None:
    """Compute, compare the two orders, and replace the JSON file."""
    document: dict[str, object] = {
        "made_by": "tests/reference/make_ode_end_states.py",
        "method": "Taylor series of order 40, local error 1e-48, 60-digit decimals; rounded to 30 digits",
    }
    systems = {}
    for name, (u0, times) in CASES.items():
        fine = integrate(name, u0, times, order=40, digits=48)
        coarse = integrate(name, u0, times, order=31, digits=42)
        with localcontext() as context:
            context.prec = 30
            difference = max(abs(a - b) for row, other in zip(fine, coarse) for a, b in zip(row, other))
            if difference > AGREEMENT:
                sys.exit(f"{name}: orders 40 and 31 differ by {difference:.1e}, more than {AGREEMENT:.0e}")
            states = {t: [str(+value) for value in row] for t, row in zip(times, fine)}
        systems[name] = {"t0": "0", "u0": u0, "orders_differ_by": f"{difference:.1e}", "states": states}
        print(f"{name}: orders 40 and 31 differ by {difference:.1e}")
    document["systems"] = systems
    path = HERE / "ode_end_states.json"
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
