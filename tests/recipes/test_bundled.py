"""The trainers of the bundled models: resumed equals undisturbed, folding changes nothing, what is typed reaches them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.recipes.tiny_runs import NAMES, TERMS, assert_same, trained

from rediffuse.denoisers.schedules import scaled_linear_betas
from rediffuse.recipes.bundled import (
    autoencoder,
    common,
    export,
    features,
    judge,
    latents,
    networks,
    text_to_image,
    vocabulary,
)


def test_a_resumed_autoencoder_is_the_undisturbed_one(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small / "data"
    monkeypatch.setattr(autoencoder, "cosine_rate", lambda *_, **__: 1.0)  # a piece then does not depend on where the end was put
    autoencoder.train(data, small / "whole", None, steps=3, batch=8)
    autoencoder.train(data, small / "pieces", 0.0, steps=3, batch=8)  # no time at all: the start is handed on
    autoencoder.train(data, small / "pieces", None, steps=2, batch=8)
    autoencoder.train(data, small / "pieces", None, steps=3, batch=8)
    assert_same(trained(small / "whole"), trained(small / "pieces"))


def test_a_resumed_denoiser_is_the_undisturbed_one_and_exports(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, digits, coder = small / "data", small / "digits", small / "coder"
    autoencoder.train(data, coder, None, steps=1, batch=8)

    def run(out: str, steps: int) -> None:
        text_to_image.train(data, digits, coder, small / out, None, steps, batch=8)

    monkeypatch.setattr(text_to_image, "cosine_rate", lambda *_, **__: 1.0)  # a piece then does not depend on where the end was put
    run("whole", 3)
    run("pieces", 2)
    basis = trained(small / "pieces", "matrix")
    monkeypatch.setattr(text_to_image, "basis_of", lambda *_: latents.Basis(shift=torch.ones(6), matrix=torch.eye(6)))
    run("pieces", 3)
    assert_same(trained(small / "whole"), trained(small / "pieces"))
    assert torch.equal(trained(small / "pieces", "matrix"), basis)
    assert trained(small / "whole").keys() == trained(small / "pieces").keys()

    out = small / "folder"
    export.export_pipeline(coder, small / "whole", data, out)
    from rediffuse.denoisers.load import load

    model = load(out, dtype="float32")
    assert "school bus" in model.known_words
    assert vocabulary.DIGIT in model.known_words
    torch.testing.assert_close(model.schedule.ratio.double(), _ratio(networks.betas()), rtol=1e-5, atol=0)


def _ratio(betas: torch.Tensor) -> torch.Tensor:
    kept = (1 - betas).cumprod(0)
    return ((1 - kept) / kept).sqrt()


def test_a_training_starts_from_an_exported_folder(small: Path) -> None:
    data, digits, coder, folder = small / "data", small / "digits", small / "coder", small / "folder"
    autoencoder.train(data, coder, None, steps=1, batch=8)
    text_to_image.train(data, digits, coder, small / "first", None, steps=1, batch=8)
    export.export_pipeline(coder, small / "first", data, folder)
    text_to_image.train(data, digits, folder, small / "second", None, steps=0, batch=8, start=folder)

    shipped = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    found = {key.removeprefix("unet."): value for key, value in trained(small / "second").items() if key.startswith("unet.")}
    assert_same(found, {key: value.float() for key, value in shipped.items()})
    words = vocabulary.tokenizer_of_run(small / "second", ("other words",))
    assert words.get_vocab() == vocabulary.tokenizer_of_run(small / "first", TERMS).get_vocab()
    assert torch.equal(trained(small / "second", "matrix"), torch.eye(6))  # the exported autoencoder has its basis inside
    pair = networks.started(words, folder)
    shipped = load_file(folder / "text_encoder" / "model.safetensors")
    assert_same(dict(pair.text.state_dict()), {key: value.float() for key, value in shipped.items()})
    export.export_pipeline(folder, small / "second", data, small / "again")
    for file in (small / "again").rglob("*.json"):
        assert str(small) not in file.read_text(), f"{file.name} names a folder of the machine that made it"


def test_the_coarse_loss_counts_noise_like_the_fine_one_and_has_its_minimum() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(256, 6, 32, 32, generator=generator)
    assert abs(float(noise.square().mean()) - 1) < 0.02
    assert abs(float(text_to_image.coarse(noise).mean()) - 1) < 0.02  # 4.6 standard errors: 256 x 384 squares of unit normals
    torch.testing.assert_close(text_to_image.coarse(torch.full((1, 6, 32, 32), 0.5)), torch.tensor([0.25 * 16]))
    # The answer that errs least over random targets is their mean, by either loss.
    targets = torch.randn(40, 6, 8, 8, generator=generator, dtype=torch.float64)
    answer = targets.mean(0, keepdim=True).requires_grad_()
    losses = (answer - targets).square().mean((1, 2, 3)).mean(), text_to_image.coarse(answer - targets).mean()
    for loss in losses:
        (slope,) = torch.autograd.grad(loss, answer)
        assert float(slope.abs().max()) < 1e-12
    worse = answer + 0.1 * torch.randn(answer.shape, generator=generator, dtype=torch.float64)
    assert text_to_image.coarse(worse - targets).mean() > losses[1]


def test_the_schedule_is_stable_diffusions_with_half_the_noise_and_nothing_of_the_picture_at_the_end() -> None:
    half = 1 / (1 + (_ratio(scaled_linear_betas()) / 2).square()).sqrt()  # alpha of the same schedule with half of sigma / alpha
    expected = (half - half[-1]) * half[0] / (half[0] - half[-1])  # Lin et al., WACV 2024, arXiv 2305.08891, algorithm 1
    found = (1 - networks.betas()).cumprod(0).sqrt()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert found[-1] == 0
    ratio = _ratio(networks.betas())
    assert [round(float(ratio[t]), 2) for t in (249, 499, 749)] == [0.38, 0.9, 2.66]


def test_folding_the_basis_changes_latents_as_it_says_and_pictures_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(autoencoder.CONFIG, "block_out_channels", (16, 16))
    torch.manual_seed(0)
    plain: Any = autoencoder.build().eval().requires_grad_(False)
    folded: Any = autoencoder.build().eval().requires_grad_(False)
    folded.load_state_dict(plain.state_dict())
    images = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)
    basis = latents.latent_basis(plain, images)
    export.fold_basis(folded, basis, images)
    x = common.signed(images)
    before, after = plain.encode(x).latent_dist.mean, folded.encode(x).latent_dist.mean
    scale = after.std()
    torch.testing.assert_close(after / scale, basis.forward(before) / scale, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(folded.decode(after).sample, plain.decode(before).sample, rtol=1e-3, atol=1e-3)
    flat = after.permute(1, 0, 2, 3).flatten(1).double()
    covariance = torch.cov(flat)
    off = covariance - torch.diag(covariance.diag())
    assert off.abs().max() < 0.05 * covariance.diag().max()  # principal directions
    assert abs(float(covariance.diag().mean()) - 1) < 0.1  # unit mean square


def test_cached_latents_are_of_the_autoencoder_and_basis_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(autoencoder.CONFIG, "block_out_channels", (16, 16))
    torch.manual_seed(0)
    vae: Any = autoencoder.build().eval().requires_grad_(False)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    pictures = common.Pictures(images=pixels, labels=torch.zeros(2).long(), terms=("",) * 2, names=("a",))
    plain = latents.Basis(shift=torch.zeros(6), matrix=torch.eye(6))
    file = tmp_path / "latents.safetensors"

    def cached(basis: latents.Basis) -> torch.Tensor:
        (found,) = latents.cache_latents(vae, [pictures], basis, file)
        return found.plain

    first = cached(plain)
    written = file.stat().st_mtime_ns
    assert torch.equal(cached(plain), first)
    assert file.stat().st_mtime_ns == written
    assert "again" not in capsys.readouterr().out
    doubled = cached(latents.Basis(shift=torch.zeros(6), matrix=2 * torch.eye(6)))
    torch.testing.assert_close(doubled, 2 * first)
    assert "is of another autoencoder or basis: encoding again" in capsys.readouterr().out
    vae.quant_conv.bias += 1
    assert torch.equal(cached(plain), latents.encode(vae, pixels, plain))
    assert not torch.equal(cached(plain), first)


def test_shuffled_epochs_are_a_function_of_seed_and_step() -> None:
    stream = common.batches(10, 4, seed=3)
    rows = [next(stream) for _ in range(6)]
    assert sorted(torch.cat(rows[:2]).tolist()) == sorted(set(torch.cat(rows[:2]).tolist()))
    for start in range(1, 6):
        resumed = common.batches(10, 4, seed=3, start=start)
        assert torch.equal(next(resumed), rows[start])


def test_forty_classes_are_never_among_the_known() -> None:
    pictures = common.Pictures(
        images=torch.zeros(170, 3, 2, 2, dtype=torch.uint8),
        labels=torch.arange(170),
        terms=("",) * 170,
        names=tuple(f"class {index}" for index in range(170)),
    )
    known = pictures.names[:20]
    forty, wide = features.class_names(pictures, "forty", known), features.class_names(pictures, "resnet-64", known)
    assert len(set(forty)) == 40
    assert set(forty) < set(wide)
    assert len(wide) == 150
    assert not set(wide) & set(known)
    rows = features.restrict(pictures, forty)
    assert [pictures.names[index] for index in (rows.images[:, 0, 0, 0].long() + rows.labels).tolist()]  # labels are places in `forty`
    assert rows.labels.tolist() == [forty.index(name) for name in pictures.names if name in forty]


def test_what_is_typed_reaches_the_trainers(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = small / "data", small / "typed"
    common_words = ["--steps", "1", "--batch", "8", "--seed", "3", "--rate", "1e-3", "--device", "cpu", "--minutes", "5"]

    def typed(module: Any, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["trainer", "--data", str(data), *words, *common_words])
        module.main()

    typed(autoencoder, "--out", str(out / "autoencoder"))
    typed(text_to_image, "--digits", str(small / "digits"), "--autoencoder", str(out / "autoencoder"), "--out", str(out / "unet"))
    autoencoder.train(data, small / "called" / "autoencoder", 5, steps=1, batch=8, rate=1e-3, seed=3)
    text_to_image.train(
        data, small / "digits", small / "called" / "autoencoder", small / "called" / "unet", 5, steps=1, batch=8, rate=1e-3, seed=3
    )
    for name in ("autoencoder", "unet"):
        assert_same(trained(out / name), trained(small / "called" / name))


def test_noise_on_the_processor_is_the_generators() -> None:
    x = torch.zeros(2, 3)
    found = common.noise_like(x, torch.Generator().manual_seed(1))
    assert torch.equal(found, torch.randn(2, 3, generator=torch.Generator().manual_seed(1)))


def test_a_second_judgement_takes_nothing_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nets = []

    def fit(net: Any, _train: Any, _held: Any, _which: str, out: Path, *_: Any) -> float:
        assert not (out / "checkpoint.pt").exists()
        (out / "checkpoint.pt").write_bytes(b"of this judgement")
        nets.append(net.state_dict())
        return 0.5

    monkeypatch.setattr(features, "fit", fit)
    pictures = common.Pictures(images=torch.zeros(1, 3, 64, 64, dtype=torch.uint8), labels=torch.zeros(1).long(), terms=("",), names=NAMES)
    before = torch.get_rng_state()
    for _ in range(2):
        assert judge.accuracy_score(pictures, pictures, tmp_path / "not" / "there", 1, torch.device("cpu")) == 0.5
        torch.rand(1)
    assert_same(*nets)
    torch.set_rng_state(before)


def test_features_begin_as_their_seed_says_and_leave_the_global_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nets = []
    pictures = common.Pictures(images=torch.zeros(1, 3, 64, 64, dtype=torch.uint8), labels=torch.zeros(1).long(), terms=("",), names=NAMES)
    monkeypatch.setattr(features, "read_pictures", lambda *_: pictures)
    monkeypatch.setattr(features, "class_names", lambda *_: NAMES)
    monkeypatch.setattr(features, "restrict", lambda found, _: found)
    monkeypatch.setattr(features, "fit", lambda net, *_: nets.append(net.state_dict()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4711)
        for seed in (3, 3, 4):
            before = torch.get_rng_state()
            features.train(tmp_path, tmp_path, "forty", tmp_path / "out", None, 1, seed=seed, device="cpu")
            assert torch.equal(torch.get_rng_state(), before)
            torch.rand(1)
    assert_same(nets[0], nets[1])
    assert not torch.equal(nets[0]["classifier.1.weight"], nets[2]["classifier.1.weight"])
