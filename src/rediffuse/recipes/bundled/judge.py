"""What `tiny-imagenet-64` can do, in numbers: the figures of its model card.

    python -m rediffuse.recipes.bundled.judge --model FOLDER --recogniser NET --features OTHER_NET --data DATA --out CARD

Shows: PSNR of round trips and what they keep of a recogniser's accuracy; the share of prompted samples that it names rightly by guidance;
label survival by strength; the classification accuracy score (Ravuri & Vinyals, NeurIPS 2019, arXiv 1905.10887): a net trained on
generated pictures and tested on real ones, as a share of the same net trained on as many real ones; FID-like distance, precision
and recall on the features of another net; a sample grid. The recogniser is a separate network that is never shipped; without one, what
it would say is left out. Samples are kept in --out: a killed judgement goes on, and `--draw I/N` draws the I-th of N parts and stops, for
processes side by side. `--looks` takes some of the questions alone; `card --facts A B` puts judgements of the same weights together.
Time: 17,000 samples of 12 steps are 95 minutes of one core with AVX512-BF16, the two nets 16.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.fidelity.manifold import manifold
from rediffuse.evaluation.fidelity.moments import frechet
from rediffuse.evaluation.provenance import commit
from rediffuse.evaluation.statistics import Interval, share
from rediffuse.recipes.bundled import features
from rediffuse.recipes.bundled.common import Pictures, read_pictures, save_grid, tell
from rediffuse.recipes.bundled.draws import Draws, edits, floats, to_bytes
from rediffuse.training.checkpoint import weights_hash

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
GUIDANCE = (1.0, 2.0, 4.0, 7.0)


@torch.no_grad()
def classify(net: Any, images: Tensor) -> Tensor:
    """(N, 3, 64, 64) uint8 -> (N,) predicted classes."""
    return torch.cat([net(features.enlarge(chunk.to(net.device))).logits.argmax(-1).cpu() for chunk in images.split(200)])


@torch.no_grad()
def describe(net: Any, images: Tensor) -> Tensor:
    """(N, 3, 64, 64) uint8 -> (N, D) pooled features."""
    chunks = (features.enlarge(chunk.to(net.device)) for chunk in images.split(200))
    return torch.cat([net.resnet(chunk).pooler_output.flatten(1).cpu() for chunk in chunks])


@torch.no_grad()
def round_trips(model: Denoiser, images: Tensor) -> Tensor:
    return torch.cat([to_bytes(model.decode(model.encode(floats(chunk).to(model.device)))).cpu() for chunk in images.split(50)])


def accuracy_score(train: Pictures, held: Pictures, out: Path, steps: int, device: torch.device) -> float:
    """Top-1 on real validation pictures of a fresh net trained on `train`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "checkpoint.pt").unlink(missing_ok=True)  # of an earlier judgement: it learned from other pictures
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # both nets of a judgement begin alike
        net = features.build("forty", train.names).to(device)
    return features.fit(net, train, held, "forty", out, None, steps, 64, 0.2, 0)


def one_class_each(pictures: Pictures, per_class: int, seed: int) -> Tensor:
    """Rows of `per_class` pictures of every class, a seeded choice."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    chosen = [order[pictures.labels[order] == label][:per_class] for label in range(len(pictures.names))]
    return torch.cat(chosen)


def share_interval(made: float, real: float, pictures: int) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of made / real, two shares of as many test pictures, by the normal law of the ratio's logarithm (Katz et al.,
    Biometrics 1978); none where one is 0. The pictures are the same for both, which it does not use: rather too wide."""
    if not made or not real:
        return None, None
    spread = 1.959964 * ((1 - made) / (pictures * made) + (1 - real) / (pictures * real)) ** 0.5
    return made / real * math.exp(-spread), made / real * math.exp(spread)


@dataclass(frozen=True, kw_only=True, eq=False)
class Court:
    """The model, the nets that judge it, the real pictures, and what was asked. recogniser: None where none was given."""

    given: argparse.Namespace
    model: Denoiser
    recogniser: Any
    describer: Any
    held: Pictures
    train: Pictures

    @classmethod
    def open(cls, given: argparse.Namespace) -> Court:
        from transformers import AutoModelForImageClassification

        from rediffuse.training.model_folders import model_folder

        model = load(given.model, device=given.device)
        recogniser, describer = (
            net and AutoModelForImageClassification.from_pretrained(model_folder(net), dtype=torch.float32).eval().to(model.device)
            for net in (given.recogniser, given.features)
        )
        held, train = read_pictures(given.data, "validation"), read_pictures(given.data, "train")
        return cls(given=given, model=model, recogniser=recogniser, describer=describer, held=held, train=train)

    def named(self, made: Tensor, truth: Tensor) -> Interval:
        """Share that the recogniser names as asked, with its interval over pictures."""
        return share((classify(self.recogniser, made) == truth).numpy())

    def right(self, made: Tensor, truth: Tensor) -> float:
        return self.named(made, truth).value

    def right_of_some(self, made: Tensor, truth: Tensor) -> float:
        """A share to divide by. Raises DataError: it is 0."""
        found = self.right(made, truth)
        if not found:
            raise DataError(f"the recogniser names none of {len(made)} pictures rightly, so it cannot say what is kept; train it longer")
        return found

    def asked(self, per_class: int) -> tuple[list[str], Tensor]:
        """The class of each sample, by name and by number."""
        names = [name for name in self.held.names for _ in range(per_class)]
        return names, torch.arange(len(self.held.names)).repeat_interleave(per_class)


def round_trip_facts(court: Court) -> dict[str, Any]:
    images, labels = (part[: court.given.images] for part in (court.held.images, court.held.labels))
    back = round_trips(court.model, images)
    error = (floats(back) - floats(images)).square().mean((1, 2, 3))
    facts = {"psnr": float((-10 * error.log10()).mean())}
    if court.recogniser is None:
        return facts
    real = court.right_of_some(images, labels)
    whole = court.right(court.held.images, court.held.labels)
    return {**facts, "recogniser": real, "recogniser_held_out": whole, "kept": court.right(back, labels) / real, "kept_images": len(images)}


def survival_facts(court: Court) -> dict[str, Any]:
    """How often an edit keeps its label, as a share of round trips."""
    given = court.given
    images, labels = (part[: given.survival] for part in (court.held.images, court.held.labels))
    names = [court.held.names[int(label)] for label in labels]
    base, survival = court.right_of_some(round_trips(court.model, images), labels), {}
    for strength in STRENGTHS:
        made = edits(court.model, names, images, strength=strength, guidance=given.guidance, steps=given.steps, seed=1)
        survival[str(strength)] = court.right(made, labels) / base
    return {"survival": survival, "survival_images": len(names)}


def guidance_facts(court: Court) -> dict[str, Any]:
    names, truth = court.asked(court.given.per_class_guidance)
    recognised = {}
    for scale in GUIDANCE:
        made = edits(court.model, names, None, strength=1.0, guidance=scale, steps=court.given.steps, seed=2)
        recognised[str(scale)] = court.right(made, truth)
    return {"recognised": recognised, "recognised_guidance_samples": len(names)}


def samples(court: Court) -> Draws:
    """The pictures that distances and the classification accuracy score are taken of."""
    given, (names, _) = court.given, court.asked(court.given.per_class)
    return Draws(folder=given.out / "samples", model=court.model, names=names, guidance=given.guidance, steps=given.steps, seed=3)


def recognised_facts(court: Court) -> dict[str, Any]:
    made, (_, truth) = samples(court).all(), court.asked(court.given.per_class)
    found = court.named(made, truth)
    return {
        "recognised_at_use": found.value,
        "recognised_low": found.low,
        "recognised_high": found.high,
        "recognised_samples": len(made),
    }


def score_facts(court: Court) -> dict[str, Any]:
    """Distances and the classification accuracy score of many samples; and a sheet of some."""
    given, train, names = court.given, court.train, court.held.names
    made, (_, truth) = samples(court).all(), court.asked(given.per_class)
    rows, others = one_class_each(train, 2 * given.per_class, 4).view(-1, 2, given.per_class).unbind(1)
    rows, others = rows.flatten(), others.flatten()  # two sets of the same size without a picture in common
    real, drawn = describe(court.describer, train.images[rows]), describe(court.describer, made)
    near = manifold(real, drawn)
    facts: dict[str, Any] = {"samples": len(made), "fid_like": frechet(real, drawn), "precision": near.precision, "recall": near.recall}
    facts["fid_like_real"] = frechet(real, describe(court.describer, train.images[others]))
    synthetic = Pictures(images=made, labels=truth, terms=("",) * len(made), names=names)
    genuine = Pictures(images=train.images[rows], labels=train.labels[rows], terms=("",) * len(rows), names=names)
    device = court.model.device
    on_made = accuracy_score(synthetic, court.held, given.out / "cas-made", given.cas_steps, device)
    on_real = accuracy_score(genuine, court.held, given.out / "cas-real", given.cas_steps, device)
    if not on_real:
        raise DataError(f"a net of {given.cas_steps} steps on real pictures names none rightly; give it more with --cas-steps")
    low, high = share_interval(on_made, on_real, len(court.held))
    facts |= {"cas_accuracy_made": on_made, "cas_accuracy_real": on_real, "cas_per_class": given.per_class, "cas_steps": given.cas_steps}
    facts |= {"classification_accuracy_score": on_made / on_real, "cas_low": low, "cas_high": high}
    picks = [index * given.per_class for index in range(0, len(names), 2)][:80]
    save_grid(given.out / "samples.png", floats(made[picks]), 16)
    return facts


LOOKS: Mapping[str, Callable[[Court], dict[str, Any]]] = {
    "round-trips": round_trip_facts,
    "survival": survival_facts,
    "guidance": guidance_facts,
    "recognised": recognised_facts,
    "score": score_facts,
}
ASK_RECOGNISER = ("survival", "guidance", "recognised")


def looks_of(given: argparse.Namespace) -> tuple[str, ...]:
    """What is looked at: all that the given nets can answer, or what was asked for. Raises ConfigError: that takes a recogniser."""
    if given.looks is None:
        return tuple(look for look in LOOKS if given.recogniser or look not in ASK_RECOGNISER)
    unanswered = [look for look in given.looks if look in ASK_RECOGNISER and not given.recogniser]
    if unanswered:
        raise ConfigError(f"--looks {' '.join(unanswered)} asks a recogniser; name one with --recogniser")
    return tuple(look for look in LOOKS if look in given.looks)


def judge(court: Court) -> dict[str, Any]:
    given, spec = court.given, court.model.spec
    facts: dict[str, Any] = {
        "model": str(Path(given.model).name),
        "weights_hash": spec.weights_hash if spec else "",
        "steps": given.steps,
        "guidance": given.guidance,
    }
    if court.recogniser is not None:
        facts["recogniser_hash"] = weights_hash(court.recogniser)
    facts["judged"] = [{"looks": list(looks_of(given)), "commit": commit(), "date": datetime.now(UTC).isoformat(timespec="minutes")}]
    for look in looks_of(given):
        found = LOOKS[look](court)
        print(json.dumps(found), flush=True)
        facts |= found
    return facts


def one_of(text: str) -> tuple[int, int]:
    """ "2/3" -> (1, 3)."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"takes I/N with 1 <= I <= N, such as 1/2, got {text!r}")
    return int(index) - 1, int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--recogniser", help="transformers folder or name of the net that names pictures")
    parser.add_argument("--features", required=True, help="folder or name of another net, for distances")
    parser.add_argument("--data", type=Path, required=True, help="folder tiny-imagenet-base")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--guidance", type=float, default=4.0, help="the guidance that generation uses")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=1000, help="validation pictures for round trips")
    parser.add_argument("--survival", type=int, default=400, help="validation pictures for label survival")
    parser.add_argument("--per-class", type=int, default=100, help="samples a class for the recognised share and the score")
    parser.add_argument("--per-class-guidance", type=int, default=2, help="samples a class for each guidance scale")
    parser.add_argument("--cas-steps", type=int, default=2000)
    parser.add_argument("--looks", nargs="+", choices=list(LOOKS), help="take these alone (by default all that the nets can answer)")
    parser.add_argument("--draw", type=one_of, metavar="I/N", help="draw the I-th of N parts of the samples and stop")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    looks_of(given)
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    court = Court.open(given)
    if given.draw is not None:
        samples(court).draw(given.draw)
        return
    facts = {**judge(court), "judge_seconds": time.monotonic() - began}
    (given.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tell(main)
