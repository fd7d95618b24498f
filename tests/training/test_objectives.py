"""The loss of every recipe against scipy, term by term."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import log_softmax, softmax
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.denoisers.schedules import cosine_betas, linear_betas
from rediffuse.errors import ConfigError
from rediffuse.methods.augmix import AugMix
from rediffuse.methods.bank import Bank
from rediffuse.methods.deepaugment import DeepAugment
from rediffuse.methods.diffaug import DiffAug
from rediffuse.training import objectives
from rediffuse.training.objectives import Extra, Objective, Views, jensen_shannon, plain, terms_of
from rediffuse.training.soft_labels import SoftLabels

SCHEDULE = NoiseSchedule.from_betas(linear_betas())
PICTURES = torch.zeros(5, 3, 4, 4)
LABELS = torch.tensor([0, 3, 1, 1, 2])


def logits(seed: int, rows: int = 5) -> Tensor:
    return 3 * torch.randn((rows, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cross_entropy(values: Tensor, labels: Tensor) -> float:
    return float(-log_softmax(values.numpy(), axis=1)[np.arange(len(labels)), labels.numpy()].mean())


def by_entropies(parts: list[np.ndarray]) -> float:
    """Jensen-Shannon as the entropy of the mean less the mean of the entropies: the other form of the definition."""
    return float((stats.entropy(np.mean(parts, axis=0), axis=1) - np.mean([stats.entropy(part, axis=1) for part in parts], axis=0)).mean())


@given(st.integers(0, 10_000), st.integers(2, 4), st.floats(0.1, 6))
def test_the_divergence_is_that_of_scipy(seed: int, views: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = [scale * torch.randn((7, 5), generator=generator, dtype=torch.float64) for _ in range(views)]
    expected = by_entropies([softmax(value.numpy(), axis=1) for value in values])
    assert float(jensen_shannon(values)) == pytest.approx(expected, abs=2e-6)


def test_the_divergence_at_its_ends() -> None:
    same = logits(0)
    assert float(jensen_shannon([same, same, same])) == pytest.approx(0, abs=1e-7)
    sure = [200 * torch.nn.functional.one_hot(torch.full((5,), label), 4).double() for label in (0, 1, 2)]
    assert float(jensen_shannon(sure)) == pytest.approx(math.log(3), abs=1e-5)  # no overlap, and no infinity
    free = [value.clone().requires_grad_() for value in sure]
    jensen_shannon(free).backward()
    assert all(bool(value.grad is not None and value.grad.isfinite().all()) for value in free)


def views(objective: Objective, target: Tensor | None = None) -> Views:
    extras = tuple((PICTURES, LABELS) for _ in objective.extras)
    mixes = (PICTURES, PICTURES) if objective.augmix is not None else ()
    return Views(clean=PICTURES, labels=LABELS, mixes=mixes, extras=extras, target=target)


def test_every_recipe_adds_up_what_the_paper_adds_up() -> None:
    """Sums, not means; weight 1 on each cross-entropy, 12 on the divergence; DiffAug outside of it."""
    diffaug, deep, mix = DiffAug(NoDenoiser(SCHEDULE)), DeepAugment(), AugMix()
    further, deeper = Extra(method=diffaug), (Extra(method=deep, source="independent"),) * 2
    clean, second, third, fourth = (logits(seed) for seed in range(4))
    ce = [cross_entropy(value, LABELS) for value in (clean, second, third, fourth)]
    divergence = 12 * by_entropies([softmax(value.numpy(), axis=1) for value in (clean, second, third)])
    cases = [
        (plain(), [clean], ce[0]),
        (plain(2), [clean, second], ce[0] + ce[1]),
        (objectives.base(diffaug), [clean, second], ce[0] + ce[1]),
        (objectives.augmix(mix), [clean, second, third], ce[0] + divergence),
        (objectives.augmix(mix, further), [clean, second, third, fourth], ce[0] + divergence + ce[3]),
        (objectives.deepaugment(deeper, further), [clean, second, third, fourth], sum(ce)),
        (objectives.deepaugment_augmix(deeper, mix, further), [clean, second, third, fourth], ce[0] + divergence + ce[3]),
    ]
    for objective, given_logits, expected in cases:
        assert objective.samples == len(given_logits)
        terms = terms_of(objective, views(objective), given_logits)
        assert float(sum(terms.values())) == pytest.approx(expected, abs=1e-5), terms


def test_soft_labels_are_for_the_clean_term_alone() -> None:
    objective = objectives.soft_stage(Extra(method=DiffAug(NoDenoiser(SCHEDULE))))
    target = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(4), 5))
    terms = terms_of(objective, views(objective, target), [logits(0), logits(1)], smoothing=0.1)
    assert float(terms["clean"]) == pytest.approx(float(-(target.numpy() * log_softmax(logits(0).numpy(), axis=1)).sum(1).mean()))
    assert float(terms["extra_0"]) == pytest.approx(cross_entropy(logits(1), LABELS))


def test_a_part_of_the_batch_keeps_the_weight_of_its_term() -> None:
    objective = Objective(extras=(Extra(share=0.4), Extra(share=0.4)))
    some = Views(clean=PICTURES, labels=LABELS, extras=((PICTURES[:2], LABELS[3:]), (PICTURES[:0], LABELS[:0])))
    terms = terms_of(objective, some, [logits(0), logits(1, 2), logits(2, 0)])
    assert float(terms["extra_0"]) == pytest.approx(cross_entropy(logits(1, 2), LABELS[3:]))
    assert "extra_1" not in terms  # no picture, no term, no NaN
    assert objective.samples == pytest.approx(1.8)


def test_smoothing_is_for_every_hard_label() -> None:
    terms = terms_of(plain(2), views(plain(2)), [logits(0), logits(1)], smoothing=0.3)
    for term, value in zip(terms.values(), (logits(0), logits(1)), strict=True):
        flat = -log_softmax(value.numpy(), axis=1).mean()
        assert float(term) == pytest.approx(0.7 * cross_entropy(value, LABELS) + 0.3 * flat)


def test_descriptions_are_json_and_tell_objectives_apart() -> None:
    def diffaug(scale: float) -> DiffAug:
        return DiffAug(NoDenoiser(NoiseSchedule.from_betas(scale * linear_betas())))

    class Scaled(NoDenoiser):
        def __init__(self, scale: float) -> None:
            super().__init__(SCHEDULE)
            self.register_buffer("scale", torch.tensor(scale))

    first, other = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.ones(2, 3, 4, 4, dtype=torch.uint8)
    every = [
        plain(),
        plain(2),
        objectives.base(AugMix()),
        objectives.base(AugMix(severity=1.0)),
        objectives.base(DiffAug(Scaled(1.0))),
        objectives.base(DiffAug(Scaled(2.0))),
        objectives.base(Bank(DiffAug(Scaled(2.0)))),
        objectives.base(Bank(DiffAug(Scaled(2.0)), rate=0.5)),
        objectives.base(Bank(DiffAug(Scaled(2.0)), rate=0.5, flips=False)),
        objectives.base(Bank(DiffAug(Scaled(2.0)), rate=0.5, padding=1)),
        objectives.base(DiffAug(NoDenoiser(NoiseSchedule.from_betas(cosine_betas(1000))))),
        objectives.base(DiffAug(NoDenoiser(SCHEDULE))),
        objectives.base(diffaug(1.0), source="aligned"),
        objectives.augmix(AugMix()),
        Objective(augmix=AugMix(), consistency=5.0),
        Objective(extras=(Extra(pictures=first),)),
        Objective(extras=(Extra(pictures=other),)),
        Objective(batchnorm="split"),
        Objective(soft=SoftLabels()),
        Objective(soft=SoftLabels(mixup=0.2)),
        Objective(stand_ins=(Extra(source="independent"),)),
        Objective(extras=(Extra(source="independent", share=0.5),)),
    ]
    assert len({json.dumps(objective.describe(), sort_keys=True) for objective in every}) == len(every)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Extra(source="left"), "source must be one of centre, aligned, independent, got 'left'"),
        (lambda: Extra(share=0), r"must be in \(0, 1\], got 0; leave the view out"),
        (lambda: Extra(pictures=torch.zeros(1), source="aligned"), "choose source centre or independent"),
        (lambda: Extra(method=AugMix(), draws=2), "got 2 for AugMix"),
        (lambda: Objective(batchnorm="none"), "joint, split, got 'none'"),
        (lambda: Objective(consistency=-1), "at least 0 and finite, got -1"),
        (lambda: Objective(consistency=float("nan")), "at least 0 and finite, got nan"),
        (lambda: Objective(augmix=AugMix(), soft=SoftLabels()), "leave out augmix or soft"),
        (lambda: Objective(stand_ins=(Extra(method=Bank(DiffAug(NoDenoiser(SCHEDULE)))),)), "cannot stand in"),
        (lambda: plain(0), "views must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(wrong: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        wrong()  # type: ignore[operator]


def test_what_makes_no_views_is_refused() -> None:
    denoiser, says = NoDenoiser(SCHEDULE), r"method must make views of pictures, got .*a denoiser goes into one: DiffAug\(denoiser\)"
    with pytest.raises(ConfigError, match=says):
        objectives.base(denoiser)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=says):
        Extra(method="diffaug")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=says):
        Objective(augmix="augmix")  # type: ignore[arg-type]
