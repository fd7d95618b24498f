from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rediffuse.concepts.draws import Samples, draw_samples, seeded
from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.concepts.shots import Shots

RECIPE = InversionRecipe(steps=100, batch_per_class=4, learning_rate=0.1)
COUNTS = {"cat": 3, "dog": 1, "potted plant": 7}


def shots(counts: dict[str, int] = COUNTS, ways: int = 2) -> Shots:
    """Every number of a latent says which photo it is, its sign which way round."""
    latents = []
    for count in counts.values():
        ids = torch.arange(1.0, count + 1).view(count, 1, 1, 1, 1)
        latents.append(torch.cat([ids, -ids][:ways], dim=1).expand(count, ways, 2, 4, 4))
    return Shots(names=tuple(counts), latents=tuple(latents))


def draws(recipe: InversionRecipe = RECIPE, given: Shots | None = None, steps: int = 100, seed: int = 0) -> Samples:
    return Samples.cat([draw_samples(recipe, given or shots(), seed=seed, step=step, levels=1000) for step in range(steps)])


def rows_of(samples: Samples, owner: int) -> Samples:
    return samples.index((samples.owner == owner).nonzero().flatten())


def same(one: Samples, two: Samples) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("x0", "noise", "t", "template"))


@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_a_class_draws_the_same_whichever_others_are_there(times: str) -> None:
    recipe = replace(RECIPE, times=times)
    together = draws(recipe)
    for place, (name, count) in enumerate(COUNTS.items()):
        assert same(rows_of(together, place), draws(recipe, shots({name: count})))


def test_seed_name_and_step_decide() -> None:
    base = draws(steps=1)
    assert same(base, draws(steps=1))
    assert not same(base, draws(steps=1, seed=1))
    assert not same(rows_of(base, 0), draws(given=shots({"Cat": 3}), steps=1))
    assert not same(rows_of(draws(steps=2), 0).index(torch.arange(4)), rows_of(draws(steps=2), 0).index(torch.arange(4, 8)))


def test_photos_are_used_evenly_and_half_are_mirrored() -> None:
    samples = draws()
    for owner, count in enumerate(COUNTS.values()):
        which = rows_of(samples, owner).x0[:, 0, 0, 0]
        used = torch.bincount(which.abs().long(), minlength=count + 1)[1:]
        assert used.max() - used.min() <= 1
        assert abs(float((which < 0).float().mean()) - 0.5) < 4 * 0.5 / 400**0.5
    assert draws(given=shots(ways=1)).x0.min() > 0


def test_times_cover_the_schedule() -> None:
    uniform, stratified = draws().t, draws(replace(RECIPE, times="stratified")).t
    for t in (uniform, stratified):
        assert 0 <= int(t.min()) < 20
        assert 980 < int(t.max()) < 1000
        assert abs(float(t.float().mean()) - 499.5) < 4 * 289 / 1200**0.5
    assert torch.equal(stratified.view(-1, 4) // 250, torch.arange(4).expand(300, 4))


def test_noise_is_normal_and_templates_are_even() -> None:
    samples = draws()
    assert abs(float(samples.noise.mean())) < 0.02
    assert abs(float(samples.noise.std()) - 1) < 0.02
    counts = torch.bincount(samples.template, minlength=27).float()  # 1200 / 27 = 44 each
    assert float(((counts - 1200 / 27) ** 2 / (1200 / 27)).sum()) < 54.1  # chi squared, 26 degrees, p = .001


def test_nothing_global_is_touched() -> None:
    state = torch.random.get_rng_state()
    draws(steps=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert seeded("a", 1).initial_seed() != seeded("a", 2).initial_seed()
