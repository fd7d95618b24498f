"""What this machine has: versions, devices, number formats, a broken torchvision, room on the disk, bundled models.

    python -m rediffuse.cli.doctor

Each row is (name, value, verdict). A verdict opens with `ok`, `note` (works, but read it) or `problem` (something will fail; the fix
follows). Nothing is downloaded and nothing is written.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.machine import processor, usable_cores

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, str, str]

# Lower bounds of the core dependencies, as in pyproject.toml (a test compares them).
CORE = {
    "torch": "2.8",
    "diffusers": "0.39",
    "transformers": "5.0",
    "accelerate": "1.10",
    "peft": "0.18",
    "safetensors": "0.8",
    "huggingface_hub": "1.3",
    "numpy": "2.0",
    "scipy": "1.13",
    "scikit-learn": "1.5",
    "pillow": "11.0",
    "pyarrow": "20.0",
    "fsspec": "2025.3",
    "cyclopts": "5.4",
    "rich": "13.9",
    "jinja2": "3.1.4",
    "matplotlib": "3.9",
}
OPTIONAL = ("ray", "gradio", "datasets", "webdataset", "imagecorruptions-imaug", "timm", "torchmetrics", "torch-fidelity", "tensorboard")
ROOM_GB = 5.0  # one Stable Diffusion download, or some 40,000 pictures


def report() -> list[Row]:
    """Every check, in the order in which it is printed; `verdict` opens with ok, note or problem."""
    return [*machine_rows(), *library_rows(), torchvision_row(), *torch_rows(), *disk_rows(), *bundled_rows()]


def installed(name: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine_rows() -> list[Row]:
    from rediffuse import __version__

    memory = memory_gb()
    return [
        ("rediffuse", __version__, "ok"),
        ("python", f"{platform.python_version()} at {sys.executable}", "ok"),
        ("system", platform.platform(), "ok"),
        ("processor", f"{processor()}, {usable_cores()} usable cores", "ok"),
        ("memory", "unknown" if memory is None else f"{memory:.1f} GB", "ok" if memory is None or memory >= 4 else "note: under 4 GB"),
    ]


def memory_gb() -> float | None:
    """Physical memory in GB, or None where the system does not say (Windows)."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def version_verdict(name: str, version: str | None, minimum: str) -> str:
    """`ok`, or what to install. Compares by the rules of Python versions (2.10 > 2.9; 2.13.0+cpu counts as 2.13.0)."""
    from packaging.version import InvalidVersion, Version

    if version is None:
        return f"problem: missing; pip install '{name}>={minimum}'"
    try:
        old = Version(version) < Version(minimum)
    except InvalidVersion:
        return f"note: version {version!r} cannot be compared with {minimum}"
    return f"problem: older than {minimum}; pip install '{name}>={minimum}'" if old else "ok"


def library_rows() -> list[Row]:
    rows = []
    for name, minimum in CORE.items():
        version = installed(name)
        rows.append((name, version or "not installed", version_verdict(name, version, minimum)))
    extras = [f"{name} {version}" for name in OPTIONAL if (version := installed(name))]
    rows.append(("optional libraries", ", ".join(extras) or "none", "ok"))
    if installed("torch-fidelity") and not installed("torchvision"):
        rows.append(
            ("torch-fidelity", "without torchvision", "problem: `import torchmetrics` fails; install torchvision or remove torch-fidelity")
        )
    return rows


def torchvision_row() -> Row:
    """Tried in a process of its own: a broken one raises, or takes the interpreter with it."""
    version = installed("torchvision")
    if version is None:
        return ("torchvision", "not installed", "ok: never required")
    command = [sys.executable, "-c", "import torchvision"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return (
            "torchvision",
            version,
            "problem: importing it takes more than two minutes; pip uninstall torchvision (it is never required)",
        )
    if tried.returncode == 0:
        return ("torchvision", version, "ok")
    reason = (tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"])[-1]
    return (
        "torchvision",
        f"{version}, cannot be imported ({reason})",
        "problem: broken, which is worse than none: Stable Diffusion pipelines will not load. Either `pip uninstall torchvision` "
        f"(it is never required), or install the build that belongs to torch {installed('torch')}",
    )


def accelerator_rows() -> list[Row]:
    """Accelerators that torch can use; one that it cannot use for want of the right build is a note."""
    import torch

    rows = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        rows.append((f"cuda:{index}", f"{properties.name}, {properties.total_memory / 1e9:.0f} GB", "ok"))
    if torch.backends.mps.is_available():
        rows.append(("mps", "Apple graphics", "ok"))
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        rows.append(("xpu", torch.xpu.get_device_name(0), "ok"))
    if rows:
        return rows
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        advice = "note: nvidia-smi is here, but this torch is a processor build; install a CUDA build of the same version"
        return [("accelerator", "none that torch can use", advice)]
    return [("accelerator", "none", "ok: the bundled models run on the processor")]


def threads_row() -> Row:
    import torch

    threads, cores = torch.get_num_threads(), usable_cores()
    value = f"{threads} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')})"
    crowded = f"note: more threads than the {cores} usable cores; set OMP_NUM_THREADS={cores}"
    return ("torch threads", value, crowded if threads > cores else "ok")


def torch_rows() -> list[Row]:
    """What torch says of devices, threads and number formats; a torch that does not load is the first thing to mend."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        return [("torch devices", f"torch cannot be imported ({error})", "problem: install torch again, in the build for this machine")]
    return [*accelerator_rows(), threads_row(), number_format_row()]


def number_format_row() -> Row:
    """Whether half precision pays on the processor."""
    from rediffuse.denoisers.precision import cpu_computes_bfloat16, cpu_formats

    formats = ", ".join(cpu_formats())
    if cpu_computes_bfloat16():
        return ("bfloat16", formats, "ok: half precision pays on this processor")
    if formats:
        return ("bfloat16", f"{formats}, no amx", "note: the processor runs float32; on it half precision takes 1.4 to 1.7 times as long")
    return (
        "bfloat16",
        "neither amx nor avx512_bf16",
        "note: the processor runs float32; half precision was 8 times slower without these instructions",
    )


def free_gb(folder: Path) -> float:
    """Free room where the folder is, or would be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9


def disk_rows() -> list[Row]:
    from huggingface_hub import constants

    rows = []
    for name, folder in (("working folder", Path.cwd()), ("model cache", Path(constants.HF_HUB_CACHE))):
        free = free_gb(folder)
        verdict = "ok" if free >= ROOM_GB else f"note: under {ROOM_GB:.0f} GB"
        if folder.exists() and not os.access(folder, os.W_OK):
            verdict = "problem: not writable"
        rows.append((name, f"{folder}, {free:.1f} GB free" + ("" if folder.exists() else " (not made yet)"), verdict))
    if constants.HF_HUB_OFFLINE:
        rows.append(("hub", "offline (HF_HUB_OFFLINE)", "note: hub names work only when they are in the model cache"))
    return rows


def bundled_rows() -> list[Row]:
    """The models inside the package: each needs a safetensors file."""
    folder = Path(str(files("rediffuse"))) / "weights"
    models = sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__") if folder.exists() else []
    if not models:
        return [("bundled models", "none", "note: this copy carries no models; give --model a folder, a .safetensors file or a hub name")]
    rows = []
    for model in models:
        tensors = sum(path.stat().st_size for path in model.rglob("*.safetensors"))
        verdict = "ok" if tensors else "problem: no safetensors file in it; install rediffuse again"
        rows.append((f"bundled {model.name}", f"{tensors / 2**20:.1f} MiB", verdict))
    return rows


def table(rows: list[Row]) -> Table:
    """The rows for the terminal; names and values are data, so nothing in them is read as markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    drawn = Table(title="rediffuse doctor", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("what", "found", "verdict"):
        drawn.add_column(heading, overflow="fold")
    for name, value, verdict in rows:
        drawn.add_row(Text(name), Text(value), Text(verdict, style=colours[verdict.partition(":")[0]]))
    return drawn


def doctor() -> int:
    """Look at this machine: versions, devices, number formats, free disk, bundled models.

    Nothing is downloaded or written. The exit status is 1 if something is a problem.
    """
    from rediffuse.cli.terminal import out

    rows = report()
    out().print(table(rows))
    return int(any(verdict.startswith("problem") for _, _, verdict in rows))


if __name__ == "__main__":
    sys.exit(doctor())
