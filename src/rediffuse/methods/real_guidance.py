"""Real Guidance: edits of one strength under the class's own name; the baseline of DA-Fusion.

Reference: He et al., ICLR 2023, arXiv 2210.07574; in the form of Trabucco et al., ICLR 2024, arXiv 2302.07944.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from rediffuse.concepts.prompts import GENERATION_TEMPLATE, as_words
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError
from rediffuse.methods.editing import BATCH, GUIDANCE_SCALE, SDEDIT, SOLVER, STEPS, EditingMethod
from rediffuse.sampling.solvers import Solver

STRENGTH = 0.5
PROMPTS: Mapping[str, str] = {"name": GENERATION_TEMPLATE, "photo": "a photo"}


class RealGuidance(EditingMethod):
    """Copies of a photo at one strength, under "a photo of a NAME" or "a photo"; nothing is learned.

    Choose it as the baseline, or where the model knows the classes by name: there it does as well as learned words and costs less. The
    original works with GLIDE and lowers the strength as shots grow (.5 at one shot, .15 at 16); here it is .5 throughout, as in the
    DA-Fusion paper.

    Args:
        model: a text-to-image denoiser.
        classes: names that labels are indices into.
        strength: share of the schedule that is redone, in (0, 1].
        prompt: "name", "photo", or any text, in which {} stands for the name.
        guidance_scale: of classifier-free guidance; 1 is none.
        solver, steps: the sampling schedule at strength 1.
        batch: slots of a denoiser call in `apply`.
    Reference: He et al., ICLR 2023, arXiv 2210.07574; Trabucco et al., ICLR 2024, arXiv 2302.07944.
    """

    name = "real_guidance"
    citation = """@inproceedings{he2023synthetic,
  title = {Is Synthetic Data from Generative Models Ready for Image Recognition?},
  author = {He, Ruifei and Sun, Shuyang and Yu, Xin and Xue, Chuhui and Zhang, Wenqing and Torr, Philip and Bai, Song and Qi, Xiaojuan},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
  eprint = {2210.07574},
  archivePrefix = {arXiv}
}"""
    built_on = (SDEDIT,)

    def __init__(
        self,
        model: Denoiser,
        classes: Sequence[str],
        strength: float = STRENGTH,
        prompt: str = "name",
        guidance_scale: float = GUIDANCE_SCALE,
        solver: Solver = SOLVER,
        steps: int = STEPS,
        *,
        batch: int = BATCH,
    ) -> None:
        template = PROMPTS.get(prompt, prompt)
        if "{}" in template and not classes:
            raise ConfigError(f"the prompt {template!r} needs class names; give classes, or prompt='photo'")
        super().__init__(
            model, classes, strengths=(strength,), law="fixed", guidance_scale=guidance_scale, solver=solver, steps=steps, batch=batch
        )  # fmt: skip
        self.template = template

    def prompt(self, label: int) -> str:
        return self.template.replace("{}", as_words(self.classes[label])) if "{}" in self.template else self.template

    def settings(self) -> dict[str, Any]:
        return {
            "method": self.name,
            "classes": list(self.classes),
            "strength": self.strengths[0],
            "prompt": self.template,
            "guidance_scale": self.guidance_scale,
            "solver": self.solver,
            "steps": self.steps,
            **self.ending,
        }

    @classmethod
    def from_settings(cls, model: Denoiser, settings: Mapping[str, Any], words: Any = None) -> Self:
        return cls(model, **{name: value for name, value in settings.items() if name not in ("method", "end")})
