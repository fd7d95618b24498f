"""Write trained checkpoints as the folders that the package ships: standard layouts, fp16 safetensors, EMA weights only.

    python -m rediffuse.recipes.bundled.export tiny-imagenet-64 --autoencoder RUNS/autoencoder --unet RUNS/unet --data DATA --out FOLDER
    python -m rediffuse.recipes.bundled.export resnet-64 --features RUNS/resnet-64 --data DATA --known KNOWN --out FOLDER
    python -m rediffuse.recipes.bundled.export cifar10-32 --unet RUNS/cifar10-32 --out FOLDER

The first is a complete Stable Diffusion pipeline folder; the change of basis of the latents is folded into the 1x1 convolutions on both
sides, so that any reader of such folders sees ordinary latents of unit mean square. A folder over 16 MiB is refused.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from rediffuse.errors import ModelError
from rediffuse.recipes.bundled import cifar10, features
from rediffuse.recipes.bundled.captions import Captions
from rediffuse.recipes.bundled.common import Ema, load_checkpoint, read_pictures, signed, tell
from rediffuse.recipes.bundled.latents import Basis, trained_autoencoder
from rediffuse.recipes.bundled.networks import Pair, betas
from rediffuse.recipes.bundled.vocabulary import tokenizer_of_run

LIMIT = 16 * 2**20


@torch.no_grad()
def fold_basis(vae: Any, basis: Basis, images: torch.Tensor) -> None:
    """Change the autoencoder in place so that its own latents are those of the basis.

    mean' = A (mean - m) goes into the last convolution of the encoder side, z = A^-1 z' + m into the first of the decoder side. The
    posterior's deviation (about .01 before) becomes one constant a channel: a rotation of a diagonal covariance is not diagonal.
    """
    posterior = torch.cat([vae.encode(signed(chunk)).latent_dist.var for chunk in images.split(50)])
    variance = basis.matrix.square() @ posterior.mean((0, 2, 3))
    channels = len(basis.shift)
    before, after = vae.quant_conv, vae.post_quant_conv
    weight, bias = before.weight[:channels, :, 0, 0].clone(), before.bias[:channels].clone()
    before.weight.zero_()
    before.weight[:channels, :, 0, 0] = basis.matrix @ weight
    before.bias[:channels] = basis.matrix @ (bias - basis.shift)
    before.bias[channels:] = variance.log()
    kernel = after.weight[:, :, 0, 0].clone()
    after.weight[:, :, 0, 0] = kernel @ torch.linalg.inv(basis.matrix)
    after.bias += kernel @ basis.shift


def export_pipeline(coder: Path, unet: Path, data: Path, out: Path) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    state = load_checkpoint(unet / "checkpoint.pt")
    if state is None:
        raise ModelError(f"no checkpoint.pt in {unet}; train text_to_image first")
    train, held = read_pictures(data, "train"), read_pictures(data, "validation")
    captions = Captions(tokenizer_of_run(unet, train.terms), train.terms, train.names, train.labels, 1)
    pair = Pair(captions.tokenizer)
    ema = Ema(pair, 0.0)
    ema.load_state_dict(state["ema"])
    ema.copy_to(pair)
    vae = trained_autoencoder(coder)
    fold_basis(vae, Basis(shift=state["shift"], matrix=state["matrix"]), held.images[:500])
    vae.register_to_config(scaling_factor=1.0)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        trained_betas=[round(value, 10) for value in betas().tolist()],
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=pair.text.half().eval(),
        tokenizer=captions.tokenizer,
        unet=pair.unet.half().eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    words = [word for group in captions.words for word in group]
    (out / "known_words.json").write_text(json.dumps(words, indent=0) + "\n")
    check_size(out)


def export_features(folder: Path, which: str, data: Path, known: Path, out: Path) -> None:
    from transformers import ViTImageProcessorPil

    state = load_checkpoint(folder / "checkpoint.pt")
    if state is None:
        raise ModelError(f"no checkpoint.pt in {folder}; train features first")
    names = features.class_names(read_pictures(data, "validation"), which, read_pictures(known, "test").names)
    model: Any = features.build(which, names)
    ema = Ema(model, 0.0)
    ema.load_state_dict(state["ema"])
    ema.copy_to(model)
    model.half().save_pretrained(out)
    side = {"height": features.INPUT_SIZE, "width": features.INPUT_SIZE}
    ViTImageProcessorPil(size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2).save_pretrained(out)
    check_size(out)


def export_pixel(folder: Path, out: Path) -> None:
    """A DDPM pipeline folder of a run of `cifar10`."""
    from diffusers import DDPMPipeline, DDPMScheduler

    state = load_checkpoint(folder / "checkpoint.pt")
    if state is None:
        raise ModelError(f"no checkpoint.pt in {folder}; train cifar10 first")
    network = cifar10.build_unet()
    ema = Ema(network, 0.0)
    ema.load_state_dict(state["ema"])
    ema.copy_to(network)
    scheduler = DDPMScheduler(**cifar10.SCHEDULER)
    DDPMPipeline(unet=network.half().eval(), scheduler=scheduler).save_pretrained(out, safe_serialization=True)
    check_size(out)


def check_size(out: Path) -> None:
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {size / 2**20:.2f} MiB")
    if size > LIMIT:
        raise SystemExit(f"{out} is {size} bytes; a bundled model may hold {LIMIT}: make it thinner")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["tiny-imagenet-64", "resnet-64", "forty", "recogniser", "cifar10-32"])
    parser.add_argument("--autoencoder", type=Path)
    parser.add_argument("--unet", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--data", type=Path, help="folder tiny-imagenet-base, for all but cifar10-32")
    parser.add_argument("--known", type=Path, help="folder tiny-imagenet-known")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.model == "cifar10-32":
        export_pixel(given.unet, given.out)
        return
    if given.data is None:
        parser.error(f"{given.model} needs --data")
    if given.model == "tiny-imagenet-64":
        export_pipeline(given.autoencoder, given.unet, given.data, given.out)
    else:
        export_features(given.features, given.model, given.data, given.known, given.out)


if __name__ == "__main__":
    tell(main)
