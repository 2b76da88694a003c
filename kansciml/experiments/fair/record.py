"""The comparisons on equal terms (``kansciml run fair``) as a record holds them.

Expected of the record, besides what `kansciml.runs.records` says:

* ``result``: alpha; tasks, protocols, layers (names, in their order).
* ``result["comparisons"]``, a row per task, KAN layer, protocol and metric: task, title, kind ("ode", "images",
  "darcy"), layer ("spline", "rswaf"), protocol ("width", "params", "flops", "params-up", "flops-up", "time"), adapted
  (what was changed to make them equal); metric, metric_title, primary (whether it is the task's own measure, or one
  shown beside it); kan and mlp, each with group, label, parameters, flops (forward, per evaluation or sample, of the
  MLPs or KANs alone; null if unknown), steps and seconds (medians over seeds), n_diverged; seeds, kan_losses,
  mlp_losses (null: diverged); ratio (Hodges-Lehmann estimate of KAN over MLP), low, high (its interval), p_value,
  adjusted_p, least_p, n_pairs, n_lower, verdict ("KAN better", "MLP better", "undecided"), confirmed (whether the
  verdict stands after the correction), reason. Of a row with pairs, a null among ratio, low, high is infinite.
* ``result["times"]``, a row per task and layer: factor, kan_s, mlp_s, rounds, pairs, clock.
* ``result["runs"]``, a row per training: id, task, group, label, seed, status, message, parameters, flops, steps,
  seconds, losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kansciml.runs.records import DamagedRecord, Record

PROTOCOLS = {
    "width": "equal width",
    "params": "equal parameters (KAN shrunk)",
    "params-up": "equal parameters (MLP widened)",
    "flops": "equal FLOPs (KAN shrunk)",
    "flops-up": "equal FLOPs (MLP widened)",
    "time": "equal time",
}
"""Titles of the protocols, in the order of tables."""
LAYERS = {"spline": "splines", "rswaf": "RSWAF"}


@dataclass(frozen=True)
class FairRecord:
    """The comparisons of a record.

    Args:
        alpha: level of the tests. tasks, layers: in order. rows: comparisons of primary metrics. others: the rest.
        times: rows of measured times.
    """

    alpha: float
    tasks: tuple[str, ...]
    layers: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    others: tuple[Mapping[str, Any], ...]
    times: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, record: Record) -> FairRecord:
        """Raises KansciError where the record holds no comparisons."""
        try:
            result = record.result
            every = [dict(row) for row in result["comparisons"]]
            for row in every:
                row["ratio"], row["low"], row["high"] = (_number(row, name) for name in ("ratio", "low", "high"))
                row["place"] = list(PROTOCOLS).index(row["protocol"])
            tasks, layers = tuple(result["tasks"]), tuple(result["layers"])
            every.sort(key=lambda row: (tasks.index(row["task"]), layers.index(row["layer"]), row["place"]))
            primary = tuple(row for row in every if row["primary"])
            others = tuple(row for row in every if not row["primary"])
            found = cls(result["alpha"], tasks, layers, primary, others, tuple(result["times"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedRecord(
                f"{record.folder} holds no comparisons on equal terms ({error!r}): run it again"
            ) from error
        if not found.rows:
            raise DamagedRecord(f"{record.folder} holds no finished run: resume the experiment first")
        return found

    @property
    def protocols(self) -> list[str]:
        """Those that there are, in the order of `PROTOCOLS`."""
        have = {row["protocol"] for row in self.rows}
        return [protocol for protocol in PROTOCOLS if protocol in have]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(task, layer) of each row of the main table."""
        return list(dict.fromkeys((row["task"], row["layer"]) for row in self.rows))

    def of(self, task: str, layer: str, protocol: str) -> Mapping[str, Any] | None:
        """The comparison, or None."""
        key = task, layer, protocol
        return next((row for row in self.rows if (row["task"], row["layer"], row["protocol"]) == key), None)

    def title(self, task: str, layer: str) -> str:
        """``Spiral``, with the layer where there are several."""
        own = next(row["title"] for row in self.rows if row["task"] == task)
        return f"{own}, {LAYERS[layer]}" if len(self.layers) > 1 else own


def _number(row: Mapping[str, Any], name: str) -> float:
    if row[name] is None:
        return math.inf if row["n_pairs"] else math.nan
    return float(row[name])
