"""The command on a made-up experiment: what it writes, and what it says about input that does not fit."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.signal
import torch
from espnet_configs import config, criterion, save

from espnet2_m2m.bin import diagnose
from espnet2_m2m.data_dir import read_table, write_table, write_wav
from espnet2_m2m.enh.separator.m2m_separator import M2MSeparator

SAMPLE_RATE = 8000
LENGTHS = {"a-b-test0": 6000, "a-b-test1": 6400, "a-b-test2": 6800}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set of mixtures, (the talkers themselves by number of samples), and a model of random weights."""
    root = tmp_path_factory.mktemp("diagnose")
    data_dir, rng = root / "data", np.random.default_rng(0)
    tables, talkers = {}, {}
    for utt_id, num_samples in LENGTHS.items():
        time = np.arange(num_samples)
        talker = rng.standard_normal((2, num_samples))
        talker *= 0.01 + (np.sin(2 * np.pi * (time / np.array([[900], [1100]]) + rng.uniform())) > 0)
        images = np.empty((5, 2, num_samples))  # (3 far-field mics, 2 headsets)
        for mic in range(5):
            for n in range(2):
                level = 0.2 if mic > 2 and mic - 3 != n else 1
                rir = rng.standard_normal(20) * np.exp(-np.arange(20) / 4)
                images[mic, n] = level * scipy.signal.lfilter(rir / np.linalg.norm(rir), [1], talker[n])
        images *= 0.1
        mixtures = images.sum(axis=1)
        signals = {
            "wav": mixtures[:3].T,
            "closetalk1": mixtures[3],
            "closetalk2": mixtures[4],
            "spk1": images[0, 0],
            "spk2": images[:3, 1].T,
        }  # references may hold all mics
        for name, signal in signals.items():
            path = data_dir / "wav" / name / f"{utt_id}.wav"
            write_wav(path, signal, SAMPLE_RATE, "FLOAT")
            tables.setdefault(name, {})[utt_id] = str(path)
        talkers[num_samples] = torch.tensor(talker, dtype=torch.float32)
    for name, table in tables.items():
        write_table(data_dir / f"{name}.scp", table)
    torch.manual_seed(0)
    (root / "m2m").mkdir()
    save(root / "m2m", config())
    return root, talkers


@pytest.fixture
def network(monkeypatch):
    """Sets what all networks estimate: (waveforms of the mics (sample, mic)) -> two (sample,)."""

    def replace(estimate):
        monkeypatch.setattr(
            M2MSeparator,
            "run_network",
            lambda self, feature, lengths, additional=None: [z[None] for z in estimate(feature[0])],
        )

    return replace


def run(root, *options, model="m2m"):
    diagnose.main(
        [
            "--train_config",
            str(root / model / "config.yaml"),
            "--model_file",
            str(root / model / "model.pth"),
            "--data_dir",
            str(root / "data"),
            "--out_dir",
            str(root / model / "diagnosis"),
            *options,
        ]
    )
    return json.loads((root / model / "diagnosis" / "diagnosis.json").read_text())


def test_model_as_it_is(made, capsys):
    root, _ = made
    result = run(root)
    printed = capsys.readouterr().out
    assert list(result["utterances"]) == list(LENGTHS) and result["sample_rate_hz"] == SAMPLE_RATE
    assert result["mean"]["references"]["si_sdr_mixture"] == pytest.approx(0, abs=2)
    assert len(result["agrees"]["headsets"]) == 3 and len(result["agrees"]["headsets"][0]) == 33
    text = (root / "m2m" / "diagnosis" / "DIAGNOSIS.md").read_text()
    assert result["summary"] in text and result["summary"] in printed
    assert (root / "m2m" / "diagnosis" / "agreement.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (root / "m2m" / "diagnosis").iterdir()) == [
        "DIAGNOSIS.md",
        "agreement.png",
        "diagnosis.json",
    ]
    # Again: the same.
    assert run(root) == result


def test_talkers_in_the_other_order(made, network):
    root, talkers = made
    network(lambda mix: talkers[len(mix)].flip(0))
    result = run(root)
    assert result["verdict"] == "separates" and result["orders"] == {"2 1": 3}
    assert result["mean"]["references"]["si_sdr"] > 15 and result["change"] == []


def test_copies(made, network):
    root, _ = made
    network(lambda mix: [mix[:, 0], 0 * mix[:, 0]])
    assert run(root)["verdict"] == "one_output_is_mixture"
    network(lambda mix: [mix[:, 0], mix[:, 0]])
    result = run(root)
    assert result["verdict"] == "outputs_are_mixture"
    assert any("lower alpha (it is 1;" in line for line in result["change"])


def test_settings_of_the_config(made, network):
    """The remedy depends on the options that the model was trained with."""
    root, _ = made
    (root / "anchor").mkdir()
    save(root / "anchor", config(criterions=[criterion(anchor_weight=2.0)]))
    network(lambda mix: [mix[:, 0], mix[:, 0]])
    change = run(root, model="anchor")["change"]
    assert any("anchor_order: fixed asks" in line for line in change)
    assert any("Raise anchor_weight (it is 2)" in line for line in change)


def test_pit_model(made, network):
    root, talkers = made
    (root / "pit").mkdir()
    pit = {"name": "ri_mag", "conf": {"n_fft": 64, "hop_length": 16}, "wrapper": "pit_spectra", "wrapper_conf": {}}
    save(root / "pit", config(criterions=[pit]))
    network(lambda mix: talkers[len(mix)])
    assert run(root, model="pit")["verdict"] == "separates"
    network(lambda mix: [mix[:, 0], mix[:, 0]])
    assert not any("alpha" in line for line in run(root, model="pit")["change"])


def test_without_references_and_headsets(made, network, tmp_path, capsys):
    root, talkers = made
    (tmp_path / "data").mkdir()
    shutil.copytree(root / "m2m", tmp_path / "m2m")
    shutil.copy(root / "data" / "wav.scp", tmp_path / "data")
    network(lambda mix: talkers[len(mix)])
    result = run(tmp_path)
    assert (result["verdict"], result["confidence"]) == ("cannot_tell", "unsure")
    assert result["agrees"] == {} and result["mean"]["references"] is None
    for family in ("closetalk1", "closetalk2"):
        shutil.copy(root / "data" / f"{family}.scp", tmp_path / "data")
    assert run(tmp_path)["verdict"] == "separates"


def test_segments_and_choice_of_utterances(made, network, tmp_path):
    """Utterances cut from recordings, evenly spaced."""
    root, talkers = made
    shutil.copytree(root / "m2m", tmp_path / "m2m")
    shutil.copytree(root / "data", tmp_path / "data")
    (tmp_path / "data" / "segments").write_text(
        "".join(f"u{n} a-b-test0 0 {(4000 + 400 * n) / SAMPLE_RATE}\n" for n in range(5))
    )
    network(lambda mix: talkers[6000][:, : len(mix)])
    result = run(tmp_path, "--num_utts", "3")
    assert list(result["utterances"]) == ["u0", "u2", "u4"] and result["verdict"] == "separates"


class TestMessages:
    @pytest.fixture
    def root(self, made, tmp_path):
        shutil.copytree(made[0] / "data", tmp_path / "data")
        shutil.copytree(made[0] / "m2m", tmp_path / "m2m")
        shutil.rmtree(tmp_path / "m2m" / "diagnosis", ignore_errors=True)
        return tmp_path

    def error(self, capsys, root, **options):
        with pytest.raises(SystemExit) as exit_info:
            run(root, **options)
        assert exit_info.value.code == 1 and not (root / "m2m" / "diagnosis").exists()
        return capsys.readouterr().err

    def test_no_model(self, capsys, root):
        (root / "m2m" / "model.pth").unlink()
        assert "model.pth: no such file" in self.error(capsys, root)

    def test_no_data(self, capsys, root):
        shutil.rmtree(root / "data")
        assert "data: no such directory" in self.error(capsys, root)

    def test_missing_entry(self, capsys, root):
        table = read_table(root / "data" / "spk1.scp")
        del table["a-b-test1"]
        write_table(root / "data" / "spk1.scp", table)
        assert "spk1.scp: 1 of the 3 utterances" in self.error(capsys, root)

    @pytest.mark.parametrize(
        "samples, rate, message",
        [
            (6000, 16000, "expected 8000 Hz like the mixture ("),
            (5999, 8000, "expected 6000 samples like the mixture ("),
        ],
    )
    def test_signals_that_do_not_fit(self, capsys, root, samples, rate, message):
        path = root / "data" / "short.wav"
        write_wav(path, np.full(samples, 0.1), rate)
        table = read_table(root / "data" / "closetalk1.scp")
        write_table(root / "data" / "closetalk1.scp", {**table, "a-b-test0": str(path)})
        message_ = self.error(capsys, root)
        assert message in message_ and "'a-b-test0'" in message_

    def test_more_talkers_than_outputs(self, capsys, root):
        shutil.copy(root / "data" / "spk1.scp", root / "data" / "spk3.scp")
        assert "has 3 references, but the model has 2 outputs" in self.error(capsys, root)

    def test_diverged(self, capsys, root, network):
        network(lambda mix: [np.nan * mix[:, 0], mix[:, 0]])
        assert "the training has diverged" in self.error(capsys, root)

    def test_foreign_model(self, capsys, root):
        stock = {"name": "si_snr", "conf": {}, "wrapper": "pit", "wrapper_conf": {}}
        save(root / "m2m", config(criterions=[stock]))
        assert "expected a criterion of this package" in self.error(capsys, root)


def test_help_is_quick_and_needs_no_torch():
    code = (
        "import sys; from espnet2_m2m.bin import diagnose; diagnose.get_parser();"
        "sys.exit(bool({'torch', 'espnet2', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
