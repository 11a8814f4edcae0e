"""The garbage collector rests during imports, and works again whatever happened."""

from __future__ import annotations

import gc

import pytest

from captune.core.machine import gc_paused


def test_it_works_again_after_the_outermost() -> None:
    with gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), gc_paused():
        raise ImportError("no such package")
    assert gc.isenabled()


def test_one_who_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
