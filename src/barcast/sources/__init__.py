"""Where prices come from: one file per kind, all giving canonical bars."""

from barcast.sources.base import Source
from barcast.sources.files import FileSource
from barcast.sources.frames import FrameSource
from barcast.sources.options import ImportOptions
from barcast.sources.sample import SAMPLE_OPTIONS, sample_source

__all__ = ["SAMPLE_OPTIONS", "FileSource", "FrameSource", "ImportOptions", "Source", "sample_source"]
