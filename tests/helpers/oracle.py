"""The equations of the paper, literally: slow loops over source, frequency, frame, mic and tap.

For tests only. Numpy in float64, one utterance, no batch and no padding, nothing taken from the
package under test. Equation numbers are those of Z.-Q. Wang, "Mixture to Mixture", IEEE SPL 2024.
The letters are the paper's; the axes are the project's:

    Z (source, freq, frame)    estimates              Y (mic, freq, frame)    mixtures
    g (freq, tap)              one FCP filter, tap 0 the oldest frame
    X (mic, source, freq, frame)                      FCP images
    lam (freq, frame)          the weight lambda of one mic
"""

import numpy as np

LOAD = 1e-5  # the code's default diagonal loading, relative to the mean diagonal
XI = 1e-4  # below eq. (8)


def closetalk_weight(Y_d, xi=XI):
    """Eq. (8) for one close-talk mic: Y_d (freq, frame) -> (freq, frame)."""
    num_freqs, num_frames = Y_d.shape
    power = np.zeros((num_freqs, num_frames))
    for f in range(num_freqs):
        for t in range(num_frames):
            power[f, t] = Y_d[f, t].real ** 2 + Y_d[f, t].imag ** 2  # |Y_d|^2
    return _floored(power, xi)  # eq. (8)


def farfield_weight(Y, xi=XI):
    """Eq. (9), one weight for all far-field mics: Y (mic, freq, frame) -> (freq, frame)."""
    num_mics, num_freqs, num_frames = Y.shape
    Q = np.zeros((num_freqs, num_frames))
    for f in range(num_freqs):
        for t in range(num_frames):
            for p in range(num_mics):  # text below eq. (9)
                Q[f, t] += (Y[p, f, t].real ** 2 + Y[p, f, t].imag ** 2) / num_mics
    return _floored(Q, xi)  # eq. (9)


def _floored(power, xi):
    """xi * max + power, the common form of eqs. (8) and (9)."""
    largest = 0.0
    for value in power.flat:
        largest = max(largest, value)
    weight = np.zeros_like(power)
    for f in range(power.shape[0]):
        for t in range(power.shape[1]):
            weight[f, t] = xi * largest + power[f, t]
    return weight


def stacked(Z_c, t, f, past, future):
    """Z_tilde(c, t, f) = [Z(c, t - past, f), ..., Z(c, t + future, f)]^T, text below eq. (4)."""
    num_frames = Z_c.shape[1]
    window = []
    for frame in range(t - past, t + future + 1):
        window.append(Z_c[f, frame] if 0 <= frame < num_frames else 0.0)
    return np.array(window, dtype=complex)


def objective(g_f, Z_c, Y_r, lam, f, past, future):
    """The sum in eq. (7) at one frequency, for a filter g_f (tap,)."""
    total = 0.0
    for t in range(Y_r.shape[1]):
        error = Y_r[f, t] - np.vdot(g_f, stacked(Z_c, t, f, past, future))  # vdot(g, z) = g^H z
        total += abs(error) ** 2 / lam[f, t]
    return total


def fcp_filter(Z_c, Y_r, lam, past, future, load=LOAD):
    """The argmin of eq. (7), for one source and mic: -> g (freq, tap).

    Solved as an overdetermined system, one row a frame, by orthogonalisation: not the normal
    equations. The diagonal loading of those is a penalty beta |g|^2 here, with beta = `load` times
    the mean over taps of sum_t |Z(t - k)|^2 / lambda(t): further rows sqrt(beta) * identity.
    A silent source or mic has a zero filter.
    """
    num_freqs, num_frames = Y_r.shape
    num_taps = past + 1 + future
    g = np.zeros((num_freqs, num_taps), dtype=complex)
    if not Y_r.any() or not lam.all():
        return g
    for f in range(num_freqs):
        if not Z_c[f].any():
            continue
        rows = np.zeros((num_frames + num_taps, num_taps), dtype=complex)
        right = np.zeros(num_frames + num_taps, dtype=complex)
        for t in range(num_frames):
            rows[t] = stacked(Z_c, t, f, past, future) / np.sqrt(lam[f, t])
            right[t] = Y_r[f, t] / np.sqrt(lam[f, t])
        beta = load * np.sum(np.abs(rows) ** 2) / num_taps
        for k in range(num_taps):
            rows[num_frames + k, k] = np.sqrt(beta)
        g_conj = np.linalg.lstsq(rows, right, rcond=None)[0]  # eq. (7): z^T conj(g)
        g[f] = np.conj(g_conj)
    return g


def fcp_image(Z_c, g, past, future):
    """Eq. (10): X(c, t, f) = g(c, f)^H Z_tilde(c, t, f) -> (freq, frame)."""
    num_freqs, num_frames = Z_c.shape
    X = np.zeros((num_freqs, num_frames), dtype=complex)
    for f in range(num_freqs):
        for t in range(num_frames):
            window = stacked(Z_c, t, f, past, future)
            for k in range(past + 1 + future):
                X[f, t] += np.conj(g[f, k]) * window[k]  # eq. (10)
    return X


def fcp(Z, Y, lam, past, future, load=LOAD):
    """Images (mic, source, freq, frame) and g (mic, source, freq, tap); lam (mic, freq, frame)."""
    X, g = [], []
    for r in range(len(Y)):
        g.append([fcp_filter(Z_c, Y[r], lam[r], past, future, load) for Z_c in Z])
        X.append([fcp_image(Z_c, g_c, past, future) for Z_c, g_c in zip(Z, g[r])])
    return np.array(X), np.array(g)


def distance(Y_r, Y_hat):
    """sum_{t,f} F(Y, Y_hat), eq. (5) summed as in (4) and (6): (freq, frame) twice -> number."""
    num_freqs, num_frames = Y_r.shape
    numerator, denominator = 0.0, 0.0
    for f in range(num_freqs):
        for t in range(num_frames):
            y, y_hat = Y_r[f, t], Y_hat[f, t]
            numerator += abs(y.real - y_hat.real)  # O = R
            numerator += abs(y.imag - y_hat.imag)  # O = I
            numerator += abs(abs(y) - abs(y_hat))  # O = A
            denominator += abs(y)
    if denominator == 0 and numerator == 0:  # a silent mic: met
        return 0.0
    return numerator / denominator  # eq. (5)


def mixture_constraint(Y_r, X_r):
    """Eqs. (4) and (6): Y_r (freq, frame), X_r (source, freq, frame) images at mic r -> number."""
    Y_hat = np.zeros_like(Y_r)
    for X_rc in X_r:
        Y_hat = Y_hat + X_rc  # sum_c X_r(c)
    return distance(Y_r, Y_hat)


def isms(Y_p, X_p):
    """UNSSOR's ISMS at one mic: Y_p (freq, frame), X_p (source, freq, frame) -> number.

        sum_t (1 / C) sum_c var_f( log|X_p(c, t, f)| )  /  sum_t var_f( log|Y_p(t, f)| )

    with magnitudes relative to max |Y_p|, 1e-8 added inside the logarithm, and unbiased variances.
    """
    num_freqs, num_frames = Y_p.shape
    peak = 0.0
    for y in Y_p.flat:
        peak = max(peak, abs(y))
    if peak == 0:
        return 0.0

    def scatter(spectrum, t):
        logs = [np.log(abs(spectrum[f, t]) / peak + 1e-8) for f in range(num_freqs)]
        mean = sum(logs) / num_freqs
        return sum((value - mean) ** 2 for value in logs) / (num_freqs - 1)

    numerator = sum(scatter(X_pc, t) for X_pc in X_p for t in range(num_frames)) / len(X_p)
    return numerator / sum(scatter(Y_p, t) for t in range(num_frames))


def loss(
    Z,
    far_field,
    close_talk=None,
    closetalk_taps=(19, 1),
    farfield_taps=(19, 1),
    alpha=1.0,
    anchor_weight=0.0,
    isms_weight=0.0,
    ref_mic=0,
    ref_mic_weight=1.0,
    xi=XI,
    load=LOAD,
):
    """Eq. (3) and the terms added to it -> (loss, parts: dict of numbers).

    closetalk_taps are the paper's I, J and farfield_taps its M, N: past and future frames.
    """
    parts = {"mc_far_field": 0.0, "mc_close_talk": 0.0, "anchor": 0.0, "isms": 0.0}
    total = 0.0

    lam = farfield_weight(far_field, xi)  # eq. (9)
    X, _ = fcp(Z, far_field, [lam] * len(far_field), *farfield_taps, load)  # eqs. (7), (10)
    for p in range(len(far_field)):
        a_p = ref_mic_weight if p == ref_mic else 1.0
        mc = mixture_constraint(far_field[p], X[p])  # eq. (6)
        parts["mc_far_field"] += mc
        total += alpha * a_p * mc  # eq. (3), second sum
        if isms_weight:
            scatter = isms(far_field[p], X[p])
            parts["isms"] += scatter
            total += alpha * a_p * isms_weight * scatter  # UNSSOR

    if close_talk is not None:
        lam = [closetalk_weight(Y_d, xi) for Y_d in close_talk]  # eq. (8)
        X, _ = fcp(Z, close_talk, lam, *closetalk_taps, load)  # eqs. (7), (10)
        for d in range(len(close_talk)):
            mc = mixture_constraint(close_talk[d], X[d])  # eq. (4)
            parts["mc_close_talk"] += mc
            total += mc  # eq. (3), first sum
            if anchor_weight:
                anchor = distance(close_talk[d], X[d, d])  # source d alone
                parts["anchor"] += anchor
                total += anchor_weight * anchor
    parts["mc"] = parts["mc_close_talk"] + alpha * parts["mc_far_field"]  # eq. (3)
    return total, parts


def gradient(function, Z, step=1e-6):
    """Central differences of a real function of a complex array: dL/dRe + i dL/dIm, as in torch."""
    result = np.zeros_like(Z)
    for index in np.ndindex(Z.shape):
        for unit in (1.0, 1.0j):
            up, down = Z.copy(), Z.copy()
            up[index] += step * unit
            down[index] -= step * unit
            result[index] += unit * (function(up) - function(down)) / (2 * step)
    return result


def noise(seed, *shape):
    """Complex Gaussian noise of unit variance, (*shape): spectra to test with."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def convolve(Z_c, g, past):
    """Literal convolution along frames with a known filter: (freq, frame), (freq, tap) -> as Z_c.

    The tap at index `past` is the current frame's; not conjugated: sum_k g_k Z(t - past + k).
    """
    return fcp_image(Z_c, np.conj(g), past, g.shape[1] - 1 - past)


def scene(seed, num_sources=2, num_far=3, num_close=2, num_freqs=3, num_frames=12):
    """(Z, far_field, close_talk): imperfect estimates of filtered sources, and sensor noise."""
    S = noise(seed, num_sources, num_freqs, num_frames)
    mics = []
    for r in range(num_far + num_close):
        g = noise(100 * seed + r + 1, num_sources, num_freqs, 3) * [0.3, 1.0, 0.3]
        Y_r = 0.05 * noise(100 * seed + 50 + r, num_freqs, num_frames)
        for c in range(num_sources):
            level = 1.0 if r < num_far or c == r - num_far else 0.2  # the wearer is loudest
            Y_r = Y_r + level * convolve(S[c], g[c], past=2)
        mics.append(Y_r)
    mics = np.array(mics)
    Z = S + 0.3 * S[::-1] + 0.1 * noise(100 * seed + 99, *S.shape)
    return Z, mics[:num_far], mics[num_far:]


def mixture_consistency(X, Y, p=1, active=None):
    """X (source, freq, frame), Y (freq, frame), active (source, frame): the formula, unit by unit."""
    result = X.copy()
    for f, t in np.ndindex(Y.shape):
        heard = [c for c in range(len(X)) if active is None or active[c, t]]
        shares = {c: abs(X[c, f, t]) ** p for c in heard}
        rest = Y[f, t] - sum(X[:, f, t])
        for c in heard:
            result[c, f, t] += shares[c] / sum(shares.values()) * rest
    return result
