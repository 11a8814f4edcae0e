"""Signals are handled where they were before a model was compiled."""

from __future__ import annotations

import ctypes
import sys

import pytest

from captune.inference.runtime.sessions import SignalStack, same_signal_stack, signal_stack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layout of stack_t is that of Linux")


def test_what_a_library_sets_is_put_back() -> None:
    before = signal_stack()
    memory = ctypes.create_string_buffer(64 << 10)
    with same_signal_stack():
        other = SignalStack(ctypes.addressof(memory), 0, len(memory))
        ctypes.CDLL(None).sigaltstack(ctypes.byref(other), None)
        assert signal_stack().address == ctypes.addressof(memory)
    assert signal_stack().address == before.address
