"""Devices, numbers, and the last layer that stays exact."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rediffuse.denoisers import precision
from rediffuse.denoisers.precision import (
    Float32Conv2d,
    Float32Linear,
    cpu_computes_bfloat16,
    denoiser_region,
    full_digits,
    lower_trunk,
    resolve_device,
    resolve_dtype,
    trunk_region,
)
from rediffuse.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("amx", "avx", "amd", "wanted"),
    [
        (True, False, False, True),
        (True, True, False, True),
        (False, True, True, True),
        (False, True, False, False),
        (False, False, True, False),
        (None, None, True, False),
    ],
)
def test_bfloat16_on_a_processor_needs_instructions_that_are_faster(
    monkeypatch: pytest.MonkeyPatch, amx: bool | None, avx: bool | None, amd: bool, wanted: bool
) -> None:
    monkeypatch.setattr(precision, "is_amd", lambda: amd)
    for name, value in (("_is_amx_tile_supported", amx), ("_is_avx512_bf16_supported", avx)):
        if value is None:
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda value=value: value, raising=False)
    assert cpu_computes_bfloat16() is wanted
    assert resolve_dtype("auto", CPU) is (torch.bfloat16 if wanted else torch.float32)


def test_float32_convolutions_keep_their_digits_on_cuda() -> None:
    """TF32 would leave them 11 bits, and is what torch does by itself."""
    settings = torch.backends.cudnn.conv if hasattr(torch.backends.cudnn, "conv") else None
    if settings is None:
        pytest.skip("this torch has no setting for convolutions alone")
    before = settings.fp32_precision
    with denoiser_region(torch.device("cuda"), torch.float32):
        assert settings.fp32_precision == "ieee"
    with pytest.raises(ConfigError), full_digits(torch.device("cuda")):
        raise ConfigError("inside")
    with full_digits(CPU):
        assert settings.fp32_precision == before
    assert settings.fp32_precision == before


def test_an_older_torch_has_one_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cudnn:
        allow_tf32 = True

    monkeypatch.setattr(torch.backends, "cudnn", Cudnn)
    with full_digits(torch.device("cuda")):
        assert Cudnn.allow_tf32 is False
    assert Cudnn.allow_tf32 is True


@pytest.mark.parametrize(("native", "wanted"), [(True, torch.bfloat16), (False, torch.float16)])
def test_cuda_takes_bfloat16_where_it_is_native(monkeypatch: pytest.MonkeyPatch, native: bool, wanted: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert resolve_dtype("auto", torch.device("cuda")) is wanted


def test_names_of_numbers() -> None:
    for name in ("bf16", "bfloat16", "torch.bfloat16", torch.bfloat16):
        assert resolve_dtype(name, CPU) is torch.bfloat16
    with pytest.raises(ConfigError, match="float64"):
        resolve_dtype(torch.float64, CPU)


def test_names_of_devices() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="gpu"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match="not there"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")


def test_the_head_is_exact_inside_a_half_precision_region() -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(3, 2, 3, stride=2, padding=1, dilation=2, bias=False, padding_mode="reflect")
    x = torch.randn(1, 3, 9, 9, generator=generator)
    head = Float32Conv2d.like(conv)
    with torch.autocast("cpu", torch.bfloat16):
        inside, rounded = head(x), conv(x)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(inside, conv(x))
    assert head(x.bfloat16()).dtype == torch.float32
    assert list(head.state_dict()) == list(conv.state_dict())


def test_a_linear_layer_stays_exact_as_well() -> None:
    layer = Float32Linear(4, 3)
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_exact_layers_run_where_there_is_no_autocast() -> None:
    with torch.device("meta"):
        network = nn.Sequential(Float32Conv2d(3, 2, 1), nn.Flatten(), Float32Linear(8, 1))
    assert network(torch.empty(1, 3, 2, 2, device="meta")).shape == (1, 1)


def test_only_matrix_products_are_lowered() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), Float32Conv2d(4, 2, 1))
    lower_trunk(network, torch.bfloat16)
    assert [value.dtype for value in network.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 4
    layers = [nn.Conv1d(2, 2, 1), nn.Linear(2, 2), Float32Linear(2, 2)]
    for layer in layers:
        lower_trunk(layer, torch.float16)
    assert [layer.weight.dtype for layer in layers] == [torch.float16, torch.float16, torch.float32]
    with trunk_region(CPU, torch.bfloat16):
        assert network(torch.zeros(1, 3, 2, 2)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16), trunk_region(CPU, torch.float32):
        assert torch.is_autocast_enabled("cpu")
    assert set(precision.DTYPES.values()) == {torch.float32, torch.bfloat16, torch.float16}
