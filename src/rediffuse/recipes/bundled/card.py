"""Write the model cards of the bundled models from what was measured.

    python -m rediffuse.recipes.bundled.card tiny-imagenet-64 --facts CARD/facts.json --log RUNS/unet/log.jsonl
        --coder RUNS/autoencoder/log.jsonl --hardware "2 cores, AVX512-BF16" --out FOLDER
    python -m rediffuse.recipes.bundled.card resnet-64 --log RUNS/resnet-64/log.jsonl --hardware "1 core, AVX512-BF16" --out FOLDER
    python -m rediffuse.recipes.bundled.card cifar10-32 --facts CARD/facts.json --log RUNS/cifar10-32/log.jsonl
        --hardware "1 core, AVX512-BF16" --out FOLDER

The card is README.md of the folder, whose weights must be those that were judged; rediffuse.json beside it holds the facts that pages of
results need. With `--results results` the same figures go into results/bundled_MODEL.json, the training log among its rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rediffuse.errors import ConfigError
from rediffuse.evaluation.few_shot.generator import is_weak
from rediffuse.evaluation.statistics import Interval, basis_of_runs
from rediffuse.recipes.bundled import cifar10
from rediffuse.recipes.bundled.common import tell

QUOTED = ("weights_hash", "classification_accuracy_score", "recognised_at_use", "psnr", "kept", "survival", "fid_like")
BEHIND = ("recognised", "recognised_samples", "recognised_guidance_samples", "recogniser_held_out", "kept_images")
"""What a card says besides of a recogniser's figures."""
NOTES = ("The generator has seen 5,000 unlabelled MNIST scans and 170 ImageNet classes by name.",)


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def last_step(log: list[dict[str, Any]]) -> int:
    return max(int(line["step"]) for line in log)


def curve(log: list[dict[str, Any]], key: str, rows: int = 8) -> str:
    """A short table of a logged value by step."""
    points = [(line["step"], line[key]) for line in log if key in line]
    picked = points[:: max(1, len(points) // rows)]
    picked = picked if not points or picked[-1] == points[-1] else [*picked, points[-1]]
    return "\n".join([f"| step | {key.replace('_', ' ')} |", "|---:|---:|", *(f"| {step} | {value:.4f} |" for step, value in picked)])


def share(value: float) -> str:
    return f"{value:.0%}"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def fill(model: str, **values: Any) -> str:
    """The text of cards/MODEL.md with these values."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # Markdown
    environment.filters |= {"share": share, "percent": percent}
    text = (files("rediffuse.recipes.bundled") / "cards" / f"{model}.md").read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)


def text_to_image_card(
    facts: dict[str, Any], log: list[dict[str, Any]], coder: list[dict[str, Any]], hardware: str, remarks: Sequence[str] = ()
) -> str:
    return fill(
        "tiny-imagenet-64",
        facts=facts,
        steps=last_step(log),
        coder_steps=last_step(coder),
        hardware=hardware,
        curve=curve(log, "held_out"),
        survival=" | ".join(share(value) for value in facts["survival"].values()),
        recognised=" | ".join(share(value) for value in facts["recognised"].values()),
        weak=is_weak(facts),
        names=[line for line in log if "under_a_wrong_name" in line][-1:],
        remarks=remarks,
    )


def features_card(log: list[dict[str, Any]], hardware: str) -> str:
    top1 = [line["top1"] for line in log if "top1" in line][-1]
    return fill("resnet-64", steps=last_step(log), hardware=hardware, top1=top1, curve=curve(log, "top1"))


def pixel_card(
    facts: dict[str, Any], log: list[dict[str, Any]], hardware: str, remarks: Sequence[str] = (), batch: int = cifar10.BATCH
) -> str:
    steps, course = last_step(log), curve(log, "held_out")
    return fill("cifar10-32", facts=facts, steps=steps, batch=batch, hardware=hardware, curve=course, remarks=remarks)


HEADLINE = {"psnr": "psnr", "kept": "kept", "recognised": "recognised_at_use", "cas": "classification_accuracy_score", "fid": "fid_like"}
"""Key of a result -> what the judge calls it."""
SPREAD = {HEADLINE["cas"]: "cas", HEADLINE["recognised"]: "recognised"}
"""Figure -> how the judge calls its interval's ends."""


ALIKE = {"weights_hash": "weights", "guidance": "guidance", "steps": "steps of sampling", "recogniser_hash": "recognisers"}
"""What judgements of one card have in common, where they say it."""


def merged(judgements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The facts of judgements of the same weights in one; where two say something of the same name, the later one counts.

    Raises ConfigError for judgements of other weights, settings or recognisers.
    """
    for name, said in ALIKE.items():
        found = list(dict.fromkeys(str(each[name])[:12] for each in judgements if name in each))
        if len(found) > 1:
            raise ConfigError(f"the facts are of other {said} ({' and '.join(found)}); give those of one")
    seconds = sum(each.get("judge_seconds", 0.0) for each in judgements)
    judged = [part for each in judgements for part in each.get("judged", ())]
    return {name: value for each in judgements for name, value in each.items()} | {"judge_seconds": seconds, "judged": judged}


def check_judged(facts: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError where the facts are of other weights than the folder holds, as a card beside them would say otherwise."""
    from rediffuse.denoisers.load import load

    spec = load(folder, device="cpu").spec
    held, judged = spec.weights_hash if spec else "", str(facts.get("weights_hash"))
    if held != judged:
        raise ConfigError(f"the facts are of weights {judged[:12]}, {folder} holds {held[:12]}; judge those, or name the folder judged")


def check_complete(facts: Mapping[str, Any]) -> None:
    """Raise ConfigError where a card would lack what a recogniser says."""
    lost = [name for name in (*QUOTED, *BEHIND) if name not in facts]
    if lost:
        raise ConfigError(f"the facts hold no {', '.join(lost)}; add --facts of a judgement of these weights with --recogniser")


def figure(facts: Mapping[str, Any], name: str) -> Interval:
    """A fact with its interval, where the judge gives one."""
    value = float(facts[name])
    low, high = (facts.get(f"{SPREAD[name]}_{end}") if name in SPREAD else None for end in ("low", "high"))
    if low is None or high is None:
        return Interval(value=value)
    return Interval(value=value, low=float(low), high=float(high), basis=basis_of_runs(1))


def keep_result(
    model: str, facts: dict[str, Any], log: Sequence[dict[str, Any]], seconds: float, command: str, notes: Sequence[str], folder: Path
) -> Path:
    """Write results/bundled_MODEL.json: the judge's figures, and the log of the training that they belong to.

    Args:
        seconds: that the judge took; command: how it was called.
    """
    from rediffuse.evaluation.results import write_result

    headline = {key: figure(facts, name) for key, name in {**HEADLINE, "top1": "top1"}.items() if name in facts}
    rows = [{"table": "judge", **facts}, *({"table": "training", **line} for line in log)]
    name = f"bundled_{model.replace('-', '_')}"
    return write_result(name, headline, rows, seconds, command=command, folder=folder, notes=notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["tiny-imagenet-64", "resnet-64", "cifar10-32"])
    parser.add_argument("--facts", type=Path, nargs="+", help="of a judgement, or of several of the same weights: the last one's count")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--coder", type=Path)
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--batch", type=int, default=cifar10.BATCH, help="pictures a step of cifar10-32's training")
    parser.add_argument("--remark", action="append", default=[], help="a sentence that belongs to the training of these weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="folder of results to write the figures into")
    parser.add_argument("--judged-by", default="", help="the command that made the facts")
    given = parser.parse_args()
    log = read_log(given.log)
    top1 = [line["top1"] for line in log if "top1" in line]
    facts = {"top1": top1[-1]} if given.model == "resnet-64" else merged([json.loads(path.read_text()) for path in given.facts])
    if given.model == "tiny-imagenet-64":
        check_complete(facts)
    if given.model != "resnet-64":
        check_judged(facts, given.out)
    if given.results is not None:
        keep_result(given.model, facts, log, facts.get("judge_seconds", 0.0), given.judged_by, given.remark, given.results)
    if given.model == "resnet-64":
        (given.out / "README.md").write_text(features_card(log, given.hardware))
        return
    if given.model == "cifar10-32":
        (given.out / "README.md").write_text(pixel_card(facts, log, given.hardware, given.remark, given.batch))
        (given.out / "rediffuse.json").write_text(json.dumps(facts, indent=1) + "\n")
        return
    (given.out / "README.md").write_text(text_to_image_card(facts, log, read_log(given.coder), given.hardware, given.remark))
    known = {key: facts[key] for key in QUOTED}
    (given.out / "rediffuse.json").write_text(json.dumps({**known, "notes": NOTES}, indent=1) + "\n")


if __name__ == "__main__":
    tell(main)
