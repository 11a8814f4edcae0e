"""Images of strangers, decoded in processes: a deadline, what is refused, and when nothing can be decoded."""

from __future__ import annotations

import asyncio
import io
import sys
import time

import numpy as np
import pytest
from PIL import Image

from captune.core.errors import ImageError
from captune.core.options.serve import ServeOptions
from captune.images.decode_worker import answer
from captune.images.open import open_image
from captune.images.preprocessing import Preprocessing, to_pixels
from captune.server.images import ImageDecoder
from captune.server.problems import Problem

# A decoder that never ends with files that begin with a tilde.
SLOW = """
import time
import captune.images.decode_worker as worker
read = worker.read_pixels
def slow(source, *settings):
    while source.startswith(b"~"):
        time.sleep(1)
    return read(source, *settings)
worker.read_pixels = slow
worker.main()
"""
PREPROCESSING = Preprocessing(16)


async def pixels(decoder: ImageDecoder, data: bytes, preprocessing: Preprocessing, client: str = "") -> np.ndarray:
    return (await decoder.decode(data, preprocessing, client=client)).pixels


def encoded(format: str) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, format)
    return file.getvalue()


@pytest.mark.slow
def test_images_are_decoded_in_processes_with_a_deadline() -> None:
    options = ServeOptions(workers=1, decode_timeout=0.3)
    started = [sys.executable, "-c", SLOW, '{"max_pixels": 1000000, "formats": ["PNG"], "imports": [], "square": null,'
               ' "fingerprints": false}']  # fmt: skip

    async def work() -> None:
        decoding = ImageDecoder(options, fast=False, command=started, stuck_seconds=0.1)
        await decoding.start()
        try:
            good = encoded("PNG")
            assert np.array_equal(await pixels(decoding, good, PREPROCESSING), to_pixels(open_image(good), 16))
            with pytest.raises(ImageError, match=r"not an image|damaged"):
                await pixels(decoding, encoded("GIF"), PREPROCESSING)
            assert not decoding.stuck
            begun = time.monotonic()
            endless = asyncio.ensure_future(pixels(decoding, b"~", PREPROCESSING))
            after = asyncio.ensure_future(pixels(decoding, good, Preprocessing(8)))
            await asyncio.sleep(0.2)
            assert decoding.stuck
            with pytest.raises(ImageError, match="too long"):
                await endless
            assert time.monotonic() - begun < 2
            assert (await after).shape == (3, 8, 8)
            assert not decoding.stuck
            left = asyncio.ensure_future(pixels(decoding, b"~", PREPROCESSING))
            await asyncio.sleep(0.05)
        finally:
            begun = time.monotonic()
            decoding.close()
        assert time.monotonic() - begun < 0.3  # whatever they were doing
        with pytest.raises(ImageError):
            await left

    asyncio.run(work())


@pytest.mark.parametrize("fast", [False, True])
def test_a_decoder_tells_the_size_of_the_upright_image_where_it_is_wanted(fast: bool) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(
        file, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    settings = {"max_pixels": 10_000, "formats": ["JPEG"], "fingerprints": False}
    for question, said in (({"size": True}, {"size": (48, 64), "shape": (3, 8, 8)}), ({}, {"shape": (3, 8, 8)})):
        assert answer(question, file.getvalue(), Preprocessing(8, fast=fast), settings) == (said, bytes(3 * 8 * 8))
    assert answer({"size": True}, encoded("PNG"), Preprocessing(8, fast=fast), settings)[0]["kind"] == "damaged"


def test_slow_images_of_one_client_leave_a_process_to_the_others() -> None:
    settings = '{"max_pixels": 1000000, "formats": ["PNG"], "imports": [], "square": null, "fingerprints": false}'

    async def work() -> None:
        options = ServeOptions(workers=2, decode_timeout=20)
        decoding = ImageDecoder(options, fast=False, command=[sys.executable, "-c", SLOW, settings])
        await decoding.start()
        try:
            given_up = asyncio.ensure_future(pixels(decoding, b"~", PREPROCESSING, "slow"))
            await asyncio.sleep(0.1)
            given_up.cancel()  # its process works on
            slow = [asyncio.ensure_future(pixels(decoding, b"~", PREPROCESSING, "slow")) for _ in range(4)]
            await asyncio.sleep(0.1)
            async with asyncio.timeout(15):
                assert (await pixels(decoding, encoded("PNG"), PREPROCESSING, "other")).shape == (3, 16, 16)
            assert not any(one.done() for one in slow)
            assert not decoding.stuck
        finally:
            decoding.close()
            for one in slow:
                one.cancel()

    asyncio.run(work())


def test_a_server_without_decoders_says_so() -> None:
    async def work() -> None:
        decoding = ImageDecoder(
            ServeOptions(workers=1), fast=False, command=[sys.executable, "-S", "-c", "raise OSError"]
        )
        try:
            with pytest.raises(Problem) as error:
                await pixels(decoding, encoded("PNG"), PREPROCESSING)
            assert error.value.status == 503
        finally:
            decoding.close()

    asyncio.run(work())


@pytest.mark.parametrize("format", ["PPM", "ICO", "SGI", "TGA", "PCX", "QOI", "DDS", "DIB"])
def test_kinds_that_nobody_captions_are_not_opened(format: str) -> None:
    model = [name.upper() for name in ServeOptions().formats]
    with pytest.raises(ImageError):
        open_image(encoded(format), formats=model)
    open_image(encoded(format))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "JPEG2000"])
def test_kinds_that_people_send_are_opened(format: str) -> None:
    open_image(encoded(format), formats=[name.upper() for name in ServeOptions().formats])
