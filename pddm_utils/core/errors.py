"""The one exception and the one warning that a user is meant to read."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from outside the package: names the file or setting, what is wrong and what to do.

    Example:
        >>> raise InputError("scan.nii.gz: 4-D image of shape (96, 96, 50, 3); pass one 3-D volume")
        Traceback (most recent call last):
        ...
        pddm_utils.core.errors.InputError: scan.nii.gz: 4-D image of shape (96, 96, 50, 3); pass one 3-D volume
    """


class ScanWarning(UserWarning):
    """A scan can be used, but its file can be understood in two ways, or a part of it was left out: says what was done.

    Example:
        >>> import warnings
        >>> warnings.warn("mask.nii.gz: 3 specks dropped", ScanWarning)  # doctest: +SKIP
    """
