"""The rotation takes each of many keys in its turn."""

from notifier.domain.rotation import Rotation


def test_each_of_many_is_taken_once_in_a_round() -> None:
    rotation, keys = Rotation(), list(range(10))
    taken = [rotation.take(keys, 4) for _ in range(5)]
    assert [list(turn) for turn in taken[:3]] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    assert sorted(key for turn in taken for key in turn) == sorted(keys * 2)


def test_all_of_a_few_are_taken() -> None:
    rotation = Rotation()
    assert list(rotation.take([1, 2], 4)) == [1, 2]
    assert list(rotation.take([1, 2], 2)) == [1, 2]
    assert list(rotation.take([], 2)) == []


def test_a_list_that_has_become_shorter_is_continued() -> None:
    rotation = Rotation()
    rotation.take(list(range(10)), 9)
    assert list(rotation.take([1, 2, 3], 2)) == [1, 2]
