"""Speech-like audio: syllables, hisses and pauses in noise; enough to wake a speech detector.

A voiced sound is the harmonics of a gliding pitch, each as loud as three or four gliding formants
make it. Numpy only, seeded.
"""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

# Formants of vowels in Hz (Peterson and Barney 1952, means over men), and their bandwidths.
VOWELS = np.array(
    [
        (270, 2290, 3010),
        (390, 1990, 2550),
        (530, 1840, 2480),
        (660, 1720, 2410),
        (730, 1090, 2440),
        (570, 840, 2410),
        (440, 1020, 2240),
        (300, 870, 2240),
    ]
)
BANDWIDTHS = np.array([80.0, 110.0, 160.0])


def utterance(rng: np.random.Generator, rate: int, seconds: float) -> Float32:
    """Phrases of some syllables with pauses between, float32 ``[samples]`` in about [-1, 1].

    Args:
        rng: source of randomness; it decides on the voice, too.
        rate: samples per second.
        seconds: length.
    """
    total = int(rate * seconds)
    audio = np.zeros(total)
    pitch, tract = rng.uniform(90, 240), rng.uniform(0.95, 1.2)
    place = int(rate * rng.uniform(0.1, 0.5))
    while place < total:
        for _ in range(rng.integers(3, 9)):
            sound = _syllable(rng, rate, pitch * rng.uniform(0.85, 1.2), tract)
            room = max(0, min(len(sound), total - place))
            audio[place : place + room] += sound[:room]
            place += int(len(sound) * rng.uniform(0.8, 1.05))
        place += int(rate * rng.uniform(0.25, 0.9))
    level = rng.uniform(0.1, 0.5) / (np.abs(audio).max() or 1.0)
    noise = _coloured(rng, total) * rng.uniform(0.0005, 0.01)
    return (audio * level + noise).astype(np.float32)


def _syllable(rng: np.random.Generator, rate: int, pitch: float, tract: float) -> Float64:
    """A hiss now and then, and a vowel that glides into another."""
    vowel = _vowel(rng, rate, pitch, tract, rng.uniform(0.09, 0.28))
    if rng.random() < 0.4:
        hiss = np.diff(rng.standard_normal(int(rate * rng.uniform(0.04, 0.12)) + 1))
        return np.concatenate([0.12 * hiss * np.hanning(len(hiss)), vowel])
    return vowel


def _vowel(
    rng: np.random.Generator, rate: int, pitch: float, tract: float, seconds: float
) -> Float64:
    count = int(rate * seconds)
    along = np.linspace(0, 1, count)
    glide = pitch * (1 + rng.uniform(-0.15, 0.1) * along + 0.01 * np.sin(33 * along))
    phase = 2 * np.pi * np.cumsum(glide) / rate
    first, last = VOWELS[rng.integers(len(VOWELS), size=2)]
    formants = tract * (first[:, None] * (1 - along) + last[:, None] * along)
    sound = np.zeros(count)
    for harmonic in range(1, int(0.5 * rate / glide.max())):
        place = (harmonic * glide - formants) / BANDWIDTHS[:, None]
        loudness = np.sum(1 / (1 + place**2), axis=0) / harmonic
        sound += loudness * np.sin(harmonic * phase)
    return sound * np.sin(np.pi * along) ** 0.5 / (np.abs(sound).max() or 1.0)


def _coloured(rng: np.random.Generator, count: int) -> Float64:
    """Noise that is louder at low frequencies."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.maximum(np.arange(len(spectrum)), 20) ** 0.5
    noise = np.fft.irfft(spectrum, count)
    return noise / np.abs(noise).std()


def frames(audio: Float32, size: int, context: int) -> Float32:
    """Successive frames, each with the end of the one before it: ``[frames, context + size]``."""
    count = len(audio) // size
    padded = np.concatenate([np.zeros(context, audio.dtype), audio[: count * size]])
    return np.stack([padded[i * size : (i + 1) * size + context] for i in range(count)])
