"""Fixtures of verbs that change a workspace."""

import subprocess

import pytest


@pytest.fixture
def spare(place, tmp_path):
    """A copy of a module's workspace ``place``, for one test to change."""
    copy = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
    return copy
