"""Token files of other programs, as they are found in the wild."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rediffuse.concepts.tokens import match_tokens, read_tokens, token_file_name
from rediffuse.errors import ModelError

ONE, TWO = torch.arange(8.0), torch.arange(16.0).view(2, 8)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_flat_dictionaries(tmp_path: Path, suffix: str) -> None:
    """The merged files of DA-Fusion and diffusers' learned_embeds: vectors of one or two dimensions, any float type."""
    state = {"<potted plant>": ONE, "<cat>": TWO.half(), "dog": ONE.double()}
    file = tmp_path / f"pascal-0-4{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    tokens = read_tokens(file)
    assert {name: tuple(vectors.shape) for name, vectors in tokens.items()} == {"<potted_plant>": (1, 8), "<cat>": (2, 8), "<dog>": (1, 8)}
    assert all(vectors.dtype is torch.float32 for vectors in tokens.values())
    assert torch.equal(tokens["<cat>"], TWO)


def test_parameters_with_gradients(tmp_path: Path) -> None:
    torch.save({"<cat>": nn.Parameter(ONE)}, tmp_path / "learned_embeds.bin")
    assert not read_tokens(tmp_path)["<cat>"].requires_grad


@pytest.mark.parametrize("holder", [dict, nn.ParameterDict])
@pytest.mark.parametrize("name", ["my word", None])
def test_string_to_param(tmp_path: Path, holder: Any, name: str | None) -> None:
    state = {"string_to_token": {"*": 265}, "string_to_param": holder({"*": nn.Parameter(TWO)}), "name": name, "step": 10}
    torch.save(state, tmp_path / "style.pt")
    tokens = read_tokens(tmp_path / "style.pt")
    assert list(tokens) == ["<my_word>" if name else "<style>"]
    assert torch.equal(tokens.popitem()[1], TWO)


def test_files_that_name_the_word(tmp_path: Path) -> None:
    save_file({"emb_params": TWO}, tmp_path / "art.safetensors")
    torch.save(ONE, tmp_path / "bare.pt")
    assert set(read_tokens(tmp_path)) == {"<art>", "<bare>"}


def test_a_folder_of_one_file_a_class(tmp_path: Path) -> None:
    """As DA-Fusion's trainer leaves it, with the embeddings of earlier steps beside the last."""
    for name in ("cat", "potted_plant"):
        folder = tmp_path / "pascal-tokens" / name
        folder.mkdir(parents=True)
        torch.save({f"<{name}>": ONE}, folder / "learned_embeds.bin")
        torch.save({f"<{name}>": ONE * 0.5}, folder / "learned_embeds-steps-500.bin")
    assert {name: float(vectors[0, 1]) for name, vectors in read_tokens(tmp_path).items()} == {"<cat>": 1.0, "<potted_plant>": 1.0}
    (tmp_path / "pascal-tokens" / "cat" / "learned_embeds.bin").unlink()
    assert float(read_tokens(tmp_path)["<cat>"][0, 1]) == 0.5


def test_a_token_written_in_both_ways(tmp_path: Path) -> None:
    """The released files hold 22 keys for 20 classes; the code that published them asks for the one with underscores."""
    torch.save({"<potted plant>": ONE * 0.5, "<potted_plant>": ONE}, tmp_path / "t.pt")
    assert torch.equal(read_tokens(tmp_path)["<potted_plant>"], ONE.view(1, 8))


def test_one_token_with_two_meanings(tmp_path: Path) -> None:
    torch.save({"<cat>": ONE}, tmp_path / "a.pt")
    torch.save({"<cat>": ONE}, tmp_path / "b.pt")
    assert list(read_tokens(tmp_path)) == ["<cat>"]
    torch.save({"<cat>": ONE * 2}, tmp_path / "b.pt")
    with pytest.raises(ModelError, match=r"<cat> .*a\.pt and .*b\.pt"):
        read_tokens(tmp_path)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("/nonexistent/never"), "x"))


STATES: dict[str, Any] = {
    "empty": {},
    "list": [ONE],
    "text": {"<cat>": "vector"},
    "whole numbers": {"<cat>": torch.arange(8)},
    "three dimensions": {"<cat>": torch.zeros(1, 1, 8)},
    "no rows": {"<cat>": torch.zeros(0, 8)},
    "infinite": {"<cat>": ONE / 0},
    "no parameter": {"string_to_param": {}, "name": "a"},
    "XL": {"clip_l": TWO, "clip_g": TWO},
}


def broken(kind: str, folder: Path) -> Path:
    file = folder / ("t.safetensors" if kind == "not safetensors" else "t.pt")
    if kind == "code":
        file.write_bytes(pickle.dumps({"<cat>": Evil()}, protocol=2))
    elif kind in ("not safetensors", "noise"):
        file.write_bytes(b"\x80\x02nothing of the kind" * 3)
    elif kind == "zero bytes":
        file.touch()
    else:
        torch.save(STATES[kind], file)
    return file


KINDS = ("code", "not safetensors", "noise", "zero bytes", *STATES)


@pytest.mark.parametrize("kind", KINDS)
def test_what_holds_no_words_is_an_error(tmp_path: Path, kind: str) -> None:
    file = broken(kind, tmp_path)
    for path in (file, tmp_path):
        with pytest.raises(ModelError, match=str(tmp_path)):
            read_tokens(path)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "notes.txt"):
        with pytest.raises(ModelError):
            read_tokens(path)


def test_classes_find_their_tokens() -> None:
    tokens = {"<Potted_plant>": TWO, "<cat>": TWO, "<cyclamen_>": TWO}
    assert match_tokens(tokens, ["cat", "potted plant", "cyclamen "]) == {
        "cat": "<cat>", "potted plant": "<Potted_plant>", "cyclamen ": "<cyclamen_>",
    }  # fmt: skip
    with pytest.raises(ModelError, match=r"1 of 2 classes: 'dog'"):
        match_tokens(tokens, ["cat", "dog"])
    with pytest.raises(ModelError, match="share the token <cat>"):
        match_tokens(tokens, ["cat", "Cat"])
    assert match_tokens({**tokens, "<Cat>": TWO}, ["cat", "Cat"]) == {"cat": "<cat>", "Cat": "<Cat>"}


def test_file_names_are_plain_and_apart() -> None:
    tokens = ["<..>", "<->", "<Cat>", "<cat>", "<犬>", "<a/b>", "<" + "x" * 300 + ">"]
    names = [token_file_name(token) for token in tokens]
    assert len({name.lower() for name in names}) == len(tokens)
    assert all(name[0].isalnum() and len(name) < 70 and "/" not in name for name in names)
