"""The verbs, and what becomes of an error: a paragraph and an exit status, never a traceback for what the user can mend."""

from __future__ import annotations

import errno
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cyclopts import App, CycloptsError, Group, MissingArgumentError, Parameter

from rediffuse import __version__
from rediffuse.cli import terminal
from rediffuse.cli.augment import augment
from rediffuse.cli.compare import compare
from rediffuse.cli.demo import demo
from rediffuse.cli.doctor import doctor
from rediffuse.cli.evaluate import PLACES, evaluate
from rediffuse.cli.generate import generate
from rediffuse.cli.learn import learn
from rediffuse.cli.predict import predict
from rediffuse.cli.runs import cite, export, report, verify
from rediffuse.cli.train import train
from rediffuse.errors import RediffuseError

EVERYDAY = Group("Everyday", sort_key=1)
STEPS = Group("Step by step", sort_key=2)

DONE, PROBLEM, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
CONTINUES = ("augment", "compare", "demo", "evaluate", "generate", "learn", "predict", "train")
"""Verbs that go on where they stopped when the same command is given again, once something is kept (`terminal.goes_on_from`)."""

USAGE: Mapping[Callable[..., int], str] = {
    evaluate: f"evaluate {PLACES} [OPTIONS]",
    train: "train DATA [OUT] [OPTIONS]",
    generate: "generate PHOTOS OUT [OPTIONS]\n       rediffuse generate OUT --from-noise [OPTIONS]",
}
"""Where what stands before the options cannot be told from the parameters."""

HELP = """A folder of labelled photos in; more photos out, and an honest answer to whether they make a better classifier.

Try it: rediffuse demo. With photos of your own, one folder a class: rediffuse augment photos/ more/"""


def default_text(value: object) -> str | None:
    """How a default is written in --help: as one would type it; a flag's is not."""
    if value is None or value is False or value == ():
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def flowing(text: str) -> str:
    """A docstring whose paragraphs and arguments are a line each: the terminal breaks them where it is wide."""
    lines: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        before = lines[-1] if lines else ""
        indent, above = (len(each) - len(each.lstrip()) for each in (line, before))
        inside = bool(line.strip() and before.strip()) and not before.endswith("Args:")
        if inside and (indent > above or indent == 0):
            lines[-1] = f"{before} {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)


def build() -> App:
    """The application. Options are never negated by a second spelling, and an option of several values takes them in a row."""
    app = App(
        name="rediffuse",
        help=HELP,
        version=__version__,
        help_format="plaintext",
        default_parameter=Parameter(negative=(), consume_multiple=(1, None), show_default=default_text),
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # `run` says what continues
    )
    everyday: list[Callable[..., int]] = [augment, compare, train, predict, evaluate, demo, doctor]
    steps: list[Callable[..., int]] = [learn, generate]
    for group, verbs in ((EVERYDAY, everyday), (STEPS, steps)):
        for place, verb in enumerate(verbs):
            usage = {"usage": f"Usage: rediffuse {USAGE[verb]}"} if verb in USAGE else {}
            verb.__doc__ = flowing(verb.__doc__ or "")
            app.command(verb, group=group, sort_key=place, **usage)
    runs = App(
        name="run", help="Look into the folder of a run: report, verify, export, cite.", help_format="plaintext", group=STEPS, sort_key=2
    )
    for question in (report, verify, export, cite):
        runs.command(question)
    app.command(runs)
    app["--help"].group = app["--version"].group = Group("Help", sort_key=3)
    return app


def run(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into words. `argv` is what follows the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    terminal.TYPED.set(tuple(words))
    terminal.goes_on_from()
    try:
        with warnings_in_words():
            status = build()(words, exit_on_error=False, print_error=False, console=terminal.help_out())
    except CycloptsError as error:
        terminal.failed(f"{error}{hint_of(words, error)} See {help_of(words)}.")
        return USER_ERROR
    except RediffuseError as error:
        terminal.failed(str(error))
        return USER_ERROR
    except KeyboardInterrupt as stop:
        terminal.stopped(continuation(words[0] if words else "", str(stop)))
        return INTERRUPTED
    except BrokenPipeError:  # `rediffuse run report more | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        terminal.failed(refused(error))
        return USER_ERROR
    except (RuntimeError, MemoryError) as error:
        from rediffuse.denoisers.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        terminal.failed(out_of_memory(words, error))
        return USER_ERROR
    return status if isinstance(status, int) else DONE


def refused(error: OSError) -> str:
    """What to do where the disk is full, or a file may not be read or written: the error does not say which of the two was tried."""
    if error.errno in (errno.EACCES, errno.EROFS):
        return f"{error.filename or 'a file'} cannot be opened ({error.strerror}); allow it or name another place, then run it again"
    what = error.filename or "the output"
    return f"{what} cannot be written ({error.strerror}); make room or name another place, then run the command again"


def hint_of(words: Sequence[str], error: CycloptsError) -> str:
    """What may have gone wrong in what was typed, as a sentence after the error; empty where nothing tells."""
    dashed = next((word for word in words if word.startswith("-") and Path(word).exists()), None)
    if dashed is not None:
        return f" Write ./{dashed} for a name that begins with a dash."
    taken = [option for option, own in own_words(words) if len(own) > 1 and option in greedy(words[0])]
    if isinstance(error, MissingArgumentError) and taken:
        return f" {taken[0]} may have taken it among its own words: put what has no dashes first, options after it."
    return ""


def own_words(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each option with the words that follow it, up to the next one."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            found.append((word, []))
        elif found:
            found[-1][1].append(word)
    return found


def greedy(verb: str) -> set[str]:
    """Options of a verb that take all words that follow them."""
    app = build()
    if verb not in app:
        return set()
    arguments = app[verb].assemble_argument_collection(default_parameter=app.default_parameter)
    return {name for argument in arguments if argument.token_count()[1] for name in argument.names}


def help_of(words: Sequence[str]) -> str:
    """The command that explains what was wrongly typed."""
    known = words[0] if words and words[0] in (*CONTINUES, "doctor", "run") else ""
    return f"rediffuse {known} --help".replace("  ", " ")


def out_of_memory(words: Sequence[str], error: BaseException) -> str:
    """What to do when memory ran out, and the first line of what the library said."""
    said = (str(error).splitlines() or [""])[0].rstrip(".")
    kept = " The same command continues; what is finished is kept." if words and words[0] in CONTINUES and terminal.is_kept() else ""
    return f"memory ran out{f' ({said})' if said else ''}. Use a smaller batch or model (see {help_of(words)}), or another --device.{kept}"


def continuation(verb: str, so_far: str = "") -> str:
    """What to say of an interrupted command; so_far: what is there, if the work itself has said so."""
    stopped = f"Stopped: {so_far}." if so_far else "Stopped."
    if verb in CONTINUES and terminal.is_kept():
        return f"{stopped} The same command continues:\n  {terminal.typed()}"
    if verb in CONTINUES:
        return f"{stopped} Nothing is kept yet; the same command begins anew:\n  {terminal.typed()}"
    return f"{stopped} To start again:\n  {terminal.typed()}"


@contextmanager
def warnings_in_words() -> Iterator[None]:
    """Warnings as sentences on standard error, without file names and lines of Python."""

    def tell(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):  # for those who write programs
            terminal.note(str(message), style="yellow")

    with warnings.catch_warnings():
        warnings.showwarning = tell
        yield
