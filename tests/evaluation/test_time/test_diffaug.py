"""The DiffAug ensemble against the closed forms of a Gaussian mixture, and against plain loops."""

from __future__ import annotations

import pytest
import torch
from tests.evaluation.test_time.views import LINEAR, SIZE, Bayes, Function, Projection, mixture, pictures
from torch import nn

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble, DiffAugSettings
from rediffuse.evaluation.test_time.ensembles import Plain, image_seeds, seed_of
from rediffuse.sampling.sampler import noise_generator

REFERENCE = DiffAugSettings(reference_size=SIZE)
"""The paper's times as they are, on the few pixels of these tests."""


class Constant(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.3, 2.0, -1.0]).expand(len(images), 3)


def test_the_times_are_those_of_the_paper() -> None:
    assert DiffAugSettings().times == (0, 50, 100, 150, 200, 250, 300, 350, 400, 450)
    assert DiffAugSettings(step=75).times == (0, 75, 150, 225, 300, 375, 450)
    assert DiffAugSettings(t_max=0).times == (0,)


def test_the_noise_shrinks_with_the_pictures() -> None:
    """At 32 pixels: sigma of the paper's times over 7, and indices of the linear schedule whose own ratio is nearest."""
    ensemble = DiffAugEnsemble(Constant(), Function(lambda x, t: x))
    found = ensemble.levels(32)
    expected = [0, 0.025, 0.049, 0.075, 0.103, 0.137, 0.177, 0.227, 0.292, 0.377]
    assert found.sigma.tolist() == pytest.approx(expected, abs=6e-4)
    assert LINEAR.ratio[found.t[1:]].tolist() == pytest.approx(expected[1:], abs=3e-3)
    assert ensemble.levels(224).t.tolist() == [-1, *range(50, 451, 50)]
    assert ensemble.members == ("raw", *(f"t={t}" for t in range(50, 451, 50)))


def test_of_a_constant_classifier_it_is_that_constant() -> None:
    found = DiffAugEnsemble(Constant(), mixture()).predict(pictures(5))
    assert torch.allclose(found.probabilities, Constant()(pictures(5)).softmax(1), atol=1e-6)
    assert found.decisions.unique().tolist() == [1]


@pytest.mark.parametrize("reduce", ["probabilities", "logits"])
def test_with_a_denoiser_that_changes_nothing_it_is_the_classifier(reduce: str) -> None:
    """No noise at all, and a belief that is what came in."""
    silent = NoiseSchedule.from_ratios(torch.zeros(20))
    classifier, images = Projection(), pictures(6)
    ensemble = DiffAugEnsemble(classifier, Function(lambda x, t: x, silent), DiffAugSettings(reduce=reduce))  # type: ignore[arg-type]
    expected = Plain(classifier).predict(images)
    assert torch.allclose(ensemble.predict(images).probabilities, expected.probabilities, atol=1e-6)
    assert torch.equal(ensemble.predict(images).decisions, expected.decisions.expand(-1, 10))


def test_with_the_true_noise_it_is_the_classifier_too() -> None:
    """However much noise: an oracle that knows the one picture brings it back."""
    picture = pictures(1)
    oracle = Function(lambda x, t: (2 * picture - 1).expand_as(x))
    found = DiffAugEnsemble(Projection(), oracle, REFERENCE).predict(picture)
    assert torch.allclose(found.probabilities, Plain(Projection()).predict(picture).probabilities, atol=1e-6)


def test_against_the_mixture_member_by_member() -> None:
    """A loop over images and times, with the posterior mean and Bayes' rule of the mixture."""
    oracle = mixture()
    classifier = Bayes(oracle)
    images = oracle.decode(oracle.sample(4, torch.Generator().manual_seed(0)))
    seeds = image_seeds(7, ["w", "x", "y", "z"])
    found = DiffAugEnsemble(classifier, oracle, REFERENCE).predict(images, seeds)
    for row, image in enumerate(images):
        said = [classifier(image[None]).softmax(1)[0]]
        for t in range(50, 451, 50):
            noise = torch.randn(image.shape, generator=noise_generator(seed_of(int(seeds[row]), t)))
            x_t = LINEAR.alpha[t] * (2 * image - 1) + LINEAR.sigma[t] * noise
            belief = oracle(x_t[None], torch.tensor([t])).clamp(-1, 1)
            said.append(classifier((belief + 1) / 2).softmax(1)[0])
        assert torch.allclose(found.probabilities[row].double(), torch.stack(said).mean(0), atol=1e-5)


def test_a_view_is_named_as_the_best_judge_of_the_noise_names_it() -> None:
    """Two components ±m of one variance: the belief leans the way x_t leans, so Bayes' rule on the view and on x_t agree."""
    oracle = mixture(1, variance=0.05)
    m = oracle.means[:1]
    oracle.means = torch.cat([m, -m])
    oracle.variances, oracle.log_weights = oracle.variances.expand(2).clone(), torch.full((2,), 0.5, dtype=torch.float64).log()
    images = oracle.decode(oracle.sample(64, torch.Generator().manual_seed(3)))
    seeds = image_seeds(0, range(64))
    settings = DiffAugSettings(step=450, reference_size=SIZE)
    ensemble = DiffAugEnsemble(Bayes(oracle), oracle, settings)
    views = ensemble.views(images, torch.ones(64, dtype=torch.int64), seeds)
    noise = torch.stack([torch.randn(images.shape[1:], generator=noise_generator(seed_of(seed, 450))) for seed in seeds.tolist()])
    level = torch.full((64,), 450)
    best = oracle.responsibilities(LINEAR.add_noise(2 * images - 1, noise, level), level)
    assert torch.equal(Bayes(oracle)(views).argmax(1), best.argmax(1))
    assert 0.55 < best.max(1).values.mean() < 0.99  # neither lost nor trivial


def test_it_repairs_noise_that_misleads_the_classifier() -> None:
    """Two components that differ in mean and spread: under noise the Bayes rule for clean images takes all for the wider one."""
    oracle = mixture(2, spread=0.15, variance=0.003)
    oracle.variances = torch.tensor([0.003, 0.02], dtype=torch.float64)
    labels = torch.arange(60) % 2
    clean = oracle.decode(oracle.sample(60, torch.Generator().manual_seed(2), labels))
    noisy = (clean + 0.08 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))).clamp(0, 1)
    curve = DiffAugEnsemble(Bayes(oracle), oracle, REFERENCE).predict(noisy).curve(labels.tolist())
    assert curve[0] == 0.5
    assert curve[-1] > 0.9
    assert DiffAugEnsemble(Bayes(oracle), oracle, REFERENCE).predict(clean).curve(labels.tolist())[-1] > 0.9


@pytest.mark.parametrize("early_exit", [False, True])
def test_cutting_changes_nothing(early_exit: bool) -> None:
    oracle = mixture(4)
    images = oracle.decode(oracle.sample(13, torch.Generator().manual_seed(1)))
    seeds = image_seeds(0, range(13))
    settings = DiffAugSettings(reference_size=SIZE, early_exit=early_exit)
    whole = DiffAugEnsemble(Projection(), oracle, settings).predict(images, seeds)
    for chunk in (1, 7, 100):
        found = DiffAugEnsemble(Projection(), oracle, settings, chunk=chunk).predict(images, seeds)
        assert torch.allclose(found.probabilities, whole.probabilities, atol=1e-5)
        assert torch.equal(found.decisions, whole.decisions)
        assert torch.equal(found.asked, whole.asked)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(4))
    turned = DiffAugEnsemble(Projection(), oracle, settings).predict(images[order], seeds[order])
    assert torch.allclose(turned.probabilities, whole.probabilities[order], atol=1e-5)


def test_no_call_is_larger_than_the_chunk() -> None:
    denoiser = Function(lambda x, t: x)
    DiffAugEnsemble(Projection(), denoiser, REFERENCE, chunk=7).predict(pictures(30))
    assert max(denoiser.rows) <= 7
    assert sum(denoiser.rows) == 30 * 9


def test_fewer_times_are_a_prefix() -> None:
    """The noise of a time is the same whatever other times are asked."""
    oracle, images = mixture(), pictures(4)
    whole = DiffAugEnsemble(Projection(), oracle, REFERENCE).predict(images)
    short = DiffAugEnsemble(Projection(), oracle, DiffAugSettings(t_max=200, reference_size=SIZE)).predict(images)
    assert torch.equal(whole.decisions[:, :5], short.decisions)
    fine = DiffAugEnsemble(Projection(), oracle, DiffAugSettings(step=25, reference_size=SIZE))
    coarse = DiffAugEnsemble(Projection(), oracle, REFERENCE)
    seeds, one = image_seeds(0, range(4)), torch.ones(4, dtype=torch.int64)
    assert torch.equal(fine.views(images, 2 * one, seeds), coarse.views(images, one, seeds))


def test_another_seed_is_another_view() -> None:
    oracle, images = mixture(variance=0.05), pictures(3)
    first, again, other = (DiffAugEnsemble(Projection(), oracle, REFERENCE, seed=seed).predict(images).probabilities for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_gradients_reach_the_pictures_through_the_denoiser() -> None:
    """Against differences along a direction; without the way through the denoiser it would be another number."""
    oracle = mixture(variance=0.02)
    ensemble = DiffAugEnsemble(Bayes(oracle), oracle, DiffAugSettings(step=150, reference_size=SIZE))
    generator = torch.Generator().manual_seed(0)
    images = (0.5 + 0.05 * torch.randn(2, 3, SIZE, SIZE, generator=generator)).requires_grad_()
    direction = torch.randn(images.shape, generator=generator)
    (gradient,) = torch.autograd.grad(ensemble(images)[:, 0].sum(), images)
    step = 1e-4 * direction
    ahead, behind = (ensemble((images + sign * step).detach())[:, 0].sum() for sign in (1, -1))
    assert float((gradient * direction).sum()) == pytest.approx(float((ahead - behind) / 2e-4), rel=1e-2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"step": 0}, "step must be at least 1, got 0"),
        ({"t_max": 1000}, "0 to 999"),
        ({"t_max": -50}, "0 to 999"),
        ({"reduce": "votes"}, "'votes'"),
        ({"reduce": "logits", "early_exit": True}, "no bound"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DiffAugSettings(**options)  # type: ignore[arg-type]


def test_denoisers_that_make_no_views() -> None:
    with pytest.raises(ConfigError, match="pixel space"):
        DiffAugEnsemble(Projection(), Function(lambda x, t: x, channels=4))
    latent = Function(lambda x, t: x)
    latent.factor = 8
    with pytest.raises(ConfigError, match="pixel space"):
        DiffAugEnsemble(Projection(), latent)
    told = Function(lambda x, t: x)
    told.conditional = True
    with pytest.raises(ConfigError, match="unconditional"):
        DiffAugEnsemble(Projection(), told)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="multiples of 16"):
        DiffAugEnsemble(Projection(), Function(lambda x, t: x, multiple_of=16)).predict(pictures(2))
