"""PNDM under each entry of a scheduler_config.json that concerns it, against diffusers' own pipelines of the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_stable

from rediffuse.denoisers.load import load
from rediffuse.methods.editing import EditDraw, EditingMethod
from rediffuse.methods.from_noise import FromNoise
from rediffuse.methods.real_guidance import RealGuidance
from rediffuse.sampling.sampler import noise_generator, run_jobs

STEPS, STRENGTH, SEED = 20, 0.5, 3
ENTRIES: dict[str, dict[str, Any]] = {
    "as released": {"steps_offset": 1, "set_alpha_to_one": False},
    "another offset": {"steps_offset": 0, "set_alpha_to_one": False},
    "a large offset": {"steps_offset": 7, "set_alpha_to_one": False},
    "to the clean image": {"steps_offset": 1, "set_alpha_to_one": True},
    "silent": {"steps_offset": None, "set_alpha_to_one": None},
}


def pndm_folder(path: Path, entries: dict[str, Any]) -> Path:
    """A tiny Stable Diffusion with a PNDMScheduler; an entry of None is left out."""
    folder = tiny_stable(path)
    for file, changes in (
        (folder / "scheduler" / "scheduler_config.json", {"_class_name": "PNDMScheduler", "skip_prk_steps": True, **entries}),
        (folder / "model_index.json", {"scheduler": ["diffusers", "PNDMScheduler"]}),
    ):
        told = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))
    return folder


def pipeline(folder: Path, kind: str) -> Any:
    import diffusers

    made = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)
    made.set_progress_bar_config(disable=True)
    return made


def sampled(method: EditingMethod, latents: torch.Tensor) -> torch.Tensor:
    draw = EditDraw(strength=torch.tensor([method.strengths[0]]), seed=torch.tensor([SEED]), label=torch.tensor([0]))
    return run_jobs(method.guided(), method.jobs(latents, draw), batch=1)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers' own, of an offset that is not 1
@pytest.mark.parametrize("name", ENTRIES)
def test_copies_are_those_of_the_published_pipeline(tmp_path: Path, name: str) -> None:
    folder = pndm_folder(tmp_path / "model", ENTRIES[name])
    model = load(folder, device="cpu", dtype="float32")
    method = RealGuidance(model, ("cat",), STRENGTH, solver="pndm", steps=STEPS)
    latents = torch.randn(1, 4, 8, 8, generator=noise_generator(0))
    theirs = pipeline(folder, "StableDiffusionImg2ImgPipeline")
    call = {"num_inference_steps": STEPS, "strength": STRENGTH, "guidance_scale": method.guidance_scale}
    expected = theirs("a photo of a cat", image=latents, output_type="latent", generator=noise_generator(SEED), **call).images
    torch.testing.assert_close(sampled(method, latents), expected, atol=1e-4, rtol=1e-4)
    start, times = STEPS - int(STEPS * STRENGTH), theirs.scheduler.timesteps
    assert method.tables(method.draw(1, noise_generator(0)))[0].t.tolist() == times[start:].tolist()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ENTRIES)
def test_pictures_from_noise_are_those_of_the_published_pipeline(tmp_path: Path, name: str) -> None:
    folder = pndm_folder(tmp_path / "model", ENTRIES[name])
    method = FromNoise(load(folder, device="cpu", dtype="float32"), ("cat",), solver="pndm", steps=STEPS)
    theirs = pipeline(folder, "StableDiffusionPipeline")
    call = {"num_inference_steps": STEPS, "guidance_scale": method.guidance_scale, "height": 16, "width": 16}
    expected = theirs("a photo of a cat", output_type="latent", generator=noise_generator(SEED), **call).images
    torch.testing.assert_close(sampled(method, torch.zeros(1, 4, 8, 8)), expected, atol=1e-4, rtol=1e-4)


def test_the_last_step_is_the_models_own_for_pndm_alone(tmp_path: Path, mixture) -> None:
    model = load(pndm_folder(tmp_path / "model", ENTRIES["to the clean image"]), device="cpu")
    assert RealGuidance(model, ("cat",), solver="pndm").end == "clean"
    assert RealGuidance(model, ("cat",), solver="ddim").end is None
    assert RealGuidance(mixture, ("cat",), solver="pndm").end is None


@pytest.mark.parametrize("name", ["as released", "to the clean image"])
def test_another_end_is_another_plan(tmp_path: Path, name: str) -> None:
    """Runs of before stopped at level 0: what they say of themselves stays as it was, and what ends elsewhere says so."""
    model = load(pndm_folder(tmp_path / "model", ENTRIES[name]), device="cpu", dtype="float32")
    made = RealGuidance(model, ("cat",), solver="pndm"), FromNoise(model, ("cat",), solver="pndm")
    for method in made:
        assert ("end" in method.settings()) == (name != "as released")
        assert type(method).from_settings(model, method.settings()).settings() == method.settings()
    assert "end" not in RealGuidance(model, ("cat",)).settings()
