"""Pictures as latents: the trained autoencoder, the basis that its latents are put into, and a cache of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.errors import ModelError
from rediffuse.recipes.bundled import autoencoder
from rediffuse.recipes.bundled.common import Ema, Pictures, load_checkpoint, numbers, signed
from rediffuse.writing import whole


def trained_autoencoder(folder: Path, device: torch.device | str = "cpu") -> Any:
    """The autoencoder of a run of its trainer, or of an exported pipeline folder."""
    vae: Any = autoencoder.build().to(device)
    if (folder / "vae").is_dir():
        from safetensors.torch import load_file

        vae.load_state_dict(load_file(folder / "vae" / "diffusion_pytorch_model.safetensors"))  # not from_pretrained: it notes the path
        return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    state = load_checkpoint(folder / "checkpoint.pt")
    if state is None:
        raise ModelError(f"no checkpoint.pt in {folder}; train the autoencoder first")
    ema = Ema(vae, 0.0)
    ema.load_state_dict(state["ema"])
    ema.copy_to(vae)
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@dataclass(frozen=True, kw_only=True)
class Latents:
    """plain, mirrored: (N, 6, 32, 32) fp16, in the basis; a digit's mirror is itself."""

    plain: Tensor
    mirrored: Tensor

    def to(self, device: torch.device) -> Latents:
        return Latents(plain=self.plain.to(device), mirrored=self.mirrored.to(device))

    def batch(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 6, 32, 32) float32, each flipped or not, where the latents are."""
        flip, rows = ((torch.rand(len(rows), generator=generator) < 0.5).to(self.plain.device), rows.to(self.plain.device))
        return torch.where(flip.view(-1, 1, 1, 1), self.mirrored[rows], self.plain[rows]).float()


@dataclass(frozen=True, kw_only=True)
class Basis:
    """A linear change of the latents: z = matrix (mean - shift). Export folds it into the 1x1 convolutions of the autoencoder.

    The learned channels are strongly correlated (one direction holds 85 % of the variance, the last .01 %). Noise of one size would
    drown the small directions at once, so the principal directions get the square root of their deviation: still coarse before
    fine, as in pixels, but over a range of 10 in place of 100.
    """

    shift: Tensor  # (6,)
    matrix: Tensor  # (6, 6)

    def forward(self, mean: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", self.matrix, mean - self.shift.view(1, -1, 1, 1))

    def inverse(self, z: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(self.matrix), z) + self.shift.view(1, -1, 1, 1)


def basis_of(folder: Path, vae: Any, images: Tensor) -> Basis:
    """The basis to train in: an exported autoencoder carries its own inside."""
    if (folder / "vae").is_dir():
        return Basis(shift=torch.zeros(6), matrix=torch.eye(6))
    return latent_basis(vae, images)


@torch.no_grad()
def latent_basis(vae: Any, images: Tensor) -> Basis:
    """Principal directions of the latents of these pictures, each scaled to the root of its deviation, unit mean square in all."""
    identity = Basis(shift=torch.zeros(6), matrix=torch.eye(6))
    flat = encode(vae, images, identity).double().permute(1, 0, 2, 3).flatten(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    matrix = vectors.T * values.pow(-0.25).unsqueeze(1)
    matrix = matrix / values.sqrt().mean().sqrt()
    return Basis(shift=flat.mean(1).float(), matrix=matrix.float())


@torch.no_grad()
def encode(model: Any, images: Tensor, basis: Basis) -> Tensor:
    """(N, 3, 64, 64) uint8 -> (N, 6, 32, 32) fp16 posterior means in the basis, on the CPU."""
    out = []
    for chunk in images.split(128):
        with numbers(model.device):
            mean = model.encode(signed(chunk.to(model.device)).to(memory_format=torch.channels_last)).latent_dist.mean
        out.append(basis.forward(mean.float().cpu()).half().contiguous())
    return torch.cat(out)


def cache_latents(model: Any, sets: list[Pictures], basis: Basis, path: Path) -> list[Latents]:
    """Encode once, both ways round; later pieces read the file. The last set (digits) keeps its one direction.

    The file names the autoencoder and the basis that it was made with; where either has changed, all is encoded again.
    """
    from safetensors.torch import load_file, save_file

    key = cache_key(model, basis)
    if path.exists() and _key_of(path) != key:
        print(f"{path.name} is of another autoencoder or basis: encoding again", flush=True)
        path.unlink()
    if not path.exists():
        parts = {}
        for index, pictures in enumerate(sets):
            parts[f"{index}.plain"] = encode(model, pictures.images, basis)
            one_way = index == len(sets) - 1
            parts[f"{index}.mirrored"] = parts[f"{index}.plain"].clone() if one_way else encode(model, pictures.images.flip(-1), basis)
            print(f"set {index}: {len(pictures)} pictures encoded", flush=True)
        with whole(path) as partial:
            save_file(parts, partial, metadata={"key": key})
    parts = load_file(path)
    return [Latents(plain=parts[f"{index}.plain"], mirrored=parts[f"{index}.mirrored"]) for index in range(len(sets))]


def cache_key(model: Any, basis: Basis) -> str:
    """sha256 over the weights of the autoencoder and the basis."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**model.state_dict(), "basis.shift": basis.shift, "basis.matrix": basis.matrix}.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _key_of(path: Path) -> str | None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        found: str | None = (file.metadata() or {}).get("key")
    return found


@torch.no_grad()
def decode(vae: Any, latents: Tensor, basis: Basis) -> Tensor:
    """(N, 6, 32, 32) -> (N, 3, 64, 64) in [0, 1], on the CPU."""
    out = [vae.decode(basis.inverse(chunk.cpu()).to(vae.device)).sample.cpu() for chunk in latents.split(64)]
    return ((torch.cat(out) + 1) / 2).clamp(0, 1)
