"""A small corpus of synthesised speech, so that anybody can run the demo recipe offline.

The talkers are voices of the espeak-ng synthesiser (accent, voice variant, pitch and speaking
rate), the sentences follow the grammar of the GRID corpus: command, colour, preposition, letter,
digit, adverb, as in "bin blue at f two now".

espeak-ng is GPL-3. It is an external library here, loaded at run time from the package
espeakng-loader, and used for nothing but making this speech.
"""

import ctypes
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_RATE_HZ = 22050  # espeak-ng's own
GRID_WORDS = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),  # no w: the only letter of more than one syllable
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-gbclan", "en-us-nyc", "en-gb-x-rp", "en-029", "en-gb-x-gbcwmd")
# Voice variants of espeak-ng without those that whisper, croak or sound like a robot.
FEMALE = ("f1", "f2", "f3", "f4", "f5", "Annie", "belinda", "linda", "steph", "Alicia", "Andrea", "anika")
MALE = ("m1", "m2", "m3", "m4", "m6", "m7", "m8", "Andy", "edward", "Michael", "john", "rob")
MAX_TALKERS = 2 * len(FEMALE) * len(ACCENTS)
SILENCE_DB = -40.0  # relative to the peak; what is below at either end is trimmed
MARGIN_S = 0.01  # kept at either end


@dataclass(frozen=True)
class Talker:
    """One synthetic talker."""

    talker_id: str  # f01, m01, f02, ...
    voice: str  # espeak-ng's name, accent+variant
    pitch: int  # 0 ... 99, 50 is the voice's own
    rate_wpm: int  # words per minute


def talkers(num_talkers: int) -> list[Talker]:
    """The first talkers of the corpus, female-like and male-like voices in turn.

    No two have the same accent and variant. A talker's voice does not depend on `num_talkers`.

    Raises:
        ValueError: not between 1 and MAX_TALKERS.

    Example:
        >>> [talker.talker_id for talker in talkers(3)]
        ['f01', 'm01', 'f02']
    """
    if not 1 <= num_talkers <= MAX_TALKERS:
        raise ValueError(f"num_talkers must be 1 ... {MAX_TALKERS}, found {num_talkers}")
    chosen = []
    for k in range(num_talkers):
        number, (letter, variants) = k // 2, (("f", FEMALE), ("m", MALE))[k % 2]
        # The strides have no factor in common with the ranges: neighbours differ in everything.
        accent = ACCENTS[(number + number // len(variants)) % len(ACCENTS)]
        chosen.append(
            Talker(
                talker_id=f"{letter}{number + 1:02d}",
                voice=f"{accent}+{variants[number % len(variants)]}",
                pitch=35 + 11 * k % 31,
                rate_wpm=140 + 23 * k % 56,
            )
        )
    return chosen


def sentences(talker_id: str, num_sentences: int, seed: int) -> list[str]:
    """`num_sentences` different sentences of the GRID grammar, drawn for one talker.

    Raises:
        ValueError: more than the grammar has.
    """
    sizes = [len(words) for words in GRID_WORDS]
    if not 1 <= num_sentences <= np.prod(sizes):
        raise ValueError(f"num_sentences must be 1 ... {np.prod(sizes)}, found {num_sentences}")
    digest = hashlib.sha256(f"{seed}/{talker_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
    drawn = np.unravel_index(rng.choice(np.prod(sizes), num_sentences, replace=False), sizes)
    return [
        " ".join(words[k] for words, k in zip(GRID_WORDS, choice, strict=True)) for choice in zip(*drawn, strict=True)
    ]


def speak(talker: Talker, texts: list[str]) -> list[np.ndarray]:
    """Synthesise sentences with one voice.

    espeak-ng keeps state from one sentence to the next (its noise generator, the phase of its
    flutter). The result is the same to the bit only in a process that has not synthesised before.

    Args:
        talker: whose voice it is.
        texts: sentences of the GRID grammar.
    Returns:
        for each sentence (sample,) float32 at SAMPLE_RATE_HZ, trimmed of silence, peaks below 1.
    Raises:
        ValueError: espeak-ng does not know the voice, or says nothing.
    """
    synthesiser = _Espeak()
    synthesiser.set_voice(talker)
    return [trim_silence(synthesiser.synthesise(text)) for text in texts]


def trim_silence(samples: np.ndarray) -> np.ndarray:
    """`samples` (sample,) without the quiet part at either end; see SILENCE_DB and MARGIN_S."""
    level = np.abs(samples)
    loud = np.flatnonzero(level > level.max() * 10 ** (SILENCE_DB / 20))
    margin = round(MARGIN_S * SAMPLE_RATE_HZ)
    return samples[max(0, loud[0] - margin) : loud[-1] + 1 + margin]


class _Espeak:
    """espeak-ng through ctypes; names and numbers are those of its speak_lib.h."""

    AUDIO_OUTPUT_SYNCHRONOUS = 2  # no audio device, the callback gets the samples
    POS_CHARACTER = 1
    CHARS_UTF8, PHONEMES = 0x1, 0x100
    RATE, VOLUME, PITCH = 1, 2, 3
    VOLUME_PERCENT = 60  # at 100 some voices clip
    CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ValueError("synthesising the demo's speech needs espeak-ng: pip install espeakng-loader") from error
        self._lib = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        self._data_path = Path(espeakng_loader.get_data_path())
        rate = self._lib.espeak_Initialize(self.AUDIO_OUTPUT_SYNCHRONOUS, 0, str(self._data_path).encode(), 0)
        if rate != SAMPLE_RATE_HZ:
            raise ValueError(f"espeak-ng speaks at {rate} Hz, expected {SAMPLE_RATE_HZ} Hz")
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else it is the time of day
        self._chunks = []
        self._callback = self.CALLBACK(self._receive)  # kept: the library only holds a pointer
        self._lib.espeak_SetSynthCallback(self._callback)

    def set_voice(self, talker: Talker) -> None:
        # espeak-ng silently leaves out a variant that it does not know: two talkers, one voice.
        variant = talker.voice.partition("+")[2]
        known = not variant or (self._data_path / "voices" / "!v" / variant).is_file()
        if not known or self._lib.espeak_SetVoiceByName(talker.voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice '{talker.voice}'")
        self._lib.espeak_SetParameter(self.RATE, talker.rate_wpm, 0)
        self._lib.espeak_SetParameter(self.PITCH, talker.pitch, 0)
        self._lib.espeak_SetParameter(self.VOLUME, self.VOLUME_PERCENT, 0)

    def synthesise(self, text: str) -> np.ndarray:
        self._chunks.clear()
        encoded = " ".join(_spelled(word) for word in text.split()).encode()
        status = self._lib.espeak_Synth(
            encoded,
            ctypes.c_size_t(len(encoded) + 1),
            0,
            self.POS_CHARACTER,
            0,
            self.CHARS_UTF8 | self.PHONEMES,
            None,
            None,
        )
        self._lib.espeak_Synchronize()
        samples = np.frombuffer(b"".join(self._chunks), dtype=np.int16)
        if status != 0 or not samples.any():
            raise ValueError(f"espeak-ng could not say '{text}' (status {status})")
        return (samples / 32768).astype(np.float32)

    def _receive(self, samples: Any, num_samples: int, _events: int | None) -> int:
        if samples and num_samples > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * num_samples))
        return 0  # go on


def _spelled(word: str) -> str:
    """How espeak-ng must be given a word: letters in capitals, and `a` must not be the article."""
    if word == "a":
        return "[[eI]]"
    return word.upper() if len(word) == 1 else word
