"""Every kind of file: whole it is read, cut anywhere it is refused. Streams of unknown length are not truncated."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from data_dir_example import noise

from espnet2_m2m.data_dir import AudioError, audio_header, read_audio
from espnet2_m2m.data_dir.containers import FORMATS
from espnet2_m2m.data_dir.validate_audio import scan_audio

KINDS = [
    (kind, subtype)
    for kind in FORMATS
    for subtype in soundfile.available_subtypes(kind)
    # Of mp3 and flac the decoders tell. libsndfile 1.2 cannot read the DWVW, nor write the mp3 in wav, that it knows.
    if kind not in ("MP3", "FLAC") and not subtype.startswith(("DWVW", "MPEG"))
]
NUM_SAMPLES = 32000


def write(path, kind, subtype, num_channels=2):
    """Write noise; False where the kind does not take so many channels."""
    try:
        soundfile.write(path, noise(NUM_SAMPLES, num_channels), 16000, format=kind, subtype=subtype)
    except soundfile.SoundFileError:
        return False
    return True


@pytest.mark.parametrize("kind, subtype", [*KINDS, ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
def test_whole_files_are_read_and_truncated_ones_refused(tmp_path, kind, subtype):
    path = tmp_path / "audio"
    assert write(path, kind, subtype) or write(path, kind, subtype, num_channels=1)
    assert len(read_audio(path)[0]) == scan_audio(str(path)).num_samples >= NUM_SAMPLES
    content = path.read_bytes()
    for part in (0.05, 0.5, 0.9, 0.999):
        path.write_bytes(content[: int(part * len(content))])
        for function in (read_audio, scan_audio):
            for entry in (str(path), f"cat {path} |"):
                with pytest.raises(AudioError) as error:
                    function(entry)
                assert str(error.value).startswith(f"{entry}: ") and " object at 0x" not in str(error.value)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "NIST"])
def test_expected_and_found_samples_are_named(tmp_path, kind):
    """24 bits, two mics: six bytes a sample, of which the last 600 and a half are missing."""
    path = tmp_path / "audio"
    write(path, kind, "PCM_24")
    begin, end = path.read_bytes(), b""
    if kind == "WAV":  # a chunk after the samples is no samples
        path.write_bytes(begin + b"LIST" + struct.pack("<I", 4) + b"INFO")
        assert len(read_audio(path)[0]) == NUM_SAMPLES
    path.write_bytes(begin[: len(begin) - 6 * 600 - 3] + end)
    with pytest.raises(
        AudioError, match=f"truncated: the header promises {NUM_SAMPLES} samples, the file holds 31399;"
    ):
        read_audio(path)


def test_memory_that_was_never_written_is_not_judged(tmp_path):
    """soundfile's `blocks` gives whole blocks, whatever was read: half an mp3 was finite or not by chance."""
    path = tmp_path / "a.mp3"
    write(path, "MP3", "MPEG_LAYER_III", num_channels=1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert audio_header(path)[0] == NUM_SAMPLES
    with pytest.raises(AudioError, match=f"truncated: the header promises {NUM_SAMPLES} samples, the file holds 1"):
        scan_audio(str(path))


def wav_header(num_channels, num_bytes, promised):
    frame = num_channels * num_bytes
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, num_channels, 8000, 8000 * frame, frame, 8 * num_bytes)
    riff = struct.pack("<4sI4s", b"RIFF", min(promised + 36, 0xFFFFFFFF), b"WAVE")
    return riff + fmt + struct.pack("<4sI", b"data", promised)


@pytest.mark.parametrize("num_bytes", [2, 3, 4])
@pytest.mark.parametrize("num_channels", [1, 2, 3, 6, 7, 8])
def test_streams_promise_what_nobody_can_hold(tmp_path, num_channels, num_bytes):
    """SoX rounds 0x7FFFF000 down to whole samples of all channels; others write the largest number, with or without
    the header. A recording of some gigabytes that was cut is truncated none the less."""
    frame = num_channels * num_bytes
    path = tmp_path / "stream"
    for promised in (0x7FFFF000 // frame * frame, 0x7FFFFFFF - 36, 0x80000000, 0xFFFFFFFF - 44, 0xFFFFFFFF):
        path.write_bytes(wav_header(num_channels, num_bytes, promised) + bytes(500 * frame))
        assert read_audio(f"cat {path} |")[0].shape == (500, num_channels), hex(promised)
    for promised in (501 * frame, 0x70000000 // frame * frame, 0x90000000 // frame * frame):
        path.write_bytes(wav_header(num_channels, num_bytes, promised) + bytes(500 * frame))
        with pytest.raises(AudioError, match=f"promises {promised // frame} samples, the file holds 500;"):
            read_audio(f"cat {path} |")


@pytest.mark.parametrize(
    "kind, offset, unknown",
    [
        ("AU", 8, b"\xff\xff\xff\xff"),  # as SoX
        ("AIFF", None, struct.pack(">I", 0x7F000000 + 8)),  # as SoX
    ],
)
def test_streams_of_other_kinds(tmp_path, kind, offset, unknown):
    path = tmp_path / "stream"
    write(path, kind, "PCM_16")
    content = bytearray(path.read_bytes())
    if offset is None:
        offset = content.index(b"SSND") + 4
    content[offset : offset + len(unknown)] = unknown
    path.write_bytes(content)
    assert len(read_audio(f"cat {path} |")[0]) == NUM_SAMPLES


def test_streamed_flac(tmp_path):
    """An encoder that writes to a pipe leaves the number of samples zero, which libsndfile calls 2^63 - 1."""
    path = tmp_path / "a.flac"
    write(path, "FLAC", "PCM_16")
    desired, _ = read_audio(path)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # 36 bits in STREAMINFO, which begins at byte 8
    content[22:26] = bytes(4)
    path.write_bytes(content)
    for entry in (str(path), f"cat {path} |"):
        np.testing.assert_array_equal(read_audio(entry)[0], desired)
        np.testing.assert_array_equal(read_audio(entry, (0.5, 1.0))[0], desired[8000:16000])
        assert audio_header(entry) == (NUM_SAMPLES, 2, 16000)
        assert scan_audio(entry).num_samples == NUM_SAMPLES


def test_kinds_whose_end_cannot_be_told_and_raw_files_are_refused(tmp_path):
    write(tmp_path / "a.voc", "VOC", "PCM_16")
    with pytest.raises(AudioError, match="a.voc: expected one of WAV, .*, found VOC; convert it to wav or flac"):
        read_audio(tmp_path / "a.voc")
    Path(tmp_path / "a.raw").write_bytes(bytes(1000))
    with pytest.raises(AudioError, match="a.raw: a raw file, whose rate and channels no header tells; convert"):
        read_audio(tmp_path / "a.raw")


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"OggS", b"caff\0\1\0\0data", b"FORM\0\0\0\0AIFFCOMM\0\0\0\2\0\0", b".snd"]
)
def test_scraps_are_refused(tmp_path, content):
    for length in (len(content), 200):
        (tmp_path / "scrap").write_bytes(content.ljust(length, b"\xff"))
        with pytest.raises(AudioError, match="scrap: "):
            read_audio(tmp_path / "scrap")
