import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from upweight.cli.row_ids import with_ids  # noqa: E402


def test_ids_come_from_a_column_or_are_row_numbers():
    table = pd.DataFrame({"size": np.zeros(9), "name": np.arange(100, 109)})
    assert with_ids(table, "size", "name", "t.csv").index[:2].tolist() == [100, 101]
    assert with_ids(table, "size", None, "t.csv").index[:2].tolist() == [0, 1]
    with pytest.raises(ValueError, match="missing or repeat"):
        with_ids(table, "name", "size", "t.csv")
