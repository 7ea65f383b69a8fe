"""local/wav_folder_to_data_dir.py: names to tables, and what is refused."""

import importlib.util
from pathlib import Path

import pytest

from espnet2_m2m.data_dir.tables import read_table

SCRIPT = Path(__file__).resolve().parents[2] / "local" / "wav_folder_to_data_dir.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("wav_folder_to_data_dir", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wav_dir(tmp_path):
    for name in ("1_bob_0.wav", "0_bob_0.wav", "1_amy_12.wav", "notes.txt"):
        (tmp_path / "wavs").mkdir(exist_ok=True)
        (tmp_path / "wavs" / name).touch()
    return tmp_path / "wavs"


def run(script, wav_dir, out_dir, pattern="{text}_{speaker}_{index}.wav", words="0=zero,1=one"):
    script.main(["--wav_dir", str(wav_dir), "--pattern", pattern, "--out_dir", str(out_dir), "--words", words])


def test_tables(script, wav_dir, tmp_path):
    run(script, wav_dir, tmp_path / "data")
    desired = {
        "wav.scp": {
            "amy-1_amy_12": str(wav_dir / "1_amy_12.wav"),
            "bob-0_bob_0": str(wav_dir / "0_bob_0.wav"),
            "bob-1_bob_0": str(wav_dir / "1_bob_0.wav"),
        },
        "utt2spk": {"amy-1_amy_12": "amy", "bob-0_bob_0": "bob", "bob-1_bob_0": "bob"},
        "spk2utt": {"amy": "amy-1_amy_12", "bob": "bob-0_bob_0 bob-1_bob_0"},
        "text": {"amy-1_amy_12": "one", "bob-0_bob_0": "zero", "bob-1_bob_0": "one"},
    }
    for name, table in desired.items():
        assert read_table(tmp_path / "data" / name) == table


def test_folders_and_no_text(script, tmp_path):
    path = tmp_path / "corpus" / "84" / "121" / "84-121-0000.flac"
    path.parent.mkdir(parents=True)
    path.touch()
    run(script, tmp_path / "corpus", tmp_path / "data", "{speaker}/{chapter}/{name}.flac", "")
    assert read_table(tmp_path / "data" / "wav.scp") == {"84-84-121-0000": str(path)}
    assert not (tmp_path / "data" / "text").exists()


def test_absolute_paths_and_no_old_text(script, wav_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(script, "wavs", "data")
    assert read_table("data/wav.scp")["amy-1_amy_12"] == str(wav_dir.resolve() / "1_amy_12.wav")
    assert Path("data/text").is_file()
    run(script, "wavs", "data", "{word}_{speaker}_{index}.wav", "")
    assert not Path("data/text").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "{text}_{index}.wav"}, "needs a field {speaker}"),
        ({"pattern": "{speaker}_{speaker}.wav"}, "has a field twice"),
        ({"pattern": "{speaker}.flac"}, "no file matches"),
        ({"words": "zero"}, "expected key=word, found 'zero'"),
        ({"words": "0=zero"}, "does not say what '1' is"),
    ],
)
def test_refused_with_one_line(script, wav_dir, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as exit_info:
        run(script, wav_dir, tmp_path / "data", **options)
    stderr = capsys.readouterr().err
    assert exit_info.value.code == 1 and message in stderr and stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_two_files_with_one_id(script, wav_dir, tmp_path, capsys):
    for folder in ("x", "y"):
        (wav_dir / folder).mkdir()
        (wav_dir / folder / "1_bob_0.wav").touch()
    with pytest.raises(SystemExit):
        run(script, wav_dir, tmp_path / "data", "{folder}/{text}_{speaker}_{index}.wav")
    assert "would both be utterance 'bob-1_bob_0'" in capsys.readouterr().err
