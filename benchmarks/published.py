"""The published generation loop of DA-Fusion, written from its description: what `generate.py` compares with.

One image a call of diffusers' image-to-image pipeline; 50 steps of PNDM with guidance 7.5; prompt, empty prompt and photo are encoded for
every image; each result is resized back and written as PNG. The safety checker and the pipeline's progress bar are off, in its favour.

Reference: Trabucco et al., ICLR 2024, arXiv 2302.07944, appendix; the call counts per strength are 51, 38, 26 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import PNDMScheduler, StableDiffusionImg2ImgPipeline
from diffusers.utils import logging
from PIL import Image
from torch import Tensor

from rediffuse.data.geometry import Fit
from rediffuse.denoisers.base import clean_from_output, noise_from_clean
from rediffuse.methods.editing import EditingMethod
from rediffuse.quiet import quiet
from rediffuse.sampling.sampler import noise_generator, run_jobs

STEPS = 50
GUIDANCE = 7.5


def open_loop(folder: Path, device: torch.device) -> Any:
    """The pipeline of a Stable Diffusion folder in float32, with the published scheduler on this folder's own noise levels."""
    logging.disable_progress_bar()
    try:
        with quiet():
            pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(
                folder, safety_checker=None, requires_safety_checker=False, local_files_only=True
            ).to(device, torch.float32)
    finally:
        logging.enable_progress_bar()
    config = {**pipeline.scheduler.config, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}
    pipeline.scheduler = PNDMScheduler.from_config(config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def edit(pipeline: Any, photo: Image.Image, prompt: str, strength: float, seed: int) -> Image.Image:
    """One image as the loop makes it, at the photo's size."""
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    square = photo.resize((side, side), Image.Resampling.BILINEAR)
    made = pipeline(
        prompt=prompt,
        image=square,
        strength=strength,
        guidance_scale=GUIDANCE,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    result: Image.Image = made.resize(photo.size, Image.Resampling.BILINEAR)
    return result


@torch.no_grad()
def largest_difference(pipeline: Any, method: EditingMethod, photo: Image.Image, prompt: str, strengths: Sequence[float]) -> float:
    """Between the loop's pixels and ours for the same encoded photo and the same noise, in [0, 1]: whether both do the same maths.

    method: with solver "pndm", 50 steps and guidance 7.5 on a float32 model of the same folder. The loop draws its encoding from the
    posterior, we take the mean; here it is given ours. PNDM is defined on noise, which the published network puts out: of a network that
    puts out v, diffusers would combine v, so here its output is turned into noise first.
    """
    model: Any = method.model
    square, _ = Fit(mode="squash", size=model.size, multiple_of=model.multiple_of).to_model(photo)
    encoded = model.encode(square[None].to(model.device))
    own, published, worst = pipeline.prepare_latents, pipeline.scheduler, 0.0
    pipeline.scheduler = PNDMScheduler.from_config({**published.config, "prediction_type": "epsilon"})

    def to_noise(_: Any, arguments: tuple[Any, ...], output: tuple[Tensor]) -> tuple[Tensor]:
        x_t, t = arguments[:2]
        alpha, sigma = model.schedule.at(t.expand(len(x_t)), x_t)
        return (noise_from_clean(x_t, clean_from_output(output[0], x_t, alpha, sigma, model.prediction), alpha, sigma),)

    hook = pipeline.unet.register_forward_hook(to_noise)
    try:
        for seed, strength in enumerate(strengths):
            noise = torch.randn(encoded.shape[1:], generator=noise_generator(seed))[None].to(encoded.device)

            def prepare(image: Tensor, timestep: Tensor, *rest: Any, noise: Tensor = noise) -> Tensor:
                noisy: Tensor = pipeline.scheduler.add_noise(encoded, noise, timestep)
                return noisy

            pipeline.prepare_latents = prepare
            theirs = pipeline(
                prompt=prompt, image=square[None], strength=strength, guidance_scale=GUIDANCE, num_inference_steps=STEPS, output_type="pt"
            ).images
            draw = method.draw(1, labels=torch.zeros(1, dtype=torch.int64))
            draw = type(draw)(strength=torch.tensor([strength]), seed=torch.tensor([seed]), label=draw.label)
            ours = model.decode(run_jobs(method.guided(), method.jobs(encoded, draw), batch=1))
            worst = max(worst, float((theirs.float() - ours).abs().max()))
    finally:
        hook.remove()
        pipeline.prepare_latents, pipeline.scheduler = own, published
    return worst
