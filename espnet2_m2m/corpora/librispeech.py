"""LibriSpeech and Mini LibriSpeech: download, unpack, list.

A corpus folder is as openslr.org packs it,

    LibriSpeech/<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac
    LibriSpeech/<subset>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt

16 kHz, mono. The transcripts are in capitals, without punctuation.

Source: Panayotov, Chen, Povey, Khudanpur, "Librispeech: an ASR corpus based on public domain audio
books", ICASSP 2015; https://www.openslr.org/12 and /31, licence CC BY 4.0.
"""

import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

from espnet2_m2m.data_dir.tables import room_on_disk

# openslr.org's number of the corpus and MD5 of <subset>.tar.gz, as its md5sum.txt has them.
SUBSETS = {
    "dev-clean": (12, "42e2234ba48799c1f50f24a7926300a1"),
    "dev-other": (12, "c8d0bcc9cca99d4f8b62fcc847357931"),
    "test-clean": (12, "32fa31d27d2e1cad72775fee3f4849a9"),
    "test-other": (12, "fb5a50374b501bb3bac4815ee91d3135"),
    "train-clean-100": (12, "2a93770f6d5c6c964bc36631d331a522"),
    "train-clean-360": (12, "c0e676e450a7ff2f54aeade5171606fa"),
    "train-other-500": (12, "d1a0fd59409feb2c614ce4d30c387708"),
    "dev-clean-2": (31, "6d7ab67ac6a1d2c993d050e16d61080d"),
    "train-clean-5": (31, "5df7d4e78065366204ca6845bb08f490"),
}
MIRROR = "https://www.openslr.org/resources"
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60  # without any data
SPEAKER_DIGITS = 4  # LibriSpeech numbers its readers from 14 to 8975


def read_subset(subset_dir: Path | str) -> dict[str, tuple[Path, str, str]]:
    """Utterances of one subset.

    Speaker ids get leading zeros: with ids of different lengths the speaker pairs of mixtures could
    not be sorted as Kaldi wants.

    Args:
        subset_dir: for example LibriSpeech/dev-clean.
    Returns:
        utterance id -> (absolute path of the flac file, speaker id, transcript); the ids are
        "0084-121123-0000" and "0084" for 84-121123-0000.flac.
    Raises:
        FileNotFoundError: no such folder.
        ValueError: a recording without a transcript or the other way round, a file in the wrong
            place, no recordings.
    """
    subset_dir = Path(subset_dir).resolve()
    if not subset_dir.is_dir():
        raise FileNotFoundError(f"{subset_dir}: no such folder")
    flacs = {path.stem: path for path in sorted(subset_dir.glob("*/*/*.flac"))}
    texts = {}
    for path in sorted(subset_dir.glob("*/*/*.trans.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition(" ")
            texts[name] = text
    if not flacs:
        raise ValueError(f"{subset_dir}: expected recordings <speaker>/<chapter>/*.flac, found none")
    for missing, what in (
        (flacs.keys() - texts.keys(), "recording '{}' has no line in a *.trans.txt"),
        (texts.keys() - flacs.keys(), "transcript '{}' has no recording *.flac"),
    ):
        if missing:
            raise ValueError(
                f"{subset_dir}: {what.format(min(missing))} ({len(missing)} such); the folder is"
                " not complete: remove it and unpack the archive again"
            )
    utterances = {}
    for name, path in flacs.items():
        speaker, chapter = path.parts[-3:-1]
        if not speaker.isdigit() or not name.startswith(f"{speaker}-{chapter}-"):
            raise ValueError(
                f"{path}: expected <speaker>/<chapter>/<speaker>-<chapter>-<number>.flac, with numbers for speakers"
            )
        padded = speaker.zfill(SPEAKER_DIGITS)
        utterances[padded + name[len(speaker) :]] = (path, padded, texts[name])
    return utterances


def download_subset(subset: str, corpus_dir: Path | str, mirror: str = MIRROR) -> None:
    """Make `corpus_dir`/<subset> from its archive, which is fetched unless it lies beside already.

    May be interrupted at any moment: the next call goes on. The archive stays, as
    `corpus_dir`/../<subset>.tar.gz.

    Args:
        subset: one of SUBSETS.
        corpus_dir: the folder LibriSpeech.
        mirror: address in front of /12/<subset>.tar.gz.
    Raises:
        ValueError: unknown subset, an archive with a wrong checksum or unexpected contents.
        OSError: no connection, no space.
    """
    if subset not in SUBSETS:
        raise ValueError(f"no subset '{subset}' to download, openslr.org has {', '.join(sorted(SUBSETS))}")
    corpus_dir = Path(corpus_dir)
    if (corpus_dir / subset).is_dir():
        return
    number, md5 = SUBSETS[subset]
    archive = corpus_dir.parent / f"{subset}.tar.gz"
    if not archive.exists():
        fetch(f"{mirror}/{number}/{archive.name}", archive)
    found = _md5(archive)
    if found != md5:
        raise ValueError(f"{archive}: its MD5 is {found}, openslr.org's is {md5}; remove the file and run again")
    unpack(archive, subset, corpus_dir)


def fetch(url: str, path: Path | str) -> None:
    """Download `url` to `path`; what an interrupted call left in `path`.part is not fetched again.

    Raises:
        OSError: no connection, or it broke; the message says what to do.
    """
    from tqdm import tqdm

    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    start = part.stat().st_size if part.exists() else 0
    try:
        response = _open_url(url, start)
        if response is not None:
            with response:
                resumed = response.status == 206  # 200: the server sends all of it
                start = start if resumed else 0
                rest = response.headers.get("Content-Length")
                total = None if rest is None else start + int(rest)
                with (
                    room_on_disk(part),
                    open(part, "ab" if resumed else "wb") as file,
                    tqdm(desc=path.name, initial=start, total=total, unit="B", unit_scale=True) as bar,
                ):
                    while chunk := response.read(CHUNK_BYTES):
                        file.write(chunk)
                        bar.update(len(chunk))
            if total is not None and part.stat().st_size < total:
                raise ConnectionError(f"it broke after {part.stat().st_size} of {total} bytes")
    except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise OSError(
            f"{url}: no download ({reason}); run again to go on when there is a network, or get the"
            f" file elsewhere and put it at {path}"
        ) from error
    os.replace(part, path)


def _open_url(url: str, start: int) -> HTTPResponse | None:
    """Response with the bytes from `start` on (status 206) or all (200); None: none are left."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # the range begins at the end of the file
            return None
        raise


def _md5(path: Path) -> str:
    from tqdm import tqdm

    digest = hashlib.md5()
    bar = tqdm(desc=f"{path.name}: MD5", total=path.stat().st_size, unit="B", unit_scale=True)
    with open(path, "rb") as file, bar:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def unpack(archive: Path | str, subset: str, corpus_dir: Path | str) -> None:
    """Unpack LibriSpeech/* of an archive to `corpus_dir`; `corpus_dir`/<subset> appears when whole.

    Nothing but folders and regular files below `corpus_dir` can come of it, whatever is inside.

    Raises:
        ValueError: not an archive, or with other contents than LibriSpeech/<subset>.
    """
    from tqdm import tqdm

    corpus_dir = Path(corpus_dir)
    unfinished = corpus_dir / f".{subset}.unpacking"
    shutil.rmtree(unfinished, ignore_errors=True)  # of an interrupted call
    unfinished.mkdir(parents=True)
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tqdm(tar, desc=f"{archive}: unpack", unit="file"):
                parts = PurePosixPath(member.name).parts
                inside = parts[:1] == ("LibriSpeech",) and ".." not in parts
                known = member.isdir() or (member.isfile() and parts[1:2] == (subset,))
                if not inside or not (known or (member.isfile() and len(parts) == 2)):
                    raise ValueError(
                        f"{archive}: expected files and folders of LibriSpeech/{subset}, found"
                        f" '{member.name}'; get the archive from openslr.org"
                    )
                if member.isfile():
                    path = unfinished.joinpath(*parts[1:])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with room_on_disk(path), open(path, "wb") as file:
                        shutil.copyfileobj(tar.extractfile(member), file, CHUNK_BYTES)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive}: not a complete tar archive ({error}); remove it and run again") from error
    if not (unfinished / subset).is_dir():
        raise ValueError(f"{archive}: expected a folder LibriSpeech/{subset}, found none")
    for path in unfinished.iterdir():
        if path.name != subset:  # README.TXT, SPEAKERS.TXT ...: the same in all archives
            os.replace(path, corpus_dir / path.name)
    os.replace(unfinished / subset, corpus_dir / subset)
    unfinished.rmdir()
