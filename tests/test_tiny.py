"""The tiny folders are what they say: small, equal when asked for twice, and read by the library that defines the format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import VOCABULARY, Layout, tiny_stable, tiny_tokenizer


def test_a_folder_is_a_function_of_its_arguments(tmp_path: Path) -> None:
    first, second, other = (tiny_stable(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    files = sorted(file.relative_to(first) for file in first.rglob("*") if file.is_file())
    assert sum((first / file).stat().st_size for file in files) < 2_000_000
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (first / weights).read_bytes() != (other / weights).read_bytes()


def test_each_word_is_one_token() -> None:
    tokenizer = tiny_tokenizer()
    assert all(len(tokenizer.tokenize(word)) == 1 for word in VOCABULARY)
    assert len(tokenizer.tokenize("zebra")) == 5


@pytest.mark.parametrize(("layout", "variant"), [("diffusers", None), ("fp16", "fp16")])
def test_diffusers_runs_it(tmp_path: Path, layout: Layout, variant: str | None) -> None:
    from diffusers import StableDiffusionPipeline

    folder = tiny_stable(tmp_path / layout, layout=layout)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, variant=variant)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a photo of a cat", num_inference_steps=2, output_type="pt", generator=torch.Generator().manual_seed(0)).images
    assert image.shape == (1, 3, 16, 16)
    assert image.std() > 0
