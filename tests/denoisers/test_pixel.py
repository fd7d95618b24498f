"""The base of pixel denoisers, around networks that are exactly right and around ordinary ones."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from rediffuse.denoisers.base import NoiseSchedule, Prediction, noise_from_clean, training_target
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.errors import ConfigError, DataError, ModelError

SCHEDULE = NoiseSchedule.from_betas(linear_betas())
PREDICTIONS = get_args(Prediction)
T = torch.tensor([0, 450, 900, 999, 3])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Exact(nn.Module):
    """The best answer for data of a Gaussian mixture, in any parameterisation; its last layer changes nothing."""

    def __init__(self, oracle: GaussianMixtureDenoiser, prediction: Prediction) -> None:
        super().__init__()
        self.oracle, self.prediction = [oracle], prediction  # in a list: its float64 tables are no weights of this network
        self.head = nn.Conv2d(3, 3, 1, bias=False)
        self.head.weight.data = torch.eye(3).view(3, 3, 1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value.double() for value in SCHEDULE.at(t, x))
        x0 = self.oracle[0](x, t)
        noise = noise_from_clean(x.double(), x0, alpha, sigma)
        out: Tensor = self.head(training_target(x0, noise, alpha, sigma, self.prediction).float())
        return out


class Small(nn.Module):
    """An ordinary network that also puts out a variance, and remembers what it was told."""

    def __init__(self, outputs: int = 6) -> None:
        super().__init__()
        self.inside = nn.Conv2d(3, 8, 3, padding=1)
        self.time = nn.Embedding(1000, 8)
        self.out = nn.Sequential(nn.GroupNorm(2, 8), nn.Conv2d(8, outputs, 3, padding=1))
        self.told: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.told.append(t)
        out: Tensor = self.out(self.inside(x) + self.time(t).view(-1, 8, 1, 1))
        return out


def small(dtype: torch.dtype = torch.float32, multiple_of: int = 4) -> PixelDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Small()
    return PixelDenoiser(network, SCHEDULE, head="out.1", size=8, multiple_of=multiple_of, dtype=dtype)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_exact_network_gives_the_posterior_mean(prediction: Prediction) -> None:
    means = torch.randn(2, 3, 4, 4, generator=generator()) * 0.5
    oracle = GaussianMixtureDenoiser(means, torch.tensor([0.1, 0.3]), torch.tensor([1.0, 2.0]), SCHEDULE, dtype=torch.float64)
    denoiser = PixelDenoiser(Exact(oracle, prediction), SCHEDULE, head="head", prediction=prediction)
    x0 = oracle.sample(5, generator()).float()
    noise = torch.randn(x0.shape, generator=generator(1))
    x_t = SCHEDULE.add_noise(x0, noise, T)
    x0_hat = denoiser(x_t, T)
    assert x0_hat.dtype == torch.float32
    scale = (1 / SCHEDULE.alpha[T]).clamp(max=200).view(-1, 1, 1, 1) if prediction == "epsilon" else 1.0  # what rounding becomes
    assert ((x0_hat - oracle(x_t, T)).abs() / scale).max() < 1e-5
    if prediction == "sample":
        torch.testing.assert_close(denoiser.loss(x0, T, noise), (oracle(x_t, T) - x0).square().mean((1, 2, 3)).float())


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_that_of_the_networks_own_output(prediction: Prediction) -> None:
    denoiser = small()
    denoiser.prediction = prediction
    x0, noise = torch.randn(2, 5, 3, 8, 8, generator=generator())
    alpha, sigma = SCHEDULE.at(T, x0)
    targets = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x0, "sample": x0}
    wanted = (denoiser.network(alpha * x0 + sigma * noise, T)[:, :3] - targets[prediction]).square().mean((1, 2, 3))
    torch.testing.assert_close(denoiser.loss(x0, T, noise), wanted)


def test_the_learned_variance_is_dropped_and_nothing_is_clamped() -> None:
    denoiser, x = small(), torch.randn(5, 3, 8, 8, generator=generator())
    plain = copy.deepcopy(denoiser)
    plain.network.out[1].weight = nn.Parameter(plain.network.out[1].weight[:3], requires_grad=False)
    plain.network.out[1].bias = nn.Parameter(plain.network.out[1].bias[:3], requires_grad=False)
    torch.testing.assert_close(denoiser(x, T), plain(x, T))
    assert denoiser(x, T).abs().max() > 10


def test_a_batch_cut_any_way_and_a_loop_over_t_give_the_same() -> None:
    denoiser, x = small(), torch.randn(5, 3, 8, 8, generator=generator())
    alpha, _ = SCHEDULE.at(T, x)  # x0_hat enlarges the network's own rounding by 1 / alpha
    whole = alpha * denoiser(x, T)
    for sizes in ([1, 4], [2, 2, 1], [1] * 5):
        cut = alpha * torch.cat([denoiser(a, b) for a, b in zip(x.split(sizes), T.split(sizes), strict=True)])
        torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-5)
    for index, t in enumerate(T.tolist()):
        one = alpha[index] * denoiser(x, torch.full((5,), t))[index]
        torch.testing.assert_close(one, whole[index], rtol=1e-5, atol=1e-5)


def test_a_processor_is_asked_in_small_calls_where_nothing_is_kept_between() -> None:
    denoiser, x, t = small(), torch.randn(131, 3, 32, 32, generator=generator()), torch.arange(131)
    whole = denoiser(x, t)
    assert [len(told) for told in denoiser.network.told] == [131]
    with torch.no_grad():
        cut = denoiser(x, t)
    calls = denoiser.network.told[1:]
    assert [len(told) for told in calls] == [27, 26, 26, 26, 26]  # of at most 32, as float32 they fill the cache
    assert torch.equal(torch.cat(calls), t)
    alpha, _ = SCHEDULE.at(t, x)
    torch.testing.assert_close(alpha * cut, alpha * whole, rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_input_of_a_frozen_model() -> None:
    denoiser = small()
    assert not any(value.requires_grad for value in denoiser.parameters())
    x = torch.randn(2, 3, 4, 4, generator=generator()).requires_grad_()
    t, direction = torch.tensor([450, 100]), torch.randn(2, 3, 4, 4, generator=generator(1))
    (gradient,) = torch.autograd.grad(denoiser(x, t).sum(), x)
    step = 1e-2
    with torch.no_grad():
        slope = (denoiser(x + step * direction, t).double().sum() - denoiser(x - step * direction, t).double().sum()) / (2 * step)
    torch.testing.assert_close(float((gradient * direction).sum()), float(slope), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_trunk_keeps_an_exact_head_and_whole_times(dtype: torch.dtype) -> None:
    denoiser, exact = small(dtype), small()
    assert denoiser.network.inside.weight.dtype == dtype
    assert denoiser.network.out[1].weight.dtype == torch.float32
    x = torch.randn(5, 3, 8, 8, generator=generator()).to(dtype)
    seen: list[Tensor] = []
    denoiser.network.out[1].register_forward_hook(lambda _module, _given, out: seen.append(out))
    x0_hat = denoiser(x, T)
    assert seen[0].dtype == x0_hat.dtype == torch.float32
    assert torch.equal(denoiser.network.told[-1], T)
    torch.testing.assert_close(denoiser.output(x, T), exact.output(x, T), atol=0.03, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):  # a region of the caller's reaches the trunk, not the head
        exact.network.out[1].register_forward_hook(lambda _module, _given, out: seen.append(out))
        assert exact(x, T).dtype == seen[-1].dtype == torch.float32


def test_named_convolutions_stay_exact_in_half_precision_alone() -> None:
    half = PixelDenoiser(Small(), SCHEDULE, head="out.1", exact=["inside"], dtype=torch.bfloat16)
    assert half.network.inside.weight.dtype == torch.float32
    seen: list[Tensor] = []
    for exact in (half, PixelDenoiser(Small(), SCHEDULE, head="out.1", exact=["inside"])):
        exact.network.inside.register_forward_hook(lambda _module, _given, out: seen.append(out))
        with torch.autocast("cpu", torch.bfloat16):
            exact(torch.zeros(1, 3, 8, 8), torch.tensor([0]))
    assert [out.dtype for out in seen] == [torch.float32, torch.bfloat16]


def test_a_model_in_training_again_learns() -> None:
    denoiser = small().requires_grad_(True).train()
    x0, noise = torch.randn(2, 5, 3, 8, 8, generator=generator())
    denoiser.loss(x0, T, noise).mean().backward()
    assert all(value.grad is not None and bool(value.grad.abs().max() > 0) for value in denoiser.parameters())


def test_sides_that_do_not_fit_are_told_which_do() -> None:
    denoiser = small(multiple_of=32)
    with pytest.raises(DataError, match=r"230x17 do not fit .* multiples of 32: resize to 224x32 \(it was trained at 8\)"):
        denoiser(torch.zeros(1, 3, 230, 17), torch.tensor([0]))
    assert denoiser(torch.zeros(1, 3, 64, 32), torch.tensor([0])).shape == (1, 3, 64, 32)


def test_other_bad_input() -> None:
    denoiser = small()
    with pytest.raises(DataError, match=r"takes \(B, 3, H, W\), got \(1, 4, 8, 8\)"):
        denoiser(torch.zeros(1, 4, 8, 8), torch.tensor([0]))
    for times in (torch.tensor([0.0]), torch.tensor([999.0]).bfloat16(), torch.tensor(0), torch.tensor([0, 1])):
        with pytest.raises(ConfigError, match=r"\(B,\) int64"):
            denoiser(torch.zeros(1, 3, 8, 8), times)
    with pytest.raises(ModelError, match="'last'"):
        PixelDenoiser(Small(), SCHEDULE, head="last")
    with pytest.raises(ModelError, match="GroupNorm"):
        PixelDenoiser(Small(), SCHEDULE, head="out.0")
    with pytest.raises(ModelError, match="5 channels"):
        PixelDenoiser(Small(outputs=5), SCHEDULE, head="out.1")(torch.zeros(1, 3, 8, 8), torch.tensor([0]))
