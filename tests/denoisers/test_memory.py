"""Which errors say that memory ran out, and what becomes of the batch."""

from __future__ import annotations

import weakref

import pytest
import torch
from tests.tiny_adm import NETWORKS, tiny_adm
from torch import nn

from rediffuse.denoisers.memory import Room, checkpointed, checkpointing, is_out_of_memory
from rediffuse.errors import ModelError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_known(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_what_this_processor_says_is_known() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


def test_checkpointing_ends_as_it_was() -> None:
    network = tiny_adm(*NETWORKS["like_256_uncond"])
    whole = nn.Sequential(nn.Identity(), network)
    assert checkpointed(whole) == [network]

    def fail() -> None:
        with checkpointing(whole):
            assert network.checkpointing
            raise ModelError("inside")

    for before in (False, True):
        network.checkpointing = before
        with pytest.raises(ModelError, match="inside"):
            fail()
        assert network.checkpointing is before


def test_the_batch_is_halved_until_it_fits_and_stays_so() -> None:
    told: list[int] = []
    asked: list[int] = []
    room = Room(batch=11, told=told.append, hopeless=str)

    def attempt(batch: int) -> int:
        asked.append(batch)
        if batch > 3:
            raise torch.OutOfMemoryError
        return batch

    assert [room.fit(attempt), room.fit(attempt)] == [2, 2]
    assert asked == [11, 5, 2, 2]
    assert told == [5, 2]


def test_not_even_one_is_an_error_and_other_errors_pass() -> None:
    def never(_: int) -> None:
        raise torch.OutOfMemoryError

    def broken(_: int) -> None:
        raise RuntimeError("a bug")

    room = Room(batch=2, told=lambda _: None, hopeless=lambda: "use a smaller model")
    with pytest.raises(ModelError, match="use a smaller model"):
        room.fit(never)
    with pytest.raises(RuntimeError, match="a bug"):
        Room(batch=2, told=lambda _: None, hopeless=str).fit(broken)


def test_the_failed_attempt_is_let_go_of_before_the_next() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def attempt(batch: int) -> bool:
        if batch > 1:
            activations = torch.zeros(batch)
            alive.append(weakref.ref(activations))
            raise torch.OutOfMemoryError
        return alive[0]() is None

    assert Room(batch=2, told=lambda _: None, hopeless=str).fit(attempt)
