"""Batches of training segments: what ESPnet's chunk iterator reads, and that there are some.

The segments are read from the files, where the chunk iterator would read files whole and then cut them.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.train.dataset import AbsDataset, ESPnetDataset

from espnet2_m2m.data_dir.audio import AudioError, audio_errors, open_audio
from espnet2_m2m.data_dir.signals import require_same


def read_segment(
    paths: Mapping[str, Mapping[str, str]],
    utt_id: str,
    chunk_length: int,
    chunk_shift: int,
    random_place: bool,
    sample_rate: int | None = None,
) -> dict[str, np.ndarray]:
    """Of an utterance what the chunk iterator takes: all signals from the same sample on.

    An utterance that gives several chunks, or none, is read whole.

    Args:
        paths: dict name -> table (dict utterance id -> path of a sound file).
        chunk_length, chunk_shift: of the iterator, in samples.
        random_place: take the chunk from a random place (numpy's global generator, which ESPnet seeds for every
            worker and epoch), else from the beginning.
        sample_rate: Hz of all files; None if it may differ between utterances.
    Returns:
        dict name -> (sample[, mic]) float32, one sample longer than a chunk: the iterator refuses utterances of
        its chunk's length.
    Raises:
        ValueError: files of different lengths or rates, missing or unreadable ones; names the utterance.
    """
    signals, expected, whose = {}, (sample_rate, None), "the first training recording"
    for name, table in paths.items():
        with audio_errors(f"utterance '{utt_id}': {name}"):
            if utt_id not in table:
                raise AudioError("no such utterance", "give all files of the training data the same ids")
            with open_audio(table[utt_id]) as file:
                require_same(table[utt_id], (file.samplerate, file.frames), expected, whose)
                if not signals:
                    expected, whose = (file.samplerate, file.frames), name
                    start, end = 0, file.frames
                    if chunk_length < file.frames < chunk_length + chunk_shift:
                        last = file.frames - chunk_length - 1
                        start = np.random.randint(0, last + 1) if random_place else 0
                        end = start + chunk_length + 1
                file.seek(start)
                signals[name] = file.read(end - start, dtype="float32")
    return signals


class SegmentDataset(AbsDataset):
    """An ESPnetDataset of sound files that reads with `read_segment`; arguments as there.

    The chunk iterator keeps its cache (`num_cache_chunks`) as views of what was read, in shared memory. So this
    saves memory, too.
    """

    def __init__(
        self,
        dataset: ESPnetDataset,
        chunk_length: int,
        chunk_shift: int,
        random_place: bool,
        sample_rate: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.paths = {name: loader.loader.data for name, loader in dataset.loader_dict.items()}
        self.options = chunk_length, chunk_shift, random_place, sample_rate

    def has_name(self, name: str) -> bool:
        return self.dataset.has_name(name)

    def names(self) -> tuple[str, ...]:
        return self.dataset.names()

    def __getitem__(self, uid: str) -> tuple[str, dict[str, np.ndarray]]:
        data = read_segment(self.paths, uid, *self.options)
        if self.dataset.preprocess is not None:
            data = self.dataset.preprocess(uid, data)
        return uid, data


class NeverEmpty(AbsIterFactory):
    """A factory of iterators over batches, one of which is enough.

    ESPnet would go through epochs without a step, or write no best model for want of a validation.

    Args:
        factory: ESPnet's.
        mode: "train" or "valid".
    """

    def __init__(self, factory: AbsIterFactory, mode: str) -> None:
        self.factory, self.mode = factory, mode

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> Iterator:
        """The batches of an epoch.

        Raises:
            ValueError: at the end, if there was none.
        """
        empty = True
        for batch in self.factory.build_iter(epoch, shuffle):
            empty = False
            yield batch
        if empty:
            prefix = "valid_" if self.mode == "valid" else ""
            raise ValueError(
                f"epoch {epoch} has no {self.mode} batch: an utterance gives a chunk if it is longer than chunk_length "
                f"(in samples), and {prefix}batch_size chunks make a batch; choose a smaller chunk_length or "
                f"{prefix}batch_size"
                + ("" if self.mode == "valid" else ", or a greater num_iters_per_epoch (here utterances) if it is set")
            )
