"""Pictures from nothing but noise and a prompt.

Reference: Ho & Salimans 2022, arXiv 2207.12598 (classifier-free guidance).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from rediffuse.concepts.prompts import GENERATION_TEMPLATE, as_words
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError
from rediffuse.methods.editing import BATCH, GUIDANCE_SCALE, SOLVER, STEPS, EditDraw, EditingMethod
from rediffuse.methods.real_guidance import PROMPTS
from rediffuse.sampling.solvers import Solver, from_noise
from rediffuse.sampling.table import StepTable

if TYPE_CHECKING:
    from rediffuse.concepts.concepts import Concepts


class FromNoise(EditingMethod):
    """Samples of a class without a source: an edit of which no picture is left.

    Choose it to see what the model, or a learned word, stands for, and to measure it. For training, copies of photos keep more of the
    class: strength 1 begins at the last noise level, where most schedules still hold some of the photo.

    Args:
        model: a text-to-image denoiser.
        classes: names that labels are indices into; default: those of the words.
        words: learned concepts; with them the prompt is "a photo of a <word>". A warning says where they are known to be another model's.
        prompt: without words: "name", "photo", or any text, in which {} stands for the name.
        guidance_scale: of classifier-free guidance; 1 is none.
        solver, steps: the sampling schedule, all of which is run.
        batch: slots of a denoiser call in `apply`.
    Shape: (B, 3, H, W) in [0, 1], of which only the shape counts -> the same.
    Raises:
        ConfigError: no classes, or a setting out of range.
        ModelError: a class without a word.
    """

    name = "from_noise"
    takes_source = False
    citation = """@article{ho2022classifier,
  title = {Classifier-Free Diffusion Guidance},
  author = {Ho, Jonathan and Salimans, Tim},
  year = {2022},
  eprint = {2207.12598},
  archivePrefix = {arXiv}
}"""

    def __init__(
        self,
        model: Denoiser,
        classes: Sequence[str] | None = None,
        words: Concepts | None = None,
        prompt: str = "name",
        guidance_scale: float = GUIDANCE_SCALE,
        solver: Solver = SOLVER,
        steps: int = STEPS,
        *,
        batch: int = BATCH,
    ) -> None:
        classes = tuple(classes or (() if words is None else words.classes))
        if not classes:
            raise ConfigError("without photos there are no classes to draw; give classes, or learned words")
        if words is not None:
            for name in classes:
                words.placeholder(name)  # a class without a word is an error now, not in the middle of a run
        super().__init__(
            model, classes, strengths=(1.0,), law="fixed", guidance_scale=guidance_scale, solver=solver, steps=steps, batch=batch
        )  # fmt: skip
        self.concepts = words
        if words is not None:
            self._check_words(words)
        self.template = GENERATION_TEMPLATE if words is not None else PROMPTS.get(prompt, prompt)

    @property
    def words(self) -> Mapping[str, Tensor] | None:
        return None if self.concepts is None else self.concepts.vectors()

    @property
    def concept_hash(self) -> str:
        return "" if self.concepts is None else self.concepts.hash

    def prompt(self, label: int) -> str:
        name = self.classes[label]
        return self.template.replace("{}", as_words(name) if self.concepts is None else self.concepts.placeholder(name))

    def tables(self, draw: EditDraw) -> list[StepTable]:
        return [from_noise(self.model.schedule, self.solver, self.steps, end=self.end)] * len(draw)

    def settings(self) -> dict[str, Any]:
        return {
            "method": self.name,
            "classes": list(self.classes),
            "prompt": self.template,
            "learned": self.concepts is not None,
            "guidance_scale": self.guidance_scale,
            "solver": self.solver,
            "steps": self.steps,
            **self.ending,
        }

    @classmethod
    def from_settings(cls, model: Denoiser, settings: Mapping[str, Any], words: Any = None) -> Self:
        if settings["learned"] and words is None:
            raise ConfigError("FromNoise needs the words that it was used with; load them: Concepts.load(FILE)")
        own = {name: value for name, value in settings.items() if name not in ("method", "learned", "end")}
        return cls(model, words=words if settings["learned"] else None, **own)
