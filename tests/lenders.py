"""Stands in for a lender of threads."""

from contextlib import contextmanager, nullcontext


class Lending:
    """Always has so many threads."""

    def __init__(self, count):
        self.count, self.asked, self.out, self.left = count, [], 0, False

    @contextmanager
    def lent(self, most, threads):
        self.asked.append((most, threads))
        self.out += 1
        yield min(self.count, most)
        self.out -= 1

    def working(self):
        return nullcontext()

    def leave(self):
        self.left = True
