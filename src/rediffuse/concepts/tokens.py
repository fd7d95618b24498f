"""Token files of other programs: what diffusers, the DA-Fusion scripts and AUTOMATIC1111's web page save."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.concepts.placeholders import distinct_placeholders, normalise, placeholder, token_key
from rediffuse.errors import ModelError

CHECKPOINT, WORDS = "learning.safetensors", "concepts.safetensors"
"""In a folder of words: how far learning has come, which holds no words, and what is written last."""
BEGUN = "learning.*"
"""What a learning goes on from: its state, and that of a choice of start words beside it."""
SUFFIXES = (".safetensors", ".pt", ".bin")
# What damaged or foreign files make torch.load raise.
_BROKEN = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)


def read_tokens(path: str | Path) -> dict[str, Tensor]:
    """Read learned vectors by placeholder.

    Understood: flat dictionaries {placeholder: vector or vectors} (`learned_embeds` of diffusers, DA-Fusion's merged files),
    `string_to_param` and `emb_params` of AUTOMATIC1111, a tensor alone (named by its file). A folder is searched in depth; where a
    training left `learned_embeds-steps-500.bin` beside `learned_embeds.bin`, the last counts. Placeholders come out in one way of writing:
    `<potted_plant>` for `<potted plant>` and `potted_plant`; of a token in both ways the one with underscores counts, as in the published
    code.

    Args:
        path: a .safetensors, .pt or .bin file, or a folder of them. Pickles are read with `weights_only`: no code of theirs runs.
    Returns:
        (k, D) float32 by placeholder; one vector is (1, D).
    Raises:
        ModelError: missing, empty or unreadable; vectors that are none; one placeholder with two different words.
    """
    path = Path(path)
    found: dict[str, list[tuple[str, Tensor, Path]]] = {}
    for file in _token_files(path):
        for written, vectors in _read_file(file).items():
            found.setdefault(normalise(written), []).append((written, _as_vectors(written, vectors, file), file))
    if not found:
        raise ModelError(f"{path} holds no learned words; without them a placeholder would be read as plain text")
    return {token: _the_one(token, entries) for token, entries in found.items()}


def match_tokens(tokens: Mapping[str, Tensor], classes: Sequence[str]) -> dict[str, str]:
    """The token of each class: the one that its name gives, else the only one that differs from it in case alone.

    Raises:
        ModelError: classes without a token, or two with the same.
    """
    chosen: dict[str, str] = {}
    for name, own in distinct_placeholders(classes).items():
        alike = [token for token in tokens if token_key(token) == token_key(placeholder(name))]
        for candidates in ([own], [placeholder(name)], alike if len(alike) == 1 else []):
            if candidates and candidates[0] in tokens:
                chosen[name] = candidates[0]
                break
    missing = [name for name in classes if name not in chosen]
    if missing:
        raise ModelError(
            f"no token for {len(missing)} of {len(classes)} classes: {', '.join(map(repr, missing[:5]))}; "
            f"there are {', '.join(list(tokens)[:5])}; learn their words, or rename the tokens"
        )
    for name, token in chosen.items():
        twin = next((other for other, theirs in chosen.items() if other != name and theirs == token), None)
        if twin is not None:
            raise ModelError(f"classes {name!r} and {twin!r} would share the token {token}; rename a class, or learn their words")
    return chosen


def token_file_name(token: str) -> str:
    """A file name that every system takes, for a placeholder."""
    letters = re.sub(r"[^a-z0-9]+", "-", token.lower()).strip("-")[:40]
    return f"{letters or 'word'}-{hashlib.sha256(token.encode()).hexdigest()[:6]}.safetensors"


def _token_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ModelError(f"there is no file or folder {path} to read learned words from")
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file() and file.name != CHECKPOINT)
    finals = {file.with_name(file.stem) for file in files}
    return [file for file in files if not (step := re.fullmatch(r"(.+)-steps-\d+", file.stem)) or file.with_name(step[1]) not in finals]


def _read_file(file: Path) -> dict[str, Any]:
    state = _load(file)
    if isinstance(state, Tensor):
        return {file.stem: state}
    if not isinstance(state, Mapping):
        raise ModelError(f"{file} holds a {type(state).__name__}, not words; a token file is a dictionary of placeholder and vectors")
    if "string_to_param" in state:
        return {str(state.get("name") or file.stem): next(iter(dict(state["string_to_param"]).values()), None)}
    if set(state) == {"emb_params"}:
        return {file.stem: state["emb_params"]}
    if "clip_l" in state or "clip_g" in state:
        raise ModelError(f"{file} holds a word for Stable Diffusion XL (clip_l, clip_g), which is not read yet; use one for 1.x or 2.x")
    return {str(name): value for name, value in state.items()}


def _load(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} cannot be read as safetensors: {error}") from error
    if file.suffix not in SUFFIXES:
        raise ModelError(f"{file} is no token file; those end in {', '.join(SUFFIXES)}")
    try:
        # The oldest files hold torch's own container of parameters: it runs nothing.
        with torch.serialization.safe_globals([nn.ParameterDict]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{file} is damaged, or holds more than tensors and is not loaded: {reason} Save it as .safetensors") from error


def _as_vectors(token: str, value: Any, file: Path) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim not in (1, 2) or 0 in value.shape or not value.dtype.is_floating_point:
        what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ModelError(f"{token!r} in {file} is no word: it must be a vector (D,) or vectors (k, D) of floats, got {what}")
    vectors = value.detach().float()
    if not bool(vectors.isfinite().all()):
        raise ModelError(f"{token!r} in {file} holds values that are not finite")
    return vectors.reshape(-1, vectors.shape[-1]).contiguous()


def _the_one(token: str, entries: list[tuple[str, Tensor, Path]]) -> Tensor:
    for candidates in ([entry for entry in entries if entry[0] == token], entries):
        if candidates and all(torch.equal(vectors, candidates[0][1]) for _, vectors, _ in candidates):
            return candidates[0][1]
    files = " and ".join(sorted({str(file) for _, _, file in entries}))
    raise ModelError(f"{token} stands for different words in {files}; keep the one that is meant")
