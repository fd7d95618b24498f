"""The program as a whole: its verbs and options, exit statuses, what is said and where."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Ended

from rediffuse.cli import app as cli
from rediffuse.cli import terminal
from rediffuse.errors import RediffuseError

REDRAWING = ["--batch", "--guidance", "--law", "--solver", "--steps", "--strengths"]
MAKING = [*REDRAWING, "--method", "--prompt"]
LEARNING = ["--recipe", "--samples"]
WRITING = ["--copies", "--dry-run", "--fit", "--format", "--keep-real", "--preview", "--size", "--take-over", "--target-per-class"]
SHARED = ["--quiet", "--seed"]
MACHINE = ["--device", "--dtype", *SHARED]
SINGLE = ["--prediction", "--tokenizer"]
PHOTOS = ["--model", *SINGLE, "--no-flips", "--shots", "--split"]
HELD = ["--split", "--test", "--no-flips"]

COMPARED = ["--arms", "--classifier", "--fit", "--seeds", "--shots", "--train-steps", "--view"]
COST = ["--dry-run", "--hours", "--out"]
VIEWS = [
    "--dda-factor",
    "--dda-guidance",
    "--dda-start",
    "--dda-steps",
    "--denoiser",
    "--early-exit",
    "--ensemble",
    "--reduce",
    "--step",
    "--t-max",
]
TRAINED = ["--alpha", "--classifier", "--fit", "--holdout", "--mode", "--shots", "--size", "--steps", "--synthetic"]
ROBUST = ["--augment", "--bank-rate", "--denoiser", "--fraction", "--objective", "--second"]
JUDGED = ["--fit", "--images", "--no-report", "--report", "--size", "--split", "--suite"]
UNKNOWN = ["--denoiser", "--far", "--near", "--train"]
BUDGET = ["--batch", "--ema", "--epochs", "--learning-rate", "--optimizer", "--track"]

# A verb or option stands here because someone decided that it is worth having.
EXPECTED: dict[str, list[str]] = {
    "augment": [*PHOTOS, "--words", *MAKING, *LEARNING, *WRITING, *MACHINE],
    "compare": [*HELD, *COST, *COMPARED, "--alpha", "--copies", "--model", *SINGLE, *REDRAWING, *LEARNING, *MACHINE],
    "demo": ["--full", "--model", *SINGLE, "--out", "--quick", "--results", *MACHINE],
    "doctor": [],
    "evaluate": [*COST, *JUDGED, *UNKNOWN, *MACHINE],
    "generate": [*PHOTOS, "--classes", "--from-noise", "--words", *MAKING, *WRITING, *MACHINE],
    "learn": [*PHOTOS, "--batch", "--dry-run", *LEARNING, *MACHINE],
    "predict": ["--batch", "--fit", "--out", "--per-class", "--size", "--split", *VIEWS, *MACHINE],
    "run cite": [],
    "run export": ["--format"],
    "run report": [],
    "run verify": [],
    "train": [*HELD, *TRAINED, *ROBUST, *BUDGET, *MACHINE],
}


def found() -> dict[str, list[str]]:
    """Every verb with its options, as the parser knows them."""
    options: dict[str, list[str]] = {}

    def walk(app: object, words: list[str]) -> None:
        names = [name for name in app if not name.startswith("-")]  # type: ignore[attr-defined]
        if not names:
            collected = app.assemble_argument_collection(default_parameter=cli.build().default_parameter)  # type: ignore[attr-defined]
            options[" ".join(words)] = sorted({name for argument in collected for name in argument.names if name.startswith("--")})
        for name in names:
            walk(app[name], [*words, name])  # type: ignore[index]

    walk(cli.build(), [])
    return options


def test_every_verb_and_option_was_decided() -> None:
    assert found() == {verb: sorted(options) for verb, options in EXPECTED.items()}


@pytest.mark.parametrize("verb", ["", *EXPECTED, "run"])
def test_help_of_every_verb(rediffuse: Callable[..., Ended], verb: str) -> None:
    ended = rediffuse(*verb.split(), "--help")
    assert ended.status == 0
    assert ended.err == ""
    for option in EXPECTED.get(verb, list(EXPECTED) if not verb else []):
        assert option.split()[0] in ended.out
    assert max(map(len, ended.out.splitlines())) <= terminal.WIDTH


def test_help_has_no_empty_default_and_no_lines_of_the_source(rediffuse: Callable[..., Ended]) -> None:
    told = rediffuse("train", "--help").out + rediffuse("generate", "--help").out
    assert "[default: ]" not in told
    assert "[OPTIONS] OUT" not in told
    assert "train DATA [OUT]" in told
    assert "│ MODEL [OTHER] PHOTOS  one classifier or two" in rediffuse("evaluate", "--help").out


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_help_says_whose_numbers_are_meant(rediffuse: Callable[..., Ended], verb: str) -> None:
    told = " ".join(rediffuse(verb, "--help").out.replace("│", " ").split())
    assert "--dtype STR The denoiser's numbers: auto, float32, bfloat16 or float16. Those of classifiers are float32." in told


def test_a_docstring_flows() -> None:
    text = """First line.

    A paragraph that
    goes on.

    Args:
        one: said in
            two lines.
        two: in one.
    """
    assert cli.flowing(text) == "First line.\n\nA paragraph that goes on.\n\nArgs:\n    one: said in two lines.\n    two: in one."


def test_help_loads_nothing_heavy(root: Path) -> None:
    """Under a second needs torch and its kin to stay outside; seen through sys.modules, not by a clock."""
    code = (
        "import sys\nfrom rediffuse.cli import main\n"
        "for words in (['--help'], *([verb, '--help'] for verb in ('augment', 'train', 'predict', 'run'))):\n    assert main(words) == 0\n"
        "heavy = {'torch', 'numpy', 'PIL', 'diffusers', 'transformers', 'pyarrow', 'sklearn', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root / "src")
    assert done.returncode == 0, done.stderr


def test_version(rediffuse: Callable[..., Ended]) -> None:
    from rediffuse import __version__

    assert rediffuse("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["augmant", "a", "b"], 'Did you mean "augment"'),
        (["augment", "a"], "OUT"),
        (["augment", "a", "b", "--copy", "3"], "Did you mean --copies"),
        (["augment", "a", "b", "--copies", "three"], '"three"'),
        (["augment", "a", "b", "--solver", "euler"], '"euler"'),
        (["augment", "-photos", "b"], "-photos"),
        (["run", "reprot", "a"], 'Did you mean "report"'),
    ],
)
def test_what_cannot_be_parsed_is_said_in_a_paragraph(rediffuse: Callable[..., Ended], words: list[str], said: str) -> None:
    ended = rediffuse(*words)
    assert ended.status == 2
    assert ended.out == ""
    assert said in ended.err
    assert "Traceback" not in ended.err
    verb = words[0] if words[0] in {name.split()[0] for name in EXPECTED} else ""
    assert ended.err.endswith(f"See rediffuse {verb} --help.\n".replace("  ", " "))


def test_errors_are_never_read_as_markup(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    ended = rediffuse("augment", tmp_path / "[bold]no[/bold]", "more")
    assert ended.status == 2
    assert "[bold]no[/bold]" in ended.err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for bug in (KeyError("a bug"), RuntimeError("a bug")):

        def broken(*_: object, bug: Exception = bug, **__: object) -> None:
            raise bug

        monkeypatch.setattr(cli, "build", lambda broken=broken: broken)
        with pytest.raises(type(bug), match="a bug"):
            cli.run(["doctor"])


@pytest.mark.parametrize(("error", "status"), [(RediffuseError("x"), 2), (OSError(28, "No space left on device", "out/a.png"), 2)])
def test_errors_become_statuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, status: int) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "build", lambda: failing)
    assert cli.run(["doctor"]) == status
    assert capsys.readouterr().err.startswith("rediffuse: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "photos"), "photos cannot be opened (Permission denied); allow it"),
        (OSError(28, "No space left on device", "out/a.png"), "out/a.png cannot be written (No space left on device); make room"),
    ],
)
def test_what_the_system_refuses_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "build", lambda: failing)
    assert cli.run(["train"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
            "(CUDA out of memory. Tried to allocate 2.00 GiB)",
        ),
        (MemoryError(), "memory ran out. Use a smaller batch or model (see rediffuse train --help)"),
    ],
)
def test_memory_that_runs_out_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "build", lambda: full)
    assert cli.run(["train"]) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert said in printed
    assert "continues" not in printed
    monkeypatch.setattr(terminal, "is_kept", lambda: True)
    assert cli.run(["train"]) == 2
    assert "The same command continues" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("kept", "words", "said"),
    [
        ("state", ["augment", "my photos", "more", "--seed", "3"], "continues:\n  rediffuse augment 'my photos' more --seed 3\n"),
        ("other", ["augment", "photos", "more"], "Nothing is kept yet; the same command begins anew:\n  rediffuse augment photos more\n"),
        ("state", ["doctor"], "start again:\n  rediffuse doctor\n"),
    ],
)
def test_an_interrupt_names_the_command_to_type_and_says_what_it_will_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, kept: str, words: list[str], said: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        terminal.goes_on_from((tmp_path / "nowhere", "*"), (tmp_path, "stat*"))
        (tmp_path / kept).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build", lambda: interrupted)
    assert cli.run(words) == 130
    assert said in capsys.readouterr().err


def test_a_name_with_a_dash_is_no_option_in_a_printed_command() -> None:
    assert terminal.command("train", "-photos", "it's", synthetic=Path("-more")) == (
        "rediffuse train ./-photos 'it'\"'\"'s' --synthetic ./-more"
    )


def test_a_folder_with_a_dash_is_told_how_to_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-photos").mkdir()
    assert cli.run(["augment", "-photos", "more"]) == 2
    assert "Write ./-photos for a name that begins with a dash" in capsys.readouterr().err


def test_an_option_that_took_the_photos_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--augment", "diffaug", "photos/", "robust/"]) == 2
    assert "--augment may have taken it among its own words: put what has no dashes first" in capsys.readouterr().err
    assert cli.run(["train", "--augment", "diffaug", "photos/", "--seed", "3"]) == 2
    assert "--augment may have taken it" in capsys.readouterr().err
    for words in (["train", "--augment", "diffaug"], ["augment", "--seed", "3", "photos/"], ["train", "--size", "32"]):
        assert cli.run(words) == 2
        assert "among its own words" not in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(root: Path) -> None:
    line = f"{sys.executable} -c 'import sys; from rediffuse.cli import main; sys.exit(main([\"doctor\"]))' | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, cwd=root / "src")
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr


def test_defaults_and_choices_are_those_of_the_library() -> None:
    """The command line names them again, because importing the library would cost --help a second."""
    import inspect
    import typing

    from rediffuse.cli.common import SingleFile
    from rediffuse.cli.compare import ARMS as COMPARED
    from rediffuse.cli.options import Learning, Redrawing, Writing
    from rediffuse.concepts.textual_inversion import learn
    from rediffuse.denoisers.base import Prediction
    from rediffuse.evaluation.few_shot.compare import compare
    from rediffuse.evaluation.few_shot.settings import ARMS, Making
    from rediffuse.generation.run import generate
    from rediffuse.methods.da_fusion import DAFusion
    from rediffuse.sampling.solvers import SOLVERS

    def defaults(function: Callable[..., object]) -> dict[str, object]:
        return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}

    def choices(kind: type, name: str) -> tuple[str, ...]:
        return typing.get_args(typing.get_type_hints(kind)[name])

    fusion, made, compared = defaults(DAFusion), defaults(generate), defaults(compare)
    for name in ("steps", "solver", "law"):
        assert getattr(Redrawing(), name) == fusion[name] == getattr(Making(), name)
    assert Redrawing().chosen_strengths == fusion["strengths"] == Making().strengths
    assert choices(Redrawing, "solver") == SOLVERS
    told = typing.get_args(typing.get_type_hints(SingleFile)["prediction"])
    assert [typing.get_args(kind) for kind in told if kind is not type(None)] == [typing.get_args(Prediction)]
    for name in ("copies", "keep_real", "fit", "size", "format"):
        assert getattr(Writing(), name) == made[name]
    assert Learning().recipe == defaults(learn)["recipe"]
    verb = defaults(cli.compare)
    for ours, theirs in (("shots", "shots"), ("seeds", "seeds"), ("classifier", "levels"), ("copies", "copies")):
        assert verb[ours] == compared[theirs]
    assert compared["arms"] == COMPARED
    assert set(typing.get_args(cli.compare.__globals__["Arm"])) == set(ARMS)
