"""A pyarrow file system whose writer dies at a chosen request, in the middle of it."""

from __future__ import annotations

import threading
from pathlib import Path

from pyarrow import fs


class Dying(fs.FileSystemHandler):
    """Keeps files below a directory, until the n-th request that would change something.

    That one is done by half where it is a write; from then on nothing is done at all, as little
    as by a process that was killed.
    """

    def __init__(self, root: Path, at: int | None = None) -> None:
        self.files = fs.SubTreeFileSystem(str(root), fs.LocalFileSystem())
        self.at, self.count = at, 0
        self.lock = threading.Lock()

    def root(self) -> fs.SubTreeFileSystem:
        return fs.SubTreeFileSystem("", fs.PyFileSystem(self))

    def alive(self) -> bool:
        """Count a request; whether the writer outlives it."""
        with self.lock:
            self.count += 1
            return self.at is None or self.count < self.at

    def change(self, action) -> None:
        if not self.alive():
            raise OSError("dead")
        action()

    def __eq__(self, other):
        return self is other

    def __ne__(self, other):
        return self is not other

    def get_type_name(self):
        return "dying"

    def normalize_path(self, path):
        return path

    def get_file_info(self, paths):
        return self.files.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self.files.get_file_info(selector)

    def open_input_stream(self, path):
        return self.files.open_input_stream(path)

    def open_input_file(self, path):
        return self.files.open_input_file(path)

    def create_dir(self, path, recursive):
        if self.at is not None and self.count >= self.at:
            raise OSError("dead")
        self.files.create_dir(path, recursive=recursive)

    def delete_file(self, path):
        self.change(lambda: self.files.delete_file(path))

    def delete_dir(self, path):
        def delete_by_half():
            found = self.files.get_file_info(fs.FileSelector(path, recursive=True))
            for info in [info for info in found if info.is_file][1::2]:
                self.files.delete_file(info.path)

        if self.alive():
            self.files.delete_dir(path)
        else:
            if self.count == self.at:
                delete_by_half()
            raise OSError("dead")

    def delete_dir_contents(self, path, missing_dir_ok):
        raise NotImplementedError

    def delete_root_dir_contents(self):
        raise NotImplementedError

    def move(self, source, target):
        raise NotImplementedError

    def copy_file(self, source, target):
        if self.alive():
            self.files.copy_file(source, target)
        else:
            if self.count == self.at:
                self._write_half(target, self.files.open_input_stream(source).read())
            raise OSError("dead")

    def open_output_stream(self, path, metadata):
        from pyarrow import PythonFile

        return PythonFile(_Stream(self, path), mode="w")

    def open_append_stream(self, path, metadata):
        raise NotImplementedError

    def _write_half(self, path, content):
        with self.files.open_output_stream(path) as stream:
            stream.write(content[: len(content) // 2])


class _Stream:
    """Collects what is written, and puts it down when it is closed."""

    closed = False

    def __init__(self, store: Dying, path: str) -> None:
        self.store, self.path, self.content = store, path, b""

    def write(self, data) -> int:
        self.content += bytes(data)
        return len(data)

    def flush(self) -> None:
        pass

    def tell(self) -> int:
        return len(self.content)

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.store.alive():
            with self.store.files.open_output_stream(self.path) as stream:
                stream.write(self.content)
        else:
            if self.store.count == self.store.at:
                self.store._write_half(self.path, self.content)
            raise OSError("dead")
