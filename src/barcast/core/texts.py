"""Words in the two languages of the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["en", "zh"]


def some(items: Sequence[str], between: str = ", ", most: int = 5) -> str:
    """Join the first items, and say how many more there are."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return between.join(items[:most]) + more


def counted(num: int, noun: str) -> str:
    """Return a number with its noun: ``1 session``, ``2,400 sessions``."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


@dataclass(frozen=True)
class Text:
    """The same words in English and in 简体中文."""

    en: str
    zh: str

    @classmethod
    def same(cls, text: str) -> Text:
        """Return a text that reads the same in both languages: a name, a number, an error message."""
        return cls(text, text)

    def __add__(self, other: Text) -> Text:
        """Put ``other`` behind this text; Chinese needs no blank between sentences."""
        return Text(f"{self.en} {other.en}".strip(), self.zh + other.zh)

    def in_steps(self, *, daily: bool) -> Text:
        """Return the text with what a step of its calendar is called: session, 交易日; else bar, 时点."""
        if daily:
            return Text(self.en, self.zh.replace("交易时点", "时点").replace("时点", "交易日"))
        return Text(self.en.replace("session", "bar").replace("Session", "Bar"), self.zh)

    def in_language(self, language: Language) -> str:
        """Return the words in ``language``."""
        return self.zh if language == "zh" else self.en
