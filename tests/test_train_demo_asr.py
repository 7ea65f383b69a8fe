"""local/train_demo_asr.sh, as docs/asr.md shows it, with a few sentences and one epoch."""

import recipes

from espnet2_m2m.data_dir import read_table


def test_a_recogniser_is_trained_and_a_rerun_continues(tmp_path):
    folder = tmp_path / "a study"
    command = "local/train_demo_asr.sh --num_talkers 4 --num_sentences 6 --num_train 2 --num_valid 1 --nj 1".split()
    command += [*recipes.folders_in(folder), "--asr_args", "--max_epoch 1"]
    exp = folder / "exp" / "asr_train_asr_demo"
    assert f"--asr_exp {exp}" in recipes.run(*command)
    text = read_table(folder / "dump" / "train" / "text")
    assert len(text) == 4 * 6 + 2 * 2, "dry sentences, and both talkers' images of two mixtures"
    assert {utt_id[:3] for utt_id in text} <= {"f13", "f14", "m13", "m14"}, "talkers 25 to 28"
    model = (exp / "valid.acc.ave.pth").stat().st_mtime_ns
    recipes.run(*command)
    assert (exp / "valid.acc.ave.pth").stat().st_mtime_ns == model
