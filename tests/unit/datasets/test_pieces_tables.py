"""Tables that lie in a folder: read where they hold images, and nothing is fetched unasked."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captune.core.errors import CaptuneError, ImageError, UsageError
from captune.datasets.sources.input_shards import list_input_shards, read_images
from sources import jpeg, tar, write


def heard(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the pieces that a folder has, and what is said of the rest."""
    said: list[str] = []
    return [Path(shard.location).name for shard in list_input_shards([str(folder)], warn=said.append)], said


@pytest.mark.parametrize("column", ["url", "URL", "image_url", "image"])
def test_nothing_is_fetched_for_a_table_that_lies_in_a_folder(tmp_path: Path, column: str) -> None:
    """img2dataset leaves a table of addresses beside each tar, LAION's and DataComp's have nothing else."""
    table = tmp_path / "00000.parquet"
    pq.write_table(
        pa.table({column: ["http://127.0.0.1:9/1.jpg", "http://127.0.0.1:9/2.jpg"], "caption": ["a", "b"]}), table
    )
    with pytest.raises(UsageError, match="no images, but tables of their addresses: 00000") as caught:
        heard(tmp_path)
    assert f"captune caption {table}" in caught.value.hint
    tar(tmp_path / "00000.tar", {"1.jpg": jpeg(1)})
    pieces, (said,) = heard(tmp_path)
    assert pieces == ["00000.tar"]
    assert "00000.parquet" in said
    assert [shard.count for shard in list_input_shards([str(table)])] == [2]  # it was named
    assert [shard.count for shard in list_input_shards([str(tmp_path / "*.parquet")])] == [2]


def test_what_a_folder_holds_besides_is_said(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"1.jpg": jpeg(1)})
    pq.write_table(pa.table({"label": [1]}), tmp_path / "labels.parquet")
    pieces, (said,) = heard(tmp_path)
    assert pieces == ["a.tar"]
    assert "without a column of images" in said
    write(tmp_path / "broken.parquet", b"PAR1")
    with pytest.raises(CaptuneError, match="not a whole Parquet file"):
        heard(tmp_path)
    write(tmp_path / "photo.jpg", b"x")  # beside an image archives are left alone
    pieces, (said,) = heard(tmp_path)
    assert pieces == [""]
    assert "a.tar" in said
    assert "parquet" not in said


@pytest.mark.parametrize("column", ["jpg", "png", "image_bytes", "bytes"])
def test_bytes_in_a_column_of_another_name(tmp_path: Path, column: str) -> None:
    """img2dataset's Parquet has `jpg` beside `url`; rows that were not downloaded have none."""
    pq.write_table(pa.table({"url": ["http://127.0.0.1:9/1.jpg"] * 2, column: [b"1", None]}), tmp_path / "a.parquet")
    (shard,) = list_input_shards([str(tmp_path)])
    first, second = (image.source for image in read_images(shard))
    assert first == b"1"
    with pytest.raises(ImageError, match="there is no image in this row"):
        second()  # type: ignore[operator]
