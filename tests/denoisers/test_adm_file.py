"""What a checkpoint is, by its names and shapes; and what is no checkpoint of this family."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.tiny_adm import NETWORKS, tiny_adm
from torch import Tensor

from rediffuse.denoisers.adm import PUBLISHED
from rediffuse.denoisers.adm_file import architecture_of, fill, is_ours, read_weights
from rediffuse.denoisers.adm_network import AdmNetwork
from rediffuse.errors import ModelError

HERE = Path("network.pt")


def small_weights(name: str = "like_256_uncond") -> dict[str, Tensor]:
    return dict(tiny_adm(*NETWORKS[name]).state_dict())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_known_by_their_shapes_and_all_weights_are_used(name: str) -> None:
    published = PUBLISHED[name]
    with torch.device("meta"):
        weights = AdmNetwork(published.architecture, published.settings.heads).state_dict()
    assert architecture_of(HERE, weights) == published.architecture
    filled = fill(HERE, published.architecture, published.settings.heads, weights).state_dict()
    assert {key: value.shape for key, value in filled.items()} == {key: value.shape for key, value in weights.items()}


def test_no_two_published_networks_share_their_shapes() -> None:
    assert len({repr(published.architecture) for published in PUBLISHED.values()}) == len(PUBLISHED)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_file_gives_the_same_weights(name: str, tmp_path: Path) -> None:
    architecture, _ = NETWORKS[name]
    weights = small_weights(name)
    files = [tmp_path / "new.pt", tmp_path / "old.pt", tmp_path / "safe.safetensors"]
    torch.save(weights, files[0])
    torch.save(weights, files[1], _use_new_zipfile_serialization=False)
    save_file(weights, files[2])
    for file in files:
        assert is_ours(file)
        read = read_weights(file)
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[key], weights[key]) for key in weights)
        assert architecture_of(file, read) == architecture


def test_safetensors_of_others_are_left_to_others(tmp_path: Path) -> None:
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}, tmp_path / "stable.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    assert not is_ours(tmp_path / "stable.safetensors")
    assert not is_ours(tmp_path / "broken.safetensors")


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> object:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, zipped: bool) -> None:
    file, trace = tmp_path / "evil.pt", tmp_path / "trace"
    content = {**small_weights(), "extra": Evil(trace)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"evil\.pt is a pickle with more than weights in it"):
        read_weights(file)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(trace)))  # noqa: S301 (shows that it would have run)
    assert trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_files_that_are_cut_short(tmp_path: Path, zipped: bool, share: float) -> None:
    file = tmp_path / "short.pt"
    torch.save(small_weights(), file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"short\.pt .*(cut short|broken)"):
        read_weights(file)


def test_a_training_state_names_what_it_holds(tmp_path: Path) -> None:
    torch.save({"state_dict": small_weights(), "step": 3}, tmp_path / "state.pt")
    with pytest.raises(ModelError, match="holds state_dict, step; save the state_dict"):
        read_weights(tmp_path / "state.pt")
    torch.save([torch.zeros(1)], tmp_path / "state.pt")
    with pytest.raises(ModelError, match="holds list"):
        read_weights(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "Stable Diffusion"),
        ("down_blocks.0.resnets.0.conv1.weight", "diffusers"),
        ("layer1.0.conv1.weight", "ResNet"),
        ("module.input_blocks.0.0.weight", r"several devices .* save its \.module\.state_dict"),
        ("blocks.0.attn.qkv.weight", "vision transformer"),
        ("nothing.known", r"something unknown \(first weight: nothing\.known\)"),
    ],
)
def test_other_architectures_are_named(name: str, kind: str) -> None:
    with pytest.raises(ModelError, match=rf"network\.pt is not .* It looks like .*{kind}"):
        architecture_of(HERE, {name: torch.zeros(1)})


def test_relatives_that_are_no_denoisers_are_named() -> None:
    weights = small_weights()
    with pytest.raises(ModelError, match="classifier of noisy images"):
        architecture_of(HERE, {**weights, "out.2.c_proj.weight": torch.zeros(10, 64, 1)})
    with pytest.raises(ModelError, match="reads 6 channels: an upsampler"):
        architecture_of(HERE, {**weights, "input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)})


def test_missing_unknown_and_misshapen_weights_are_named() -> None:
    architecture, heads = NETWORKS["like_256_uncond"]
    weights = small_weights()
    del weights["time_embed.0.weight"]
    with pytest.raises(ModelError, match=r"lacks 'time_embed\.0\.weight'"):
        architecture_of(HERE, weights)
    for change, named in (
        ({"more.weight": torch.zeros(1)}, "more.weight"),
        ({"middle_block.1.norm.bias": torch.zeros(3)}, "middle_block.1.norm.bias"),
    ):
        with pytest.raises(ModelError, match=f"1 weights of network.pt .* first {named}"):
            fill(HERE, architecture, heads, {**small_weights(), **change})
    weights = small_weights()
    del weights["out.0.bias"]
    with pytest.raises(ModelError, match=r"first out\.0\.bias"):
        fill(HERE, architecture, heads, weights)
