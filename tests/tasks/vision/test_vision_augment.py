"""What augmentation does to images and targets, against what is computed image by image."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kansciml import UsageError
from kansciml.tasks.vision.augment import PRESETS, Augmentation, preset
from kansciml.tasks.vision.augmenter import Augmenter, crop_and_flip, cutmix, resized_crop, solarise
from kansciml.tasks.vision.registry import available_datasets, get_dataset

EVERYTHING = Augmentation(
    crop_padding=2, flip=True, three_augment=True, colour_jitter=0.3, erasing=0.5, mixup=0.8, cutmix=1.0
)


@pytest.fixture
def batch(photographs) -> tuple[torch.Tensor, torch.Tensor]:
    images = photographs[1]
    return torch.from_numpy(images.images), torch.from_numpy(images.labels)


def identity_statistics(photographs):
    """The data set with mean 0 and deviation 1, whose inputs are the pixels in [0, 1]."""
    return replace(photographs[0], mean=(0.0,) * 3, std=(1.0,) * 3)


def test_without_augmentation_inputs_are_normalised_pixels_and_targets_the_labels(photographs, batch) -> None:
    dataset, images = photographs
    x, targets = Augmenter(Augmentation(), dataset)(*batch, seed=1)
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (dataset.mean, dataset.std))
    np.testing.assert_allclose(x, (images.images / 255 - mean) / std, atol=2e-6)
    assert targets is batch[1] and x.dtype == torch.float32


def test_crop_and_flip_is_a_window_of_the_padded_image_and_all_windows_occur(batch) -> None:
    images = batch[0]
    found = set()
    for seed in range(12):
        out = crop_and_flip(images, 1, True, np.random.default_rng(seed))
        padded = F.pad(images, (1, 1, 1, 1))
        for image, result in zip(padded, out):
            windows = {
                (top, left, flip): torch.equal(image[:, top : top + 16, left : left + 16].flip((2,) * flip), result)
                for top in range(3)
                for left in range(3)
                for flip in (0, 1)
            }
            assert sum(windows.values()) == 1
            found |= {key for key, same in windows.items() if same}
    assert len(found) == 18
    assert torch.equal(crop_and_flip(images, 0, False, np.random.default_rng(0)), images)


def test_shift_without_flip_never_mirrors(batch) -> None:
    out = crop_and_flip(batch[0], 0, False, np.random.default_rng(3))
    flipped = crop_and_flip(batch[0], 0, True, np.random.default_rng(3))
    same = (flipped == out).flatten(1).all(1)
    assert torch.equal(out, batch[0]) and 20 < int(same.sum()) < 50
    assert torch.equal(flipped[~same], batch[0][~same].flip(3))


def test_solarise_is_that_of_pillow_to_rounding() -> None:
    """Pillow inverts values from 128 on; on [0, 1] those are the values v >= 1/2."""
    v = np.arange(256)
    expected = np.where(v < 128, v, 255 - v) / 255
    np.testing.assert_allclose(solarise(torch.arange(256) / 255), expected, atol=1e-7)


def test_three_augment_is_grey_or_solarised_or_blurred_each_a_third(photographs, batch) -> None:
    dataset = identity_statistics(photographs)
    pixels = batch[0] / 255
    grey = (torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1) * pixels).sum(1, keepdim=True).expand_as(pixels)
    counts = np.zeros(3)
    for seed in range(20):
        x, _ = Augmenter(Augmentation(three_augment=True, blur_sigma=(1.0, 1.0)), dataset)(*batch, seed=seed)
        is_grey = torch.isclose(x, grey, atol=1e-5).flatten(1).all(1)
        is_solar = torch.isclose(x, solarise(pixels), atol=1e-6).flatten(1).all(1)
        is_blur = torch.isclose(x, blurred(pixels, 1.0), atol=1e-5).flatten(1).all(1)
        assert torch.equal(is_grey.int() + is_solar.int() + is_blur.int(), torch.ones(70, dtype=torch.int32))
        counts += [int(is_grey.sum()), int(is_solar.sum()), int(is_blur.sum())]
    np.testing.assert_allclose(counts / counts.sum(), 1 / 3, atol=4 * np.sqrt(2 / 9 / 1400))


def blurred(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur to 3 standard deviations with reflected borders, by a matrix per axis."""
    offsets = torch.arange(-3, 4)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    n = x.shape[-1]
    matrix = torch.zeros(n, n)
    for i in range(n):
        for offset, weight in zip(offsets.tolist(), weights):
            j = abs(i + offset)
            matrix[i, j if j < n else 2 * n - 2 - j] += weight
    return matrix @ x @ matrix.T


def test_resized_crop_of_everything_is_the_image(batch) -> None:
    """A share of the whole area fits as a square only: none of the ten candidates does, so the image stays."""
    x = batch[0] / 255
    torch.testing.assert_close(resized_crop(x, 16, (1.0, 1.0), np.random.default_rng(0)), x, atol=1e-5, rtol=0)


def test_resized_crop_is_an_upright_window_of_the_stated_area_anywhere(batch) -> None:
    """A ramp in each direction tells the window's four sides; a constant image stays constant up to the border."""
    flat = torch.full((400, 1, 32, 32), 0.2)
    torch.testing.assert_close(
        resized_crop(flat, 48, (0.08, 1.0), np.random.default_rng(0)), torch.full((400, 1, 48, 48), 0.2)
    )
    ramp = (torch.arange(64) + 0.5) / 64  # the coordinate itself, from 0 to 1
    x = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)]).expand(400, 2, 64, 64)
    out = resized_crop(x, 32, (0.2, 0.5), np.random.default_rng(1)).double()
    across, down = out[:, 0], out[:, 1]
    torch.testing.assert_close(across.std(1), torch.zeros(400, 32, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(down.std(2), torch.zeros(400, 32, dtype=torch.float64), atol=1e-5, rtol=0)
    width, height = ((v[:, 28] - v[:, 3]) * 32 / 25 for v in (across[:, 0], down[:, :, 0]))
    area, ratio = width * height, width / height  # to 1 %: torch's cubic bends a ramp a little
    assert area.min() > 0.195 and area.max() < 0.505 and abs(float(area.mean()) - 0.35) < 0.02
    assert ratio.min() > 3 / 4 - 1e-2 and ratio.max() < 4 / 3 + 1e-2
    assert abs(float(ratio.log().mean())) < 0.04 and ratio.log().std() > 0.1
    # The window's centre, as a share of the room there is for it, is uniform from 0 to 1.
    place = (across[:, 0, 15:17].mean(1) - width / 2) / (1 - width)
    assert place.min() > -0.01 and place.max() < 1.01 and abs(float(place.mean()) - 0.5) < 0.06


def test_erasing_takes_rectangles_to_the_mean_colour(photographs, batch) -> None:
    plain, _ = Augmenter(Augmentation(), photographs[0])(*batch, seed=0)
    x, _ = Augmenter(Augmentation(erasing=0.5), photographs[0])(*batch, seed=0)
    erased = (x != plain).any(1)
    assert (x.movedim(1, -1)[erased] == 0).all()
    touched = erased.flatten(1).any(1)
    assert 20 < int(touched.sum()) < 50
    for mask in erased[touched]:
        rows, columns = mask.any(1), mask.any(0)
        assert int(mask.sum()) == int(rows.sum()) * int(columns.sum())


def test_colour_jitter_keeps_within_its_factors(photographs) -> None:
    """A grey image keeps its grey under contrast about its own mean and saturation: only brightness scales it."""
    images = torch.full((70, 3, 16, 16), 102, dtype=torch.uint8)
    x, _ = Augmenter(Augmentation(colour_jitter=0.3), identity_statistics(photographs))(
        images, torch.zeros(70, dtype=torch.int64), seed=0
    )
    factors = x.mean((1, 2, 3)) / 0.4
    assert factors.min() >= 0.7 - 1e-5 and factors.max() <= 1.3 + 1e-5 and factors.std() > 0.1


def test_mixup_mixes_images_and_targets_by_the_same_share(photographs, batch) -> None:
    augmenter = Augmenter(Augmentation(mixup=0.8), photographs[0])
    plain, _ = Augmenter(Augmentation(), photographs[0])(*batch, seed=0)
    one_hot = F.one_hot(batch[1], 7).double()
    shares = []
    for seed in range(300):
        x, targets = augmenter(*(part[:4] for part in batch), seed=seed)
        share = float(targets[0, batch[1][0]])  # labels 0, 1, 2, 3: a partner never has the same
        shares.append(share)
        torch.testing.assert_close(targets.double(), share * one_hot[:4] + (1 - share) * one_hot[:4].flip(0))
        torch.testing.assert_close(x, share * plain[:4] + (1 - share) * plain[:4].flip(0), atol=1e-5, rtol=0)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)) = 0.0962 for a = 0.8.
    assert abs(np.mean(shares) - 0.5) < 4 * np.sqrt(0.0962 / 300)
    assert abs(np.var(shares) / 0.0962 - 1) < 0.25


def test_cutmix_share_is_the_area_that_stayed() -> None:
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 10, 12)
    areas = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        wanted = float(rng.random())
        out, share = cutmix(x, wanted, rng)
        kept = out == x
        assert torch.equal(kept[:, 0], kept[:, 1]) and bool((out == torch.where(kept, x, x.flip(0))).all())
        assert share == pytest.approx(float(kept[0, 0].double().mean()))
        assert share >= wanted - 1e-9
        areas.append(1 - share)
    assert max(areas) > 0.5 and min(areas) < 0.02
    assert torch.equal(x, torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 10, 12))


def test_mixed_targets_are_distributions_and_switch_and_probability_are_kept(photographs, batch) -> None:
    """With half the batches mixed and a quarter of those cut, 3/8 are mixed up and 1/8 cut."""
    config = Augmentation(mixup=1.0, cutmix=1.0, mix_probability=0.5, switch_probability=0.25)
    augmenter = Augmenter(config, photographs[0])
    plain, _ = Augmenter(Augmentation(), photographs[0])(*(part[:6] for part in batch), seed=0)
    kinds = {"plain": 0, "cut": 0, "mixed": 0}
    for seed in range(400):
        x, targets = augmenter(*(part[:6] for part in batch), seed=seed)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        same = float((x == plain).double().mean())
        swapped = float(((x == plain) | (x == plain.flip(0))).double().mean())
        kinds["plain" if same == 1 else "cut" if swapped == 1 else "mixed"] += 1
    assert abs(kinds["mixed"] / 400 - 0.375) < 0.1 and abs(kinds["cut"] / 400 - 0.125) < 0.07


def test_same_seed_same_batch_and_no_global_generator_is_touched(photographs, batch) -> None:
    augmenter = Augmenter(EVERYTHING, photographs[0])
    # The legacy state is what must stay as it is.
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = augmenter(*batch, seed=5)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    np.testing.assert_array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002
    torch.rand(3)
    other = augmenter(*batch, seed=6)
    again = Augmenter(EVERYTHING, photographs[0])(*batch, seed=5)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_uint8_images_of_the_data_set_are_not_written_to(photographs, batch) -> None:
    before = batch[0].clone()
    for config in (EVERYTHING, Augmentation(), Augmentation(erasing=1.0, cutmix=1.0)):
        Augmenter(config, photographs[0])(*batch, seed=2)
    assert torch.equal(batch[0], before)


def test_resizing_is_bicubic_and_stays_within_the_range(photographs, batch) -> None:
    x, _ = Augmenter(Augmentation(), identity_statistics(photographs), image_size=40)(*batch, seed=0)
    assert x.shape == (70, 3, 40, 40) and x.min() >= 0 and x.max() <= 1
    ramp = (8 * torch.arange(16, dtype=torch.uint8)).expand(1, 3, 16, 16)
    x, _ = Augmenter(Augmentation(), identity_statistics(photographs), 32)(ramp, batch[1][:1], seed=0)
    expected = 8 / 255 * ((torch.arange(32) + 0.5) / 2 - 0.5)  # a cubic keeps a ramp, pixel centres at i + 1/2
    torch.testing.assert_close(x[0, 0, 5, 4:-4], expected[4:-4], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dataset_name", available_datasets())
def test_every_preset_suits_every_data_set(name: str, dataset_name: str) -> None:
    dataset = get_dataset(dataset_name)
    config = preset(name, dataset)
    images = torch.randint(0, 256, (5, dataset.channels, dataset.size, dataset.size), dtype=torch.uint8)
    x, targets = Augmenter(config, dataset)(images, torch.arange(5), seed=0)
    assert x.shape == images.shape and bool(x.isfinite().all())
    assert targets.shape == ((5, dataset.classes) if config.mixes else (5,))
    assert dataset.mirrors or not config.flip
    assert (config == Augmentation()) == (name == "none")


def test_paper_preset_is_that_of_table_1() -> None:
    config = preset("paper", get_dataset("cifar100"))
    assert (config.mixup, config.cutmix, config.three_augment, config.flip) == (0.8, 1.0, True, True)
    with pytest.raises(UsageError, match="unknown augmentation 'papr': expected one of none, light, mixer, paper"):
        preset("papr", get_dataset("cifar100"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("erasing", 1.5), ("mixup", -0.1), ("cutmix", float("nan")), ("crop_padding", -1), ("colour_jitter", -0.1),
     ("resized_crop", (0.5, 0.2)), ("blur_sigma", (0.0, 1.0)), ("mix_probability", float("nan"))],
)  # fmt: skip
def test_value_out_of_range_names_the_setting(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"got {field} .*expected"):
        Augmentation(**{field: value})


def test_colour_changes_of_grey_images_and_empty_sizes_are_refused(photographs) -> None:
    with pytest.raises(UsageError, match="need colour images: those of mnist have 1 channel"):
        Augmenter(Augmentation(three_augment=True), get_dataset("mnist"))
    with pytest.raises(UsageError, match="got image_size 0"):
        Augmenter(Augmentation(), photographs[0], image_size=0)


def test_empty_batch_gives_empty_inputs_and_targets(photographs, batch) -> None:
    empty = tuple(part[:0] for part in batch)
    x, targets = Augmenter(EVERYTHING, photographs[0], image_size=20)(*empty, seed=0)
    assert x.shape == (0, 3, 20, 20) and targets.shape == (0, 7)


def test_kornia_is_imported_only_where_it_is_used_and_without_a_warning() -> None:
    code = (
        "import sys\nfrom kansciml.tasks.vision.augment import preset\n"
        "from kansciml.tasks.vision.augmenter import Augmenter\n"
        "from kansciml.tasks.vision.registry import get_dataset\nd = get_dataset('cifar10')\n"
        "Augmenter(preset('light', d), d)\nassert 'kornia' not in sys.modules\n"
        "Augmenter(preset('paper', d), d)\nassert 'kornia' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
