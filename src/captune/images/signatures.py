"""What a file that is no readable image is instead, told from its first bytes."""

import os

from captune.core.errors import ImageErrorKind

HEAD_BYTES = 512

# How the names of image files end, for looking through folders; what a file is, its bytes tell.
IMAGE_SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".avif", ".avifs", ".tif", ".tiff", ".bmp",
        ".dib", ".jp2", ".j2k", ".jpf", ".jpx", ".mpo", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".ico", ".icns", ".psd",
        ".qoi", ".sgi", ".pcx", ".dds", ".fits", ".pcd", ".tga", ".heic", ".heif", ".heics", ".heifs", ".hif",
    )
)  # fmt: skip


def is_image_name(name: str) -> bool:
    """Whether a name ends as image files do."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


_POINTERS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the image itself", "git lfs pull"),
    (b"# xet version", "a git-xet pointer, not the image itself", "git xet checkout"),
    (b"/annex/objects/", "a git-annex pointer, not the image itself", "git annex get"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_IMAGE_BRANDS = (*_HEIF_BRANDS, b"avif", b"avis")
_VIDEO_BRANDS = (b"isom", b"mp41", b"mp42", b"qt  ", b"M4V ", b"avc1")
CONVERT = "convert it to JPEG or PNG"
_UNSUPPORTED = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "PostScript (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile (WMF)"),
    (b"\x01\x00\x00\x00", "a Windows metafile (EMF)"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\xd0\xcf\x11\xe0", "a Microsoft Office document"),
    (b"\x1aE\xdf\xa3", "a video (WebM or Matroska)"),
)
_IMAGES = (
    (b"\xff\xd8\xff", "JPEG", ".jpg"),
    (b"\x89PNG", "PNG", ".png"),
    (b"GIF8", "GIF", ".gif"),
    (b"II*\x00", "TIFF", ".tif"),
    (b"MM\x00*", "TIFF", ".tif"),
    (b"II+\x00", "TIFF", ".tif"),
    (b"MM\x00+", "TIFF", ".tif"),
    (b"RIFF", "WebP", ".webp"),
    (b"BM", "BMP", ".bmp"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000", ".jp2"),
    (b"\xff\x4f\xff\x51", "JPEG 2000", ".j2k"),
    (b"8BPS", "Photoshop", ".psd"),
)


def detect_unreadable(head: bytes) -> tuple[ImageErrorKind, str, str] | None:
    """ImageErrorKind, words and next step for first bytes that are surely no readable image, else None.

    Asked before decoding, so it must never name a file that a decoder could read.
    """
    if not head:
        return "empty", "the file is empty (0 bytes)", "download or copy it again"
    for start, words, step in _POINTERS:
        if head.startswith(start):
            return "pointer", words, f"run `{step}` where the image was cloned"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n\x00")[:256].lower()
    if not text:
        return "empty", "the file holds nothing but blanks", "download or copy it again"
    if b"<svg" in head.lower() and text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")):
        return "unsupported", "an SVG drawing, which is not supported", CONVERT
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "page", "an HTML page saved under an image's name", "download the image again"
    if text.startswith((b"<?xml", b"<error", b'{"error', b'{"message')):
        return "page", "a text saved under an image's name", "download the image again"
    if is_video(head):
        return "unsupported", "a video, which is not an image", "extract a frame from it"
    for start, words in _UNSUPPORTED:
        if head.startswith(start):
            return "unsupported", f"{words}, which is not supported", CONVERT
    return None


def is_heif(head: bytes) -> bool:
    """Whether first bytes are those of HEIC or HEIF, and not of its relative AVIF."""
    brands = _brands(head)
    return bool(brands.intersection(_HEIF_BRANDS)) and not brands & {b"avif", b"avis"}


def image_type(head: bytes) -> tuple[str, str] | None:
    """Name and file ending of the image type that first bytes promise, of those that other files never begin with."""
    for magic, name, suffix in _IMAGES:
        if head.startswith(magic) and (name != "WebP" or b"WEBP".startswith(head[8:12])):
            return name, suffix
    return None


def suffix_of(data: bytes) -> str:
    """The file name ending for the bytes of an image; .jpg for what is not known."""
    if data[4:8] == b"ftyp":
        return ".heic" if is_heif(data[:HEAD_BYTES]) else ".avif"
    found = image_type(data)
    return found[1] if found else ".jpg"


def is_video(head: bytes) -> bool:
    """Whether first bytes are those of a film in a box of the MP4 family, in which no image is."""
    return head[4:8] == b"ftyp" and head[8:12] in _VIDEO_BRANDS and not _brands(head).intersection(_IMAGE_BRANDS)


def _brands(head: bytes) -> set[bytes]:
    """What an ISO media file says that it is: HEIC, AVIF, MP4."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    begin = 12 if head[8:12] == b"mif3" else 16  # elsewhere a version stands between
    return {head[8:12], *(head[i : i + 4] for i in range(begin, end - 3, 4))}


def explain_unknown(head: bytes) -> tuple[ImageErrorKind, str, str]:
    """The same for a file that no decoder took."""
    text = head.lstrip(b"\xef\xbb\xbf")
    try:
        text.decode("utf-8")
        readable = all(byte >= 32 or byte in b"\t\r\n\f\x1b" for byte in text)
    except UnicodeDecodeError:
        readable = False
    if readable:
        return "page", "a text saved under an image's name", "download the image again"
    if _brands(head) & {b"avif", b"avis"}:
        return "damaged", "an AVIF file with a damaged header, or of a kind that is not decoded", CONVERT
    if found := image_type(head):
        return "damaged", f"a {found[0]} file with a damaged header, or of a kind that is not decoded", CONVERT
    return "unknown", "not an image of any kind that is decoded", CONVERT
