"""Kaldi data dirs of clean speech to simulate with."""

from espnet2_m2m.data_dir import write_table, write_wav


def make_clean_speech(data_dir, num_utts, samples_of, sample_rate, text=True):
    """Write utterances s0-u0, s0-u1, ... of 6 speakers; returns the folder.

    `samples_of`: function of the numbers of speaker and utterance that gives (sample,).
    """
    wav, utt2spk = {}, {}
    for speaker in range(6):
        for utt in range(num_utts):
            utt_id = f"s{speaker}-u{utt}"
            wav[utt_id], utt2spk[utt_id] = data_dir / f"{utt_id}.wav", f"s{speaker}"
            write_wav(wav[utt_id], samples_of(speaker, utt), sample_rate, "PCM_16")
    write_table(data_dir / "wav.scp", wav)
    write_table(data_dir / "utt2spk", utt2spk)
    if text:
        write_table(data_dir / "text", {utt_id: f"utterance {utt_id.partition('u')[2]}" for utt_id in wav})
    return data_dir
