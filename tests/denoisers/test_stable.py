"""The Stable Diffusion adapter against diffusers' own modules and schedulers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tests.tiny import TEXT_WIDTH, tiny_stable
from torch import Tensor

from rediffuse.denoisers import precision, stable
from rediffuse.denoisers.base import Condition, Prediction
from rediffuse.denoisers.load import load
from rediffuse.denoisers.stable import StableDenoiser
from rediffuse.errors import ConfigError, ModelError

T = torch.tensor([0, 20, 500, 999])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("stable")
    return {kind: tiny_stable(home / kind, prediction_type=kind) for kind in get_args(Prediction)}


def opened(folder: Path, dtype: str = "float32") -> StableDenoiser:
    denoiser = load(folder, device="cpu", dtype=dtype)
    assert isinstance(denoiser, StableDenoiser)
    return denoiser


@pytest.fixture(scope="module")
def model(folders: dict[str, Path]) -> StableDenoiser:
    return opened(folders["epsilon"])


def some(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def part(folder: Path, kind: Any, name: str) -> Any:
    return kind.from_pretrained(folder / name, local_files_only=True).eval()


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_the_belief_is_that_of_diffusers(folders: dict[str, Path], prediction: Prediction) -> None:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    denoiser, x_t = opened(folders[prediction]), some((4, 4, 8, 8))
    condition = denoiser.embed(["a cat", "", "a dog", "the thing"])
    ours = denoiser(x_t, T, condition)
    unet, scheduler = part(folders[prediction], UNet2DConditionModel, "unet"), part_scheduler(folders[prediction], DDIMScheduler)
    with torch.no_grad():
        output = unet(x_t, T, encoder_hidden_states=condition.embedding).sample
    scheduler.set_timesteps(1000)
    for row in range(4):
        theirs = scheduler.step(output[row : row + 1], T[row], x_t[row : row + 1]).pred_original_sample
        torch.testing.assert_close(ours[row : row + 1], theirs, atol=1e-4, rtol=1e-4)


def part_scheduler(folder: Path, kind: Any) -> Any:
    return kind.from_pretrained(folder / "scheduler", local_files_only=True)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_the_loss_is_that_of_the_usual_trainer(folders: dict[str, Path], prediction: Prediction) -> None:
    from diffusers import DDPMScheduler, UNet2DConditionModel

    denoiser, x0, noise = opened(folders[prediction]), some((4, 4, 8, 8)), some((4, 4, 8, 8), 1)
    condition = denoiser.embed(["a cat"] * 4)
    unet, scheduler = part(folders[prediction], UNet2DConditionModel, "unet"), part_scheduler(folders[prediction], DDPMScheduler)
    x_t = scheduler.add_noise(x0, noise, T)
    target = {"epsilon": noise, "v_prediction": scheduler.get_velocity(x0, noise, T), "sample": x0}[prediction]
    with torch.no_grad():
        theirs = (unet(x_t, T, encoder_hidden_states=condition.embedding).sample - target).square().mean((1, 2, 3))
    torch.testing.assert_close(denoiser.loss(x0, T, noise, condition), theirs, atol=1e-4, rtol=1e-4)


def test_rows_do_not_know_each_other(model: StableDenoiser) -> None:
    x_t, condition = some((4, 4, 8, 8)), model.embed(["a cat", "", "a dog", "the thing"])
    together = model(x_t, T, condition)
    for row in range(4):
        alone = model(x_t[row : row + 1], T[row : row + 1], condition.index([row]))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)
    assert (model(x_t, T, model.embed([""] * 4)) - together)[0].abs().max() > 0


def test_latents_are_those_of_diffusers(folders: dict[str, Path], model: StableDenoiser) -> None:
    from diffusers import AutoencoderKL

    vae, images = part(folders["epsilon"], AutoencoderKL, "vae"), torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        posterior = vae.encode(2 * images - 1).latent_dist
        theirs = posterior.mean * 0.18215
        shown = (vae.decode(theirs / 0.18215).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(model.encode(images), theirs, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.decode(theirs), shown, atol=1e-5, rtol=1e-5)
    drawn = model.encode(images, sample=True, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(drawn, posterior.sample(torch.Generator().manual_seed(4)) * 0.18215, atol=1e-6, rtol=1e-5)
    assert not torch.equal(drawn, model.encode(images))


def test_a_shift_of_the_latents_is_honoured(folders: dict[str, Path], model: StableDenoiser) -> None:
    shifted = copy.deepcopy(model)
    shifted.vae.register_to_config(shift_factor=0.5)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted.encode(images), model.encode(images) - 0.5 * 0.18215, atol=1e-6, rtol=0)
    torch.testing.assert_close(shifted.decode(shifted.encode(images)), model.decode(model.encode(images)), atol=1e-5, rtol=0)


def test_pieces_change_nothing(model: StableDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = model.encode(images)
    shown = model.decode(whole)
    monkeypatch.setattr(stable, "CHUNK_PIXELS", 2 * 16 * 16)
    torch.testing.assert_close(model.encode(images), whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.decode(whole), shown, atol=1e-5, rtol=1e-5)


def test_gradients_pass_through_encode_denoise_and_decode(model: StableDenoiser) -> None:
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model.decode(model(model.encode(images), torch.tensor([100]), model.embed(["a cat"]))).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_facts_about_the_model(model: StableDenoiser) -> None:
    assert (model.channels, model.factor, model.size, model.multiple_of, model.conditional) == (4, 2, 16, 4, True)
    assert model.scheduler_config["steps_offset"] == 1
    assert model.known_words == ()
    assert len(model.schedule) == 1000
    assert not model.training


def test_half_precision_keeps_head_and_belief_in_float32(folders: dict[str, Path], model: StableDenoiser) -> None:
    half, x_t = opened(folders["epsilon"], "bfloat16"), some((4, 4, 8, 8))
    seen: list[torch.dtype] = []
    half.unet.mid_block.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    half.unet.conv_out.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    condition = half.embed(["a cat"] * 4)
    output = half.network(x_t, T, condition)
    assert seen == [torch.bfloat16, torch.float32]
    assert half(x_t, T, condition).dtype == torch.float32
    assert half.unet.conv_out.weight.dtype == torch.float32
    assert half.unet.conv_in.weight.dtype == torch.bfloat16
    exact = model.network(x_t, T, condition)
    assert 0 < (output - exact).square().mean().sqrt() < 0.05 * exact.std()
    assert all(value.dtype == torch.float32 for value in (*half.vae.parameters(), *half.text_encoder.parameters()))
    assert half.loss(x_t, T, x_t, condition).dtype == torch.float32


def test_half_precision_still_teaches_words(folders: dict[str, Path], model: StableDenoiser) -> None:
    half, x0, noise = opened(folders["epsilon"], "bfloat16"), some((4, 4, 8, 8)), some((4, 4, 8, 8), 1)
    gradients = []
    for denoiser in (half, model):
        word = some((1, TEXT_WIDTH)).requires_grad_()
        denoiser.loss(x0, T, noise, denoiser.embed(["a <b>"] * 4, {"<b>": word})).mean().backward()
        assert word.grad is not None
        gradients.append(word.grad.flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


def test_few_tokens_are_attended_by_plain_products_where_gradients_flow(model: StableDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    fused: list[bool] = []
    hook = model.unet.register_forward_pre_hook(lambda *_: fused.append(torch.backends.cuda.flash_sdp_enabled()))
    x0, noise, gradients = some((4, 4, 8, 8)), some((4, 4, 8, 8), 1), []
    try:
        for few in (precision.FEW_TOKENS, 0):
            monkeypatch.setattr(precision, "FEW_TOKENS", few)
            word = some((1, TEXT_WIDTH)).requires_grad_()
            model.loss(x0, T, noise, model.embed(["a <b>"] * 4, {"<b>": word})).mean().backward()
            gradients.append(word.grad)
        with torch.no_grad():
            monkeypatch.setattr(precision, "FEW_TOKENS", 256)
            model(x0, T, model.embed(["a cat"] * 4))
    finally:
        hook.remove()
    assert fused == [False, True, True]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_a_caller_may_run_float32_in_a_region_of_its_own(model: StableDenoiser) -> None:
    x_t, condition = some((1, 4, 8, 8)), model.embed(["a cat"])
    exact = model.network(x_t, T[:1], condition)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = model.network(x_t, T[:1], condition)
    assert 0 < (coarse - exact).square().mean().sqrt() < 0.05 * exact.std()


def test_a_copy_is_independent(model: StableDenoiser) -> None:
    """Erasing trains one copy against another."""
    other = copy.deepcopy(model)
    x_t, condition = some((1, 4, 8, 8)), model.embed(["a cat"])
    before = model(x_t, T[:1], condition)
    with torch.no_grad():
        other.unet.conv_out.weight.zero_()
    assert torch.equal(model(x_t, T[:1], condition), before)
    assert not torch.equal(other(x_t, T[:1], condition), before)


def test_calls_that_cannot_be_say_why(model: StableDenoiser) -> None:
    x_t = some((1, 4, 8, 8))
    for nothing in (None, Condition(labels=torch.zeros(1, dtype=torch.long))):
        with pytest.raises(ConfigError, match="embed"):
            model(x_t, T[:1], nothing)
    for shape in ((3, 16, 16), (1, 1, 16, 16), (1, 3, 15, 16)):
        with pytest.raises(ConfigError, match="images must be"):
            model.encode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"in_channels": 9}, "inpainting"),
        ({"cross_attention_dim": 48}, "different models"),
        ({"num_class_embeds": 5}, "more than text"),
    ],
)
def test_parts_that_do_not_fit_are_refused(model: StableDenoiser, changes: dict[str, Any], named: str) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_config({**model.unet.config, **changes})
    with pytest.raises(ModelError, match=named):
        StableDenoiser(unet, model.vae, model.text_encoder, model.tokenizer, model.scheduler_config)


def test_a_tokenizer_of_another_model_is_refused(model: StableDenoiser) -> None:
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_tokens(["<extra>"])
    with pytest.raises(ModelError, match="different models"):
        StableDenoiser(model.unet, model.vae, model.text_encoder, tokenizer, model.scheduler_config)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_an_accelerator_answers_as_the_processor_does(folders: dict[str, Path], model: StableDenoiser, dtype: str) -> None:
    other = load(folders["epsilon"], device="cuda", dtype=dtype)
    assert other.device.type == "cuda"
    images, noise = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), some((4, 4, 8, 8))
    results, gradients = [], []
    for denoiser in (model, other):
        device = denoiser.device
        word = some((2, TEXT_WIDTH)).requires_grad_()
        condition = denoiser.embed(["a <b>", "", "a cat", "<b>"], {"<b>": word})  # the word stays where the learner keeps it
        x = denoiser.encode(images.to(device))
        belief = denoiser(denoiser.schedule.add_noise(x, noise.to(device), T), T.to(device), condition)
        denoiser.loss(x, T.to(device), noise.to(device), condition).mean().backward()
        assert belief.dtype == torch.float32
        assert word.grad is not None
        results.append(denoiser.decode(belief).detach().cpu())
        gradients.append(word.grad.flatten())
    torch.testing.assert_close(*results, atol=0.01 if dtype == "float32" else 0.1, rtol=0)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95
