"""Options that several verbs share, and the pieces of work that they begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet
    from rediffuse.denoisers.base import Denoiser

MODEL = "tiny-imagenet-64"
"""The bundled text-to-image model."""
PIXEL_MODEL = "cifar10-32"
"""The bundled unconditional pixel model."""

LISTED = 10
"""Pictures that could not be read, by name on the terminal."""

SINGLE = Group("A model that is a single file", sort_key=12)
MACHINE = Group("Machine", sort_key=90)
Prediction = Literal["epsilon", "v_prediction", "sample"]


@Parameter(name="*", group=MACHINE)
@dataclass(frozen=True, kw_only=True)
class Shared:
    """What every command takes that computes."""

    seed: Annotated[int, Parameter(help="Of all that chance decides; equal seeds give equal results.")] = 0
    quiet: Annotated[bool, Parameter(help="No bars and remarks, results only.")] = False


@Parameter(name="*", group=MACHINE)
@dataclass(frozen=True, kw_only=True)
class Common(Shared):
    """What every command takes that runs a text-to-image model."""

    device: Annotated[str, Parameter(help="Where the model runs: auto, cpu, cuda, cuda:1, mps.")] = "auto"
    dtype: Annotated[str, Parameter(help="Its numbers: auto, float32, bfloat16 or float16.")] = "auto"


@Parameter(name="*", group=MACHINE)
@dataclass(frozen=True, kw_only=True)
class Beside(Common):
    """What every command takes that asks classifiers, and a denoiser beside them."""

    device: Annotated[str, Parameter(help="Where classifiers and denoiser run: auto, cpu, cuda, cuda:1, mps.")] = "auto"
    dtype: Annotated[
        str, Parameter(help="The denoiser's numbers: auto, float32, bfloat16 or float16. Those of classifiers are float32.")
    ] = "auto"


class Told(TypedDict):
    """What `load` takes of a single file, by the names of its arguments."""

    tokenizer: Path | None
    prediction: Prediction | None


@Parameter(name="*", group=SINGLE)
@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """What a checkpoint in one file may not say of itself."""

    tokenizer: Annotated[
        Path | None,
        Parameter(help="Folder of CLIP's tokenizer, such as tokenizer/ of any Stable Diffusion. [default: that in the hub's local cache]"),
    ] = None
    prediction: Annotated[
        Prediction | None,
        Parameter(help="What its network puts out, where the file and a .yaml beside it do not say so. [default: of 1.x epsilon]"),
    ] = None

    @property
    def told(self) -> Told:
        return {"tokenizer": self.tokenizer, "prediction": self.prediction}

    def check(self, model: str | None) -> None:
        """Refuse what belongs to another model, and a folder without a tokenizer, before any work. Raises ConfigError or ModelError."""
        from rediffuse.errors import ConfigError

        given = [f"--{name} {value}" for name, value in self.told.items() if value is not None]
        if given and not is_single_file(model or MODEL):
            raise ConfigError(f"{given[0]} is for a --model that is a single .safetensors file, got --model {model or MODEL}; leave it out")
        if self.tokenizer is not None:
            from rediffuse.denoisers.stable_folder import check_tokenizer

            check_tokenizer(self.tokenizer.expanduser())


SHARED = Shared()
COMMON = Common()
BESIDE = Beside()
SINGLE_FILE = SingleFile()


def is_single_file(model: str) -> bool:
    """Whether a name is that of a checkpoint in one file, there or mistyped; no bundled model, folder or hub name."""
    path = Path(model).expanduser()
    return path.suffix in (".safetensors", ".pt") and not path.is_dir()


@contextmanager
def bar(what: str, unit: str = "images", *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how a piece of work goes while the context lasts; gives what is to be called with (done, in all)."""
    from rediffuse.progress import Bar

    with Bar(not quiet, unit) as shown:
        shown.stage(what)
        yield shown.report


def open_photos(spec: str, *, split: str | None = None, flips: bool = True, quiet: bool = False, labelled: bool = True) -> ImageSet:
    """Open a set with a bar, and say what could not be read.

    Raises:
        DataError: nothing there, or (where labels are needed) no classes.
    """
    from rediffuse.data.open import open_images
    from rediffuse.errors import DataError

    with bar(f"reading {spec}", quiet=quiet) as report:
        images = open_images(spec, split=split, flips=flips, progress=report)
    if labelled and not images.classes:
        raise DataError(f"{spec} has no labels; sort the images into one folder a class, or give a table of file and label")
    tell_rejected(images, quiet)
    return images


def tell_rejected(images: ImageSet, quiet: bool, rest: str = "") -> None:
    """Name what could not be read, pictures before folders. rest: what names those that are too many to be told."""
    from rediffuse.cli.terminal import note

    lost = sorted(images.rejected, key=lambda line: line.id.endswith("/"))
    for line in lost[:LISTED]:
        note(f"Left out: {line.id} ({line.reason}).", quiet=quiet, style="yellow")
    if len(lost) > LISTED:
        note(f"... and {len(lost) - LISTED:,} more{rest}.", quiet=quiet, style="yellow")


def check_least(options: Mapping[str, int | None]) -> None:
    """Refuse numbers below 1 by the name of their option, before any work. Raises ConfigError."""
    from rediffuse.errors import ConfigError

    for name, value in options.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")


def check_fit(fit: str | None) -> None:
    """Refuse a way to make photos square that there is not, before any work. Raises ConfigError."""
    from rediffuse.data.geometry import parse_fit

    if fit is not None:
        parse_fit(fit)


def check_apart(photos: str, out: Path) -> None:
    """Refuse to write where photos of the set lie, before any work; a folder of its own among them is fine. Raises ConfigError."""
    from rediffuse.errors import ConfigError

    if lies_among(photos, out):
        raise ConfigError(f"{out} holds the photos; give a folder of its own, such as {out / 'new'}")


def check_own(out: Path, kind: str) -> None:
    """Refuse to write outputs of a kind into a folder that holds something else: photos, a model, another output. Raises ConfigError."""
    from rediffuse.data.folder import holds_pictures
    from rediffuse.data.outputs import output_kind
    from rediffuse.errors import ConfigError

    if not out.is_dir() or (found := output_kind(out)) == kind:
        return
    if found is None and any((out / name).exists() for name in ("config.json", "model_index.json")):
        found = "a model"
    if found is None and holds_pictures(out):
        found = "pictures"
    if found is not None:
        raise ConfigError(f"{out} holds {found}; give {kind} a folder of its own, such as {out / kind.split()[-1]}")


def check_table_apart(photos: str, out: Path) -> None:
    """As `check_apart`, of a table: among photos it would be read in their place. Raises ConfigError."""
    from rediffuse.errors import ConfigError

    if lies_among(photos, out.parent):
        raise ConfigError(f"{out} would lie among the photos; give a folder of its own, such as {out.parent / 'new' / out.name}")


def lies_among(photos: str, folder: Path) -> bool:
    """Whether a folder is that of the photos, or one in it that holds some of them."""
    from rediffuse.data.folder import holds_pictures
    from rediffuse.data.outputs import output_kind

    root = Path(photos).expanduser()
    if photos == "digits" or not root.is_dir() or not folder.is_dir():
        return False
    ours, theirs = folder.resolve(), root.resolve()
    return ours == theirs or (ours.is_relative_to(theirs) and output_kind(folder) is None and holds_pictures(folder))


def load_model(spec: str, common: Common, file: SingleFile = SINGLE_FILE) -> Denoiser:
    """A model of a command, on its device and in its numbers."""
    from rediffuse.cli.terminal import note
    from rediffuse.denoisers.load import load

    if spec not in (MODEL, PIXEL_MODEL):  # gigabytes, maybe, and those of a hub name are fetched first
        note(f"Reading the model {spec}.", quiet=common.quiet)
    return load(spec, device=common.device, dtype=common.dtype, **file.told)


def load_prompted(spec: str, common: Common, file: SingleFile) -> Denoiser:
    """The text-to-image model of a command. Raises ConfigError for one that takes no prompts."""
    from rediffuse.errors import ConfigError

    model = load_model(spec, common, file)
    if not model.conditional or not hasattr(model, "word_vectors"):
        raise ConfigError(
            f"--model {spec} takes no prompts; give a text-to-image model: {MODEL}, or a folder, .safetensors file or hub name of "
            "Stable Diffusion 1.x or 2.x"
        )
    return model
