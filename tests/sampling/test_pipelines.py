"""The whole of it against diffusers' own pipelines on a tiny random Stable Diffusion: same latents, same noise, guidance on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_stable

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.sampling.guided import ClassifierFree
from rediffuse.sampling.sampler import noise_generator, run_jobs
from rediffuse.sampling.solvers import from_noise, trajectory
from rediffuse.sampling.table import SamplingJob

PROMPTS = ("a photo of a cat", "the red bird", "a photo of a cat", "two dog", "a thing")
PUBLISHED: dict[str, Any] = {"spacing": "leading", "steps_offset": 1, "end": "first"}  # as scheduler_config.json of the folder says
GUIDANCE = 7.5
EXACT = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable(tmp_path_factory.mktemp("tiny") / "stable")


@pytest.fixture(scope="module")
def model(folder: Path) -> Denoiser:
    return load(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def latents(model: Denoiser) -> torch.Tensor:
    images = torch.rand(len(PROMPTS), 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.encode(images)


def pipeline(folder: Path, kind: str) -> Any:
    import diffusers

    made = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)
    made.set_progress_bar_config(disable=True)
    return made


def test_image_to_image(folder: Path, model: Denoiser, latents: torch.Tensor) -> None:
    """Five images at five strengths in one packed run; the pipeline makes them one at a time."""
    theirs = pipeline(folder, "StableDiffusionImg2ImgPipeline")
    strengths = (1.0, 0.75, 0.5, 0.25, 0.6)
    jobs, expected = [], []
    for seed, (prompt, strength) in enumerate(zip(PROMPTS, strengths, strict=True)):
        table = trajectory(model.schedule, "ddim", 20, strength, **PUBLISHED)
        jobs.append(SamplingJob(source=latents[seed], table=table, condition=model.embed([prompt]), seed=seed))
        call = {"num_inference_steps": 20, "strength": strength, "guidance_scale": GUIDANCE, "generator": noise_generator(seed)}
        expected.append(theirs(prompt, image=latents[seed : seed + 1], output_type="latent", **call).images[0])
    made = run_jobs(ClassifierFree(model, GUIDANCE), jobs, batch=4)
    torch.testing.assert_close(made, torch.stack(expected), **EXACT)
    with torch.no_grad():
        pictures = model.decode(made)
        theirs_decoded = theirs.vae.decode(torch.stack(expected) / theirs.vae.config.scaling_factor).sample
    torch.testing.assert_close(pictures, (theirs_decoded / 2 + 0.5).clamp(0, 1), **EXACT)


def test_image_to_image_as_da_fusion_ran_it(folder: Path, model: Denoiser, latents: torch.Tensor) -> None:
    """PNDM, 50 steps, one strength: 26 calls with the quirk of a cut list."""
    from diffusers import PNDMScheduler

    theirs = pipeline(folder, "StableDiffusionImg2ImgPipeline")
    theirs.scheduler = PNDMScheduler.from_config(theirs.scheduler.config, skip_prk_steps=True)
    table = trajectory(model.schedule, "pndm", 50, 0.5)
    condition = model.embed(PROMPTS[:1])
    made = run_jobs(ClassifierFree(model, GUIDANCE), [SamplingJob(source=latents[0], table=table, condition=condition, seed=3)], batch=1)
    call = {"num_inference_steps": 50, "strength": 0.5, "guidance_scale": GUIDANCE, "generator": noise_generator(3)}
    expected = theirs(PROMPTS[0], image=latents[:1], output_type="latent", **call).images
    torch.testing.assert_close(made, expected, **EXACT)


def test_text_to_image(folder: Path, model: Denoiser, latents: torch.Tensor) -> None:
    theirs = pipeline(folder, "StableDiffusionPipeline")
    table = from_noise(model.schedule, "ddim", 20, **PUBLISHED)
    jobs = [SamplingJob(source=latents[n], table=table, condition=model.embed([prompt]), seed=n) for n, prompt in enumerate(PROMPTS)]
    made = run_jobs(ClassifierFree(model, GUIDANCE), jobs, batch=5)
    generators = [noise_generator(n) for n in range(len(PROMPTS))]
    call = {"num_inference_steps": 20, "guidance_scale": GUIDANCE, "generator": generators, "height": 16, "width": 16}
    expected = theirs(list(PROMPTS), output_type="latent", **call).images
    torch.testing.assert_close(made, expected, **EXACT)


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_batches_of_1_7_and_32(model: Denoiser, latents: torch.Tensor, batch: int) -> None:
    """Through a real network and guidance, where kernels depend on the batch: far within 1e-3."""
    conditions = {prompt: model.embed([prompt]) for prompt in PROMPTS}
    tables = [trajectory(model.schedule, "dpm++2m", 8, strength) for strength in (0.25, 0.5, 0.75, 1.0)]
    jobs = [SamplingJob(source=latents[n % 5], table=tables[n % 4], condition=conditions[PROMPTS[n % 5]], seed=n) for n in range(20)]
    guided = ClassifierFree(model, 3.0)
    alone = torch.cat([run_jobs(guided, [each], batch=1) for each in jobs[:4]])
    torch.testing.assert_close(run_jobs(guided, jobs, batch=batch)[:4], alone, atol=1e-4, rtol=0)
