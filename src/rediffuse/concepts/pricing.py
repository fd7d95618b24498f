"""What learning words will cost, before anything is learned."""

from __future__ import annotations

from dataclasses import dataclass

from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.concepts.starts import search_calls
from rediffuse.denoisers.base import Denoiser
from rediffuse.progress import counted, roughly


@dataclass(frozen=True, kw_only=True)
class WordCost:
    """Of all classes together.

    Attributes:
        words: one a class; samples: of training; looks: calls that choosing their starts takes.
    """

    words: int
    samples: int
    looks: int

    @property
    def image_steps(self) -> float:
        """Image steps that take as long.

        A sample costs a forward and half a backward call; an image step two forward calls, because of guidance: about the same. A look
        is one.
        """
        return self.samples + self.looks / 2

    def summary(self, rate: float | None) -> str:
        """The line that is printed before learning. rate: image steps a second, None if unknown."""
        search = f" and {counted(self.looks, 'look')} for where to start" if self.looks else ""
        time = "unknown time" if rate is None else f"about {roughly(self.image_steps / rate)}"
        return f"{counted(self.words, 'word')} to learn, {counted(self.samples, 'training sample')}{search}: {time}"


def price_words(model: Denoiser, recipe: InversionRecipe, classes: int) -> WordCost:
    """The cost of a word for each of so many classes."""
    return WordCost(words=classes, samples=classes * recipe.samples_per_class, looks=classes * search_calls(model, recipe))
