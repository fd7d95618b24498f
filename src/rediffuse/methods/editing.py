"""Methods that edit a picture: noise it part of the way, then let a text-to-image model bring it back under a prompt (SDEdit).

Reference: Meng et al., ICLR 2022, arXiv 2108.01073 (SDEdit); Ho & Salimans 2022, arXiv 2207.12598 (classifier-free guidance).
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import torch
from torch import Tensor

from rediffuse.denoisers.base import Condition, Denoiser, check_denoiser
from rediffuse.errors import ConfigError
from rediffuse.methods.base import Draw, Method, check_images, plain
from rediffuse.sampling.guided import ClassifierFree
from rediffuse.sampling.sampler import run_jobs
from rediffuse.sampling.solvers import SOLVERS, End, Solver, trajectory
from rediffuse.sampling.table import SamplingJob, StepTable

if TYPE_CHECKING:
    from rediffuse.concepts.concepts import Concepts

GUIDANCE_SCALE = 4.0
SOLVER: Solver = "dpm++2m"
STEPS = 12  # strengths .25 .5 .75 are whole steps of it; `recipes.sampling_steps` has what more would change
BATCH = 32
LAYOUT_STRENGTH = 0.5
"""Up to this strength an edit is taken to leave things where they are, so that masks and boxes still fit. A choice, not a measurement: what
is left of a photo's structure fades as strength grows, until the prompt alone decides what stands where."""

Law = Literal["stratified", "iid", "fixed"]
"""How strengths are drawn. stratified: over a batch of copies each comes equally often, what is left over goes to different ones at
random, in random order.
iid: each copy for itself, as in the DA-Fusion paper. fixed: there is but one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EditDraw(Draw):
    """What an edit is: strength (B,) float32 in (0, 1]; seed (B,) int64 of its noise; label (B,) int64, index into the method's classes."""

    strength: Tensor = field(metadata={"dtype": torch.float32})
    seed: Tensor = field(metadata={"dtype": torch.int64})
    label: Tensor = field(metadata={"dtype": torch.int64})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strengths(plain(self.strength))
        if bool((self.seed < 0).any()):
            raise ConfigError(f"a seed must not be negative, got {int(self.seed.min())}")


def check_strengths(strengths: Sequence[float]) -> tuple[float, ...]:
    """The strengths as a tuple, each in (0, 1]; else ConfigError."""
    for strength in strengths:
        if not 0 < strength <= 1:
            raise ConfigError(f"strength must be in (0, 1], got {strength}; 1.0 redoes the whole schedule")
    return tuple(float(strength) for strength in strengths)


def draw_strengths(law: Law, strengths: Sequence[float], count: int, generator: torch.Generator) -> Tensor:
    """`count` strengths after a law, (count,) float32.

    Reference: Trabucco et al., ICLR 2024, arXiv 2302.07944 (iid over 1/k ... 1, k = 4).
    """
    kinds = len(strengths)
    if law == "iid":
        rows = torch.randint(kinds, (count,), generator=generator)
    else:  # fixed is the case of one kind
        rounds, left = divmod(count, kinds)
        rows = torch.cat([torch.arange(kinds).repeat(rounds), torch.randperm(kinds, generator=generator)[:left]])
        rows = rows[torch.randperm(count, generator=generator)]
    return torch.tensor(strengths, dtype=torch.float32)[rows]


SDEDIT = """@inproceedings{meng2022sdedit,
  title = {{SDEdit}: Guided Image Synthesis and Editing with Stochastic Differential Equations},
  author = {Meng, Chenlin and He, Yutong and Song, Yang and Song, Jiaming and Wu, Jiajun and Zhu, Jun-Yan and Ermon, Stefano},
  booktitle = {International Conference on Learning Representations},
  year = {2022},
  eprint = {2108.01073},
  archivePrefix = {arXiv}
}"""


class EditingMethod(Method[EditDraw]):
    """Base of the methods whose sample is one edit of one picture under one prompt; a subclass says which prompt.

    Args:
        model: a text-to-image denoiser.
        classes: names that labels are indices into.
        strengths: shares of the sampling schedule that are redone, each in (0, 1].
        law: how they are drawn.
        guidance_scale: of classifier-free guidance; 1 is none.
        solver, steps: of the sampling schedule at strength 1.
        batch: slots of a denoiser call in `apply`.
    Shape: (B, 3, H, W) in [0, 1] -> the same; H and W multiples of `model.multiple_of`.
    """

    def __init__(
        self,
        model: Denoiser,
        classes: Sequence[str],
        *,
        strengths: Sequence[float],
        law: Law,
        guidance_scale: float,
        solver: Solver,
        steps: int,
        batch: int,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_denoiser(model, who)
        if isinstance(classes, str) or not isinstance(classes, Iterable):
            raise ConfigError(f"{who} takes class names, such as ('cat', 'dog'), got {classes!r:.60}")
        if not isinstance(strengths, Iterable):
            raise ConfigError(f"{who} takes strengths, such as (0.5,), got {strengths!r:.60}")
        if not model.conditional:
            raise ConfigError(f"{type(self).__name__} needs a model that takes prompts, got {type(model).__name__}; load tiny-imagenet-64")
        if solver not in SOLVERS:
            raise ConfigError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
        if law not in get_args(Law):
            raise ConfigError(f"law must be one of {', '.join(get_args(Law))}, got {law!r}")
        if not strengths or (law == "fixed" and len(strengths) > 1):
            raise ConfigError(f"a {law} law needs {'one strength' if law == 'fixed' else 'strengths'}, got {tuple(strengths)}")
        if steps < 1 or batch < 1:
            raise ConfigError(f"steps and batch must be at least 1, got {steps} and {batch}")
        self.model = model
        self.classes = tuple(classes)
        self.strengths = check_strengths(strengths)
        self.law: Law = law
        self.solver: Solver = solver
        self.guidance_scale, self.steps, self.batch = float(guidance_scale), steps, batch
        self.notes: tuple[str, ...] = ()  # sentences that those who use its pictures should know; a run keeps them

    def _check_words(self, words: Concepts) -> None:
        """Warn whoever makes the method where its words were learned on another model, and note it."""
        strange = words.strange_to(self.model)
        if strange:
            self.notes = (*self.notes, strange)
            warnings.warn(strange, stacklevel=3)

    def __repr__(self) -> str:
        told = {name: value for name, value in self.settings().items() if name not in ("method", "classes")}
        options = ", ".join(f"{name}={value!r}" for name, value in told.items())
        return f"{type(self).__name__}({self.model!r}, {len(self.classes)} classes, {options})"

    takes_source = True
    """Whether anything of the source is left in what is made."""

    @property
    def words(self) -> Mapping[str, Tensor] | None:
        """Learned vectors by placeholder, for prompts that hold one."""
        return None

    @property
    def concept_hash(self) -> str:
        """Identifies the learned words; empty where there are none."""
        return ""

    @abstractmethod
    def prompt(self, label: int) -> str:
        """What the model is told for a class."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that the method is but its model and words, as JSON."""

    @classmethod
    @abstractmethod
    def from_settings(cls, model: Denoiser, settings: Mapping[str, Any], words: Any = None) -> Self:
        """The method that `settings()` came from; words: the concepts it used, if any."""

    def draw(self, batch_size: int, generator: torch.Generator | None = None, labels: Tensor | None = None) -> EditDraw:
        """Strengths after the law (stratified over this batch), seeds, and the labels (B,) as they are.

        Without labels, class 0 of a single class.
        """
        generator = self.generator() if generator is None else generator
        strength = draw_strengths(self.law, self.strengths, batch_size, generator)
        seed = torch.randint(2**63 - 1, (batch_size,), generator=generator)
        if labels is None:
            if len(self.classes) > 1:
                raise ConfigError(f"{type(self).__name__} steers by class: give labels (B,), indices into its {len(self.classes)} classes")
            labels = torch.zeros(batch_size, dtype=torch.int64)
        return EditDraw(strength=strength, seed=seed, label=labels.to("cpu", torch.int64))

    def _draw_for(self, images: Tensor, rest: tuple[Any, ...]) -> EditDraw:
        labels = torch.as_tensor(rest[0]).reshape(-1).to(torch.int64) if rest and rest[0] is not None else None
        return self.draw(len(images), labels=labels)

    def prompts(self, labels: Tensor) -> list[str]:
        """One prompt a label."""
        wrong = [label for label in labels.tolist() if not 0 <= label < len(self.classes)]
        if wrong and self.classes:  # without classes the prompt names none
            raise ConfigError(f"label {wrong[0]} is outside the {len(self.classes)} classes of {type(self).__name__}")
        return [self.prompt(label) for label in labels.tolist()]

    @property
    def end(self) -> End | None:
        """Where the last step of pndm goes by the model's own scheduler, as in the published pipeline; None where nothing says so, and for
        the other solvers, which follow none."""
        to_one = getattr(self.model, "scheduler_config", {}).get("set_alpha_to_one")
        if self.solver != "pndm" or to_one is None:
            return None
        return "clean" if to_one else "first"

    @property
    def ending(self) -> dict[str, str]:
        """An entry of the settings where pndm goes to the clean image; at the usual level 0 none, as ever."""
        return {"end": "clean"} if self.end == "clean" else {}

    def tables(self, draw: EditDraw) -> list[StepTable]:
        """The steps of every sample; samples of one strength share one table."""
        strengths = plain(draw.strength)
        schedule, known = self.model.schedule, dict.fromkeys(strengths)
        tables = {strength: trajectory(schedule, self.solver, self.steps, strength, end=self.end) for strength in known}
        return [tables[strength] for strength in strengths]

    @torch.no_grad()
    def jobs(self, sources: Tensor, draw: EditDraw, conditions: dict[str, Condition] | None = None) -> list[SamplingJob]:
        """What the sampler is asked to do.

        Args:
            sources: (B, C, H, W), encoded; the rows that are copies of one picture may be views of one encoding.
            conditions: prompts embedded so far; new ones are added.
        """
        if len(sources) != len(draw):
            raise ConfigError(f"there are {len(sources)} sources for {len(draw)} draws; repeat a source for each of its copies")
        known = {} if conditions is None else conditions
        prompts = self.prompts(draw.label)
        for prompt in dict.fromkeys(prompts):
            if prompt not in known:  # one at a time: in a batch, rounding would depend on what else is asked for
                known[prompt] = self.model.embed([prompt], self.words)
        return [
            SamplingJob(source=source, table=table, condition=known[prompt], seed=seed)
            for source, table, prompt, seed in zip(sources, self.tables(draw), prompts, draw.seed.tolist(), strict=True)
        ]

    def guided(self) -> Denoiser:
        """The model under guidance, as the sampler calls it."""
        return ClassifierFree(self.model, self.guidance_scale)

    @torch.no_grad()
    def apply(self, images: Tensor, draw: EditDraw) -> Tensor:  # type: ignore[override]
        """Edit a batch: encode, sample, decode; what a batch is cut into changes nothing but rounding."""
        check_images(images, self.model.multiple_of)
        images = images.to(self.model.device)
        sources = torch.cat([self.model.encode(chunk) for chunk in images.split(self.batch)])
        samples = run_jobs(self.guided(), self.jobs(sources, draw), batch=self.batch)
        return torch.cat([self.model.decode(chunk) for chunk in samples.to(self.model.device).split(self.batch)])
