"""The one-step view against closed forms: Theorem 1, the posterior mean before the clamp, published numbers; cuts that change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rediffuse.denoisers.base import Condition, Denoiser, NoiseSchedule, clean_from_output
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.schedules import linear_betas, ve_ratios
from rediffuse.methods.diffaug import DiffAug, DiffAugDraw, believe, make_noise, part_of
from rediffuse.methods.noise_times import RAW, Fixed, levels

SCHEDULES = {
    "vp": NoiseSchedule.from_betas(linear_betas()),
    "ve": NoiseSchedule.from_ratios(ve_ratios(0.01, 100)),
}
LEVELS = {"vp": [0, 20, 60, 150, 300, 500, 700, 999], "ve": [0, 100, 200, 300, 400, 550, 700, 999]}
CPU = torch.device("cpu")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, size: int = 4, seed: int = 1) -> Tensor:
    return torch.rand((count, 3, size, size), generator=stream(seed))


def oracle(kind: str = "vp", size: int = 4, dtype: torch.dtype = torch.float32) -> GaussianMixtureDenoiser:
    means = 1.2 * torch.rand((3, 3, size, size), generator=stream(2)) - 0.6
    made = GaussianMixtureDenoiser(means, torch.tensor([0.05, 0.2, 0.01]), torch.tensor([2.0, 1.0, 3.0]), SCHEDULES[kind], dtype=dtype)
    made.size = size
    return made


class Convolution(nn.Module):
    """A small network whose output depends on the noise time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        for number, weight in enumerate(self.parameters()):
            nn.init.normal_(weight, std=0.3, generator=stream(number))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append(t)
        return self.last(torch.nn.functional.silu(self.first(x) + (t / 500 - 1).view(-1, 1, 1, 1)))


def network(dtype: torch.dtype = torch.float32, **options: Any) -> PixelDenoiser:
    return PixelDenoiser(Convolution(), SCHEDULES["vp"], head="last", dtype=dtype, **options)


def jacobian(function: Any, x: Tensor) -> Tensor:
    """(D, D) of a function on one image (1, C, H, W)."""
    size = x.numel()
    return torch.autograd.functional.jacobian(function, x).reshape(size, size)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_theorem_1(kind: str):
    """d x0_hat / d x_t = alpha / sigma² Cov[x0 | x_t], sigma the deviation of the noise in x_t: through the transform's own noise."""
    model = oracle(kind, dtype=torch.float64)
    t = torch.tensor(LEVELS[kind])
    images = model.decode(model.sample(len(t), stream(3))).float()
    noise = make_noise(DiffAug(model).draw_at(t, stream(4)), (3, 4, 4), CPU)
    for row, level in enumerate(t.split(1)):
        x_t = model.schedule.add_noise(model.encode(images[row : row + 1]), noise[row : row + 1], level).double()
        alpha, sigma = model.schedule.alpha[level].double(), model.schedule.sigma[level].double()
        expected = alpha / sigma.square() * model.posterior_covariance(x_t, level)[0]
        found = jacobian(lambda x, level=level: model(x, level), x_t)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))
        assert float(torch.linalg.eigvalsh((found + found.T) / 2).min()) > -1e-9  # symmetric, no negative direction
        by_images = jacobian(lambda x, level=level, row=row: believe(model, x, level, noise[row : row + 1]), images[row : row + 1])
        torch.testing.assert_close(by_images / (2 * alpha), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", SCHEDULES)
def test_gradients_reach_the_images(kind: str):
    """Through encoding, noise, denoiser and decoding: alpha² / sigma² Cov[x0 | x_t] where nothing is clamped."""
    model = oracle(kind)
    level = torch.tensor([LEVELS[kind][3]])
    method = DiffAug(model, gradients=True)
    draw, image = method.draw_at(level, stream(5)), pictures(1)
    x_t = model.schedule.add_noise(model.encode(image), make_noise(draw, (3, 4, 4), CPU), level)
    free = (model(x_t, level).abs() < 1).flatten()
    assert free.sum() > 20
    share = (model.schedule.alpha[level] / model.schedule.sigma[level]).square().double()
    expected = share * model.posterior_covariance(x_t, level)[0]
    found = jacobian(lambda images: method.apply(images, draw), image).double()
    torch.testing.assert_close(found[free], expected[free], rtol=1e-4, atol=1e-5)
    assert (found[~free] == 0).all()
    without = DiffAug(model).apply(image.requires_grad_(), draw)
    assert not without.requires_grad
    assert not without.is_inference()
    raw = torch.tensor([RAW])
    assert not DiffAug(model).apply(image, DiffAug(model).draw_at(raw)).requires_grad
    assert method.apply(image, method.draw_at(raw)).requires_grad
    assert not any(weight.requires_grad for weight in DiffAug(network().requires_grad_(True)).denoiser.parameters())


@pytest.mark.parametrize("kind", SCHEDULES)
def test_belief_is_the_posterior_mean_before_the_clamp(kind: str):
    """One Gaussian N(m, v): x0_hat = m + alpha v / (alpha² v + sigma²) (x_t - alpha m), also far outside of [-1, 1]."""
    mean, variance = 0.9, 0.3
    model = GaussianMixtureDenoiser(torch.full((1, 3, 4, 4), mean), torch.tensor([variance]), torch.ones(1), SCHEDULES[kind])
    t = torch.tensor(LEVELS[kind]).repeat(4)
    images, method = pictures(len(t)), DiffAug(model)
    draw = method.draw_at(t, stream(6))
    noise = make_noise(draw, (3, 4, 4), CPU)
    alpha, sigma = (table[t].double().view(-1, 1, 1, 1) for table in (model.schedule.alpha, model.schedule.sigma))
    x_t = alpha * (2 * images.double() - 1) + sigma * noise.double()
    expected = mean + alpha * variance / (alpha.square() * variance + sigma.square()) * (x_t - alpha * mean)
    found = believe(model, images, t, noise)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert float(found.max()) > 1.2
    assert torch.equal(method.apply(images, draw), ((found + 1) / 2).clamp(0, 1))


class Foretold(Denoiser):
    """Puts out the noise that it was told, whatever it sees; remembers what that was."""

    def __init__(self, schedule: NoiseSchedule, epsilon: Tensor) -> None:
        super().__init__()
        self.schedule, self.channels, self.epsilon = schedule, 3, epsilon
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        self.seen.append((x_t, t))
        return clean_from_output(self.epsilon, x_t, *self.schedule.at(t, x_t), "epsilon")

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        return (noise - self.epsilon).square().mean((1, 2, 3))


def test_who_knows_the_noise_finds_the_image():
    t = torch.tensor([0, 50, 300, 600, 900])
    draw = DiffAug(oracle()).draw_at(t, stream(7))
    images, model = pictures(5), Foretold(SCHEDULES["vp"], make_noise(draw, (3, 4, 4), CPU))
    for row, tolerance in enumerate((1e-6, 1e-6, 1e-6, 1e-5, 1e-4)):  # float32 times sigma / alpha
        assert float((DiffAug(model).apply(images, draw)[row] - images[row]).abs().max()) < tolerance


def test_the_view_is_what_the_published_program_makes(root: Path):
    """q_sample and the clamped prediction of x0 of guided-diffusion, on its own noise and epsilon."""
    theirs = load_file(root / "tests/denoisers/fixtures/x0_linear_1000.safetensors")
    model = Foretold(SCHEDULES["vp"], theirs["eps"])
    found = believe(model, (theirs["x0"] + 1) / 2, theirs["t"], theirs["noise"])
    torch.testing.assert_close(model.seen[0][0], theirs["x_t"], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(model.decode(found), (theirs["x0_hat_clamped"] + 1) / 2, atol=2e-5, rtol=0)


def test_a_time_for_each_sample_is_a_loop_over_times():
    method = DiffAug(network())
    draw, images = method.draw_at(torch.tensor([0, 999, 450, 20, 450]), stream(8)), pictures(5)
    together = method.apply(images, draw)
    noise = make_noise(draw, (3, 4, 4), CPU)
    for row, t in enumerate(draw.t.tolist()):
        alone = method.denoiser.decode(believe(method.denoiser, images[row : row + 1], torch.tensor([t]), noise[row : row + 1]))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_times_stay_whole_in_half_precision(dtype: torch.dtype):
    """bfloat16 holds no odd number above 256: of 1,000 times half would change and 999 would become 1000."""
    model = network(torch.bfloat16 if dtype is torch.bfloat16 else torch.float32)
    method, t = DiffAug(model), torch.arange(1000)
    draw, images = method.draw_at(t, stream()), pictures(1000, size=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        views = method.apply(images, draw)
    assert torch.equal(model.network.seen[-1], t)
    assert model.network.seen[-1].dtype is torch.int64
    assert views.dtype is torch.float32
    assert method.draw(4, stream(), size=1).t.dtype is torch.int64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_caller_s_autocast_changes_nothing(dtype: torch.dtype):
    method, images = DiffAug(network(dtype), gradients=True), pictures(4).requires_grad_()
    draw = method.draw_at(torch.tensor([20, 300, 700, RAW]), stream())
    outside = method.apply(images, draw)
    with torch.autocast("cpu", torch.bfloat16):
        inside = method.apply(images, draw)
    assert torch.equal(inside, outside)
    assert torch.equal(*(torch.autograd.grad(views.sum(), images)[0] for views in (inside, outside)))


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("kind", ["oracle", "network"])
def test_a_draw_cut_any_way_gives_the_same(kind: str, per_sample: bool):
    model = oracle() if kind == "oracle" else network()
    method = DiffAug(model, fraction=0.6, per_sample=per_sample)
    draw, images = method.draw(23, stream(9), size=4), pictures(23)
    whole = method.apply(images, draw)
    assert torch.equal(whole, method.apply(images, DiffAugDraw.from_rows(draw.to_rows())))
    for cut in (1, 2, 7, 22):
        pieces = [method.apply(piece, draw.index(slice(first, first + cut))) for first, piece in zip(range(0, 23, cut), images.split(cut))]  # noqa: B905
        torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-5, rtol=0)
        chunked = DiffAug(model, fraction=0.6, per_sample=per_sample, chunk=cut)
        torch.testing.assert_close(chunked.apply(images, draw), whole, atol=1e-5, rtol=0)
    order = torch.randperm(23, generator=stream(10))
    torch.testing.assert_close(method.apply(images[order], draw.index(order)), whole[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("per_sample", [False, True])
def test_noise_is_standard_normal_and_differs_between_samples(per_sample: bool):
    draw = DiffAug(oracle(), per_sample=per_sample).draw_at(torch.zeros(200, dtype=torch.int64), stream(11))
    noise = make_noise(draw, (3, 8, 8), CPU).flatten(1)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    apart = (noise @ noise.T / noise.shape[1]).fill_diagonal_(0)
    assert float(apart.abs().max()) < 0.45  # 6 deviations of a correlation over 192 numbers
    assert len(set(draw.seed.tolist())) == (200 if per_sample else 1)


def test_a_part_is_denoised_and_the_rest_comes_back():
    model = network()
    method, images = DiffAug(model, fraction=0.25), pictures(40)
    draw = method.draw(40, stream(12), size=4)
    views = method.apply(images, draw)
    kept = draw.t == RAW
    assert int(kept.sum()) == 30
    assert torch.equal(views[kept], images[kept])
    assert ((views - images).flatten(1).abs().amax(1) > 0).sum() == 10
    assert [len(t) for t in model.network.seen] == [10]  # only that part is computed
    nothing = DiffAug(model, fraction=0.0)
    assert torch.equal(nothing(images), images)
    assert len(model.network.seen) == 1
    assert nothing(images) is not images


def test_parts_are_fair():
    generator = stream(13)
    sizes = torch.tensor([len(part_of(10, 0.33, generator)) for _ in range(3000)])
    assert set(sizes.tolist()) == {3, 4}
    assert abs(float(sizes.double().mean()) - 3.3) < 0.03
    rows = torch.bincount(torch.cat([part_of(10, 0.33, generator) for _ in range(3000)]), minlength=10)
    assert (rows / 3000 - 0.33).abs().max() < 0.04
    assert abs(sum(len(part_of(1, 0.25, generator)) for _ in range(4000)) / 4000 - 0.25) < 0.03


def test_noise_times_follow_the_image_size():
    method = DiffAug(oracle(), Fixed(t=400))
    ratio = method.denoiser.schedule.ratio
    for size in (224, 112, 32):
        t = int(method.draw(1, stream(), size=size).t)
        assert abs(float(ratio[t] / ratio[400]) - size / 224) < 0.02
    assert int(method.draw(1, stream()).t) == int(method.draw(1, stream(), size=4).t)  # the size that it was trained at
    assert int(DiffAug(oracle(), Fixed(t=400), reference_size=None).draw(1, stream(), size=32).t) == 400
    seen = DiffAug(network(), Fixed(t=999))
    seen(pictures(2, size=8))
    assert (seen.denoiser.network.seen[-1] == seen.draw(1, stream(), size=8).t).all()
    seen(torch.rand((2, 3, 8, 16), generator=stream()))  # the shorter side is the size
    assert (seen.denoiser.network.seen[-1] == seen.draw(1, stream(), size=8).t).all()


def test_levels_of_test_time():
    found = levels(SCHEDULES["vp"], range(0, 500, 50), 4)
    method, images = DiffAug(oracle()), pictures(1).expand(10, 3, 4, 4)
    views = method.apply(images, method.draw_at(found.t, stream()))
    assert torch.equal(views[0], images[0])
    assert all(not torch.equal(view, images[0]) for view in views[1:])


def test_of_no_images_there_are_no_views():
    none = torch.rand(0, 3, 8, 8)
    assert DiffAug(oracle(size=8))(none).shape == none.shape
