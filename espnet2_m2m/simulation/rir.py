"""Room impulse responses for new data: the image method as pyroomacoustics has it, several times as fast."""

from math import ceil

import numpy as np
from numpy.typing import ArrayLike

from espnet2_m2m.simulation.image_source import impulse_responses, sabine_reflection

# Half the fractional-delay filter: everything is delayed by it, so that the filter's first half is not lost
# when a source is very near. Whoever convolves with a response must drop as many samples from the beginning.
DELAY_SAMPLES = 40
DELAY_STEPS = 20  # tabulated delays within a sample
# Sabine's formula is for diffuse sound, which a shoebox's late sound is not: at T60 the energy still to come is
# 36 to 60 dB below the whole response, after 1.7 * T60 61 dB at least (paper's geometry, T60 0.2 to 0.5 s).
RIR_LENGTH_T60 = 1.7
HIGHPASS_HZ = 10.0


def room_impulse_responses(
    room_size_m: ArrayLike,
    rt60_s: float,
    source_positions_m: ArrayLike,
    mic_positions_m: ArrayLike,
    sample_rate_hz: int,
    length_t60: float = RIR_LENGTH_T60,
) -> np.ndarray:
    """Responses of a shoebox room between all sources and all mics.

    The walls' absorption follows from T60 by Sabine's formula, as in SMS-WSJ. No shoebox is
    perfectly diffuse: T60 measured in the response (Schroeder's integral, -5 to -25 dB, 600 rooms
    of the paper's geometry) is on average 7 % shorter than asked for 0.2-0.3 s and 13 % longer for
    0.4-0.5 s.

    Filters, table of delays and zero-phase high-pass are those of pyroomacoustics, whose responses these are to
    64 dB: its table is shifted by 3e-4 of a sample, because it is counted up in single precision.

    Args:
        room_size_m: (3,) x, y, z.
        rt60_s: reverberation time.
        source_positions_m: (source, 3).
        mic_positions_m: (mic, 3).
        sample_rate_hz: of the responses.
        length_t60: where responses end, in multiples of T60.
    Returns:
        (source, mic, tap) float64; the direct path from a distance d has its maximum at tap
        `DELAY_SAMPLES` + d / c * sample_rate_hz.
    Raises:
        ValueError: T60 is too short for a room of this size, or a position is not inside it.
    Source: Allen, Berkley, JASA 65(4), 1979, see image_source.py.
    """
    from scipy.signal import butter, sosfiltfilt  # 0.5 s

    reflection = sabine_reflection(room_size_m, rt60_s)
    num_taps = ceil(length_t60 * rt60_s * sample_rate_hz)
    # (step, tap): sincs shifted by 0 ... 1 sample, in a Hann window that stays where it is.
    taps = np.arange(-DELAY_SAMPLES, DELAY_SAMPLES + 1)
    shifts = np.arange(DELAY_STEPS + 1) / DELAY_STEPS
    delay_filters = np.sinc(taps - shifts[:, None]) * np.hanning(len(taps))
    rirs = [
        impulse_responses(room_size_m, source, mic_positions_m, reflection, sample_rate_hz, num_taps, delay_filters)
        for source in source_positions_m
    ]
    highpass = butter(2, HIGHPASS_HZ, "highpass", fs=sample_rate_hz, output="sos")
    return sosfiltfilt(highpass, rirs, axis=-1)
