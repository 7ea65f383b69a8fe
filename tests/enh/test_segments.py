"""Segments read from files are those that ESPnet's chunk iterator cuts out of whole files."""

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.train.distributed_utils import DistributedOption
from espnet_configs import M2M

from espnet2_m2m.enh.segments import SegmentDataset, read_segment
from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

NAMES = {"speech_mix": 3, "closetalk_mix1": None, "closetalk_mix2": None}
CHUNK = 100
LENGTHS = {"u0": 450, "u1": 99, "u2": 101, "u3": 333, "u4": 100, "u5": 1000}


@pytest.fixture(scope="module", params=["wav", "flac"])
def paths(tmp_path_factory, request):
    """Tables of files in which sample n has the value n, or -n at the headsets, in steps of PCM_16."""
    folder = tmp_path_factory.mktemp("segments")
    tables = {name: {} for name in NAMES}
    for utt_id, length in LENGTHS.items():
        ramp = np.arange(length, dtype=np.int16)
        for name, num_channels in NAMES.items():
            signal = np.stack([ramp + c for c in range(num_channels)], axis=1) if num_channels else -ramp
            tables[name][utt_id] = str(folder / f"{name}_{utt_id}.{request.param}")
            soundfile.write(tables[name][utt_id], signal, 8000, subtype="PCM_16")
    for name, table in tables.items():
        (folder / f"{name}.scp").write_text("".join(f"{key} {path}\n" for key, path in table.items()))
    return folder, tables


def first_sample(signal):
    return round(float(signal.reshape(len(signal), -1)[0, 0]) * 32768)


def test_all_signals_come_from_one_random_place(paths):
    _, tables = paths
    np.random.seed(0)
    starts = set()
    for _ in range(300):
        data = read_segment(tables, "u3", CHUNK, 1000, random_place=True)
        start = first_sample(data["speech_mix"])
        starts.add(start)
        ramp = np.arange(start, start + CHUNK + 1) / 32768
        desired = np.stack([ramp, ramp + 1 / 32768, ramp + 2 / 32768], axis=1).astype(np.float32)
        np.testing.assert_array_equal(data["speech_mix"], desired)
        for n in (1, 2):
            np.testing.assert_array_equal(data[f"closetalk_mix{n}"], -ramp.astype(np.float32))
    # 232 places: 300 draws find some 169 of them, both ends with one in four.
    assert 140 < len(starts) < 200 and min(starts) < 10 and max(starts) > 222 and max(starts) <= 232


def test_place_is_the_beginning_in_validation_and_whole_where_the_iterator_needs_it(paths):
    _, tables = paths
    data = read_segment(tables, "u3", CHUNK, 1000, random_place=False)
    assert first_sample(data["speech_mix"]) == 0 and len(data["speech_mix"]) == CHUNK + 1
    for utt_id, shift in (("u1", 1000), ("u4", 1000), ("u3", 50), ("u5", 900)):  # too short; several chunks
        assert len(read_segment(tables, utt_id, CHUNK, shift, True)["speech_mix"]) == LENGTHS[utt_id]


def test_wrong_files_are_named(paths, tmp_path):
    _, tables = paths

    def message(path):
        changed = {**tables, "closetalk_mix2": {"u0": str(path)}}
        with pytest.raises(ValueError) as error:
            read_segment(changed, "u0", CHUNK, 1000, True)
        return str(error.value)

    soundfile.write(tmp_path / "short.wav", np.zeros(449), 8000)
    soundfile.write(tmp_path / "rate.wav", np.zeros(450), 16000)
    (tmp_path / "noise.wav").write_bytes(b"no sound file")
    short = message(tmp_path / "short.wav")
    assert short.startswith(f"utterance 'u0': closetalk_mix2: {tmp_path / 'short.wav'}: ")
    assert "expected 450 samples like speech_mix, found 449" in short
    assert "expected 8000 Hz like speech_mix, found 16000" in message(tmp_path / "rate.wav")
    assert "no such audio file" in message(tmp_path / "none.wav")
    assert "noise.wav" in message(tmp_path / "noise.wav")
    with pytest.raises(ValueError, match="'x': speech_mix: no such utterance"):
        read_segment(tables, "x", CHUNK, 1000, True)


def test_other_sample_rates_are_named_unless_they_are_allowed(paths, tmp_path):
    """As ESPnet's own reader does it, whose check the segments go around."""
    _, tables = paths
    for name, num_channels in NAMES.items():
        soundfile.write(tmp_path / f"{name}.wav", np.zeros((450, num_channels or 1)), 16000)
    changed = {name: {**table, "x": str(tmp_path / f"{name}.wav")} for name, table in tables.items()}
    with pytest.raises(ValueError, match="'x': speech_mix: .*speech_mix.wav: expected 8000 Hz like .* found 16000"):
        read_segment(changed, "x", CHUNK, 1000, True, sample_rate=8000)
    read_segment(changed, "u0", CHUNK, 1000, True, sample_rate=8000)
    for options, desired in (((), 8000), (("--allow_multi_rates", "true"), None)):
        made = factory(paths, M2MEnhancementTask, "train", *options)
        assert made.factory.per_sample_iter_factory.dataset.options[-1] == desired


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("iterator", ["chunk", "sequence"])
def test_another_number_of_mics_is_named(paths, tmp_path, iterator):
    """Chunks, or padded utterances, of one batch are stacked, which fails without a word on which they were."""
    folder, tables = paths
    soundfile.write(tmp_path / "five.wav", np.zeros((333, 5)), 8000)
    spoiled = tmp_path / "speech_mix.scp"
    table = {**tables["speech_mix"], "u3": tmp_path / "five.wav"}
    spoiled.write_text("".join(f"{key} {path}\n" for key, path in table.items()))
    for name in ("closetalk_mix1", "closetalk_mix2"):
        (tmp_path / f"{name}.scp").write_bytes((folder / f"{name}.scp").read_bytes())
    options = ("--iterator_type", iterator, "--batch_type", "unsorted", "--batch_size", "8")
    shapes = tmp_path / "shapes"
    shapes.write_text("".join(f"{key} {length}\n" for key, length in LENGTHS.items()))
    options += ("--train_shape_file", str(shapes), "--valid_shape_file", str(shapes))
    batches = factory((tmp_path, tables), M2MEnhancementTask, "valid", *options).build_iter(1)
    with pytest.raises(
        ValueError, match="(u3: speech_mix has 5 channel.s., that of u0 has 3|u[0-5].*that of u3 has 5)"
    ):
        list(batches)


def factory(paths, task, mode, *options):
    folder, _ = paths
    config = {
        "criterions": [M2M],
        "separator": "tfgridnetv2",
        "iterator_type": "chunk",
        "chunk_length": CHUNK,
        "chunk_shift_ratio": 1000,
        "batch_size": 2,
        "num_cache_chunks": 2,
        "num_workers": 0,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["--config", str(folder / "config.yaml"), "--output_dir", str(folder), *options]
    for phase in ("train", "valid"):
        for name in NAMES:
            command += [f"--{phase}_data_path_and_name_and_type", f"{folder / name}.scp,{name},sound"]
    args = task.get_parser().parse_args(command)
    return task.build_iter_factory(args, DistributedOption(), mode=mode)


class StockDataTask(M2MEnhancementTask):
    """Ours but for the reading of segments."""

    @classmethod
    def build_chunk_iter_factory(cls, *args, **kwargs):
        return super(M2MEnhancementTask, cls).build_chunk_iter_factory(*args, **kwargs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["train", "valid"])
@pytest.mark.parametrize("options", [(), ("--chunk_shift_ratio", "0.5")])
def test_batches_are_the_stock_iterators(paths, mode, options):
    """Validation to the bit; in training the same utterances in chunks from other places."""
    ours, stock = (factory(paths, task, mode, *options) for task in (M2MEnhancementTask, StockDataTask))
    assert isinstance(ours.factory.per_sample_iter_factory.dataset, SegmentDataset)
    assert not isinstance(stock.factory.per_sample_iter_factory.dataset, SegmentDataset)
    actual, desired = list(ours.build_iter(1)), list(stock.build_iter(1))
    assert len(actual) == len(desired) > 1
    for (ids, batch), (desired_ids, desired_batch) in zip(actual, desired):
        assert {name: value.shape for name, value in batch.items()} == {
            name: value.shape for name, value in desired_batch.items()
        }
        if mode == "valid" or options:
            assert ids == desired_ids
            for name, value in desired_batch.items():
                torch.testing.assert_close(batch[name], value, rtol=0, atol=0)
        for n in range(len(ids)):
            assert first_sample(batch["speech_mix"][n]) == -first_sample(batch["closetalk_mix1"][n])


@pytest.mark.parametrize(
    "options",
    [
        ("--preprocessor", "enh"),
        ("--chunk_length", "50,100"),
        ("--max_cache_size", "1M"),
        ("--train_dtype", "float64"),
        ("--chunk_default_fs", "8000"),
    ],
)
def test_what_needs_whole_files_gets_them(paths, options):
    made = factory(paths, M2MEnhancementTask, "train", *options)
    assert not isinstance(made.factory.per_sample_iter_factory.dataset, SegmentDataset)
