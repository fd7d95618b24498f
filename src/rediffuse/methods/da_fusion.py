"""DA-Fusion: edits of varied strength, steered by a word that was learned for the class.

Reference: Trabucco, Doherty, Gurinas, Salakhutdinov. ICLR 2024, arXiv 2302.07944.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rediffuse.concepts.prompts import GENERATION_TEMPLATE
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError
from rediffuse.methods.editing import BATCH, GUIDANCE_SCALE, SDEDIT, SOLVER, STEPS, EditingMethod, Law
from rediffuse.sampling.solvers import Solver

if TYPE_CHECKING:
    from torch import Tensor

    from rediffuse.concepts.concepts import Concepts

STRENGTHS = (0.25, 0.5, 0.75, 1.0)


TEXTUAL_INVERSION = """@inproceedings{gal2023image,
  title = {An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion},
  author = {Gal, Rinon and Alaluf, Yuval and Atzmon, Yuval and Patashnik, Or and Bermano, Amit H. and Chechik, Gal and Cohen-Or, Daniel},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
  eprint = {2208.01618},
  archivePrefix = {arXiv}
}"""


class DAFusion(EditingMethod):
    """Copies of a photo under "a photo of a <word>", the word learned from a few photos of its class.

    Choose it for classes that the model has no name for, or where names must not reach the model. It costs the learning of the words
    (`rediffuse.learn`) and then as many denoiser calls a copy as its strength asks for. The paper's settings are law="iid",
    solver="pndm", steps=50 and guidance_scale=7.5.

    Args:
        model: the text-to-image denoiser that the words were learned on; a warning says where it is known to be another.
        words: learned concepts, one a class.
        strengths: shares of the schedule that are redone, each in (0, 1].
        guidance_scale: of classifier-free guidance; 1 is none.
        solver, steps: the sampling schedule at strength 1.
        law: "stratified", "iid" or "fixed".
        classes: names that labels are indices into; default: those of the words, in their order.
        batch: slots of a denoiser call in `apply`.
    Raises:
        ConfigError: a setting out of range.
        ModelError: a class without a word.
    Reference: Trabucco et al., ICLR 2024, arXiv 2302.07944.
    """

    name = "da_fusion"
    citation = """@inproceedings{trabucco2024dafusion,
  title = {Effective Data Augmentation With Diffusion Models},
  author = {Trabucco, Brandon and Doherty, Kyle and Gurinas, Max and Salakhutdinov, Ruslan},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2302.07944},
  archivePrefix = {arXiv}
}"""
    built_on = (SDEDIT, TEXTUAL_INVERSION)

    def __init__(
        self,
        model: Denoiser,
        words: Concepts,
        strengths: Sequence[float] = STRENGTHS,
        guidance_scale: float = GUIDANCE_SCALE,
        solver: Solver = SOLVER,
        steps: int = STEPS,
        law: Law = "stratified",
        *,
        classes: Sequence[str] | None = None,
        batch: int = BATCH,
    ) -> None:
        if not hasattr(words, "placeholder"):
            raise ConfigError(
                f"DAFusion takes words as rediffuse.learn gives them, got {words!r:.60}; saved ones come back by "
                "rediffuse.concepts.concepts.Concepts.load(FOLDER)"
            )
        classes = words.classes if classes is None else tuple(classes)
        for name in classes:
            words.placeholder(name)  # a class without a word is an error now, not in the middle of a run
        super().__init__(
            model, classes, strengths=strengths, law=law, guidance_scale=guidance_scale, solver=solver, steps=steps, batch=batch
        )  # fmt: skip
        self.concepts = words
        self._check_words(words)

    @property
    def words(self) -> Mapping[str, Tensor]:
        return self.concepts.vectors()

    @property
    def concept_hash(self) -> str:
        return self.concepts.hash

    def prompt(self, label: int) -> str:
        return GENERATION_TEMPLATE.replace("{}", self.concepts.placeholder(self.classes[label]))

    def settings(self) -> dict[str, Any]:
        return {
            "method": self.name,
            "classes": list(self.classes),
            "strengths": list(self.strengths),
            "guidance_scale": self.guidance_scale,
            "solver": self.solver,
            "steps": self.steps,
            **self.ending,
            "law": self.law,
        }

    @classmethod
    def from_settings(cls, model: Denoiser, settings: Mapping[str, Any], words: Any = None) -> Self:
        if words is None:
            raise ConfigError("DAFusion needs the words that it was used with; load them: Concepts.load(FILE)")
        return cls(model, words, **{name: value for name, value in settings.items() if name not in ("method", "end")})
