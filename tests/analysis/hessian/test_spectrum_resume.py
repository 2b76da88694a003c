"""Probes saved, resumed and extended: always the same bits as in one go."""

import numpy as np
import pytest
import torch

from kansciml import KansciError, UsageError
from kansciml.analysis.hessian.spectrum import spectral_density
from kansciml.analysis.hessian.symmetric import MatrixOperator

SETTINGS = {"steps": 20, "probes": 4, "seed": 3, "deflate": 3}


def operator(seed=0, fails_after=None):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(60, 60, generator=generator, dtype=torch.float64)
    made = MatrixOperator(matrix + matrix.T)
    if fails_after is not None:
        product, left = made.matvec, [fails_after]

        def matvec(vector):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return product(vector)

        made.matvec = matvec
    return made


def same(a, b):
    return all(np.array_equal(value, b.to_arrays()[name]) for name, value in a.to_arrays().items())


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    path = tmp_path / "folder" / "probes.npz"
    whole = spectral_density(operator(), **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        spectral_density(operator(fails_after=80), checkpoint=path, **SETTINGS)
    assert [p.name for p in path.parent.iterdir()] == ["probes.npz"]
    seen = []
    resumed = spectral_density(operator(), checkpoint=path, progress=lambda *at: seen.append(at), **SETTINGS)
    assert 0 < seen[0][0] < 4 and seen[-1] == (4, 4)
    assert same(whole, resumed)


def test_more_probes_continue_a_saved_run_and_fewer_read_it(tmp_path):
    path = tmp_path / "probes.npz"
    spectral_density(operator(), checkpoint=path, **SETTINGS)
    seen = []
    more = spectral_density(
        operator(), checkpoint=path, progress=lambda *at: seen.append(at), **{**SETTINGS, "probes": 6}
    )
    assert seen == [(4, 6), (5, 6), (6, 6)]
    assert same(more, spectral_density(operator(), **{**SETTINGS, "probes": 6}))
    before = path.read_bytes()
    fewer = spectral_density(operator(), checkpoint=path, **{**SETTINGS, "probes": 2})
    assert np.array_equal(fewer.alpha, more.alpha[:2]) and path.read_bytes() == before


@pytest.mark.parametrize("change", [{"steps": 21}, {"seed": 4}, {"deflate": 2}])
def test_other_settings_are_refused_in_one_line(tmp_path, change):
    spectral_density(operator(), checkpoint=tmp_path / "probes.npz", **SETTINGS)
    with pytest.raises(UsageError, match=f"saved with {next(iter(change))} = ") as caught:
        spectral_density(operator(), checkpoint=tmp_path / "probes.npz", **{**SETTINGS, **change})
    assert "\n" not in str(caught.value)


def test_another_operator_is_refused_in_one_line(tmp_path):
    spectral_density(operator(), checkpoint=tmp_path / "probes.npz", **SETTINGS)
    with pytest.raises(UsageError, match="saved with fingerprint"):
        spectral_density(operator(seed=1), checkpoint=tmp_path / "probes.npz", **SETTINGS)


@pytest.mark.parametrize("content", [b"", b"not a zip file", "pickle", "arrays"])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "probes.npz"
    if content == "pickle":
        np.savez(path, format=np.array([object()]))
    elif content == "arrays":
        np.savez(path, table=np.ones(3))
    else:
        path.write_bytes(content)
    with pytest.raises(KansciError, match="not a saved spectrum"):
        spectral_density(operator(), checkpoint=path, **SETTINGS)


def test_each_probe_depends_on_seed_and_index_alone():
    few, many = (spectral_density(operator(), **{**SETTINGS, "probes": count}) for count in (2, 5))
    other = spectral_density(operator(), **{**SETTINGS, "seed": 4})
    assert np.array_equal(few.alpha, many.alpha[:2])
    assert not np.array_equal(many.alpha[:4], other.alpha)
    assert len({row.tobytes() for row in many.alpha}) == 5
