"""Room impulse responses by the image method (pyroomacoustics)."""

import numpy as np
import pyroomacoustics as pra

SPEED_OF_SOUND_M_S = 343.0
# pyroomacoustics delays everything by half its fractional-delay filter, so that a filter's first
# half is not lost when a source is very near. Who convolves drops as many samples of the result.
DELAY_SAMPLES = pra.constants.get("frac_delay_length") // 2


def room_impulse_responses(
    room_size_m, rt60_s, source_positions_m, mic_positions_m, sample_rate_hz
):
    """Responses of a shoebox room between all sources and all mics.

    The walls' absorption follows from T60 by Sabine's formula, as in SMS-WSJ. No shoebox is
    perfectly diffuse: T60 measured in the response (Schroeder's integral, -5 to -25 dB, 600 rooms
    of the paper's geometry) is on average 7 % shorter than asked for 0.2-0.3 s and 13 % longer for
    0.4-0.5 s.

    Responses end at T60, where they have decayed by about 60 dB: images that arrive later are left
    out, which is more than half of them and of the time. What is left out holds less than
    1/10,000 of the energy.

    Args:
        room_size_m: (3,) x, y, z.
        rt60_s: reverberation time.
        source_positions_m: (source, 3).
        mic_positions_m: (mic, 3).
        sample_rate_hz: int.
    Returns:
        (source, mic, tap) float64; the direct path from a distance d has its maximum at tap
        `DELAY_SAMPLES` + d / c * sample_rate_hz.
    Raises:
        ValueError: T60 is too short for a room of this size.
    """
    pra.constants.set("num_threads", 1)  # sums of floats in another order are other floats
    absorption, max_order = pra.inverse_sabine(rt60_s, room_size_m, c=SPEED_OF_SOUND_M_S)
    room = pra.ShoeBox(
        room_size_m,
        fs=sample_rate_hz,
        materials=pra.Material(absorption),
        max_order=max_order,
        air_absorption=False,
    )
    room.set_sound_speed(SPEED_OF_SOUND_M_S)
    for position in source_positions_m:
        room.add_source(position)
    mics = np.asarray(mic_positions_m).T  # (3, mic)
    room.add_microphone_array(mics)
    room.image_source_model()
    for k, source in enumerate(room.sources):
        # Seen from one mic and not from each, to keep the same images for all.
        distance = np.linalg.norm(source.images - mics[:, :1], axis=0)
        early = distance <= SPEED_OF_SOUND_M_S * rt60_s
        source.images, source.damping = source.images[:, early], source.damping[:, early]
        room.visibility[k] = room.visibility[k][:, early]
    room.compute_rir()

    num_taps = max(len(rir) for of_mic in room.rir for rir in of_mic)
    rirs = np.zeros((len(source_positions_m), mics.shape[1], num_taps))
    for mic, of_mic in enumerate(room.rir):
        for source, rir in enumerate(of_mic):
            rirs[source, mic, : len(rir)] = rir
    return rirs
