"""What `augment` and `generate` have in common: how copies are made and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.concepts.concepts import Concepts
    from rediffuse.concepts.recipes import InversionRecipe
    from rediffuse.denoisers.base import Denoiser
    from rediffuse.methods.editing import EditingMethod

COPIES = Group("How copies are made", sort_key=10)
WORDS = Group("How words are learned", sort_key=15)
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
FILES = Group("What is written", sort_key=20)


@Parameter(name="*", group=WORDS)
@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a word is learned for each class."""

    recipe: Annotated[
        str,
        Parameter(
            help='fast (200 samples a class, from the nearest known word), paper_agnostic (1,000 steps, from "the") or paper_full '
            "(2,000 steps, four vectors, from the name)."
        ),
    ] = "fast"
    samples: Annotated[
        int | None, Parameter(help="Training samples a class, in place of the recipe's: whole steps of 4, of paper_full 8.")
    ] = None

    def find(self) -> InversionRecipe:
        """The recipe, with another budget if one is given. Raises ConfigError."""
        from rediffuse.concepts.recipes import find_recipe

        if self.samples is not None and self.samples < 1:
            raise ConfigError(f"--samples must be at least 1, got {self.samples}")
        found = find_recipe(self.recipe)
        return found if self.samples is None else found.with_samples(self.samples)

    def say_rounding(self, quiet: bool) -> None:
        """Say where the samples that were asked for are no whole number of steps, and what they become."""
        from rediffuse.cli import terminal

        found = self.find()
        if self.samples is not None and found.samples_per_class != self.samples:
            step = f"a step of {self.recipe} learns from {found.batch_per_class} samples of each class"
            terminal.note(f"--samples {self.samples} becomes {found.samples_per_class}: {step}.", quiet=quiet, style="yellow")

    def check_unused(self, why: str) -> None:
        """Raise ConfigError if one of these was given where no words are learned. why: the reason, a sentence's beginning."""
        for name in ("recipe", "samples"):
            value = getattr(self, name)
            if value != getattr(LEARNING, name):
                raise ConfigError(f"--{name} {value} says how words are learned, and {why}; leave it out")


@Parameter(name="*", group=COPIES)
@dataclass(frozen=True, kw_only=True)
class Redrawing:
    """How a photo is redrawn, whatever the method."""

    strengths: Annotated[
        tuple[float, ...] | None,
        Parameter(
            help="How much of the picture da-fusion redoes, each above 0 and at most 1; real-guidance always redoes .5, as published. "
            "[default: .25 .5 .75 1]"
        ),
    ] = None
    law: Annotated[
        Literal["stratified", "iid"], Parameter(help="Each strength equally often among a photo's copies, or drawn for each.")
    ] = "stratified"
    guidance: Annotated[float | None, Parameter(help="Weight of the prompt; 1 is none. [default: 4]")] = None
    solver: Annotated[Literal["ddim", "dpm++2m", "pndm", "ancestral"], Parameter(help="How noise is taken away.")] = "dpm++2m"
    steps: Annotated[int, Parameter(help="Steps of a full redrawing; a copy of strength .5 takes half of them.")] = 12
    batch: Annotated[
        int | None, Parameter(help="Images in one call of the model, also where words are learned; less needs less memory.")
    ] = None

    @property
    def chosen_strengths(self) -> tuple[float, ...]:
        return self.strengths or STRENGTHS

    @property
    def calls(self) -> float:
        """Denoiser calls a copy, guidance doubled, on average."""
        strengths = self.chosen_strengths
        return 2 * sum(max(1, int(self.steps * strength)) for strength in strengths) / len(strengths)

    def check(self) -> None:
        """Raise ConfigError where options are out of range or contradict each other, before any work."""
        from rediffuse.methods.editing import check_strengths
        from rediffuse.sampling.guided import check_guidance

        check_strengths(self.chosen_strengths)
        if self.guidance is not None:
            check_guidance(self.guidance)
        for name in ("steps", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, got {value}")


@Parameter(name="*", group=COPIES)
@dataclass(frozen=True, kw_only=True)
class Making(Redrawing):
    """How a copy comes to be."""

    strengths: Annotated[
        tuple[float, ...] | None,
        Parameter(help="How much of the picture is redone, each above 0 and at most 1. [default: .25 .5 .75 1; real-guidance .5]"),
    ] = None
    method: Annotated[
        Literal["da-fusion", "real-guidance"], Parameter(help="da-fusion prompts with learned words, real-guidance with the class names.")
    ] = "da-fusion"
    prompt: Annotated[
        str | None, Parameter(help='real-guidance: name ("a photo of a NAME"), photo ("a photo"), or a text with {} for the name.')
    ] = None

    @property
    def chosen_strengths(self) -> tuple[float, ...]:
        return self.strengths or ((0.5,) if self.method == "real-guidance" else STRENGTHS)

    def check(self) -> None:
        super().check()
        if self.method == "da-fusion" and self.prompt is not None:
            raise ConfigError(f"--prompt {self.prompt!r} belongs to --method real-guidance; da-fusion prompts with the learned words")
        if self.method == "real-guidance" and len(self.chosen_strengths) > 1:
            given = " ".join(f"{strength:g}" for strength in self.chosen_strengths)
            raise ConfigError(f"real-guidance has one strength, got --strengths {given}; give one, or use --method da-fusion")
        if self.method == "real-guidance" and self.law != MAKING.law:
            raise ConfigError(f"--law {self.law} is of several strengths, and real-guidance has one; leave it out")

    def build(self, model: Denoiser, classes: Sequence[str], words: Concepts | None) -> EditingMethod:
        """The method; words where it prompts with them."""
        from rediffuse.methods.da_fusion import DAFusion
        from rediffuse.methods.real_guidance import RealGuidance

        shared: dict[str, Any] = {"solver": self.solver, "steps": self.steps}
        if self.guidance is not None:
            shared["guidance_scale"] = self.guidance
        if self.method == "real-guidance":
            return RealGuidance(model, classes, strength=self.chosen_strengths[0], prompt=self.prompt or "name", **shared)
        if words is None:
            raise ConfigError("da-fusion needs learned words; give their folder with --words")
        return DAFusion(model, words, strengths=self.chosen_strengths, law=self.law, classes=classes, **shared)


@Parameter(name="*", group=FILES)
@dataclass(frozen=True, kw_only=True)
class Writing:
    """How many copies, and how they are written."""

    copies: Annotated[int, Parameter(help="Copies of each photo.")] = 10
    target_per_class: Annotated[int | None, Parameter(help="Images that each class shall have instead: evens out rare classes.")] = None
    keep_real: Annotated[bool, Parameter(help="Put the photos into the folder too.")] = False
    fit: Annotated[
        Literal["pad", "crop", "squash"], Parameter(help="How photos become the model's square; padding is taken off again.")
    ] = "pad"
    size: Annotated[Literal["source", "model"], Parameter(help="Size of the copies: the photo's or the model's.")] = "source"
    format: Annotated[Literal["png", "webp", "jpeg"], Parameter(help="png and webp keep every pixel.")] = "png"
    dry_run: Annotated[bool, Parameter(help="Say what would be made and how long it takes, and stop.")] = False
    preview: Annotated[int, Parameter(help="Make this many images and a sheet to look at, and stop.")] = 0
    take_over: Annotated[bool, Parameter(help="Go on with a run that another process seems to be writing.")] = False

    def check(self) -> None:
        """Raise ConfigError for a number that makes no sense, before any work."""
        for name in ("copies", "target_per_class"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if self.preview < 0:
            raise ConfigError(f"--preview must be at least 0, got {self.preview}")


LEARNING, REDRAWING, MAKING, WRITING = Learning(), Redrawing(), Making(), Writing()
