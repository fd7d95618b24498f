"""Where a network runs and in which numbers: half precision for the trunk, float32 for everything that decides x0_hat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rediffuse.errors import ConfigError, ModelError
from rediffuse.machine import is_amd

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}

FEW_TOKENS = 256
"""Plain products hold (tokens x tokens) for each head and sample: 2 MB in float32 at 8 heads."""


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to run on; "auto" is the first accelerator that is there, else the processor. Raises ConfigError if it is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:N or mps, got {device!r}") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices; use auto or cpu")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device mps is not there; use auto or cpu")
    return found


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The numbers of the trunk; "auto" is half precision where the hardware computes it, else float32.

    CUDA: bfloat16 where native, else float16. Processor: bfloat16 where `cpu_computes_bfloat16`.
    """
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.bfloat16 if device.type == "cpu" and cpu_computes_bfloat16() else torch.float32
    found = DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ConfigError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {dtype!r}")
    return found


def cpu_computes_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 on this processor: it has AMX, or AVX512-BF16 and is AMD's.

    Intel's processors multiply no faster with AVX512-BF16 than in float32, and where a virtual machine hides their AMX they would take 1.4
    to 1.7 times as long. Without any such instructions it is 8 times.
    """
    formats = cpu_formats()
    return "amx" in formats or ("avx512_bf16" in formats and is_amd())


def cpu_formats() -> tuple[str, ...]:
    """Which of amx and avx512_bf16 the processor has. The questions have underscore names in torch: without them the answer is none."""
    questions = {"amx": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    return tuple(name for name, question in questions.items() if getattr(torch.cpu, question, bool)())


@contextmanager
def full_digits(device: torch.device) -> Iterator[None]:
    """Float32 convolutions inside keep their 24 bits: on CUDA torch gives them TF32's 11 unless it is told otherwise."""
    if device.type != "cuda" or torch.compiler.is_compiling():  # a compiled network has what is set around it
        yield
        return
    settings = getattr(torch.backends.cudnn, "conv", None)  # newer than allow_tf32, which must not be read beside it
    place, name, exact = (settings, "fp32_precision", "ieee") if settings is not None else (torch.backends.cudnn, "allow_tf32", False)
    before = getattr(place, name)
    setattr(place, name, exact)
    try:
        yield
    finally:
        setattr(place, name, before)


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Devices that have no autocast, such as meta, need nothing."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


@contextmanager
def exact_region(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 inside."""
    with full_digits(device), no_autocast(device):
        yield


class Float32Conv2d(nn.Conv2d):
    """A convolution that stays in float32 inside a half precision region: the last layer of a trunk."""

    @classmethod
    def like(cls, conv: nn.Conv2d) -> Float32Conv2d:
        """The same weights under the same names, in float32."""
        if isinstance(conv.padding, str):
            raise ModelError(f"the last layer of this network pads by name ({conv.padding!r}), which no supported network does")
        shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        kernel, stride, padding, dilation = ((height, width) for height, width in shape)
        sizes = (conv.in_channels, conv.out_channels, kernel, stride, padding, dilation, conv.groups, conv.bias is not None)
        head = cls(*sizes, conv.padding_mode, device=conv.weight.device)
        head.load_state_dict(conv.state_dict())
        return head.requires_grad_(conv.weight.requires_grad).train(conv.training)

    def forward(self, input: Tensor) -> Tensor:
        with exact_region(input.device):
            return super().forward(input.float())


class Float32Linear(nn.Linear):
    """A linear layer that stays in float32 inside a half precision region: what is told to the whole trunk, such as the time."""

    def forward(self, input: Tensor) -> Tensor:
        with no_autocast(input.device):
            return super().forward(input.float())


def lower_trunk(network: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of matrix products in `dtype`, in place; norms, heads and the like (Float32Conv2d, Float32Linear) keep float32."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear) and not isinstance(module, Float32Conv2d | Float32Linear):
            module.to(dtype)


def attention_region(device: torch.device, tokens: int) -> AbstractContextManager[object]:
    """Attention by plain products where few tokens are attended on a processor; elsewhere torch chooses. For passes with gradients.

    torch's fused backward is slower there: without it a step of learning words takes 12 % less time with the bundled model (64 tokens).
    """
    return sdpa_kernel([SDPBackend.MATH]) if device.type == "cpu" and tokens <= FEW_TOKENS else nullcontext()


def trunk_region(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Autocast to `dtype`; for float32 nothing, so that a caller's own autocast region holds."""
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


def denoiser_region(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """As `trunk_region`; a float32 trunk keeps its digits too, since x0_hat enlarges what it gets wrong by up to sigma / alpha."""
    return full_digits(device) if dtype is torch.float32 else trunk_region(device, dtype)
