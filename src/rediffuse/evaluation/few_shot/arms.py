"""The copies that an arm trains on: words learned and images made once, kept in the comparison's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rediffuse.concepts.concepts import Concepts
from rediffuse.concepts.state import learning_seconds
from rediffuse.concepts.textual_inversion import learn
from rediffuse.data.splits import few_shot
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError
from rediffuse.evaluation.few_shot.cells import CellStore, Stage
from rediffuse.evaluation.few_shot.settings import DA_FUSION, GENERATED, REAL_GUIDANCE, CompareSettings
from rediffuse.generation.plan import REAL
from rediffuse.generation.run import generate
from rediffuse.generation.store import RUN, Run, read_info, read_plan
from rediffuse.methods.da_fusion import DAFusion
from rediffuse.methods.editing import EditingMethod
from rediffuse.methods.real_guidance import RealGuidance


class Copies:
    """Makes, or finds, the copies of every arm, shot number and seed.

    Real Guidance depends on the photos alone, so its copies are made once for the most shots and shared by fewer. DA-Fusion learns its
    words from the very shots of a cell, never from more.

    Args:
        pool: the photos that shots are taken from.
        model: the text-to-image denoiser; None where no arm makes copies.
        settings: of the comparison.
        store: its folder.
        progress: show bars.
    """

    def __init__(self, pool: ImageSet, model: Denoiser | None, settings: CompareSettings, store: CellStore, progress: bool) -> None:
        if model is None and set(GENERATED) & set(settings.arms):
            raise ConfigError(
                f"the arms {', '.join(arm for arm in settings.arms if arm in GENERATED)} need a text-to-image model; give one"
            )
        self.pool, self.settings, self.store, self.progress = pool, settings, store, progress
        self._model = model
        self._most = max(settings.shots)
        self._runs: dict[Path, Run] = {}

    def of(self, arm: str, shots: int, seed: int) -> ImageSet | None:
        """The copies of a cell's photos; None for arms that make none."""
        if arm not in GENERATED:
            return None
        run = self._run(arm, self._most if arm == REAL_GUIDANCE else shots, seed)
        return run.copies_of(few_shot(self.pool, shots, seed).ids)

    def folder(self, arm: str, shots: int, seed: int) -> Path:
        """Where the run with these copies lies."""
        most = self._most if arm == REAL_GUIDANCE else shots
        return self.store.out / "generated" / arm / f"seed-{seed}" / f"shots-{most}"

    def complete(self, arm: str, shots: int, seed: int) -> bool:
        """Whether all copies of a run are there."""
        folder = self.folder(arm, shots, seed)
        return (folder / RUN).is_file() and bool(read_info(folder)["state"] == "complete")

    def forget(self) -> None:
        """Let go of decoded pictures."""
        self._runs.clear()

    @property
    def model(self) -> Denoiser:
        if self._model is None:
            raise ConfigError("no arm of this comparison makes copies, so it has no text-to-image model")
        return self._model

    def real_guidance(self) -> RealGuidance:
        making = self.settings.making
        return RealGuidance(
            self.model,
            self.pool.classes,
            making.guidance_strength,
            making.guidance_prompt,
            making.guidance_scale,
            making.solver,
            making.steps,
        )

    def da_fusion(self, words: Concepts) -> DAFusion:
        making = self.settings.making
        return DAFusion(
            self.model, words, making.strengths, making.guidance_scale, making.solver, making.steps, making.law, classes=self.pool.classes
        )

    def words(self, shots: int, seed: int) -> Concepts:
        """The words learned from these shots; learned now if the folder lacks them. A killed learning goes on where it stopped."""
        folder = self.store.out / "words" / f"seed-{seed}" / f"shots-{shots}"
        if (folder / "concepts.safetensors").exists():
            return Concepts.load(folder, self.pool.classes)
        photos, making, state = few_shot(self.pool, shots, seed), self.settings.making, folder.with_name(folder.name + ".state")
        state.parent.mkdir(parents=True, exist_ok=True)
        learned = learn(
            photos, self.model, recipe=making.recipe, seed=seed, batch=making.batch, progress=self.progress, checkpoint=state
        )  # fmt: skip
        self.store.add_stage(Stage(name="learn", arm=DA_FUSION, shots=shots, seed=seed, seconds=learning_seconds(state)))
        learned.save(folder)
        state.unlink(missing_ok=True)
        return learned

    def _run(self, arm: str, shots: int, seed: int) -> Run:
        folder = self.folder(arm, shots, seed)
        if folder not in self._runs:
            method: EditingMethod = self.real_guidance() if arm == REAL_GUIDANCE else self.da_fusion(self.words(shots, seed))
            photos, making = few_shot(self.pool, shots, seed), self.settings.making
            folder.parent.mkdir(parents=True, exist_ok=True)
            shown: Literal["bar", False] = "bar" if self.progress else False  # the comparison has named the price of all
            run = generate(
                photos, method, folder, copies=making.copies, seed=seed, batch=making.batch, fit=self.settings.fit, progress=shown
            )
            self.store.add_stage(stage_of(run, arm, shots, seed))
            self._runs[folder] = run
        return self._runs[folder]


def stage_of(run: Run, arm: str, shots: int, seed: int) -> Stage:
    """What a finished run cost, from its own files."""
    rows = [row for row in read_plan(run.folder) if row.copy != REAL]
    calls = sum(row.calls for row in rows)
    return Stage(name="generate", arm=arm, shots=shots, seed=seed, seconds=float(run.info["seconds"]), images=len(rows), calls=calls)
