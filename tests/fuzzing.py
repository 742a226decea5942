"""What tests share that change the bytes of files at random: the changes, the verdict, and the long run."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from pddm_utils.core.errors import InputError


def mutated(content: bytes, rng: np.random.Generator, reach: int | None = None) -> bytes:
    """Some bytes changed; now and then cut or lengthened.

    Args:
        content: of a sound file.
        rng: source of all choices.
        reach: most changes lie among so many first bytes; None for anywhere.
    """
    changed = bytearray(content)
    end = len(changed) if reach is None or rng.random() < 0.2 else min(reach, len(changed))
    for place in rng.integers(0, end, rng.integers(1, 7)):
        random = int(rng.integers(256))
        changed[place] = rng.choice([0, 1, 127, 128, 255, random, changed[place] ^ (1 << rng.integers(8))])
    if rng.random() < 0.1:
        changed = changed[: rng.integers(len(changed) + 1)]
    if rng.random() < 0.05:
        changed += bytes(int(rng.integers(1, 5000)))
    return bytes(changed)


def mutated_text(content: bytes, rng: np.random.Generator, pieces: Sequence[bytes]) -> bytes:
    """A text with pieces put in or in place of others, or moved about; now and then as `mutated`.

    Args:
        content: of a sound file.
        rng: source of all choices.
        pieces: what is dangerous in files of this form.
    """
    if rng.random() < 0.2:
        return mutated(content, rng)
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place, start = rng.integers(0, len(changed) + 1, 2)
        own = bytes(changed[start : start + rng.integers(1, 30)])
        piece = own if rng.random() < 0.3 else pieces[rng.integers(len(pieces))]
        changed[place : place + rng.integers(0, 4)] = piece
    return bytes(changed)


def is_taken(
    load: Callable[[], object], case: object, name: str, kind: type[Warning] = UserWarning, lines: int = 1
) -> bool:
    """Whether a file is taken; anything but a result, or an `InputError` that begins with its name, fails the test.

    Args:
        load: reads the file.
        case: named where the test fails.
        name: with which every error must begin.
        kind: the only warnings that may come.
        lines: how many an error may have.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", kind)
        try:
            load()
        except InputError as error:
            assert str(error).startswith(name) and str(error).count("\n") < lines, (case, str(error))
            return False
        except Exception as error:
            raise AssertionError(f"{case}: {error!r}") from error
    return True


def for_an_hour(fuzz: Callable[[int], int]) -> None:
    """Run `fuzz(seed)` for as long as PDDM_FUZZ_SECONDS says, with other seeds on every day; each run takes some."""
    end, seed = time.monotonic() + float(os.environ.get("PDDM_FUZZ_SECONDS", 3600)), int(time.time()) // 86400 * 1000
    while time.monotonic() < end:
        seed += 1
        assert fuzz(seed) > 0
