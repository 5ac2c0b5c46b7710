"""New elements of external constants, in memory and in files."""

import gc
import io

import ml_dtypes
import numpy as np
import pytest

from onnx_sipp.graph.payloads import Replacements
from onnx_sipp.graph.tensors import packed_bytes
from onnx_sipp.store import TensorStore

OLD = np.arange(12, dtype=np.float32).reshape(3, 4)
NEW = -OLD - 1


@pytest.fixture(params=["memory", "files"])
def replaced(request, tmp_path):
    return Replacements(None if request.param == "memory" else TensorStore(0, tmp_path))


def put_slab(replaced, site, axis, start, values):
    current = replaced.read(site) if site in replaced else OLD
    replaced.put_slab(site, axis, start, values, OLD.shape, lambda rows: current[rows])


def written(replaced, site):
    out = io.BytesIO()
    replaced.write_to(site, out)
    return out.getvalue()


def test_all_elements(replaced):
    replaced.put(7, NEW)
    assert list(replaced) == [7]
    assert 6 not in replaced
    np.testing.assert_array_equal(replaced.read(7), NEW)
    np.testing.assert_array_equal(replaced.slab(7, 1, slice(1, 3)), NEW[:, 1:3])
    assert written(replaced, 7) == NEW.tobytes()


def test_part_after_part(replaced):
    put_slab(replaced, 7, 1, 2, NEW[:, 2:])
    np.testing.assert_array_equal(replaced.read(7), np.hstack([OLD[:, :2], NEW[:, 2:]]))
    put_slab(replaced, 7, 1, 0, NEW[:, :2])
    np.testing.assert_array_equal(replaced.read(7), NEW)
    assert written(replaced, 7) == NEW.tobytes()


def test_what_the_caller_gave_is_not_changed(replaced):
    mine = NEW.copy()
    replaced.put(7, mine)
    put_slab(replaced, 7, 0, 0, OLD[:1])
    np.testing.assert_array_equal(mine, NEW)
    np.testing.assert_array_equal(replaced.read(7)[0], OLD[0])


@pytest.mark.parametrize("first", [0, 1])
def test_copies_are_independent(replaced, tmp_path, first):
    put_slab(replaced, 7, 0, 0, NEW[:1])
    both = [replaced, replaced.copy(TensorStore(0, tmp_path))]
    put_slab(both[first], 7, 0, 1, NEW[1:2])
    changed, other = both[first], both[1 - first]
    np.testing.assert_array_equal(changed.read(7), np.vstack([NEW[:2], OLD[2:]]))
    np.testing.assert_array_equal(other.read(7), np.vstack([NEW[:1], OLD[1:]]))


def test_what_was_released_does_not_change_any_more(replaced):
    put_slab(replaced, 7, 0, 0, NEW[:1])
    other = Replacements()
    other.share(7, replaced.released(7))
    put_slab(replaced, 7, 0, 1, NEW[1:2])
    np.testing.assert_array_equal(other.read(7), np.vstack([NEW[:1], OLD[1:]]))


def test_what_is_kept_follows(replaced):
    put_slab(replaced, 7, 0, 0, NEW[:1])
    other = Replacements()
    other.share(7, replaced.kept(7))
    put_slab(replaced, 7, 0, 1, NEW[1:2])
    np.testing.assert_array_equal(other.read(7), replaced.read(7))


def test_narrow_types_are_packed(replaced):
    values = np.arange(-3, 4).astype(ml_dtypes.int4)
    replaced.put(7, values)
    assert written(replaced, 7) == packed_bytes(values)


def test_files_go(tmp_path):
    replaced = Replacements(TensorStore(0, tmp_path))
    replaced.put(7, NEW)
    replaced.put(7, OLD)
    gc.collect()
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
    del replaced
    gc.collect()
    assert list(tmp_path.iterdir()) == []
