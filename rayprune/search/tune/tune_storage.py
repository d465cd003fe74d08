"""Where Tune keeps trials' checkpoints and its own state: the sweep's directory, or its bucket.

Trials write checkpoints from wherever they run. So for a sweep in a bucket Tune writes there by
itself, beside what the driver commits (`rayprune.storage.copies`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray import tune

from rayprune.search.tune.tune_state import KEPT_DIRECTORY, can_restore
from rayprune.storage.copies import place_of
from rayprune.storage.mirror import download
from rayprune.storage.urls import Place, told_of

TUNE_DIRECTORY: Final = "tune"
"""Where Tune's own files are, in the sweep's directory."""
_KEPT_ELSEWHERE: Final = "tune-state"
"""Where the last whole ones are kept in a bucket, where Tune's directory is Tune's alone."""


@dataclass(frozen=True, kw_only=True)
class TuneStorage:
    """One sweep's."""

    out: Path
    """The sweep's directory, on this machine."""
    place: Place | None
    """Where it is committed to, if anywhere."""

    @classmethod
    def of(cls, out: Path) -> TuneStorage:
        """Return the storage of a sweep's directory, which may be a mirror."""
        return cls(out=out, place=place_of(out))

    @property
    def held(self) -> Path:
        """Tune's directory, or a copy of the files of its state."""
        return self.out / TUNE_DIRECTORY

    @property
    def kept(self) -> Path:
        """Where the last whole files of Tune's state are."""
        return self.held / KEPT_DIRECTORY if self.place is None else self.out / _KEPT_ELSEWHERE

    def written(self, trials: list[Any]) -> Path:
        """Return where Tune writes its state on this machine.

        Args:
            trials: Tune's, of which there may be none yet.
        """
        if self.place is None or not trials:
            return self.held
        return Path(trials[0].storage.experiment_driver_staging_path)

    @property
    def options(self) -> dict[str, Any]:
        """What `ray.tune.RunConfig` is to be given."""
        if self.place is None:
            return {"storage_path": str(self.out)}
        return {"storage_path": self.place.path, "storage_filesystem": self.place.base}

    def can_restore(self) -> bool:
        """Whether there is a state of Tune's to go on with; mends it where a kill broke it.

        Raises:
            StorageError: the bucket can't be used.
        """
        if self.place is None:
            return can_restore(self.held, self.kept)
        with told_of(self.place.url):
            before = self._bring(self.place)
            whole = can_restore(self.held, self.kept)
            self._put_back(self.place, before)
        return whole

    def restore(self, trainable: Any) -> tune.Tuner:
        """Return a Tuner that goes on with all trials that aren't done."""
        options: dict[str, Any] = {"resume_unfinished": True, "resume_errored": True}
        if self.place is None:
            return tune.Tuner.restore(str(self.held), trainable, **options)
        where = f"{self.place.path}/{TUNE_DIRECTORY}"
        return tune.Tuner.restore(where, trainable, storage_filesystem=self.place.base, **options)

    def _bring(self, place: Place) -> dict[str, bytes]:
        """Fetch the files of Tune's state; return them."""
        from pyarrow import fs

        shutil.rmtree(self.held, ignore_errors=True)
        self.held.mkdir()
        selected = fs.FileSelector(TUNE_DIRECTORY, allow_not_found=True)
        found = [
            info.base_name
            for info in place.files.get_file_info(selected)
            if info.type == fs.FileType.File
        ]
        download(place, {name: f"{TUNE_DIRECTORY}/{name}" for name in found}, self.held)
        return {name: (self.held / name).read_bytes() for name in found}

    def _put_back(self, place: Place, before: dict[str, bytes]) -> None:
        """Make the bucket's files those that are held now."""
        now = {path.name: path.read_bytes() for path in self.held.iterdir() if path.is_file()}
        for name, content in now.items():
            if before.get(name) != content:
                with place.files.open_output_stream(f"{TUNE_DIRECTORY}/{name}") as stream:
                    stream.write(content)
        for name in before.keys() - now.keys():
            place.files.delete_file(f"{TUNE_DIRECTORY}/{name}")
