"""Our scores against ESPnet's own `espnet2.bin.enh_scoring` on the same files.

SDR (mir_eval's BSS-eval there), PESQ and eSTOI (in per cent there) have the same definitions. ESPnet's
SI_SNR differs from our SI-SDR in two ways: it takes the signals' means out first, and by default it
computes in float32. Its permutation is the one with the best SIR, ours with the best SI-SDR.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_set import SAMPLE_RATE, make_set

from espnet2_m2m.data_dir import read_table, write_wav
from espnet2_m2m.scoring import metrics, scored_set

OFFSET = 0.01  # of full scale, added to the estimates of the second utterance


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Both scorings of two utterances, the second with swapped outputs that have an offset.

    Returns:
        rows of our scores.csv, {dtype: ESPnet's output folder}, data dir, folder of the estimates.
    """
    from espnet2.bin import enh_scoring

    root = tmp_path_factory.mktemp("espnet")
    data_dir, enhanced_dir = make_set(root, num_utterances=2, swapped=[1], seconds=1.5)
    for speaker in (1, 2):
        path = read_table(enhanced_dir / f"spk{speaker}.scp")["a-b-test00001"]
        write_wav(Path(path), soundfile.read(path)[0] + OFFSET, SAMPLE_RATE, "FLOAT")
    scored_set.score_set(data_dir, enhanced_dir, nj=0)
    with open(enhanced_dir / "scoring" / "scores.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    folders = {dtype: root / dtype for dtype in ("float32", "float64")}
    for dtype, folder in folders.items():
        options = ["--output_dir", str(folder), "--key_file", str(data_dir / "wav.scp"), "--dtype", dtype]
        for n in (1, 2):
            options += ["--ref_scp", str(data_dir / f"spk{n}.scp")]
            options += ["--inf_scp", str(enhanced_dir / f"spk{n}.scp")]
        with pytest.warns(FutureWarning):  # mir_eval means to drop its separation module
            enh_scoring.main([*options, "--use_pesq", "true", "--log_level", "ERROR"])
    return rows, folders, data_dir, enhanced_dir


def both(scored, espnets, ours, dtype="float64"):
    """[(desired of ESPnet, actual of ours)] for every utterance and speaker."""
    rows, folders, _, _ = scored
    assert len(rows) == 4
    return [
        (
            float(read_table(folders[dtype] / f"{espnets}_spk{row['speaker']}")[row["utt_id"]]),
            float(row[f"separated_{ours}"]),
        )
        for row in rows
    ]


# Measured: SDR differs by 2e-12 dB (another solver of the same 512 equations), eSTOI by 2e-16, PESQ not
# at all; the tolerances leave room for other versions of the linear algebra.
@pytest.mark.parametrize(
    "espnets, ours, unit, tolerance",
    [("SDR", "sdr", 1, 1e-8), ("PESQ_NB", "pesq", 1, 1e-6), ("ESTOI", "estoi", 100, 1e-8)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_definitions(scored, espnets, ours, unit, tolerance, dtype):
    for desired, actual in both(scored, espnets, ours, dtype):
        assert actual == pytest.approx(desired / unit, abs=tolerance)


def without_mean(scored):
    """Our SI-SDR of every row after both signals' means have been taken out."""
    rows, _, data_dir, enhanced_dir = scored
    for row in rows:
        ref = read_table(data_dir / f"spk{row['speaker']}.scp")[row["utt_id"]]
        est = read_table(enhanced_dir / f"spk{row['estimate']}.scp")[row["utt_id"]]
        ref, est = soundfile.read(ref)[0], soundfile.read(est)[0]
        yield metrics.si_sdr(ref - ref.mean(), est - est.mean())


# ESPnet has 10 log10(c / (1 - c)) with c the squared correlation. In float32, c near 1 (26 dB: 0.998) is
# wrong by some 1e-5 through sums over 12,000 samples, which 1 / (1 - c) = 400 turns into hundredths of a
# dB. Measured: 0.02 dB in float32, 3e-11 dB in float64.
@pytest.mark.parametrize("dtype, tolerance", [("float32", 0.1), ("float64", 1e-8)])
def test_si_snr_is_our_si_sdr_without_means(scored, dtype, tolerance):
    desired = [value for value, _ in both(scored, "SI_SNR", "si_sdr", dtype)]
    np.testing.assert_allclose(list(without_mean(scored)), desired, rtol=0, atol=tolerance)


def test_the_means_make_the_difference(scored):
    """Speech has no mean to speak of: below 0.001 dB; an offset costs SI-SDR and not SI-SNR."""
    differences = [actual - desired for desired, actual in both(scored, "SI_SNR", "si_sdr")]
    assert np.abs(differences[:2]).max() < 1e-3
    assert max(differences[2:]) < -0.1


def test_both_find_the_swapped_outputs(scored):
    rows, folders, _, enhanced_dir = scored
    assert [row["estimate"] for row in rows] == ["1", "2", "2", "1"]
    for n in (1, 2):
        desired = read_table(folders["float32"] / f"wav_spk{n}")
        assert read_table(enhanced_dir / "scoring" / f"wav_spk{n}") == desired
