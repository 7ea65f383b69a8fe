"""Metrics against closed forms, mir_eval, and the packages called directly."""

import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet2_m2m import metrics
from espnet2_m2m.scoring.metrics import MAX_DB


def speech_like(seed, seconds=1.5, sample_rate=8000):
    """(sample,) low-pass noise in syllables: PESQ and eSTOI accept it as speech."""
    rng = np.random.default_rng(seed)
    num_samples = int(seconds * sample_rate)
    noise = np.convolve(rng.standard_normal(num_samples), [0.5, 0.3, 0.2], "same")
    syllables = np.sin(2 * np.pi * (3 + seed % 3) * np.arange(num_samples) / sample_rate) ** 2
    return 0.3 * noise * syllables


def orthogonal_noise(ref, snr_db, seed=0):
    """(sample,) noise orthogonal to `ref`, `snr_db` below it."""
    noise = np.random.default_rng(seed).standard_normal(len(ref))
    noise -= (noise @ ref) / (ref @ ref) * ref
    return noise * np.sqrt((ref @ ref) / (noise @ noise)) * 10 ** (-snr_db / 20)


class TestSiSdr:
    @pytest.mark.parametrize("snr_db", [-30.0, 0.0, 17.5, 60.0])
    def test_orthogonal_noise(self, snr_db):
        """Closed form: with noise orthogonal to the reference SI-SDR is the SNR."""
        ref = speech_like(0)
        actual = metrics.si_sdr(ref, 3.0 * (ref + orthogonal_noise(ref, snr_db)))
        assert actual == pytest.approx(snr_db, abs=1e-6)

    def test_angle(self):
        """Closed form: SI-SDR is the squared cotangent of the angle between ref and est."""
        for angle in (0.1, 0.8, 1.4):
            actual = metrics.si_sdr([1.0, 0.0], [np.cos(angle), np.sin(angle)])
            assert actual == pytest.approx(-20 * np.log10(np.tan(angle)), abs=1e-9)

    @given(scale=st.floats(1e-6, 1e6), sign=st.sampled_from([-1, 1]), snr_db=st.floats(-40, 40))
    @settings(max_examples=30, deadline=None)
    def test_scale_invariance(self, scale, sign, snr_db):
        ref = speech_like(1, seconds=0.1)
        est = ref + orthogonal_noise(ref, snr_db)
        desired = metrics.si_sdr(ref, est)
        assert metrics.si_sdr(ref, sign * scale * est) == pytest.approx(desired, abs=1e-6)
        assert metrics.si_sdr(scale * ref, est) == pytest.approx(desired, abs=1e-6)

    def test_mean(self):
        """A DC offset is distortion, unlike in SI-SNR."""
        ref = speech_like(2)
        ref -= ref.mean()
        est = ref + orthogonal_noise(ref, 20.0)
        est -= est.mean()
        desired = metrics.si_sdr(ref, est)
        assert metrics.si_sdr(ref, est + 0.5) < desired - 10

    def test_bounds(self):
        ref = speech_like(3)
        assert metrics.si_sdr(ref, ref) == MAX_DB
        assert metrics.si_sdr(ref, np.zeros_like(ref)) == -MAX_DB
        assert metrics.si_sdr([1.0, 0.0], [0.0, 1.0]) == -MAX_DB

    @pytest.mark.parametrize("level", [1e-200, 1e-40, 1e150])
    def test_extreme_levels_do_not_leave_the_range_of_float64(self, level):
        ref = speech_like(4)
        est = ref + orthogonal_noise(ref, 10.0)
        assert metrics.si_sdr(level * ref, level * est) == pytest.approx(10.0, abs=1e-6)


class TestSdr:
    TOLERANCE_DB = 1e-3  # other FFT lengths and another solver; tables show two decimals

    @pytest.mark.parametrize("num_sources", [2, 3])
    def test_mir_eval(self, num_sources):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mir_eval.separation import bss_eval_sources

            refs = np.stack([speech_like(seed, seconds=0.6) for seed in range(num_sources)])
            mixing = np.eye(num_sources) + 0.2
            ests = mixing @ refs + 0.01 * np.random.default_rng(9).standard_normal(refs.shape)
            ests = np.roll(ests, 3, axis=1)  # a delay that the filter forgives and SI-SDR does not
            desired = bss_eval_sources(refs, ests, compute_permutation=False)[0]
        actual = [metrics.sdr(ref, est) for ref, est in zip(refs, ests)]
        np.testing.assert_allclose(actual, desired, atol=self.TOLERANCE_DB)

    def test_fast_bss_eval(self):
        import fast_bss_eval

        ref = speech_like(5)
        est = np.convolve(ref, [0.1, 1.0, -0.4])[: len(ref)] + orthogonal_noise(ref, 12.0)
        desired = fast_bss_eval.sdr(ref[None], est[None])[0]
        assert metrics.sdr(ref, est) == pytest.approx(desired, abs=self.TOLERANCE_DB)

    def test_forgives_a_filter_of_512_taps(self):
        # 1000 trailing zeros so that the filtered signal is complete.
        ref = np.pad(speech_like(6, seconds=0.5), (0, 1000))
        filt = np.random.default_rng(6).standard_normal(512) * 0.99 ** np.arange(512)
        est = np.convolve(ref, filt)[: len(ref)]
        assert metrics.sdr(ref, est) > 90
        assert metrics.si_sdr(ref, est) < 5

    def test_bounds_and_sinusoid(self):
        """One sinusoid leaves 510 of 512 taps undetermined; the ratio still exists."""
        ref = np.sin(0.3 * np.arange(4000))
        assert metrics.sdr(ref, np.zeros_like(ref)) == -MAX_DB
        assert metrics.sdr(ref, ref) > 60
        assert np.isfinite(metrics.sdr(ref, ref + 0.1 * speech_like(0, seconds=0.5)))

    def test_shorter_than_the_filter(self):
        ref, est = speech_like(7, seconds=0.01), speech_like(8, seconds=0.01)
        assert len(ref) < metrics.SDR_TAPS
        assert -MAX_DB <= metrics.sdr(ref, est) <= MAX_DB


class TestPerceptual:
    @pytest.mark.parametrize("sample_rate, mode", [(8000, "nb"), (16000, "wb")])
    def test_pesq_package(self, sample_rate, mode):
        from pesq import pesq

        ref = speech_like(0, sample_rate=sample_rate)
        est = ref + orthogonal_noise(ref, 15.0)
        assert metrics.pesq(ref, est, sample_rate) == pesq(sample_rate, ref, est, mode)

    @pytest.mark.parametrize("sample_rate", [8000, 10000, 16000])
    @pytest.mark.parametrize("snr_db", [-5.0, 20.0])
    def test_estoi_package(self, sample_rate, snr_db):
        from pystoi import stoi

        ref = speech_like(0, sample_rate=sample_rate)
        ref[4000:6000] *= 1e-4  # a pause, which is cut out
        est = ref + orthogonal_noise(ref, snr_db)
        # pystoi's random numbers are of the order of 1e-15.
        desired = stoi(ref, est, sample_rate, extended=True)
        assert metrics.estoi(ref, est, sample_rate) == pytest.approx(desired, abs=1e-9)

    def test_estoi_of_silence_is_zero(self):
        """pystoi has a random number here, drawn from numpy's global generator."""
        ref = speech_like(1)
        assert metrics.estoi(ref, np.zeros_like(ref), 8000) == 0.0
        half = ref.copy()
        half[:6000] = 0.0  # bands without change in some segments
        assert 0.2 < metrics.estoi(ref, half, 8000) < 0.8

    def test_undefined_is_nan(self):
        ref = speech_like(2)
        assert np.isnan(metrics.pesq(ref, np.zeros_like(ref), 8000))
        assert np.isnan(metrics.pesq(ref[:1000], ref[:1000], 8000))  # BufferTooShortError
        blip = np.zeros(16000)
        blip[8000:8100] = 1.0  # 12 ms: NoUtterancesError
        assert np.isnan(metrics.pesq(blip, blip, 8000))
        for num_samples in (50, 1000):
            assert np.isnan(metrics.estoi(ref[:num_samples], ref[:num_samples], 8000))
        assert np.isnan(metrics.score_pair(ref, ref, 44100)["pesq"])

    @pytest.mark.parametrize("sample_rate", [8000, 16000])
    @pytest.mark.parametrize("level", [1e-6, 1e-9, 1e-11, 1e-20, 1e-22, 1e-40, 1e-300])
    def test_pesq_of_faint_signals(self, level, sample_rate):
        """PESQ brings both signals to one level by itself; in float32 it finds none whose squares vanish."""
        ref = speech_like(0, sample_rate=sample_rate)
        est = ref + orthogonal_noise(ref, 15.0)
        desired = metrics.pesq(ref, est, sample_rate)
        for actual in (metrics.pesq(ref, level * est, sample_rate), metrics.pesq(level * ref, est, sample_rate)):
            assert actual == pytest.approx(desired, abs=1e-3)

    @pytest.mark.parametrize("sample_rate, mode", [(8000, "nb"), (16000, "wb")])
    def test_pesq_of_many_utterances(self, sample_rate, mode):
        """PESQ's program writes beyond its table of 50, which kills the process. The parts are the package's."""
        from pesq import pesq

        def bursts(number):
            time = np.arange(round(0.8 * number * sample_rate)) / sample_rate
            ref = np.random.default_rng(0).standard_normal(len(time)) * (time % 0.8 < 0.4)
            return ref, ref + 0.2 * np.random.default_rng(1).standard_normal(len(time))

        ref, est = bursts(30)  # 24 s: as they are
        assert metrics.pesq(ref, est, sample_rate) == pesq(sample_rate, ref, est, mode)
        ref, est = bursts(75)  # 60 s: four parts, the second without an estimate
        quarter = 15 * sample_rate
        est[quarter : 2 * quarter] = 0
        desired = [
            pesq(sample_rate, ref[n * quarter :][:quarter], est[n * quarter :][:quarter], mode) for n in (0, 2, 3)
        ]
        assert metrics.pesq(ref, est, sample_rate) == pytest.approx(np.mean(desired), abs=1e-9)

    @pytest.mark.parametrize("sample_rate", [8000, 16000])
    @pytest.mark.parametrize("pause, desired", [(0.15, 1), (0.3, 60)])
    def test_utterances_are_counted_as_pesq_does(self, pause, desired, sample_rate):
        """60 bursts of 0.4 s: pauses of less than 0.2 s do not part them, hum below the band of speech fills none."""
        period = 0.4 + pause
        time = np.arange(round(60 * period * sample_rate)) / sample_rate
        noise = np.random.default_rng(0).standard_normal((2, len(time)))
        signal = noise[0] * ((time + pause) % period >= pause) + 0.01 * noise[1] + np.sin(2 * np.pi * 50 * time)
        assert metrics._num_bursts(signal, sample_rate) == desired
        assert metrics._num_bursts(signal[: 10 * sample_rate], sample_rate) == 0  # no room for many

    def test_pesq_rate(self):
        with pytest.raises(ValueError, match="44100"):
            metrics.pesq(speech_like(0), speech_like(0), 44100)


class TestPermutation:
    @pytest.mark.parametrize("num_sources", [2, 3])
    def test_every_order_is_found(self, num_sources):
        refs = np.stack([speech_like(seed, seconds=0.3) for seed in range(num_sources)])
        for order in itertools.permutations(range(num_sources)):
            ests = refs[list(order)] + 0.1 * refs.sum(axis=0)
            permutation, pairwise = metrics.best_permutation(refs, ests)
            np.testing.assert_array_equal(np.array(order)[permutation], range(num_sources))
            assert pairwise.shape == (num_sources, num_sources)

    def test_brute_force(self):
        """Random mixtures, where no order is obvious: the sum over sources decides."""
        rng = np.random.default_rng(3)
        refs = np.stack([speech_like(seed, seconds=0.2) for seed in range(3)])
        for _ in range(10):
            ests = rng.standard_normal((4, 3)) @ refs  # one estimate more than sources
            permutation, pairwise = metrics.best_permutation(refs, ests)
            desired = max(
                sum(pairwise[source, est] for source, est in enumerate(order))
                for order in itertools.permutations(range(4), 3)
            )
            assert pairwise[range(3), permutation].sum() == pytest.approx(desired)

    def test_too_few_estimates(self):
        refs = np.stack([speech_like(0), speech_like(1)])
        with pytest.raises(ValueError, match="1 estimates .* 2 sources"):
            metrics.best_permutation(refs, refs[:1])


class TestScoreUtterance:
    def test_fixed_order_and_best_permutation(self):
        refs = np.stack([speech_like(0), speech_like(1)])
        ests = refs[::-1] + 0.1 * refs
        rows = metrics.score_utterance(refs, ests, 8000)
        assert [row["estimate"] for row in rows] == [1, 0]
        for source, row in enumerate(rows):
            for name in metrics.METRICS:
                best = metrics.score_pair(refs[source], ests[1 - source], 8000)[name]
                fixed = metrics.score_pair(refs[source], ests[source], 8000)[name]
                assert row[name] == pytest.approx(best, abs=1e-9)
                assert row[f"fixed_order_{name}"] == pytest.approx(fixed, abs=1e-9)
            assert row["fixed_order_si_sdr"] < 0 < row["si_sdr"]
        assert "fixed_order_sdr" not in metrics.score_utterance(refs, ests, 8000, False)[0]

    def test_mixture_is_scored_as_by_itself(self):
        refs = np.stack([speech_like(0), speech_like(1)])
        mixture = refs.sum(axis=0) + 0.01
        rows = metrics.score_utterance(refs, refs[::-1] + 0.1 * refs, 8000, mixture=mixture)
        for ref, row in zip(refs, rows):
            for name, desired in metrics.score_pair(ref, mixture, 8000).items():
                assert row[f"mixture_{name}"] == pytest.approx(desired, abs=1e-9)

    def test_estimates_of_a_source_do_not_disturb_each_other(self):
        """A silent and a perfect one between others."""
        ref = speech_like(0)
        ests = [ref + orthogonal_noise(ref, 5.0), np.zeros_like(ref), ref, speech_like(1)]
        together = metrics.score_estimates(ref, ests, 8000)
        for est, actual in zip(ests, together):
            desired = metrics.score_pair(ref, est, 8000)
            assert actual == pytest.approx(desired, abs=1e-7, nan_ok=True)

    def test_silent_estimate_is_finite_where_it_can_be(self):
        refs = np.stack([speech_like(0), speech_like(1)])
        ests = np.stack([refs[0], np.zeros_like(refs[0])])
        row = metrics.score_utterance(refs, ests, 8000)[1]
        assert row["si_sdr"] == row["sdr"] == -MAX_DB
        assert np.isnan(row["pesq"]) and np.isfinite(row["estoi"])

    def test_wrong_input(self):
        refs = np.stack([speech_like(0), speech_like(1)])
        silent = refs * [[1.0], [0.0]]
        with pytest.raises(ValueError, match="source 1 is silent"):
            metrics.score_utterance(silent, refs, 8000)
        with pytest.raises(ValueError, match="need one axis and the same number of samples"):
            metrics.score_utterance(refs, refs[:, :-1], 8000)
        with pytest.raises(ValueError, match=r"\(source, sample\)"):
            metrics.score_utterance(refs[0], refs[0], 8000)
        for bad in (np.nan, np.inf):
            broken = refs.copy()
            broken[0, 10] = bad
            with pytest.raises(ValueError, match="est has samples that are not finite"):
                metrics.score_utterance(refs, broken, 8000)

    def test_arguments_stay_as_they_are(self):
        refs = np.stack([speech_like(0), speech_like(1)]).astype(np.float32)
        before = refs.copy()
        metrics.score_utterance(refs, refs, 8000)
        np.testing.assert_array_equal(refs, before)


def test_import_needs_neither_torch_nor_espnet():
    code = (
        "import sys, espnet2_m2m.scoring.metrics;sys.exit(bool({'torch', 'espnet2', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
