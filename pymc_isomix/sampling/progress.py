"""Progress bars that appear only if a computation takes long."""

import time

from pymc.progress_bar import CustomProgress

PATIENCE = 2.0  # seconds without a bar


class LateProgress:
    """A progress bar that appears after two seconds, as a context manager.

    Parameters
    ----------
    description : str
    total : int
    disable : bool
        Never show it.
    """

    def __init__(self, description: str, total: int, *, disable: bool = False) -> None:
        self.description, self.total, self.disable = description, total, disable
        self.began, self.task = time.perf_counter(), None
        self.bar: CustomProgress | None = None

    def __enter__(self):
        return self

    def update(self, done: int) -> None:
        """Show how much is done."""
        if self.disable or (self.bar is None and time.perf_counter() - self.began < PATIENCE):
            return
        if self.bar is None:
            self.bar = CustomProgress()
            self.bar.start()
            self.task = self.bar.add_task(self.description, total=self.total)
        self.bar.update(self.task, completed=done)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.stop()
