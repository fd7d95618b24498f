"""DDA against the sampler, against a loop in matrices for a linear denoiser, and against the mixture's posterior."""

from __future__ import annotations

import pytest
import torch
from tests.evaluation.test_time.views import LINEAR, SIZE, Bayes, Function, Projection, mixture, pictures
from tests.tiny_adm import NETWORKS, tiny_adm
from torch import Tensor

from rediffuse.denoisers.adm import PUBLISHED, AdmDenoiser
from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.test_time.dda import DDA, DDASettings, guided_sampling, low_pass, table_from
from rediffuse.evaluation.test_time.ensembles import Plain, image_seeds
from rediffuse.sampling.sampler import noise_generator, run_jobs
from rediffuse.sampling.table import SamplingJob

SMALL = DDASettings(steps=12, guidance=0.5, factor=2, reference_size=SIZE)


def network(dtype: torch.dtype = torch.float32) -> AdmDenoiser:
    """A small one with random weights."""
    return AdmDenoiser(tiny_adm(*NETWORKS["like_256_uncond"]), PUBLISHED["256x256_diffusion_uncond"].settings, dtype=dtype)


def low_pass_matrix(size: int, factor: int) -> Tensor:
    """(D, D) float64: the filter applied to each unit picture of one channel."""
    units = torch.eye(size * size, dtype=torch.float64).view(-1, 1, size, size)
    return low_pass(units, factor).flatten(1).T


def test_without_guidance_it_is_the_sampler() -> None:
    """The same start and table, run by the engine of all other methods."""
    oracle, images = mixture(variance=0.02), pictures(5)
    seeds = image_seeds(0, range(5))
    settings = DDASettings(steps=20, guidance=0, clamp=False, reference_size=SIZE)
    found = DDA(Bayes(oracle), oracle, settings).adapt(images, seeds)
    table = table_from(LINEAR, 500, 20)
    jobs = [
        SamplingJob(source=2 * image - 1, table=table, condition=None, seed=seed)
        for image, seed in zip(images, seeds.tolist(), strict=True)
    ]
    assert torch.allclose(found, oracle.decode(run_jobs(oracle, jobs, batch=3)), atol=1e-5)


@pytest.mark.parametrize("guidance", [0.0, 0.4])
def test_a_linear_denoiser_in_matrices(guidance: float) -> None:
    """x0_hat = c x_t: every step is a matrix, and the gradient of the norm -c (phi' phi) r / |phi r| with the filter as a matrix."""
    images, c, steps = pictures(3), 0.8, 9
    seeds, filtered = image_seeds(0, range(3)), low_pass_matrix(SIZE, 2)
    settings = DDASettings(start=300, steps=steps, guidance=guidance, factor=2, clamp=False, reference_size=SIZE)
    found = DDA(Projection(), Function(lambda x, t: c * x), settings).adapt(images, seeds)
    ratio = LINEAR.ratio.double()
    alpha = (1 + ratio.square()).rsqrt()
    t = torch.linspace(300, 0, steps, dtype=torch.float64).round().long().tolist()
    for row, image in enumerate(images):
        generator = noise_generator(int(seeds[row]))
        source = (2 * image - 1).double().flatten(1)  # (3, D)
        x = alpha[t[0]] * source + (alpha * ratio)[t[0]] * torch.randn(image.shape, generator=generator).double().flatten(1)
        for now, after in zip(t, [*t[1:], None], strict=True):
            a, s = alpha[now], (alpha * ratio)[now]
            a2, s2 = (1.0, 0.0) if after is None else (alpha[after], (alpha * ratio)[after])
            beta = 1 - (a / a2) ** 2  # DDPM's Eq. 7 with the two levels as one step
            mean = a2 * beta / s**2 * c * x + (a / a2) * s2**2 / s**2 * x
            coarse = (source - c * x) @ filtered.T  # (3, D)
            gradient = -c * (coarse @ filtered) / coarse.norm()
            fresh = torch.randn(image.shape, generator=generator).double().flatten(1) if after is not None else 0.0
            x = mean + (beta * s2**2 / s**2) ** 0.5 * fresh - guidance * gradient
        assert torch.allclose(found[row].double(), ((x + 1) / 2).clamp(0, 1).view(image.shape), atol=1e-5)


def test_the_guidance_is_the_posterior_covariance_times_the_residual() -> None:
    """d x0_hat / d x_t = alpha / sigma² Cov[x0 | x_t] (Theorem 1 of arXiv 2306.09192): one step, with the true Jacobian."""
    oracle = mixture(3, size=4, spread=0.3, variance=0.02)
    oracle.dtype = torch.float64
    level, w = 200, 0.7
    source = pictures(1, size=4).double() * 2 - 1
    table, seeds = table_from(LINEAR, level, 1), torch.tensor([5])
    free, held = (
        guided_sampling(oracle, source, table, seeds, lambda x0_hat: source - x0_hat, guidance, clamp=False) for guidance in (0.0, w)
    )
    t = torch.tensor([level])
    x_t = LINEAR.add_noise(source, torch.randn(source.shape[1:], generator=noise_generator(5))[None], t)
    jacobian = LINEAR.alpha[level] / LINEAR.sigma[level] ** 2 * oracle.posterior_covariance(x_t, t)[0]
    residual = (source - oracle(x_t, t)).flatten()
    assert torch.allclose((held - free).flatten(), w * jacobian @ residual / residual.norm(), atol=1e-6)
    assert float((held - free).norm()) > 1e-3


def test_one_norm_for_each_image() -> None:
    """Company changes nothing; under one norm over the batch it would."""
    oracle, images, seeds = mixture(variance=0.02), pictures(6), image_seeds(0, range(6))
    together = DDA(Bayes(oracle), oracle, SMALL).adapt(images, seeds)
    alone = torch.cat([DDA(Bayes(oracle), oracle, SMALL).adapt(images[row : row + 1], seeds[row : row + 1]) for row in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_guidance_keeps_what_is_coarse() -> None:
    oracle, images, seeds = mixture(variance=0.3, spread=0.0), pictures(8), image_seeds(0, range(8))
    far = []
    for guidance in (0.0, 0.5, 2.0):
        settings = DDASettings(steps=30, guidance=guidance, factor=2, reference_size=SIZE)
        found = DDA(Bayes(oracle), oracle, settings).adapt(images, seeds)
        far.append(float((low_pass(found, 2) - low_pass(images, 2)).square().mean()))
    assert far[0] > 1.2 * far[1] > 1.2 * far[2]


def test_an_image_that_is_met_exactly_is_not_lost_to_a_norm_of_zero() -> None:
    picture = pictures(1)
    oracle = Function(lambda x, t: (2 * picture - 1).expand_as(x) + 0 * x)
    found = DDA(Projection(), oracle, SMALL).adapt(picture, image_seeds(0, [0]))
    assert torch.allclose(found, picture, atol=1e-5)


def test_start_and_guidance_shrink_with_the_picture() -> None:
    """sigma about .49 at 32 pixels, 3.44 at the reference; the guidance a seventh."""
    denoiser = Function(lambda x, t: 0.9 * x)
    dda = DDA(Projection(), denoiser)
    assert float(LINEAR.ratio[dda.start_level(32)]) == pytest.approx(0.49, abs=0.01)
    assert dda.start_level(224) == 500
    images, seeds = pictures(2, size=32), image_seeds(0, range(2))
    scaled = DDA(Projection(), denoiser, DDASettings(guidance=2.1, factor=2, steps=5)).adapt(images, seeds)
    start = DDA(Projection(), denoiser, DDASettings(steps=5)).start_level(32)
    plain = DDASettings(guidance=0.3, factor=2, steps=5, start=start, reference_size=None)
    assert torch.allclose(scaled, DDA(Projection(), denoiser, plain).adapt(images, seeds), atol=1e-6)


@pytest.mark.parametrize(("reference", "start", "guidance"), [(224, 524, 3.43), (256, 500, 3), (None, 500, 3)])
def test_what_pictures_of_the_authors_size_get(reference: int | None, start: int, guidance: float) -> None:
    settings = DDASettings(reference_size=reference)
    assert DDA(Projection(), Function(lambda x, t: x), settings).start_level(256) == start
    assert settings.at(256) == (pytest.approx(guidance, abs=0.005), 4)


def test_small_pictures_are_held_as_was_measured_on_them() -> None:
    chosen, own = DDASettings(), DDASettings(guidance=6, factor=1)
    assert chosen.at(224) == (3, 4)
    assert chosen.at(46) == (pytest.approx(3 * 46 / 224), 4)
    assert chosen.at(45) == (pytest.approx(12 * 45 / 224), 2)
    assert own.at(32) == (pytest.approx(6 / 7), 1)
    assert DDASettings(reference_size=None).at(32) == (3, 4)
    denoiser, images, seeds = Function(lambda x, t: 0.9 * x), pictures(2, size=32), image_seeds(0, range(2))
    said, usual = (DDA(Projection(), denoiser, DDASettings(steps=3, **told)) for told in ({"guidance": 12.0, "factor": 2}, {}))
    assert torch.equal(said.adapt(images, seeds), usual.adapt(images, seeds))
    assert said.settings != usual.settings  # what is kept of one is not the other's


def test_the_table_ends_at_the_clean_image() -> None:
    table = table_from(LINEAR, 500, 50)
    assert (int(table.t[0]), int(table.t[-1]), len(table)) == (500, 0, 50)
    assert table.t.diff().unique().tolist() == [-11, -10]
    assert (float(table.x[-1]), float(table.history[-1, 0]), float(table.noise[-1])) == pytest.approx((0, 1, 0))


def test_the_low_pass_filter_keeps_what_is_smooth() -> None:
    x = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    assert torch.allclose(low_pass(torch.ones(1, 3, 32, 32), 4), torch.ones(1, 3, 32, 32), atol=1e-5)
    assert torch.allclose(low_pass(x, 4)[..., 8:-8], x[..., 8:-8], atol=2e-2)
    assert float(low_pass(torch.ones(32).cumsum(0).remainder(2).mul(2).sub(1).expand(1, 3, 32, 32), 4)[..., 4:-4].abs().max()) < 0.05
    assert torch.equal(low_pass(x, 1), x)


def test_the_self_ensemble_is_the_mean_of_two() -> None:
    oracle, images, seeds = mixture(variance=0.02), pictures(5), image_seeds(0, range(5))
    classifier = Projection()
    alone = DDA(classifier, oracle, SMALL, chunk=3).predict(images, seeds)
    settings = DDASettings(steps=12, guidance=0.5, factor=2, reference_size=SIZE, self_ensemble=True)
    both = DDA(classifier, oracle, settings, chunk=4).predict(images, seeds)
    raw = Plain(classifier).predict(images)
    assert both.members == ("raw", "adapted")
    assert torch.allclose(both.probabilities, (raw.probabilities + alone.probabilities) / 2, atol=1e-5)
    assert torch.equal(both.decisions[:, 0], raw.predicted)


def test_a_caller_without_gradients_changes_nothing() -> None:
    oracle, images, seeds = mixture(variance=0.02), pictures(2), image_seeds(0, range(2))
    dda = DDA(Bayes(oracle), oracle, SMALL)
    expected = dda.adapt(images, seeds)
    with torch.no_grad():
        assert torch.equal(dda.adapt(images, seeds), expected)
    with torch.inference_mode():
        assert torch.equal(dda.adapt(images.clone(), seeds), expected)
    assert not expected.requires_grad


def test_a_caller_s_autocast_changes_nothing() -> None:
    dda, images, seeds = DDA(Projection(), network(), SMALL), pictures(2), image_seeds(0, range(2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = dda.adapt(images, seeds)
    assert torch.equal(inside, dda.adapt(images, seeds))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_not_kept_for_the_guidance(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, images, seeds = network(dtype), pictures(2), image_seeds(0, range(2))
    dda, kept = DDA(Projection(), denoiser, DDASettings(steps=3, guidance=0.5, reference_size=SIZE)), [0]

    def keep(value: Tensor) -> Tensor:
        kept[-1] += value.numel()
        return value

    def adapted() -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            return dda.adapt(images, seeds)

    found, asked = adapted(), dda.operations(SIZE)
    assert not denoiser.network.checkpointing
    monkeypatch.setattr("rediffuse.denoisers.memory.checkpointed", lambda network: [])
    kept.append(0)
    assert torch.equal(found, adapted())
    assert kept[0] < kept[1] / 3
    monkeypatch.setattr("rediffuse.evaluation.test_time.dda.checkpointed", lambda network: [])
    assert asked == dda.operations(SIZE) * 3 / 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": 0}, "1 to 999"),
        ({"start": 1000}, "1 to 999"),
        ({"steps": 0}, "at least 1, got 0"),
        ({"guidance": -1.0}, "at least 0"),
        ({"guidance": float("nan")}, "nan"),
        ({"factor": 0}, "at least 1, got 0"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DDASettings(**options)  # type: ignore[arg-type]


def test_what_cannot_be_adapted() -> None:
    images, seeds = pictures(2), image_seeds(0, range(2))
    with pytest.raises(ConfigError, match="pixel space"):
        DDA(Projection(), Function(lambda x, t: x, channels=4))
    with pytest.raises(DataError, match="multiples of 16"):
        DDA(Projection(), Function(lambda x, t: x, multiple_of=16)).predict(images)
    with pytest.raises(ConfigError, match="at most 2 steps"):
        DDA(Projection(), Function(lambda x, t: x), DDASettings(start=1, reference_size=SIZE)).adapt(images, seeds)
    with pytest.raises(ConfigError, match="images are 8x8"):
        DDA(Projection(), Function(lambda x, t: x), DDASettings(factor=9, reference_size=SIZE)).adapt(images, seeds)
    with pytest.raises(ConfigError, match="gives no gradient"):
        DDA(Projection(), Function(lambda x, t: x), SMALL).adapt(images.requires_grad_(), seeds)
    silent = NoiseSchedule.from_ratios(torch.cat([torch.zeros(1), torch.linspace(0.01, 5, 99)]))
    with pytest.raises(ConfigError, match="without noise"):
        DDA(Projection(), Function(lambda x, t: x, silent), SMALL).adapt(images.detach(), seeds)
