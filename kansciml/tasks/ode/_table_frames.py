"""Turns pandas tables, Parquet files and xarray data into cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml._errors import UsageError
from kansciml.tasks.ode._table_cells import Cells

if TYPE_CHECKING:
    import pandas as pd


def parquet_cells(path: Path) -> Cells:
    """The cells of a Parquet file.

    Raises:
        UsageError: no such file, not Parquet, or no reader of it installed.
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise UsageError(f"{path} is a Parquet file, which pandas reads by pyarrow: pip install pyarrow") from None
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: expected a Parquet file of times and states") from None
    except (OSError, ValueError) as error:  # also what pyarrow raises
        raise UsageError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from None
    return frame_cells(frame, str(path))


def frame_cells(frame: pd.DataFrame, name: str = "the table") -> Cells:
    """The cells of a pandas table; an index other than row numbers is a column, or several, before the others.

    Args:
        name: of the table, for messages.

    Raises:
        UsageError: it holds no rows.
    """
    import pandas as pd

    if not (isinstance(frame.index, pd.RangeIndex) and frame.index.name is None):
        frame = frame.rename_axis([name or "" for name in frame.index.names]).reset_index()
    if frame.empty:
        raise UsageError(f"{name} holds no rows of data: expected a time and at least one state component in each row")
    names = [str(name) for name in frame.columns]
    columns, numbers = {}, {}
    for place in range(len(names)):
        column = frame.iloc[:, place]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):  # or true and false
            numbers[place] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        columns[place] = column.astype(str).where(column.notna(), "").str.strip()
    return Cells(pd.DataFrame(columns, index=frame.index), names, ".", "", numbers=numbers)


def xarray_frame(
    data: Any, id_column: str | int | None, time_column: str | int | None
) -> tuple[pd.DataFrame, str | int | None]:
    """The table of an xarray Dataset or DataArray, and the name of its column of ids, if there is one.

    Dimensions: the time, and at most one more, along which trajectories lie; of a DataArray one more for the
    components, whose coordinate names them. Where trajectories have times of their own, these are a variable or
    coordinate along both. Rows without any value fill up shorter trajectories and are left out.

    Raises:
        UsageError: other dimensions.
    """
    if hasattr(data, "to_dataset"):  # a DataArray
        parts = [dim for dim in data.dims if dim in data.coords and data.coords[dim].dtype.kind in "OSU"]
        parts = [dim for dim in parts if dim != id_column]
        data = data.to_dataset(dim=parts[-1]) if parts else data.to_dataset(name=data.name or "u1")
    times = [name for name in (time_column, "t", "time") if name in data.variables]
    time = times[0] if times else None
    others = [dim for dim in data.sizes if dim != time]
    along = list(data.variables[time].dims) if time is not None else []
    if id_column is None and len(others) == 2 and len(along) == 2:
        raise UsageError(f"got the dimensions {', '.join(others)}: say which one holds the trajectories by id_column=")
    ids = [id_column] if id_column is not None else others if time in data.sizes else []
    if len(ids) > 1 or not set(ids) <= set(others) or (time is None and len(others) > 1):
        raise UsageError(
            f"got the dimensions {', '.join(map(str, data.sizes))}: expected a time, named t, time or by time_column=,"
            " and at most one more, that of the trajectories (id_column=)"
        )
    values = [name for name in data.data_vars if name not in (time, *ids)]
    frame = data.to_dataframe().dropna(how="all", subset=values).reset_index()
    counters = [dim for dim in data.sizes if dim not in data.coords and dim not in ids]
    return frame.drop(columns=counters), ids[0] if ids else None
