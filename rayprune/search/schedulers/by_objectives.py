"""What schedulers of several objectives have in common: Tune's one metric means nothing to them."""

from __future__ import annotations

from typing import Any


class ByObjectives:
    """A scheduler, to be mixed in before Tune's, that knows its objectives by itself."""

    @property
    def metric(self) -> None:
        """None, so that Tune doesn't refuse a result in which an objective wasn't measured."""
        return

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Leave TuneConfig's metric and mode to Tune: they choose nothing here."""
        del metric, mode, spec
        return True
