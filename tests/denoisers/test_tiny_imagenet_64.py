"""The bundled text-to-image model: a folder that diffusers runs as it is, within its size, whose pictures come back through the latents."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.load import load
from rediffuse.denoisers.stable import StableDenoiser

FOLDER = Path(str(files("rediffuse"))) / "weights" / "tiny-imagenet-64"


@pytest.fixture(scope="module")
def pipeline() -> Any:
    from diffusers import StableDiffusionImg2ImgPipeline

    found = StableDiffusionImg2ImgPipeline.from_pretrained(FOLDER, local_files_only=True, dtype=torch.float32)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def squares() -> Tensor:
    """Pieces of scikit-learn's two photos at a third of their size, (6, 3, 64, 64) in [0, 1]."""
    from sklearn.datasets import load_sample_images

    found = []
    for photo in load_sample_images().images:
        small = torch.nn.functional.avg_pool2d(torch.tensor(photo).permute(2, 0, 1).float()[None], 3)[0] / 255
        found += [small[:, 40:104, left : left + 64] for left in (0, 64, 128)]
    return torch.stack(found)


def psnr(images: Tensor, reference: Tensor) -> float:
    return float((-10 * (images - reference).square().flatten(1).mean(1).log10()).mean())


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 16 * 2**20


def test_diffusers_brings_photos_back_through_the_latents(pipeline: Any, squares: Tensor) -> None:
    with torch.no_grad():
        latents = pipeline.vae.encode(2 * squares - 1).latent_dist.mode()
        back = ((pipeline.vae.decode(latents).sample + 1) / 2).clamp(0, 1)
    assert latents.shape == (6, 6, 32, 32)
    assert psnr(back, squares) > 32
    shuffled = back[torch.tensor([1, 2, 3, 4, 5, 0])]
    assert psnr(shuffled, squares) < 20  # photos that are not each other


def test_diffusers_and_we_encode_and_predict_alike(pipeline: Any, squares: Tensor) -> None:
    ours = load("tiny-imagenet-64", device="cpu", dtype="float32")
    assert isinstance(ours, StableDenoiser)
    scale = pipeline.vae.config.scaling_factor
    with torch.no_grad():
        theirs = pipeline.vae.encode(2 * squares - 1).latent_dist.mode() * scale
        assert torch.allclose(ours.encode(squares), theirs, atol=1e-4)
        t, prompts = torch.tensor([20, 300, 980]), ["a photo of a pizza", "a photo", ""]
        noise = torch.randn(3, 6, 32, 32, generator=torch.Generator().manual_seed(0))
        noisy = pipeline.scheduler.add_noise(theirs[:3], noise, t)
        tokens = pipeline.tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        velocity = pipeline.unet(noisy, t, encoder_hidden_states=pipeline.text_encoder(tokens)[0]).sample
        alpha = pipeline.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        wanted = alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity  # the model predicts v
        found = ours(noisy, t, ours.embed(prompts))
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert torch.allclose(found, wanted, atol=2e-4)


def test_an_edit_keeps_more_of_the_photo_the_weaker_it_is(pipeline: Any, squares: Tensor) -> None:
    kept = []
    for strength in (0.25, 0.5, 1.0):
        made = pipeline(
            prompt=["a photo of a pizza"] * len(squares), image=squares, strength=strength, num_inference_steps=8, guidance_scale=4.0,
            output_type="pt", generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip
        assert made.shape == squares.shape
        kept.append(psnr(made, squares))
    assert kept[0] > kept[1] > kept[2]
    assert kept[0] > 20


def test_its_facts_are_those_of_these_weights() -> None:
    facts, spec = json.loads((FOLDER / "rediffuse.json").read_text(encoding="utf-8")), load(FOLDER).spec
    assert spec is not None
    assert facts["weights_hash"] == spec.weights_hash
