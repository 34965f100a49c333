"""A tracker that keeps what it is told, alone or in the settings file of a workspace."""

from barcast.tracking.registry import TRACKERS, TrackerEntry


class Fake:
    """Keeps what it is told; fails where it is told to."""

    def __init__(self, fails_at="", error=None):
        self.fails_at, self.error, self.calls = fails_at, error or ValueError("broken"), []

    def _do(self, what, *told):
        self.calls.append((what, *told))
        if what == self.fails_at:
            raise self.error

    def start(self, about, remembered):
        self._do("start", about, dict(remembered))
        return {**remembered, "id": remembered.get("id", "first")}

    def where(self):
        return "nowhere"

    def log(self, step, values):
        self._do("log", step, values)

    def summarise(self, step, scores, facts):
        self._do("summarise", step, scores, facts)

    def finish(self, status, reason):
        self._do("finish", status, reason)

    def told(self, what):
        return [call[1:] for call in self.calls if call[0] == what]

    @property
    def runs(self):
        """Names of the runs that were begun, in order."""
        return [about.name for about, _ in self.told("start")]


def tracked_by_default(root, monkeypatch) -> Fake:
    """Let the settings file of a workspace name one such tracker, for every run the same."""
    fake = Fake()
    monkeypatch.setitem(TRACKERS, "fake", TrackerEntry(lambda place: fake, (), ""))
    (root / "barcast.toml").write_text('[track]\nadapters = ["fake"]\n')
    return fake
