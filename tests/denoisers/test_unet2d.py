"""Pixel models of diffusers: every layout, against diffusers' own networks and schedulers; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import write_json
from tests.tiny_pixel import PixelLayout, tiny_pixel, tiny_unet
from torch import Tensor

from rediffuse.denoisers import pixel
from rediffuse.denoisers.base import Condition, Prediction
from rediffuse.denoisers.load import load, needed_files
from rediffuse.denoisers.unet2d import UNet2DDenoiser
from rediffuse.errors import ConfigError, DataError, ModelError

T = torch.tensor([0, 100, 450, 700, 999])
SIGMA_AT_THE_END = 157.41


def noisy(channels: int = 3, side: int = 16) -> Tensor:
    return torch.randn(len(T), channels, side, side, generator=torch.Generator().manual_seed(0))


def opened(folder: Path, dtype: str = "float32") -> UNet2DDenoiser:
    denoiser = load(folder, device="cpu", dtype=dtype)
    assert isinstance(denoiser, UNet2DDenoiser)
    return denoiser


@pytest.mark.parametrize("layout", get_args(PixelLayout))
def test_every_layout_opens_to_the_same_denoiser(tmp_path: Path, layout: PixelLayout) -> None:
    folder = tiny_pixel(tmp_path / "model", layout=layout)
    denoiser, x = opened(folder), noisy()
    alpha, sigma = denoiser.schedule.at(T, x)
    with torch.no_grad():
        wanted = (x - sigma * tiny_unet().eval()(x, T).sample) / alpha
    assert (alpha * (denoiser(x, T) - wanted)).abs().max() < 1e-5
    assert (denoiser.channels, denoiser.size, denoiser.multiple_of, denoiser.factor) == (3, 16, 2, 1)
    assert not denoiser.conditional
    torch.testing.assert_close(float(denoiser.schedule.ratio[-1]), SIGMA_AT_THE_END, rtol=1e-4, atol=0)
    spec = denoiser.spec
    assert spec is not None
    assert load(spec, device="cpu").spec == spec


@pytest.mark.parametrize("prediction", get_args(Prediction))
@pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
def test_x0_hat_is_what_the_schedulers_of_diffusers_compute(tmp_path: Path, prediction: str, kind: str, betas: str) -> None:
    import diffusers

    entries = {"_class_name": kind, "prediction_type": prediction, "beta_schedule": betas, "clip_sample": False}
    denoiser = opened(tiny_pixel(tmp_path / "model", scheduler=entries))
    scheduler = getattr(diffusers, kind)(**{key: value for key, value in entries.items() if key != "_class_name"})
    scheduler.set_timesteps(1000)
    x0, noise = torch.randn(2, len(T), 3, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    x_t = scheduler.add_noise(x0, noise, T)
    torch.testing.assert_close(denoiser.schedule.add_noise(x0, noise, T), x_t, atol=1e-5, rtol=0)
    ours, output = denoiser(x_t, T), denoiser.output(x_t, T)
    for index, t in enumerate(T.tolist()):
        theirs = scheduler.step(output[index : index + 1], t, x_t[index : index + 1]).pred_original_sample[0]
        # Without a clamp a random network's x0_hat reaches 400, and 20,000 at the end of the cosine; their tables are float32 products.
        torch.testing.assert_close(ours[index], theirs, atol=1e-5, rtol=2e-5)


def test_a_learned_variance_is_dropped(tmp_path: Path) -> None:
    denoiser, x = opened(tiny_pixel(tmp_path / "model", out_channels=6)), noisy()
    torch.testing.assert_close(denoiser.output(x, T), tiny_unet(out_channels=6).eval()(x, T).sample[:, :3], atol=1e-5, rtol=1e-5)


def test_a_batch_cut_any_way_gives_the_same(tmp_path: Path) -> None:
    denoiser, x = opened(tiny_pixel(tmp_path / "model", scheduler={"prediction_type": "v_prediction"})), noisy()
    whole = denoiser(x, T)
    for sizes in ([2, 3], [1] * 5):
        cut = torch.cat([denoiser(a, b) for a, b in zip(x.split(sizes), T.split(sizes), strict=True)])
        torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "sizes"), [("float32", [2, 2, 1]), ("bfloat16", [3, 2])])
def test_a_processor_is_asked_in_small_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, sizes: list[int]) -> None:
    denoiser, x = opened(tiny_pixel(tmp_path / "model"), dtype), noisy()
    asked: list[int] = []
    denoiser.network.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    with torch.no_grad():
        whole = denoiser.output(x, T)
        monkeypatch.setattr(pixel, "PROCESSOR_BYTES", 2 * 4 * 16 * 16)
        cut = denoiser.output(x, T)
    assert asked == [5, *sizes]
    assert (cut - whole).abs().max() < (1e-5 if dtype == "float32" else 0.05)


def test_gradients_reach_the_input_through_the_frozen_network(tmp_path: Path) -> None:
    denoiser, x = opened(tiny_pixel(tmp_path / "model")), noisy().requires_grad_()
    assert not any(value.requires_grad for value in denoiser.parameters())
    (gradient,) = torch.autograd.grad(denoiser(x, T).square().sum(), x)
    assert bool(gradient.isfinite().all())
    assert bool((gradient.flatten(1).abs().amax(1) > 0).all())


def test_a_half_precision_trunk_stays_near(tmp_path: Path) -> None:
    folder = tiny_pixel(tmp_path / "model")
    exact, half, x = opened(folder), opened(folder, "bfloat16"), noisy()
    blocks = half.network.up_blocks[1].resnets
    ends = [half.network.conv_in, half.network.conv_out, blocks[0].conv_shortcut, blocks[1].conv_shortcut, blocks[1].conv1, blocks[1].conv2]
    assert all(conv.weight.dtype == torch.float32 for conv in ends)
    assert all(conv.weight.dtype == torch.bfloat16 for conv in (blocks[0].conv1, half.network.down_blocks[0].resnets[0].conv1))
    assert half(x, T).dtype == torch.float32
    assert (half.output(x, T) - exact.output(x, T)).abs().max() < 0.05
    assert half.state_dict().keys() == exact.state_dict().keys()


@pytest.mark.parametrize(
    ("down", "up"),
    [("DownBlock2D", "UpBlock2D"), ("AttnDownBlock2D", "AttnUpBlock2D"), ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")],
)
def test_every_kind_of_block_runs_in_half_precision(down: str, up: str) -> None:
    """Whatever the blocks are called, the last level has the same ends."""
    unet = tiny_unet(down_block_types=(down, down), up_block_types=(up, up), layers_per_block=2)
    assert bool(UNet2DDenoiser(unet, {}, dtype=torch.bfloat16)(noisy(), T).isfinite().all())


def test_half_precision_files_are_read(tmp_path: Path) -> None:
    folder, x = tiny_pixel(tmp_path / "model"), noisy()
    before = opened(folder).output(x, T)
    tiny_unet().half().save_pretrained(folder / "unet", safe_serialization=True)
    assert load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"].dtype == torch.float16
    torch.testing.assert_close(opened(folder).output(x, T), before, atol=0.01, rtol=0.01)


def test_a_class_conditional_network_is_told_its_classes(tmp_path: Path) -> None:
    denoiser, x = opened(tiny_pixel(tmp_path / "model", num_class_embeds=4)), noisy()
    assert denoiser.conditional
    labels = torch.tensor([0, 1, 2, 3, 0])
    wanted = tiny_unet(num_class_embeds=4).eval()(x, T, class_labels=labels).sample
    torch.testing.assert_close(denoiser.output(x, T, Condition(labels=labels)), wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"labels=.* below 4"):
        denoiser(x, T)


def test_another_schedule_is_another_model(tmp_path: Path) -> None:
    first = opened(tiny_pixel(tmp_path / "first", layout="bare with scheduler")).spec
    other = opened(tiny_pixel(tmp_path / "other", layout="bare with scheduler", scheduler={"beta_end": 0.03})).spec
    assert first is not None
    assert other is not None
    assert first.weights_hash != other.weights_hash


def test_only_needed_files_are_fetched(tmp_path: Path) -> None:
    split, flat = tiny_pixel(tmp_path / "split"), tiny_pixel(tmp_path / "flat", layout="flat")
    for folder, top in ((split, "unet/"), (flat, "")):
        (folder / top / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
        (folder / "samples.json").write_text("[]")
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        scheduler = "scheduler/scheduler_config.json" if top else "scheduler_config.json"
        needed = {"model_index.json", f"{top}config.json", f"{top}diffusion_pytorch_model.safetensors", scheduler}
        assert set(needed_files(names)) == needed
    with pytest.raises(ModelError, match=r"only pickled weights \(diffusion_pytorch_model\.bin\)"):
        needed_files(["model_index.json", "config.json", "diffusion_pytorch_model.bin"])


def edit(file: Path, **entries: Any) -> None:
    write_json(file, {**json.loads(file.read_text(encoding="utf-8")), **entries})


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, "ScoreSdeVeScheduler is not supported"),
        ({"_class_name": "CMStochasticIterativeScheduler"}, "CMStochasticIterativeScheduler is not supported"),
        ({"prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
    ],
)
def test_schedulers_that_call_the_network_otherwise_are_refused(tmp_path: Path, entries: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        load(tiny_pixel(tmp_path / "model", scheduler=entries))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"time_embedding_type": "fourier"}, "fourier"),
        ({"class_embed_type": "timestep"}, "'timestep'"),
        ({"out_channels": 4}, "reads 3 channels and puts out 4"),
        ({"time_embedding_type": "learned", "num_train_timesteps": 10}, "knows 10 steps"),
    ],
)
def test_networks_of_another_kind_are_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        load(tiny_pixel(tmp_path / "model", **changes))


def test_folders_that_lack_something_are_refused(tmp_path: Path) -> None:
    folder = tiny_pixel(tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    (folder / "unet" / "model.py").write_text("raise SystemExit('run')")
    with pytest.raises(ModelError, match=r"code of its own \(unet/model\.py\)"):
        load(folder)
    (folder / "unet" / "model.py").unlink()
    edit(folder / "model_index.json", unet=["my_unet", "UNet2DModel"])
    with pytest.raises(ModelError, match="my_unet"):
        load(folder)
    edit(folder / "model_index.json", unet=["diffusers", "UNet2DModel"])
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelError, match="only pickled weights"):
        load(folder)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ModelError, match="lacks its scheduler"):
        load(folder)
    edit(folder / "unet" / "config.json", _class_name="UNet2DConditionModel")
    write_json(folder / "scheduler" / "scheduler_config.json", {})
    with pytest.raises(ModelError, match="holds a UNet2DConditionModel"):
        load(folder)
    (folder / "unet" / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="got a list"):
        load(folder)


def test_a_network_whose_weights_do_not_fit_is_refused(tmp_path: Path) -> None:
    folder = tiny_pixel(tmp_path / "model", layout="bare")
    edit(folder / "config.json", layers_per_block=2)
    with pytest.raises(ModelError, match=r"cannot be read as UNet2DModel|weights of UNet2DModel"):
        load(folder)


def test_words_and_odd_sides(tmp_path: Path) -> None:
    folder = tiny_pixel(tmp_path / "model")
    with pytest.raises(ConfigError, match="reads no words"):
        load(folder, device="cpu", tokenizer=tmp_path / "words")
    denoiser = opened(folder)
    with pytest.raises(ConfigError, match="takes no prompts"):
        denoiser.embed(["a cat"])
    with pytest.raises(DataError, match="resize to 18x16"):
        denoiser(torch.zeros(1, 3, 17, 15), torch.tensor([0]))
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(denoiser.decode(denoiser.encode(images)), images)
