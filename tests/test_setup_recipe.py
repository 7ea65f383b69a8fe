"""In an ESPnet checkout: what setup_recipe makes, and that enh.sh and m2m.sh come to the same results."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import recipes
import soundfile
import torch
import yaml
from espnet_checkout import make_checkout
from recipes import ROOT
from tiny_study import DATA_OPTIONS, STAGE_OPTIONS, TRAINING, make_clean_speech
from warm_python import warm_python

from espnet2_m2m.bin import setup_recipe, simulate
from espnet2_m2m.data_dir import audio_scps, read_table, validate_data_dir, write_table
from espnet2_m2m.data_dir.directory import data_files

EXPERIMENT = "train_enh_m2m_tfgridnet_small"
SETS = ("train", "valid", "test")


def run(folder, python, *options, check=True, **env):
    return recipes.run("./run.sh", "--python", python, *options, recipe=folder, check=check, **env)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    with warm_python(tmp_path_factory.mktemp("python")) as client:
        yield client


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout in a path with a space, with the recipe meeting_demo."""
    root = make_checkout(tmp_path_factory.mktemp("check out"))
    setup_recipe.main([str(root), "meeting_demo"])
    return root


def test_the_page_shows_these_commands(checkout):
    """docs/clusters.md; --help in place of a run."""
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    commands, *others = re.findall(r"(?:^    .+\n)+", page, flags=re.MULTILINE)
    commands = commands.replace("~/espnet", f"'{checkout}'").replace("./run.sh", "./run.sh --help")
    printed = recipes.run("bash", "-euc", commands)
    assert "enh1: ready, start it by ./run.sh there" in printed and "--use_enh_sh []" in printed
    (simulate_command,) = [block for block in others if "simulate" in block]
    args = simulate.get_parser().parse_args(shlex.split(simulate_command)[2:])
    assert args.job == (17, 100)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Of run.sh, for both ways."""
    source = make_clean_speech(tmp_path_factory.mktemp("clean speech"))
    write_table(source / "text", {utt_id: f"words of {utt_id}" for utt_id in read_table(source / "utt2spk")})
    return ["--source_data", str(source), *DATA_OPTIONS, *STAGE_OPTIONS, "--enh_args", f"--max_epoch 1 {TRAINING}"]


@pytest.fixture(scope="module")
def stock(checkout, python, options):
    """The recipe's folder after stages 1 to 8 and 11 of enh.sh; its sets have utt2fs, which enh.sh passes on."""
    recipe = checkout / "egs2" / "meeting_demo" / "enh1"
    run(recipe, python, *options, "--stop_stage", "1")
    for name in SETS:
        write_table(recipe / "data" / name / "utt2fs", dict.fromkeys(read_table(recipe / f"data/{name}/wav.scp"), 8000))
    run(recipe, python, *options, "--inference_nj", "2", "--stage", "2")
    return recipe


def weights(exp):
    return torch.load(exp / "valid.loss.best.pth", map_location="cpu")


def test_enh_sh_trains_separates_scores_and_packs(stock):
    exp = stock / "exp" / EXPERIMENT
    config = yaml.safe_load((exp / "config.yaml").read_text())
    for phase in ("train", "valid"):  # headsets beside what enh.sh passes
        names = [name for _, name, _ in config[f"{phase}_data_path_and_name_and_type"]]
        assert sorted(names) == ["closetalk_mix1", "closetalk_mix2", "speech_mix", "speech_ref1", "speech_ref2"]
    assert "enhanced_test/scoring/result_si_snr.txt:" in (exp / "RESULTS.md").read_text()
    assert list(exp.glob("*.zip"))
    for path in read_table(exp / "enhanced_test" / "spk1.scp").values():
        assert soundfile.info(path).subtype == "FLOAT"


def test_separated_speech_is_a_data_dir_for_an_asr_recipe_elsewhere(stock, tmp_path, monkeypatch):
    """enh.sh's stage 3 drops the transcripts and its stage 7 makes no data dir: WERs had no reference."""
    talkers = stock / "exp" / EXPERIMENT / "enhanced_test" / "talkers"
    monkeypatch.chdir(tmp_path)
    assert not validate_data_dir(talkers, sample_rate=8000, num_channels=1, require=["text"])
    mixtures = read_table(talkers / "utt2mix")
    assert set(mixtures.values()) == set(read_table(stock / "data/test/wav.scp"))
    said = {read_table(stock / f"data/test/text_spk{n}")[mixture] for n in (1, 2) for mixture in mixtures.values()}
    assert set(read_table(talkers / "text").values()) == said


def test_m2m_sh_comes_to_the_same_results(stock, python, options, tmp_path):
    """Tables, loss, weights and separated speech."""
    run(
        ROOT / "egs2" / "meeting_demo" / "enh1",
        python,
        *options,
        "--stop_stage",
        "7",
        "--datadir",
        str(tmp_path / "data"),
        "--dumpdir",
        str(tmp_path / "dump"),
        "--expdir",
        str(tmp_path),
    )
    for name in ("org/train", "org/valid", *SETS):
        theirs, ours = stock / "dump" / "raw" / name, tmp_path / "dump" / "raw" / name
        assert set(data_files(theirs)) == {*data_files(ours), "feats_type", "utt2fs"}
        for table in data_files(ours):
            if table in audio_scps(ours):
                assert read_table(theirs / table).keys() == read_table(ours / table).keys()
            else:
                assert (theirs / table).read_text() == (ours / table).read_text(), table
    exps = [stock / "exp" / EXPERIMENT, tmp_path / EXPERIMENT]
    losses = []
    for exp in exps:
        epoch = torch.load(exp / "checkpoint.pth", weights_only=False)["reporter"]["stats"][1]
        losses.append(
            {
                (phase, name): epoch[phase][name]
                for phase in ("train", "valid")
                for name in epoch[phase]
                if name.endswith("loss")
            }
        )
    assert losses[0] == losses[1] and len(losses[0]) >= 3
    first, second = map(weights, exps)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for spk in ("spk1.scp", "spk2.scp"):
        first, second = (read_table(exp / "enhanced_test" / spk) for exp in exps)
        assert list(first) == list(second) and len(first) == 2
        for utt_id in first:
            desired, actual = (soundfile.read(table[utt_id])[0] for table in (first, second))
            np.testing.assert_array_equal(actual, desired)


def test_own_stages_run_in_a_checkout_too(stock, python):
    run(stock, python, "--use_enh_sh", "false", "--stage", "8", "--stop_stage", "8")
    assert (stock / "exp" / EXPERIMENT / "enhanced_test" / "scoring" / "scores.csv").is_file()


def test_stages_3_and_4_of_sets_that_have_changed(stock, python, tmp_path):
    """Segments, one of them too short; then sets without transcripts, scenes and the talkers at their headsets."""
    folder = tmp_path / "enh1"
    shutil.copytree(stock, folder, symlinks=True, ignore=shutil.ignore_patterns("exp", "dump"))
    for name in setup_recipe.LINKS:
        (folder / name).unlink()
        (folder / name).symlink_to(stock / name)
    for name in SETS:
        data = folder / "data" / name
        ends = dict.fromkeys(read_table(data / "wav.scp"), 1.15)
        ends[max(ends)] = 1.15 if name == "test" else 1.0
        write_table(data / "segments", {utt_id: f"recording-{utt_id} 0.1 {end}" for utt_id, end in ends.items()})
        write_table(data / "utt2dur", {utt_id: end - 0.1 for utt_id, end in ends.items()})
        write_table(data / "reco2dur", dict.fromkeys((f"recording-{utt_id}" for utt_id in ends), 1.2))
        for scp in audio_scps(data):  # keyed by recording
            write_table(data / scp, {f"recording-{utt_id}": path for utt_id, path in read_table(data / scp).items()})
    stages = ["--stage", "3", "--stop_stage", "4"]
    removed = {"text_spk1", "text_spk2", "scenes.jsonl", "closetalk_spk1.scp", "closetalk_spk2.scp"}
    run(folder, python, *stages, *STAGE_OPTIONS)
    kept = {name: list(read_table(folder / f"dump/raw/{name}/utt2spk")) for name in SETS}
    for name in SETS:
        raw, expected = folder / "dump" / "raw" / name, list(read_table(folder / f"data/{name}/utt2spk"))
        assert kept[name] == (expected if name == "test" else expected[:-1])
        assert list(read_table(raw / "text_spk2")) == list(read_table(raw / "closetalk2.scp")) == kept[name]
        assert not (raw / "segments").exists()
        spoken = read_table(raw / "closetalk_spk1.scp").values()
        assert {soundfile.info(folder / path).frames for path in spoken} == {8400}
        for table in removed:
            (folder / "data" / name / table).unlink()
    run(folder, python, *stages, *STAGE_OPTIONS)
    for name in SETS:
        left = set(data_files(folder / "dump" / "raw" / name))
        assert not left & removed
        assert "closetalk1.scp" in left


def test_a_second_call_changes_nothing_and_names_what_differs(checkout, capsys):
    recipe = checkout / "egs2" / "meeting_demo" / "enh1"
    config = recipe / "conf" / "tuning" / "size_small.yaml"
    before = config.read_text()
    config.write_text("mine\n")
    (recipe / "local" / "jobs.sh").unlink()
    capsys.readouterr()
    setup_recipe.main([str(checkout), "meeting_demo"])
    printed = capsys.readouterr().out
    assert "kept as it was" in printed and printed.count("conf/tuning/size_small.yaml") == 1
    assert printed.count("\n") == 2 and config.read_text() == "mine\n"
    assert (recipe / "local" / "jobs.sh").read_text() == (ROOT / "local" / "jobs.sh").read_text()
    config.write_text(before)


def test_all_recipes_from_an_installed_package(tmp_path):
    """As pip installs it: conf, local and run.sh come from the package, the repository is not there."""
    subprocess.run(
        [
            sys.executable,
            "setup.py",
            "--quiet",
            "build",
            "--build-base",
            tmp_path / "build",
            "--build-lib",
            tmp_path / "lib",
        ],
        cwd=ROOT,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    root = make_checkout(tmp_path / "espnet")
    subprocess.run(
        [sys.executable, "-m", "espnet2_m2m.bin.setup_recipe", root],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "lib")},
    )
    for corpus in ("meeting_demo", "librispeech_ff_ct", "sms_wsj_ff_ct"):
        recipe = root / "egs2" / corpus / "enh1"
        for name in setup_recipe.LINKS:
            assert (recipe / name).is_symlink() and (recipe / name).exists(), name
        assert os.access(recipe / "run.sh", os.X_OK) and os.access(recipe / "local" / "m2m.sh", os.X_OK)
        for folder in ("conf", "local"):
            desired = {
                path.relative_to(ROOT): path.read_bytes()
                for path in (ROOT / folder).rglob("*")
                if path.is_file() and path != ROOT / "local" / "cmd.sh" and path.suffix != ".pyc"
            }
            assert {name: (recipe / name).read_bytes() for name in desired} == desired
        assert (recipe / "cmd.sh").read_text() == (root / "egs2/TEMPLATE/enh1/cmd.sh").read_text()
        assert (recipe / "conf" / "slurm.conf").is_file()


@pytest.mark.parametrize(
    "missing, message",
    [
        ("egs2/TEMPLATE/enh1/enh.sh", "no ESPnet checkout"),
        ("egs2/TEMPLATE/asr1/utils", "utils is missing; expected a checkout of ESPnet 202511"),
        ("tools/extra_path.sh", "set up the checkout"),
    ],
)
def test_a_folder_that_is_no_usable_checkout(tmp_path, capsys, missing, message):
    make_checkout(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit):
        setup_recipe.main([str(tmp_path)])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "egs2" / "meeting_demo").exists()


def test_an_unknown_recipe_and_an_old_enh_sh(tmp_path, capsys):
    make_checkout(tmp_path)
    with pytest.raises(SystemExit):
        setup_recipe.main([str(tmp_path), "wsj"])
    assert "no recipe 'wsj'; the plug-in has librispeech_ff_ct, meeting_demo" in capsys.readouterr().err
    enh_sh = tmp_path / "egs2" / "TEMPLATE" / "enh1" / "enh.sh"
    enh_sh.write_text(re.sub("^ref_num=", "spk_num=", enh_sh.read_text(), flags=re.MULTILINE))
    with pytest.raises(SystemExit):
        setup_recipe.main([str(tmp_path)])
    assert "has no option --ref_num" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--datadir", "elsewhere"], "enh.sh reads its sets from data"),
        (["--inference_tag", "fcp"], "--inference_tag is for our own stages"),
        (["--num-examples", "1"], "--num_examples is for our own stages"),
        (["--no_such_option", "1"], "invalid option --no_such_option"),
        (["--speed_perturb_factors", "0.9 1.0"], "--speed_perturb_factors is not for M2M: enh.sh changes the speed"),
        (["--ref-num", "3"], "--ref-num is set by --num_speakers"),
        (["--inference_enh_config", "x.yaml"], "use --inference_args '--inference_config FILE'"),
    ],
)
def test_options_that_enh_sh_cannot_take(checkout, options, message):
    printed = run(checkout / "egs2" / "meeting_demo" / "enh1", "python3", *options, check=False)
    assert message in printed, printed


def test_a_checkout_whose_python_has_no_plug_in(checkout):
    printed = run(checkout / "egs2" / "meeting_demo" / "enh1", f"{sys.executable} -S", check=False, PYTHONPATH="")
    assert "does not know espnet2_m2m; install it there" in printed, printed


def test_a_checkout_whose_python_has_no_resampy(checkout):
    """ESPnet's stage 3 imports it, and ESPnet does not require it."""
    script = checkout / "egs2" / "TEMPLATE" / "asr1" / "pyscripts" / "audio" / "format_wav_scp.py"
    before = script.read_text()
    script.write_text("import resampy\n")
    recipe = checkout / "egs2" / "meeting_demo" / "enh1"
    printed = run(recipe, f"{sys.executable} -S", check=False, PYTHONPATH=str(ROOT))
    script.write_text(before)
    assert "needs resampy: pip install resampy" in printed, printed
