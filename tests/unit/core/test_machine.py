"""What the machine refuses: memory and room, as each library says it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from captune.cli.main import run
from captune.core.errors import CaptuneError
from captune.core.files import disk_error
from captune.core.machine import (
    DiskFull,
    OutOfMemory,
    free_space,
    in_bytes,
    is_disk_full,
    is_out_of_memory,
    machine_error,
)


def no_room() -> MemoryError:
    try:
        np.empty(1 << 60, np.uint8)
    except MemoryError as error:
        return error
    raise AssertionError("no machine has an exabyte")


def caused(error: Exception) -> ValueError:
    outer = ValueError("the batch could not be run")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "error",
    [
        no_room(),
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to "),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GB)"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        ImportError("/lib/_image.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        caused(MemoryError()),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error: Exception) -> None:
    assert is_out_of_memory(error)
    found = machine_error(error)
    assert isinstance(found, OutOfMemory)
    assert "--batch-size" in found.hint
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        Exception("No space left on device (os error 28)"),  # tokenizers, safetensors
        Exception("Error while serializing: I/O error: File too large (os error 27)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),  # torch.save
        OSError("430639 requested and 496 written"),  # numpy.save
        RuntimeError("basic_ios::clear: iostream error"),  # torch.save of a small file
        RuntimeError("write(): fd 3 failed with No space left on device"),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error: Exception) -> None:
    assert is_disk_full(error)
    assert isinstance(machine_error(error), DiskFull)
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_disk_full(RuntimeError("shapes cannot be multiplied"))


def test_a_path_that_the_system_refuses_is_named_and_a_bug_is_not() -> None:
    found = machine_error(OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300))
    assert found is not None
    assert "xxx…: File name too long" in found.message
    assert machine_error(KeyError("x")) is None
    assert machine_error(OSError("something")) is None


def test_a_limit_on_files_is_not_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    limit, full = (disk_error(OSError(code, os.strerror(code)), path) for code in (errno.EFBIG, errno.ENOSPC))
    assert isinstance(limit, DiskFull)
    assert "larger than" in limit.message
    assert "ulimit" in limit.hint
    assert "disk is full" in full.message
    found = machine_error(OSError(errno.EFBIG, "File too large", str(path)))
    assert found is not None
    assert found.message.startswith(f"Cannot write {path}: the file is larger than")


def test_room_in_words(tmp_path: Path) -> None:
    assert free_space(tmp_path / "not" / "yet").endswith("free there")
    assert [in_bytes(n) for n in (999, 1000, 1_234_567, 5 * 10**9)] == ["999 bytes", "1.0 kB", "1.2 MB", "5.0 GB"]


@pytest.mark.parametrize(
    "words",
    [
        ["score", "-H", "h" * 300, "-R", "r.json"],
        ["prepare", "p" * 300, "--out", "d"],
        ["prepare", ".", "--out", "d" * 300],
        ["caption", "x.jpg", "--model", "m" * 300],
        ["train", "--data", "d" * 300, "--model", "new:blip-tiny", "--out", "r"],
        ["train", "--data", "d", "--model", "new:blip-tiny", "--out", "r" * 300],
        ["train", "--data", "d", "--model", "new:blip-tiny", "--out", "r", "--config", "c" * 300],
        ["runs", "show", "r" * 300],
        ["report", "r" * 300],
    ],
)
def test_names_too_long_are_errors_with_a_message(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) in (1, 2)
    assert "error:" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_verb_that_is_short_of_memory_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    error = machine_error(no_room())
    assert isinstance(error, CaptuneError)
    assert error.message.startswith("There is not memory enough for this: Unable to allocate")
