"""Samples are parted, and results put together, the same however many workers there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_sipp.cluster.shards import is_light, is_quick, merged, ranges_of, shards_for

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=100)


@given(SIZES, st.integers(1, 20))
def test_every_batch_is_in_one_range_in_order(sizes, shards):
    ranges = ranges_of(sizes, shards)
    assert [n for part in ranges for n in part] == list(range(len(sizes)))
    assert 1 <= len(ranges) <= shards
    assert all(len(part) > 0 for part in ranges)


@given(SIZES, st.integers(1, 20))
def test_no_range_is_longer_than_its_share_by_more_than_a_batch(sizes, shards):
    for part in ranges_of(sizes, shards):
        assert sum(sizes[n] for n in part) <= sum(sizes) / shards + max(sizes)


@pytest.mark.parametrize(
    ("count", "shards"), [(3, 3), (8, 8), (256, 8), (512, 8), (513, 9), (64_000, 1000)]
)
def test_many_samples_are_in_many_shards(count, shards):
    assert len(ranges_of([1] * count)) == shards


@pytest.mark.parametrize(
    ("samples", "patches", "shards"),
    [(256, 1, 2), (10, 0, 2), (512, 1, 4), (256, 300, 8), (6400, 1, 50), (6400, 9, 100)],
)
def test_parts_are_worth_a_beginning(samples, patches, shards):
    assert shards_for(samples, patches) == shards


@given(st.lists(st.text(max_size=3), min_size=1, max_size=40))
def test_merging_keeps_the_order(parts):
    assert merged(parts, lambda a, b: a + b) == "".join(parts)


@pytest.mark.parametrize(
    ("count", "tree"),
    [(1, "0"), (2, "(01)"), (3, "((01)2)"), (5, "(((01)(23))4)"), (6, "(((01)(23))(45))")],
)
def test_neighbours_are_merged_first(count, tree):
    assert merged([str(n) for n in range(count)], lambda a, b: f"({a}{b})") == tree


@pytest.mark.parametrize(
    ("samples", "patches", "sizes", "light"),
    [
        (256, 1, [16_000_000, 4_000_000], True),
        (256, 1, [100_000], False),  # little to send
        (256, 64, [20_000_000], False),  # much to do
        (10_000, 1, [20_000_000], False),
        (256, 1, [1_000_000] * 16, True),
        (256, 1, [1_000_000] * 17, False),  # the model would be run for each of them
    ],
)
def test_what_takes_longer_to_send_than_to_do(samples, patches, sizes, light):
    assert is_light(samples, patches, sizes) == light


@pytest.mark.parametrize(
    ("samples", "patches", "sizes", "quick"),
    [
        (400, 1, [250_000, 1_000_000], True),
        (400, 1, [4_000_000], False),
        (400, 64, [250_000], False),
        (400, 2, [250_000, 1_000_000], True),
        (4000, 1, [250_000, 1_000_000], False),
    ],
)
def test_what_is_done_before_workers_are_there(samples, patches, sizes, quick):
    assert is_quick(samples, patches, sizes) == quick
