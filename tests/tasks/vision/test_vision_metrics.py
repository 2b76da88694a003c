"""Loss and scores against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kansciml import UsageError
from kansciml.tasks.vision.metrics import Score, cross_entropy


@pytest.fixture
def answers() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 8, (200,), generator=generator)
    logits = torch.randn(200, 8, generator=generator) + 1.5 * F.one_hot(labels, 8)
    return logits, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_its_formula_for_labels_and_for_distributions(smoothing: float, answers) -> None:
    logits, labels = (part.double() if part.is_floating_point() else part for part in answers)
    p = torch.lerp(F.one_hot(labels, 8).double(), F.one_hot(labels.flip(0), 8).double(), 0.3)
    for targets, distribution in ((labels, F.one_hot(labels, 8).double()), (p, p)):
        q = (1 - smoothing) * distribution + smoothing / 8
        expected = -(q * torch.log(logits.exp() / logits.exp().sum(1, keepdim=True))).sum(1).mean()
        torch.testing.assert_close(cross_entropy(logits, targets, smoothing), expected)
    torch.testing.assert_close(
        cross_entropy(answers[0].bfloat16(), p.float(), smoothing),
        cross_entropy(answers[0].bfloat16().float(), p.float(), smoothing),
    )
    for bad in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="got label_smoothing"):
            cross_entropy(logits, labels, bad)


def test_scores_in_batches_are_those_written_out(answers) -> None:
    logits, labels = answers
    score = Score(8)
    for part in (slice(0, 64), slice(64, 64), slice(64, 200)):
        score.update(logits[part], labels[part])
    scores = score.compute()
    order = np.argsort(-logits.numpy(), axis=1)
    assert scores.n == 200
    assert scores.top1 == np.mean(order[:, 0] == labels.numpy())
    assert scores.top5 == np.mean([label in row[:5] for label, row in zip(labels.numpy(), order)])
    confusion = np.zeros((8, 8), int)
    for label, row in zip(labels.tolist(), order):
        confusion[label, row[0]] += 1
    np.testing.assert_array_equal(scores.confusion, confusion)
    np.testing.assert_allclose(scores.per_class, np.diag(confusion) / confusion.sum(1))
    assert scores.loss == pytest.approx(float(cross_entropy(logits.double(), labels)), rel=1e-12)


def test_answers_that_are_not_finite_are_wrong(answers) -> None:
    """A network that gives NaN everywhere must not score, whatever topk makes of it."""
    _, labels = answers
    for value in (float("nan"), float("inf")):
        score = Score(8)
        score.update(torch.full((200, 8), value), labels)
        scores = score.compute()
        assert scores.top1 == scores.top5 == 0 and np.isnan(scores.loss) and scores.confusion.sum() == 200


def test_equal_answers_score_as_chance(answers) -> None:
    """One constant answer: top-1 is at most the share of the class that the tie falls to."""
    score = Score(8)
    score.update(torch.zeros(200, 8), answers[1])
    scores = score.compute()
    assert scores.top1 == np.bincount(answers[1], minlength=8)[scores.confusion.sum(0).argmax()] / 200
    assert scores.top5 < 0.9 and scores.loss == pytest.approx(np.log(8))


def test_fewer_than_five_classes_and_a_class_without_images() -> None:
    score = Score(3)
    score.update(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 0]))
    scores = score.compute()
    assert scores.top5 == 1.0 and scores.top1 == pytest.approx(2 / 3)
    np.testing.assert_array_equal(scores.per_class, [0.5, 1.0, np.nan])


def test_sums_over_ranks_are_those_of_all_images(answers) -> None:
    logits, labels = answers
    whole, parts = Score(8), [Score(8), Score(8)]
    whole.update(logits, labels)
    for part, rows in zip(parts, (slice(0, 77), slice(77, 200))):
        part.update(logits[rows], labels[rows])
    other = iter([parts[1]._loss, parts[1]._counts, parts[1]._confusion])
    parts[0].reduce(lambda tensor: tensor + next(other))
    a, b = whole.compute(), parts[0].compute()
    assert (a.n, a.top1, a.top5) == (b.n, b.top1, b.top5) and a.loss == pytest.approx(b.loss)
    np.testing.assert_array_equal(a.confusion, b.confusion)


def test_wrong_shape_and_nothing_to_score() -> None:
    with pytest.raises(UsageError, match=r"got logits of shape \(4, 9\), expected \(4, 8\)"):
        Score(8).update(torch.zeros(4, 9), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UsageError, match="got no images to score"):
        Score(8).compute()
