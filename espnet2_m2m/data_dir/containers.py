"""Does a file hold all samples that its header promises? libsndfile shortens a truncated one without a word.

What follows the header of each kind of file is read here as far as it tells the number of bytes of samples. FLAC and
mp3 files are not: their decoders end too early or with an error, which shows when they are read to their end.
"""

import io
import struct
from typing import BinaryIO, NamedTuple

# libsndfile's names of the kinds of files whose truncation can be told.
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "OGG", "FLAC", "MP3")
OGG_PAGE_BYTES = 65307  # at most
PCM_TAGS = (1, 3, 6, 7, 0xFFFE)  # wav: integers, floats, A-law, mu-law, extensible
AIFF_PCM = (b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")
AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # encoding -> bytes a sample


class Content(NamedTuple):
    """Bytes of samples that a header promises, those that are there, and those of one sample of all channels.

    `promised` is None where the header does not say, `frame_bytes` None where samples have no fixed size.
    """

    promised: int | None = None
    present: int = 0
    frame_bytes: int | None = None


class Layout(NamedTuple):
    """A file in chunks: a name, a length, that many bytes and perhaps padding."""

    chunk: str  # struct format of name and length
    first: int  # where the first chunk begins, from the start of the file
    alignment: int  # of chunks, in bytes
    samples: bytes  # name of the chunk that holds the samples, ...
    skipped: int  # ... which begin after so many bytes of it
    counts_header: bool = False  # the length counts name and length, too


LAYOUTS = {
    b"RIFF": Layout("<4sI", 12, 2, b"data", 0),
    b"RIFX": Layout(">4sI", 12, 2, b"data", 0),
    b"RF64": Layout("<4sI", 12, 2, b"data", 0),
    b"riff": Layout("<16sQ", 40, 8, b"data", 0, counts_header=True),  # W64
    b"FORM": Layout(">4sI", 12, 2, b"SSND", 8),  # AIFF
    b"caff": Layout(">4sQ", 8, 1, b"data", 4),
}


def missing_samples(file: BinaryIO) -> tuple[str, str] | None:
    """(what the header promises, what is there) of a truncated file, None of a whole one.

    Args:
        file: it stands at the beginning of the header; whatever follows (in an ark) counts as there. Afterwards it
            stands there again.
    Raises:
        ValueError: the header of a wav file contradicts itself; says how.
    """
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    magic = file.read(4)
    file.seek(start)
    try:
        if magic == b"OggS":
            return None if _ogg_ends(file, size) else ("the end of the stream", "none")
        content = _content(file, magic, size)
    except struct.error:
        return "a whole header", "a part of it"
    finally:
        file.seek(start)
    if content.promised is None or content.promised <= content.present or _is_unknown(content.promised):
        return None
    if content.frame_bytes:
        return f"{content.promised // content.frame_bytes} samples", str(content.present // content.frame_bytes)
    return f"{content.promised} bytes of samples", str(content.present)


def _is_unknown(promised: int) -> bool:
    """True of the lengths that programs write when they stream, to a pipe, and cannot know the length.

    They promise as much as can be said in signed or unsigned 32 (64) bits, less their headers and rounded down to
    whole samples of all channels: SoX 0x7FFFF000 (AIFF: 0x7F000000), others 0x7FFFFFFF or 0xFFFFFFFF.
    """
    margin = 0x10000  # more than a header and than any sample of all channels
    return (
        0x7F000000 - margin <= promised < 0x80000000 + margin
        or 0xFFFFFFFF - margin <= promised <= 0xFFFFFFFF
        or promised >= 2**62
    )


def _content(file: BinaryIO, magic: bytes, size: int) -> Content:
    if magic in LAYOUTS:
        return _chunks_content(file, magic, LAYOUTS[magic], size)
    if magic in (b".snd", b"dns."):  # AU, and its little-endian form
        header = struct.unpack(">4x5I" if magic == b".snd" else "<4x5I", file.read(24))
        offset, promised, encoding, _, num_channels = header
        return Content(promised, size - offset, AU_BYTES.get(encoding, 0) * num_channels or None)
    if magic == b"NIST":
        return _nist_content(file, size)
    return Content()


def _chunks_content(file: BinaryIO, magic: bytes, layout: Layout, size: int) -> Content:
    start = file.tell()
    place, long_length, frame_bytes = layout.first, None, None
    header_bytes = struct.calcsize(layout.chunk)
    while place + header_bytes <= size:
        file.seek(start + place)
        header = file.read(header_bytes)
        name, length = struct.unpack(layout.chunk, header)
        name = name[:4]  # W64 has 16 bytes, of which the first four are those of wav
        length -= header_bytes if layout.counts_header else 0
        place += header_bytes
        if name == layout.samples:
            if magic == b"RF64":
                length = long_length
            promised = None if length is None else length - layout.skipped
            return Content(promised, max(0, size - place - layout.skipped), frame_bytes)
        if name == b"ds64":  # of RF64: the size of all, then of the samples
            long_length = struct.unpack("<8xQ", file.read(16))[0]
        elif name in (b"fmt ", b"COMM", b"desc"):
            frame_bytes = _frame_bytes(name, file.read(length if length < 1000 else 0), layout.chunk[0])
        place += -(-max(length, 0) // layout.alignment) * layout.alignment
    return Content()


def _frame_bytes(name: bytes, content: bytes, byte_order: str) -> int | None:
    """Bytes of one sample of all channels, as the chunk of a header that tells the encoding has it."""
    if name == b"fmt ":
        tag, num_channels, _, _, frame_bytes, bits = struct.unpack_from(f"{byte_order}HHIIHH", content)
        # As Kaldi demands; libsndfile believes the bits, and takes a half of a sample for a whole one.
        sample_bytes = {1: -(-bits // 8), 3: -(-bits // 8), 6: 1, 7: 1}.get(tag)
        if sample_bytes and frame_bytes not in (num_channels * sample_bytes, num_channels * 4 * (bits == 24)):
            raise ValueError(
                f"the header contradicts itself: {num_channels} channels of {sample_bytes} bytes each and {frame_bytes}"
                " bytes of all together"
            )
        return frame_bytes if tag in PCM_TAGS and frame_bytes else None
    if name == b"desc":
        return struct.unpack_from(">dIIII", content)[3] or None
    num_channels, _, bits = struct.unpack_from(">HIH", content)
    is_pcm = len(content) < 22 or content[18:22] in AIFF_PCM
    return num_channels * -(-bits // 8) or None if is_pcm else None


def _nist_content(file: BinaryIO, size: int) -> Content:
    """NIST SPHERE: a header in lines of text, its size on the second."""
    lines = file.read(1024).split(b"\n")
    try:
        fields = {parts[0]: parts[2] for parts in map(bytes.split, lines[2:]) if len(parts) == 3}
        header_bytes = int(lines[1])
        frame_bytes = int(fields[b"sample_n_bytes"]) * int(fields[b"channel_count"])
        return Content(int(fields[b"sample_count"]) * frame_bytes, max(0, size - header_bytes), frame_bytes or None)
    except (KeyError, ValueError, IndexError):
        return Content()


def _ogg_ends(file: BinaryIO, size: int) -> bool:
    """True if the last page is whole and says that it is the last."""
    start = file.tell()
    file.seek(start + max(0, size - OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
