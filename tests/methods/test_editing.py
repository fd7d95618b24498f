"""Laws of strengths against truth; jobs that share what can be shared; apply against the sampler itself."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare
from torch import Tensor

from rediffuse.concepts.concepts import Concepts
from rediffuse.denoisers.base import Condition, Denoiser, DenoiserSpec
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.methods import METHODS, find_method, from_settings
from rediffuse.methods.base import plain
from rediffuse.methods.da_fusion import DAFusion
from rediffuse.methods.editing import EditDraw, EditingMethod, draw_strengths
from rediffuse.methods.from_noise import FromNoise
from rediffuse.methods.real_guidance import RealGuidance
from rediffuse.sampling.guided import ClassifierFree
from rediffuse.sampling.sampler import sample_one
from rediffuse.sampling.solvers import trajectory
from rediffuse.sampling.table import SamplingJob

CLASSES = ("cat", "dog", "red bird")
FOUR = (0.25, 0.5, 0.75, 1.0)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def words(model: Denoiser | None = None, seed: int = 0) -> Concepts:
    return Concepts(words={name: torch.randn((2, 32), generator=stream(seed + place)) for place, name in enumerate(CLASSES)})


@given(st.integers(0, 30), st.integers(0, 2**31))
def test_stratified_gives_each_strength_equally_often(count: int, seed: int):
    found = Counter(plain(draw_strengths("stratified", FOUR, count, stream(seed))))
    assert found.total() == count
    low = count // 4
    assert {found[strength] for strength in FOUR} <= {low, low + 1}
    assert sum(found[strength] == low + 1 for strength in FOUR) == count % 4


def test_stratified_is_fair_in_what_is_left_over_and_in_order():
    draws = [plain(draw_strengths("stratified", FOUR, 6, stream(seed))) for seed in range(2000)]
    first = Counter(draw[0] for draw in draws)
    extra = Counter(strength for draw in draws for strength, times in Counter(draw).items() if times == 2)
    assert chisquare([first[strength] for strength in FOUR]).pvalue > 1e-3
    assert chisquare([extra[strength] for strength in FOUR]).pvalue > 1e-3


def test_iid_draws_each_copy_for_itself():
    draws = [plain(draw_strengths("iid", FOUR, 10, stream(seed))) for seed in range(2000)]
    assert chisquare(list(Counter(strength for draw in draws for strength in draw).values())).pvalue > 1e-3
    without = sum(0.25 not in draw for draw in draws)  # the paper's law: 5.6 % of photos never meet a given strength
    assert binomtest(without, len(draws), 0.75**10).pvalue > 1e-3


def test_fixed_is_fixed(mixture):
    method = RealGuidance(mixture, CLASSES)
    assert plain(method.draw(5, stream(), labels=torch.zeros(5)).strength) == [0.5] * 5
    with pytest.raises(ConfigError, match="one strength"):
        DAFusion(mixture, words(), law="fixed")


def test_a_draw_is_a_function_of_its_stream(mixture):
    method, labels = DAFusion(mixture, words()), torch.tensor([2, 0, 1])
    one, two, other = (method.draw(3, stream(seed), labels=labels) for seed in (1, 1, 2))
    assert one.to_rows() == two.to_rows() != other.to_rows()
    assert one.label.tolist() == [2, 0, 1]
    assert EditDraw.from_rows(one.to_rows()).to_rows() == one.to_rows()


def test_prompts(mixture):
    assert RealGuidance(mixture, CLASSES).prompts(torch.tensor([2, 0])) == ["a photo of a red bird", "a photo of a cat"]
    assert RealGuidance(mixture, CLASSES, prompt="photo").prompts(torch.tensor([2])) == ["a photo"]
    assert RealGuidance(mixture, (), prompt="photo").draw(2, stream()).label.tolist() == [0, 0]
    assert RealGuidance(mixture, ("{}",)).prompt(0) == "a photo of a {}"
    assert RealGuidance(mixture, CLASSES, prompt="a woodland seen from a drone").prompt(1) == "a woodland seen from a drone"
    assert DAFusion(mixture, words()).prompts(torch.tensor([2])) == ["a photo of a <red_bird>"]
    assert DAFusion(mixture, words(), classes=("dog",)).prompt(0) == "a photo of a <dog>"


class Counted(Denoiser):
    """Passes everything on and counts what is asked."""

    conditional = True

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.schedule, self.channels = inner, inner.schedule, inner.channels
        self.embedded: list[list[str]] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        return self.inner(x_t, t, condition)

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        return self.inner.loss(x0, t, noise, condition)

    def embed(self, prompts, words=None) -> Condition:
        self.embedded.append(list(prompts))
        return self.inner.embed(prompts, words)


def test_a_prompt_without_classes_takes_any_label(mixture):
    assert RealGuidance(mixture, (), prompt="photo").prompts(torch.tensor([0, 3])) == ["a photo"] * 2
    with pytest.raises(ConfigError, match="label 3 is outside the 3 classes"):
        RealGuidance(mixture, CLASSES).prompts(torch.tensor([3]))


def test_jobs_share_tables_and_conditions(mixture):
    model = Counted(mixture)
    method = DAFusion(model, words())
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    draw, known = method.draw(8, stream(), labels=labels), {}
    jobs = method.jobs(torch.zeros(8, 3, 8, 8), draw, known)
    assert model.embedded == [["a photo of a <cat>"], ["a photo of a <dog>"]]
    assert len({id(job.condition) for job in jobs}) == 2
    assert len({id(job.table) for job in jobs}) == 4
    assert [job.seed for job in jobs] == draw.seed.tolist()
    assert [len(job.table) for job in jobs] == [max(1, int(method.steps * strength)) for strength in plain(draw.strength)]
    method.jobs(torch.zeros(8, 3, 8, 8), draw, known)
    assert len(model.embedded) == 2
    with pytest.raises(ConfigError, match="3 sources for 8 draws"):
        method.jobs(torch.zeros(3, 3, 8, 8), draw)


@pytest.mark.parametrize("kind", ["da_fusion", "real_guidance"])
def test_apply_is_what_the_sampler_gives(network, images, kind):
    method = DAFusion(network, words(), steps=6) if kind == "da_fusion" else RealGuidance(network, CLASSES, steps=6)
    draw = method.draw(5, stream(), labels=torch.tensor([0, 1, 2, 0, 1]))
    made = method.apply(images[:5], draw)
    for row in range(5):  # each step by hand, one image a call
        vectors = words().vectors() if kind == "da_fusion" else None
        prompt = (
            ["a photo of a <cat>", "a photo of a <dog>", "a photo of a <red_bird>"] if vectors else [f"a photo of a {n}" for n in CLASSES]
        )
        job = SamplingJob(
            source=network.encode(images[row : row + 1])[0],
            table=trajectory(network.schedule, "dpm++2m", 6, plain(draw.strength)[row]),
            condition=network.embed([prompt[int(draw.label[row])]], vectors),
            seed=int(draw.seed[row]),
        )
        alone = network.decode(sample_one(ClassifierFree(network, method.guidance_scale), job)[None])[0]
        assert torch.allclose(made[row], alone, atol=1e-3)


def test_batches_of_1_7_and_32_give_the_same(network, images):
    labels = torch.arange(32) % 3
    draw = DAFusion(network, words(), steps=8).draw(32, stream(), labels=labels)
    one, seven, all_ = (DAFusion(network, words(), steps=8, batch=batch).apply(images, draw) for batch in (1, 7, 32))
    assert torch.allclose(one, all_, atol=1e-3)
    assert torch.allclose(seven, all_, atol=1e-3)
    half = DAFusion(network, words(), steps=8).apply(images[10:13], draw.index([10, 11, 12]))
    assert torch.allclose(half, all_[10:13], atol=1e-3)
    assert float((all_ - images).abs().mean()) > 0.01


def test_words_of_one_trial_are_not_those_of_the_next(network, images):
    """Two sets of words in one process: each method speaks its own (a published program kept the first one's for ever)."""
    one, two = DAFusion(network, words(), steps=4), DAFusion(network, words(seed=10), steps=4)
    draw = one.draw(2, stream(), labels=torch.tensor([0, 1]))
    first = one.apply(images[:2], draw)
    assert not torch.allclose(first, two.apply(images[:2], draw), atol=1e-3)
    assert torch.equal(first, one.apply(images[:2], draw))
    assert one.concept_hash != two.concept_hash


def test_a_word_steers_where_the_prompt_points(mixture):
    """Redone from the noisiest level under its word, an image is of the word's class, whatever it was."""
    method = DAFusion(mixture, words(), strengths=(1.0,), law="fixed", guidance_scale=1.0)
    labels = torch.arange(3).repeat(8)
    made = method.apply(torch.full((24, 3, 8, 8), 0.5), method.draw(24, stream(), labels=labels))
    distance = (2 * made[:, None] - 1 - mixture.means.float()).square().mean((2, 3, 4))
    assert torch.equal(distance.argmin(1), labels)


def test_forward_draws_applies_and_passes_labels_on(mixture):
    method = RealGuidance(mixture, CLASSES, steps=4).manual_seed(0)
    labels = torch.tensor([0, 2])
    images = torch.rand((2, 3, 8, 8), generator=stream())
    views, same, extra = method(images, labels, "extra")
    again, _ = RealGuidance(mixture, CLASSES, steps=4).manual_seed(0)(images, labels)
    assert same is labels
    assert extra == "extra"
    assert torch.equal(views, again)
    assert views.min() >= 0
    assert views.max() <= 1


@pytest.mark.parametrize("kind", [kind for kind in sorted(METHODS) if issubclass(find_method(kind), EditingMethod)])
def test_settings_are_json_and_make_the_method_again(mixture, kind):
    import json

    method = {
        "da_fusion": lambda: DAFusion(mixture, words(), (0.3, 0.6), 2.0, "ddim", 7, "iid"),
        "real_guidance": lambda: RealGuidance(mixture, CLASSES, 0.3, "photo"),
        "from_noise": lambda: FromNoise(mixture, words=words(), steps=7),
    }[kind]()
    settings = json.loads(json.dumps(method.settings()))
    assert settings["method"] == kind
    again = from_settings(mixture, settings, words())
    assert type(again) is type(method)
    assert again.settings() == method.settings()
    draw = method.draw(4, stream(), labels=torch.zeros(4))
    images = torch.rand((4, 3, 8, 8), generator=stream())
    assert torch.equal(method.apply(images, draw), again.apply(images, draw))


def test_words_of_another_model_are_told_once_where_the_method_is_made(mixture):
    own = Concepts(words=words().words, settings={"model": {"name": "one", "weights_hash": "a" * 64}})
    mixture.spec = DenoiserSpec(name="two", path="", weights_hash="b" * 64)
    for make in (lambda: DAFusion(mixture, own), lambda: FromNoise(mixture, words=own)):
        with pytest.warns(UserWarning, match=r"learned on one \(aaaaaaaaaaaa\) and are used on two \(bbbbbbbbbbbb\)") as told:
            method = make()
        assert len(told) == 1
        assert told[0].filename == __file__
        assert method.notes == (str(told[0].message),)
    mixture.spec = DenoiserSpec(name="two", path="", weights_hash="a" * 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for spoken in (own, words()):  # of this model; of nobody knows which
            assert DAFusion(mixture, spoken).notes == FromNoise(mixture, words=spoken).notes == ()
        assert FromNoise(mixture, CLASSES).notes == RealGuidance(mixture, CLASSES).notes == ()


def test_methods_are_found_by_either_spelling():
    assert find_method("da-fusion") is find_method("da_fusion") is DAFusion
    with pytest.raises(ConfigError, match="da_fusion, real_guidance"):
        find_method("dafusion")


def test_mistakes_are_named(mixture):
    for wrong, message in (
        (lambda: DAFusion("tiny-imagenet-64", words()), "takes a model as rediffuse.load gives it.*got 'tiny-imagenet-64'"),
        (lambda: DAFusion(mixture, "words/"), "takes words as rediffuse.learn gives them, got 'words/'"),
        (lambda: DAFusion(mixture, words(), strengths=0.5), "takes strengths, such as .*got 0.5"),
        (lambda: RealGuidance(mixture, 3), "takes class names, such as .*got 3"),
        (lambda: RealGuidance(mixture, "cat"), "takes class names, such as .*got 'cat'"),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong()
    with pytest.raises(ConfigError, match=r"strength must be in \(0, 1\], got 1.3"):
        RealGuidance(mixture, CLASSES, 1.3)
    with pytest.raises(ConfigError, match="one of ddim"):
        RealGuidance(mixture, CLASSES, solver="euler")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="law must be one of"):
        DAFusion(mixture, words(), law="random")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="'horse'"):
        DAFusion(mixture, words(), classes=("horse",))
    with pytest.raises(ConfigError, match="needs class names"):
        RealGuidance(mixture, ())
    with pytest.raises(ConfigError, match="steers by class"):
        DAFusion(mixture, words()).draw(2, stream())
    with pytest.raises(ConfigError, match="label 3 is outside the 3 classes"):
        RealGuidance(mixture, CLASSES).prompts(torch.tensor([3]))
    with pytest.raises(ConfigError, match="needs the words"):
        from_settings(mixture, DAFusion(mixture, words()).settings())
    with pytest.raises(ConfigError, match="seed must not be negative"):
        EditDraw(strength=torch.ones(1), seed=torch.tensor([-1]), label=torch.tensor([0]))
    method = RealGuidance(mixture, CLASSES)
    with pytest.raises(DataError, match="from -1"):
        method.apply(torch.full((1, 3, 8, 8), -1.0), method.draw(1, stream(), labels=torch.zeros(1)))


def test_a_method_and_a_model_are_one_line(mixture):
    for shown in (mixture, DAFusion(mixture, words()), RealGuidance(mixture, CLASSES)):
        assert "\n" not in repr(shown)
        assert len(repr(shown)) < 400
    assert "strengths=[0.25, 0.5, 0.75, 1.0]" in repr(DAFusion(mixture, words()))
