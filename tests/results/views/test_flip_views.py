"""The view of flipped answers, on hand-made rows with known answers."""

from __future__ import annotations

from results_folder import Folder, rows


def test_each_kind_of_flip_with_what_was_copied(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.answers("base", "c0110c1")
    folder.answers("ig", "11c0001")
    folder.answers("ig", "1", purpose="search", example=9)
    folder.write()
    found = rows(folder, "select * from flips order by example")
    assert [(row["example"], row["flip"]) for row in found] == [
        (0, "copied to right"), (1, "wrong to right"), (2, "right to copied"),
        (3, "right to wrong")]
    first = found[0]
    assert (first["query"], first["gold"], first["before"], first["after"]) == ("q0", "a", "b", "a")
    assert (first["demonstrations"], first["answers"]) == (["x", "y"], ["c", "b"])
    assert [(row["copied_input"], row["copied_answer"]) for row in found] == [
        ("y", "b"), (None, None), ("y", "b"), (None, None)]
    assert {row["method"] for row in found} == {"integrated_gradients"}


def test_an_error_is_no_copy(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.answers("base", "1")
    folder.answers("ig", "e")
    folder.write()
    (row,) = rows(folder, "from flips")
    assert (row["flip"], row["after"]) == ("right to wrong", None)
