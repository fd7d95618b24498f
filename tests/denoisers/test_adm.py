"""Checkpoints of OpenAI's pixel models as denoisers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.tiny_adm import NETWORKS, inputs, tiny_adm

from rediffuse.denoisers.adm import PUBLISHED, AdmDenoiser, Settings, open_file
from rediffuse.denoisers.adm_network import AdmNetwork
from rediffuse.denoisers.base import Condition
from rediffuse.denoisers.load import load
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.errors import ConfigError, DataError, ModelError

LINEAR = replace(PUBLISHED["256x256_diffusion_uncond"].settings, image_size=16, num_head_channels=16)
COSINE = replace(PUBLISHED["cifar10_uncond_50M_500K"].settings, image_size=16)
T = torch.tensor([3, 450])


def tiny(name: str = "like_256_uncond", settings: Settings = LINEAR, dtype: torch.dtype = torch.float32) -> AdmDenoiser:
    return AdmDenoiser(tiny_adm(*NETWORKS[name]), settings, dtype=dtype)


def write(folder: Path, name: str = "like_256_uncond", settings: Settings | None = LINEAR) -> Path:
    file = folder / "mine.pt"
    torch.save(tiny_adm(*NETWORKS[name]).state_dict(), file)
    if settings is not None:
        told = {key: value for key, value in asdict(settings).items() if value is not None}
        file.with_suffix(".json").write_text(json.dumps(told))
    return file


def test_x0_hat_is_what_epsilon_leaves_and_the_variance_is_dropped() -> None:
    denoiser = tiny()
    x, _, _ = inputs(denoiser.network.architecture)
    epsilon = tiny_adm(*NETWORKS["like_256_uncond"])(x, T)[:, :3].detach()
    kept = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[T].view(-1, 1, 1, 1)
    expected = (x - (1 - kept).sqrt() * epsilon) / kept.sqrt()
    torch.testing.assert_close(denoiser(x, T), expected.float(), rtol=1e-5, atol=1e-5)
    assert (denoiser.size, denoiser.multiple_of, denoiser.channels, denoiser.conditional) == (16, 2, 3, False)


def test_rescaled_times_run_from_0_to_1000_and_others_are_told_as_they_are() -> None:
    x, _, _ = inputs(NETWORKS["like_cifar10"][0])
    t, network = torch.tensor([402, 3999]), tiny_adm(*NETWORKS["like_cifar10"])
    for rescale, told in ((True, torch.tensor([100.5, 999.75])), (False, t)):
        denoiser = tiny("like_cifar10", replace(COSINE, rescale_timesteps=rescale))
        torch.testing.assert_close(denoiser.output(x, t), network(x, told)[:, :3].detach(), rtol=0, atol=1e-5)


def test_linear_schedules_of_any_length_end_in_the_same_noise() -> None:
    long = replace(LINEAR, diffusion_steps=4000).schedule
    torch.testing.assert_close(long.log_snr[3::4], LINEAR.schedule.log_snr, rtol=0.01, atol=0.03)


def test_a_published_file_needs_nothing_but_its_path(tmp_path: Path) -> None:
    """All weights are zero, so epsilon is zero and x0_hat = x_t / alpha with alpha of the cosine (arXiv 2102.09672, Eq. 17)."""
    published = PUBLISHED["cifar10_uncond_50M_500K"]
    with torch.device("meta"):
        network = AdmNetwork(published.architecture, published.settings.heads)
    file = tmp_path / "some_name.pt"
    torch.save({key: torch.zeros(()).expand(value.shape) for key, value in network.state_dict().items()}, file)
    denoiser = load(file, device="cpu", dtype="float32")
    assert isinstance(denoiser, AdmDenoiser)
    assert (denoiser.settings, denoiser.size, denoiser.multiple_of, len(denoiser.schedule)) == (published.settings, 32, 8, 4000)
    t = torch.tensor([1158])
    angle, start = (((step / 4000 + 0.008) / 1.008) * torch.pi / 2 for step in (1159, 0))
    alpha = torch.cos(torch.tensor(angle)) / torch.cos(torch.tensor(start))
    x = torch.ones(1, 3, 8, 8)
    torch.testing.assert_close(denoiser(x, t), x / alpha, rtol=1e-5, atol=0)


def test_flags_beside_the_file_say_what_shapes_do_not(tmp_path: Path) -> None:
    file = write(tmp_path)
    denoiser = load(file, device="cpu", dtype="float32")
    assert isinstance(denoiser, AdmDenoiser)
    assert denoiser.settings == LINEAR
    x, _, _ = inputs(denoiser.network.architecture)
    assert torch.equal(denoiser(x, T), tiny()(x, T))
    assert denoiser.spec is not None
    assert load(denoiser.spec, device="cpu").spec == denoiser.spec
    assert torch.equal(load(file, device="cpu", dtype="float32", prediction="sample")(x, T), denoiser.output(x, T))
    save_file({key: value.contiguous() for key, value in denoiser.network.state_dict().items()}, tmp_path / "safe.safetensors")
    (tmp_path / "safe.json").write_bytes(file.with_suffix(".json").read_bytes())
    assert torch.equal(load(tmp_path / "safe.safetensors", device="cpu", dtype="float32")(x, T), denoiser(x, T))
    file.with_suffix(".json").write_text(json.dumps({**asdict(COSINE)}))
    with pytest.raises(ModelError, match="other weights"):
        load(denoiser.spec, device="cpu")
    assert open_file(file, settings=LINEAR).settings == LINEAR  # what is said comes before what lies there


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, settings=None)
    with pytest.raises(ModelError, match=r"mine\.pt has the shapes of no published network.*mine\.json.*use_new_attention_order"):
        load(file, device="cpu")
    beside = file.with_suffix(".json")
    for content, named in (
        ({"image_size": 16}, "missing.*noise_schedule"),
        ({**asdict(LINEAR), "num_channels": 32}, "unknown entries num_channels"),
        ({**asdict(LINEAR), "noise_schedule": "sqrt"}, "linear, cosine, got 'sqrt'"),
        ([], "a list"),
    ):
        beside.write_text(json.dumps(content))
        with pytest.raises(ModelError, match=rf"mine\.json.*{named}"):
            load(file, device="cpu")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_heads": 4}, "one of the two"),
        ({"num_head_channels": None}, "one of the two"),
        ({"num_head_channels": 0}, "num_head_channels must be a whole number"),
        ({"diffusion_steps": 1000.0}, "diffusion_steps must be a whole number"),
        ({"rescale_timesteps": "False"}, "rescale_timesteps must be true or false"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        replace(LINEAR, **change)  # type: ignore[arg-type]


def test_a_tokenizer_and_a_broken_file_are_refused_by_load(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes no text"):
        load(write(tmp_path), device="cpu", tokenizer=tmp_path)
    (tmp_path / "rest.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ModelError, match=r"rest\.pt cannot be read"):
        load(tmp_path / "rest.pt", device="cpu")


def test_classes_are_told_by_labels() -> None:
    denoiser = tiny("like_64", replace(LINEAR, use_new_attention_order=True, num_head_channels=32))
    x, _, labels = inputs(denoiser.network.architecture)
    assert denoiser.conditional
    assert denoiser.classes == 10
    out = denoiser.output(x, T, Condition(labels=labels))
    torch.testing.assert_close(out, tiny_adm(*NETWORKS["like_64"])(x, T, labels)[:, :3].detach(), rtol=0, atol=1e-5)
    assert (out - denoiser.output(x, T, Condition(labels=torch.tensor([3, 8]))))[1].abs().max() > 1e-3
    for condition, named in (
        (None, "draws 10 classes"),
        (Condition(embedding=torch.zeros(2, 1, 4)), "draws 10 classes"),
        (Condition(labels=torch.tensor([0, 10])), "from 0 to 9.* got 0 to 10"),
        (Condition(labels=torch.tensor([-1, 1])), "from 0 to 9.* got -1 to 1"),
        (Condition(labels=torch.tensor([1])), r"\(2,\) int64"),
        (Condition(labels=torch.tensor([1.0, 2.0])), r"\(2,\) int64"),
    ):
        with pytest.raises(ConfigError, match=named):
            denoiser(x, T, condition)


def test_any_cut_of_the_batch_gives_the_same() -> None:
    denoiser = tiny()
    x, _, _ = inputs(denoiser.network.architecture)
    rows = torch.cat([denoiser(x[i : i + 1], T[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(rows, denoiser(x, T), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_lower_trunk_keeps_time_ends_and_x0_hat_in_float32(dtype: torch.dtype) -> None:
    exact, lower = tiny(), tiny(dtype=dtype)
    weights = lower.network.state_dict()
    assert {key for key, value in weights.items() if value.dtype == torch.float32 and value.ndim > 1} == {
        "time_embed.0.weight",
        "time_embed.2.weight",
        "input_blocks.0.0.weight",
        "output_blocks.2.0.skip_connection.weight",
        "output_blocks.3.0.skip_connection.weight",
        "output_blocks.3.0.in_layers.2.weight",
        "output_blocks.3.0.out_layers.3.weight",
        "out.2.weight",
    }
    assert weights["middle_block.1.qkv.weight"].dtype == dtype
    x, _, _ = inputs(exact.network.architecture)
    t = torch.tensor([3, 999])
    out = lower.output(x, t)
    assert out.dtype == torch.float32
    assert not torch.equal(out, out.to(dtype).float())
    assert (out - exact.output(x, t)).abs().max() < (0.1 if dtype == torch.bfloat16 else 0.01)


@pytest.mark.parametrize("name", [name for name, (architecture, _) in NETWORKS.items() if architecture.classes is None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_ends_bring_x0_hat_nearer(name: str, dtype: torch.dtype) -> None:
    x, t = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1, torch.full((8,), 999)
    exact, lower = tiny(name), tiny(name, dtype=dtype)
    without = PixelDenoiser(tiny_adm(*NETWORKS[name]), LINEAR.schedule, head="out.2", dtype=dtype)
    x_t = LINEAR.schedule.add_noise(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), t)
    error, before = ((denoiser(x_t, t) - exact(x_t, t)).square().mean().sqrt() for denoiser in (lower, without))
    assert error < 0.9 * before


def test_gradients_reach_x_through_the_frozen_model() -> None:
    denoiser = tiny()
    x, _, _ = inputs(denoiser.network.architecture)
    gradients = []
    for checkpointing in (False, True):
        denoiser.network.checkpointing = checkpointing
        leaf = x.clone().requires_grad_(True)
        gradients += torch.autograd.grad(denoiser(leaf, T).square().sum(), leaf)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().max() > 0
    assert not any(value.requires_grad for value in denoiser.parameters())


def test_sides_and_times_that_do_not_fit() -> None:
    denoiser = tiny("like_cifar10", COSINE)
    x = torch.zeros(2, 3, 18, 16)
    with pytest.raises(DataError, match=r"18x16.*multiples of 4.*20x16.*trained at 16"):
        denoiser(x, T)
    with pytest.raises(ConfigError, match="int64"):
        denoiser(x[:, :, :16], T.float())


def test_224_pixels_run_on_the_256_model_as_they_are() -> None:
    published = PUBLISHED["256x256_diffusion_uncond"]
    with torch.device("meta"):
        network = AdmNetwork(published.architecture, published.settings.heads)
        x, t = torch.empty(1, 3, 224, 224), torch.empty(1, dtype=torch.int64)
    denoiser = AdmDenoiser(network, published.settings)
    assert denoiser.output(x, t).shape == x.shape
    with pytest.raises(DataError, match=r"230x224.*multiples of 32: resize to 224x224 \(it was trained at 256\)"):
        denoiser.output(torch.empty(1, 3, 230, 224, device="meta"), t)
