"""What was learned: a word for each class, as vectors, and how they came to be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from rediffuse.concepts.placeholders import distinct_placeholders, token_key
from rediffuse.concepts.tokens import WORDS, match_tokens, read_tokens, token_file_name
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.writing import check_path, whole

FILE_NAME = WORDS
TOKEN_FOLDER = "tokens"
_FORMAT = "1"


@dataclass(frozen=True, eq=False, kw_only=True)
class Concepts:
    """Learned words, one a class.

    `learn` makes them, a method such as DAFusion prompts with them: `a photo of a <goldfish>`. Words are the same if their `hash` is.

    Args:
        words: (k, D) float32 vectors by true class name; k may differ from class to class, D is the model's.
        placeholders: the token of each class; left out, its name in angle brackets (blanks become underscores; names that would collide get
            a suffix).
        settings: JSON: how they were learned (recipe, seed, model and photos with their hashes, the start of each word).
    Raises:
        ModelError: no words, or vectors of other shapes, sizes or types than these.
        DataError: two classes with one token.
    """

    words: Mapping[str, Tensor]
    placeholders: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.words:
            raise ModelError("there are no learned words; a prompt with a placeholder would be read as plain text")
        words = {name: _checked(name, vectors) for name, vectors in self.words.items()}
        widths = {vectors.shape[1] for vectors in words.values()}
        if len(widths) > 1:
            raise ModelError(f"words of one model have vectors of one size, got {sorted(widths)}; were they learned on different models?")
        placeholders = dict(self.placeholders) or distinct_placeholders(words)
        if set(placeholders) != set(words):
            raise DataError(f"words and placeholders name different classes: {sorted(set(placeholders) ^ set(words))}")
        _check_tokens(placeholders)
        object.__setattr__(self, "words", MappingProxyType(words))
        object.__setattr__(self, "placeholders", MappingProxyType({name: placeholders[name] for name in words}))
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    @property
    def classes(self) -> tuple[str, ...]:
        """True class names."""
        return tuple(self.words)

    def placeholder(self, name: str) -> str:
        """The token of a class, to be put into a prompt once, however many vectors it has.

        Raises:
            ModelError: no word was learned for this class.
        """
        if name not in self.placeholders:
            raise ModelError(f"no word was learned for class {name!r}; there are words for {_listed(self.classes)}")
        return self.placeholders[name]

    def vectors(self) -> dict[str, Tensor]:
        """(k, D) vectors by placeholder: what `Denoiser.embed` takes as `words`."""
        return {self.placeholders[name]: vectors for name, vectors in self.words.items()}

    def of_classes(self, names: Sequence[str]) -> Self:
        """The words of these classes, in this order; settings stay. Raises ModelError where one is missing."""
        placeholders = {name: self.placeholder(name) for name in names}
        return type(self)(words={name: self.words[name] for name in names}, placeholders=placeholders, settings=self.settings)

    @cached_property
    def hash(self) -> str:
        """sha256 over placeholders and vectors; class names, order and settings do not count."""
        digest = hashlib.sha256()
        for token, vectors in sorted(self.vectors().items()):
            digest.update(f"{token}\0{tuple(vectors.shape)}\0".encode())
            digest.update(vectors.numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def strange_to(self, model: Denoiser) -> str:
        """What is to be said where these words meet a model that they were not learned on; empty where they were, or nobody knows.

        Nobody knows of token files of other programs, nor of words or models without a weights' hash, such as models built in memory.
        """
        settings = self.settings.get("model")
        noted = settings if isinstance(settings, Mapping) else {}
        theirs, spec = str(noted.get("weights_hash") or ""), model.spec
        if not theirs or spec is None or not spec.weights_hash or theirs == model.fingerprint():
            return ""
        return (
            f"these words were learned on {noted.get('name') or 'a model'} ({theirs[:12]}) and are used on {spec.name} "
            f"({model.fingerprint()[:12]}), where they may mean something else; learn them again on this model, or give the one that they "
            "were learned on"
        )

    def save(self, folder: str | Path) -> Path:
        """Write `concepts.safetensors` (all words and settings) and, for other programs, one file a word under `tokens/`.

        diffusers takes one word a file: `pipeline.load_textual_inversion("FOLDER/tokens/goldfish-a1b2c3.safetensors")`, then a prompt that
        holds the placeholder once. There the token of a word of several vectors is in lower case, because diffusers leaves out the further
        vectors of any other. An earlier save in this folder is replaced, its token files included.

        Returns:
            The folder; `Concepts.load` reads it.
        """
        folder = Path(folder).expanduser()
        if folder.is_file() or folder.suffix == ".safetensors":
            raise ConfigError(f"words are saved into a folder, got {folder}; give the folder's name alone")
        check_path(folder)
        stale = [folder / TOKEN_FOLDER / token_file_name(token) for token in _saved_tokens(folder / FILE_NAME)]
        names = {token: name for name, token in self.placeholders.items()}
        metadata = {"concepts": _FORMAT, "classes": json.dumps(names), "settings": json.dumps(dict(self.settings)), "sha256": self.hash}
        write_tensors(folder / FILE_NAME, self.vectors(), metadata)  # first: without it `load` takes the tokens that are there for all
        written = []
        for token, vectors in self.vectors().items():
            written.append(folder / TOKEN_FOLDER / token_file_name(token))
            write_tensors(written[-1], {token.lower() if len(vectors) > 1 else token: vectors}, {})
        for file in stale:
            if file not in written:
                file.unlink(missing_ok=True)
        return folder

    @classmethod
    def load(cls, path: str | Path, classes: Sequence[str] | None = None) -> Self:
        """Read words that `save` wrote, or token files of others (see `read_tokens`).

        Args:
            path: a folder, or a .safetensors, .pt or .bin file.
            classes: true class names that must all be there, in this order. Left out: all words of the file; token files of others
                then give the tokens' own text for names.
        Raises:
            ModelError: missing, empty, damaged or not all there.
        """
        path = Path(path).expanduser()
        file = path / FILE_NAME if path.is_dir() else path
        metadata = _metadata(file)
        if "concepts" not in metadata:
            return cls.from_tokens(read_tokens(path), classes)
        if metadata["concepts"] != _FORMAT:
            raise ModelError(f"{file} was written in format {metadata['concepts']}, this version reads {_FORMAT}; update rediffuse")
        tokens = read_tokens(file)
        placeholders = {name: token for token, name in _noted(file, metadata, "classes").items()}
        words = {name: tokens[token] for name, token in placeholders.items() if token in tokens}
        loaded = cls(words=words, placeholders=placeholders, settings=_noted(file, metadata, "settings"))
        if loaded.hash != metadata.get("sha256"):
            raise ModelError(f"{file} is damaged: its vectors are not those that were saved; learn the words again")
        return loaded if classes is None else loaded.of_classes(classes)

    @classmethod
    def from_tokens(cls, tokens: Mapping[str, Tensor], classes: Sequence[str] | None = None) -> Self:
        """Words from a mapping of placeholder to vectors, such as `read_tokens` gives; each class takes the token of its name.

        Raises:
            ModelError: a class has no token, or two classes would share one.
        """
        sources = {token[1:-1]: token for token in tokens} if classes is None else match_tokens(tokens, classes)
        return cls(words={name: tokens[token] for name, token in sources.items()})

    def __repr__(self) -> str:
        return f"Concepts({len(self.words)} words: {_listed(self.classes)})"


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """safetensors, whole or not at all."""
    from safetensors.torch import save_file

    with whole(file) as partial:
        save_file(dict(tensors), partial, metadata={"format": "pt", **metadata})


def _checked(name: str, vectors: Tensor) -> Tensor:
    if vectors.ndim != 2 or 0 in vectors.shape or not vectors.dtype.is_floating_point:
        raise ModelError(f"the word of {name!r} must be float vectors of shape (k, D), got {vectors.dtype} {tuple(vectors.shape)}")
    if not bool(vectors.isfinite().all()):
        raise ModelError(f"the word of {name!r} holds values that are not finite; learn it again, with a lower learning rate")
    return vectors.detach().to("cpu", torch.float32, copy=True).contiguous()


def _check_tokens(placeholders: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for name, token in placeholders.items():
        if not (len(token) > 2 and token.startswith("<") and token.endswith(">")) or any(letter.isspace() for letter in token):
            raise DataError(f"a placeholder is written <so>, without blanks, got {token!r} for class {name!r}")
        other = owners.setdefault(token_key(token), name)
        if other != name:
            raise DataError(f"classes {other!r} and {name!r} share the placeholder {token} (case does not count); rename one")


def _metadata(file: Path) -> dict[str, str]:
    """Of a safetensors file; empty for any other, which `read_tokens` then speaks about."""
    from safetensors import SafetensorError, safe_open

    if file.suffix != ".safetensors" or not file.is_file():
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} cannot be read as safetensors: {error}") from error


def _noted(file: Path, metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """A JSON object of the file's metadata."""
    try:
        found = json.loads(metadata[name])
    except (KeyError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(f"{file} is damaged: its metadata has no {name}; learn the words again")
    return found


def _saved_tokens(file: Path) -> list[str]:
    """Of an earlier save; a damaged one, which shall be replaced, names none."""
    try:
        metadata = _metadata(file)
        return list(_noted(file, metadata, "classes")) if "classes" in metadata else []
    except ModelError:
        return []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
