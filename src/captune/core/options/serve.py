"""Options of `captune serve`, declared as all others are (`captune.core.options`)."""

from typing import Literal

from captune.core.options.option import Language, Options, option

# What captune opens (`captune.images.open.DECODERS`, and HEIF).
ImageFormat = Literal[
    "jpeg", "png", "webp", "gif", "avif", "heif", "tiff", "bmp", "jpeg2000",
    "dib", "ppm", "ico", "icns", "psd", "qoi", "sgi", "pcx", "dds", "fits", "pcd", "tga",
]  # fmt: skip


class ServeOptions(Options, section="serve", panel="Serving"):
    """How images of many clients are captioned, and what a client may ask for."""

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0: all addresses of this machine.")
    port: int = option(8000, "Port to listen on; 0: any free port.", ge=0, le=65535)
    max_batch: int = option(8, "Largest batch of a model, from any clients.", ge=1, le=1024)
    max_wait: float = option(5.0, "Milliseconds that an image waits for others to share its batch.", ge=0, le=10_000)
    max_queue: int = option(128, "Images that wait or are in progress; further ones are refused (429).", ge=1)
    timeout: float = option(60.0, "Seconds from the first byte of a request to its response (408, 504).", gt=0)
    drain: float = option(30.0, "Seconds to complete accepted requests after SIGTERM.", ge=0)
    memory: float = option(
        0.0, "Gigabytes of weights in memory at most; idle models are unloaded for requested ones. 0: no limit.", ge=0
    )
    max_body: float = option(20.0, "Largest body of a request, in megabytes (413).", gt=0)
    max_pixels: int = option(40_000_000, "Images with more pixels than this are refused (422).", ge=1)
    formats: tuple[ImageFormat, ...] = option(
        ("jpeg", "png", "webp", "gif", "avif", "heif", "tiff", "bmp", "jpeg2000"),
        "Accepted image formats; others are refused (422).",
        min_length=1,
    )
    workers: int = option(
        0,
        "Processes that decode images; one client uses at most all but one. 0: one more than cores, 8 at most.",
        ge=0,
        le=1024,
    )
    decode_timeout: float = option(
        10.0, "Seconds that an image may take to decode; then its process is killed (422).", gt=0
    )
    max_images: int = option(16, "Largest number of images in one request (422).", ge=1, le=1000)
    max_work: int = option(
        4096, "Largest product of beams, captions (or variations) and new tokens of a request (422).", ge=1
    )
    rate: float = option(
        0.0, "Requests per minute of each key, after a burst of a quarter of them (429). 0: no limit.", ge=0
    )
    keys_file: str | None = option(
        None, "File with a NAME=KEY on each line, besides those in CAPTUNE_API_KEYS (NAME=KEY,...)."
    )
    cors: tuple[str, ...] = option((), "Origins whose pages may call the server, such as https://example.com; *: any.")
    hosts: tuple[str, ...] = option(
        (), "Host names, besides localhost, that a server without keys accepts on a loopback address (421)."
    )
    client_connections: int = option(
        256, "Largest number of open connections per client address, except of trusted proxies (429).", ge=1
    )
    forwarded_allow_ips: tuple[str, ...] = option(
        ("127.0.0.1", "::1"),
        "Addresses and networks of proxies whose X-Forwarded-For names the client, such as 10.0.0.0/8; *: any.",
    )
    allow_urls: bool = option(False, "Download images that requests name by http(s) URL, from public addresses only.")
    ignore_instructions: bool = option(
        False,
        "Captioners that continue their prompt, such as BLIP, leave out the text of chats: for programs that send an "
        "instruction with every image, such as PhotoPrism.",
    )
    languages: tuple[Language, ...] = option(
        (), "Languages, besides --language, that requests may choose: de, fr, es … A model is loaded for each."
    )
    library: str | None = option(
        None, "Folder of images whose library POST /v1/search searches; or the folder of a library's own files."
    )
    access_log: bool = option(True, "A line of JSON on stderr for each request.")
