"""Caption files of text: exact references, ragged images, splits, bad rows."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from captune.core.errors import CaptuneError, UsageError
from captune.datasets.formats import find_format, read_source
from sources import photos, read_all, references


def test_kaggle_keeps_captions_whole(tmp_path: Path) -> None:
    photos(tmp_path / "Images", "a.jpg", "b.jpg", "c,d.jpg")
    (tmp_path / "captions.txt").write_text(
        "image,caption\r\n"
        'a.jpg,"A dog, a cat, and a bird"\r\n'
        'a.jpg,"He said "" sale "" loudly"\r\n'
        "b.jpg,Not quoted, but with commas, two\r\n"
        'b.jpg,"Stop" says the sign, loudly\r\n'
        "a.jpg,Ein Kind läuft über die Straße 🐕\r\n"
        'a.jpg,12" of snow\r\n'
        '"c,d.jpg","A comma, in the name"\r\n',
        encoding="utf-8-sig",
        newline="",
    )
    name, found, problems = read_all(tmp_path)
    assert name == "kaggle"
    assert references(found) == {
        "a.jpg": (
            "A dog, a cat, and a bird",
            'He said " sale " loudly',
            "Ein Kind läuft über die Straße 🐕",
            '12" of snow',
        ),
        "b.jpg": ("Not quoted, but with commas, two", '"Stop" says the sign, loudly'),
        "c,d.jpg": ("A comma, in the name",),
    }
    assert problems == []
    assert found[1].where == "captions.txt, line 4"
    assert all(record.image.is_file() for record in found)


def test_kaggle_caption_over_two_lines_and_a_stray_quote(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    source = tmp_path / "captions.txt"
    source.write_text('image,caption\na.jpg,"A dog\nruns, fast"\nb.jpg,"never closed\nc.jpg,fine\n', encoding="utf-8")
    _, found, _ = read_all(source)
    assert references(found) == {"a.jpg": ("A dog runs, fast",), "b.jpg": ('"never closed',), "c.jpg": ("fine",)}


def test_kaggle_without_header_loses_nothing(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    (tmp_path / "captions.txt").write_text("a.jpg,first\na.jpg,second\n", encoding="utf-8")
    name, found, _ = read_all(tmp_path)
    assert (name, references(found)) == ("kaggle", {"a.jpg": ("first", "second")})


def test_bad_rows_are_collected_with_their_lines(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    (tmp_path / "captions.txt").write_text(
        "image,caption\na.jpg,fine\na.jpg,\na.jpg,  \nno separator\n,nobody\nhttp://x.org/a.jpg,far\n", encoding="utf-8"
    )
    _, found, problems = read_all(tmp_path)
    assert references(found) == {"a.jpg": ("fine",)}
    assert [problem.where for problem in problems] == [f"captions.txt, line {n}" for n in (3, 4, 5, 6, 7)]
    assert "empty" in problems[0].reason
    assert "no comma" in problems[2].reason
    assert "no image" in problems[3].reason
    assert "URL" in problems[4].reason


def test_without_a_list_the_first_bad_row_raises(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,fine\na.jpg,\n", encoding="utf-8")
    with pytest.raises(CaptuneError, match=r"captions\.txt, line 3: the caption of a\.jpg is empty"):
        list(read_source(tmp_path)[1])


def test_pipe_keeps_bars_inside_captions(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a.jpg", "b.jpg")
    (tmp_path / "list.txt").write_text(
        'image|caption\na.jpg| A dog | a cat\nb.jpg|One, two\na.jpg|Again\nb.jpg|"A ""big"" | dog"\nb.jpg|"Stop"\n',
        "utf-8",
    )
    name, found, problems = read_all(tmp_path)
    assert (name, problems) == ("pipe", [])
    assert references(found) == {"a.jpg": ("A dog | a cat", "Again"), "b.jpg": ("One, two", 'A "big" | dog', '"Stop"')}


def test_tabs_without_a_header(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.tsv").write_text("a.jpg\tA dog | a cat\nb.jpg\tOne,\ttwo\nnothing\n", "utf-8")
    name, found, problems = read_all(tmp_path)
    assert name == "pipe"
    assert references(found) == {"a.jpg": ("A dog | a cat",), "b.jpg": ("One,\ttwo",)}
    assert "expected 'image<TAB>caption'" in problems[0].reason


def test_token_files_are_ragged(tmp_path: Path) -> None:
    photos(tmp_path / "Flickr8k_Dataset" / "Flicker8k_Dataset", "a.jpg", "b.jpg")
    text = tmp_path / "Flickr8k_text"
    text.mkdir()
    (text / "Flickr8k.lemma.token.txt").write_text("a.jpg#0\tdog run\n", encoding="utf-8")
    (text / "Flickr8k.token.txt").write_text(
        "a.jpg#0\tA dog runs .\na.jpg#1\tRuns , it does #2 .\nb.jpg#0\tA cat .\nb.jpg.1#0\tmisnamed\nnonsense\n",
        "utf-8",
    )
    name, found, problems = read_all(tmp_path)
    assert name == "flickr-token"
    assert references(found) == {
        "a.jpg": ("A dog runs .", "Runs , it does #2 ."),
        "b.jpg": ("A cat .",),
        "b.jpg.1": ("misnamed",),
    }
    assert [problem.where for problem in problems] == ["Flickr8k.token.txt, line 5"]
    assert [record.image.is_file() for record in found] == [True, True, False]


def test_captions_two_folders_below_a_readme(tmp_path: Path) -> None:
    inner = tmp_path / "Flickr_Data" / "Flickr_Data"
    photos(inner / "Images", "a.jpg")
    (tmp_path / "readme.txt").write_text("What this is\n", encoding="utf-8")
    (inner / "Flickr_TextData").mkdir()
    (inner / "Flickr_TextData" / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog .\n", encoding="utf-8")
    for source in (tmp_path / "Flickr_Data", inner):
        name, found, _ = read_all(source)
        assert (name, found[0].image) == ("flickr-token", inner / "Images" / "a.jpg")


def test_flickr30k_with_its_broken_row(tmp_path: Path) -> None:
    folder = tmp_path / "flickr30k_images"
    photos(folder / "flickr30k_images", "1.jpg", "2199200615.jpg")
    (folder / "results.csv").write_text(
        "image_name| comment_number| comment\n"
        "1.jpg| 0| Two men , one hat .\n"
        "1.jpg| 1| A | bar .\n"
        "2199200615.jpg| 3| A dog .\n"
        "2199200615.jpg| 4   A dog runs across the grass .\n"
        "2199200615.jpg| what\n",
        encoding="utf-8",
    )
    name, found, problems = read_all(tmp_path)
    assert name == "flickr30k"
    assert references(found) == {
        "1.jpg": ("Two men , one hat .", "A | bar ."),
        "2199200615.jpg": ("A dog .", "A dog runs across the grass ."),
    }
    assert [problem.where for problem in problems] == ["results.csv, line 6"]
    assert found[0].image == folder / "flickr30k_images" / "1.jpg"
    assert read_all(folder)[0] == "flickr30k"
    assert read_all(folder / "results.csv")[0] == "flickr30k"


def test_flickr30k_with_commas(tmp_path: Path) -> None:
    photos(tmp_path / "Images", "1.jpg")
    (tmp_path / "captions.txt").write_text(
        'image_name,comment_number,comment\n1.jpg,0,"A ""big"" dog, running"\n1.jpg,1,Plain\n', encoding="utf-8"
    )
    name, found, problems = read_all(tmp_path)
    assert (name, references(found)) == ("flickr30k", {"1.jpg": ('A "big" dog, running', "Plain")})
    assert problems == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.csv", 'filename,split,caption\na.jpg,train,"A dog, a cat"\nb.jpg,dev,A bird\na.jpg,train,Again\n'),
        ("data.tsv", "split\tfilepath\tText\ntrain\ta.jpg\tA dog, a cat\nval\tb.jpg\tA bird\ntrain\ta.jpg\tAgain\n"),
        ("data.csv", "Image;Caption;Split\na.jpg;A dog, a cat;train\nb.jpg;A bird;validation\na.jpg;Again;train\n"),
        ("data.csv", 'split,img,caption_2,caption_1\ntrain,a.jpg,Again,"A dog, a cat"\nval,b.jpg,,A bird\n'),
        ("data.csv", 'split,img,captions\ntrain,a.jpg,"[""A dog, a cat"", ""Again""]"\nval,b.jpg,"[\'A bird\']"\n'),
    ],
)
def test_csv_columns_by_their_usual_names(tmp_path: Path, file: str, text: str) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / file).write_text(text, encoding="utf-8")
    name, found, problems = read_all(tmp_path)
    assert (name, problems) == ("csv", [])
    assert references(found) == {"a.jpg": ("A dog, a cat", "Again"), "b.jpg": ("A bird",)}
    assert [record.split for record in found] == ["train", "val"]


def test_csv_bad_rows(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    source = tmp_path / "data.csv"
    source.write_text(
        "caption,image,split\nfine,a.jpg,train\none, two,a.jpg,train\nshort\nother,a.jpg,test\n\nlast,b.jpg,,\n"
        "last,b.jpg,\n",
        "utf-8",
    )
    _, found, problems = read_all(source)
    # What stands behind the commas of line 3 is an image and a split: the rest is its caption.
    assert references(found) == {"a.jpg": ("fine", "one, two"), "b.jpg": ("last",)}
    assert [problem.where for problem in problems] == [f"data.csv, line {n}" for n in (4, 5, 7)]
    assert "expected 'caption,image,split', found no comma in 'short'" in problems[0].reason
    assert "in split test here and in train before" in problems[1].reason
    assert "expected 3 fields" in problems[2].reason


def test_csv_that_was_not_quoted(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    source = tmp_path / "data.csv"
    source.write_text("image,caption\na.jpg,A dog, a cat, and more\n", encoding="utf-8")
    assert references(read_all(source)[1]) == {"a.jpg": ("A dog, a cat, and more",)}


def test_csv_quote_that_is_never_closed(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    source = tmp_path / "data.csv"
    source.write_text('image,caption\na.jpg,"open\n' + "a.jpg,next\n" * 400, encoding="utf-8")
    _, found, problems = read_all(source)
    assert (references(found), problems) == ({"a.jpg": ('"open', *["next"] * 400)}, [])


def test_csv_files_for_each_split(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    for split, image in (("train", "a.jpg"), ("valid", "b.jpg"), ("test", "c.jpg")):
        (tmp_path / f"{split}.csv").write_text(f"image,caption\n{image},A dog\n", encoding="utf-8")
    name, found, _ = read_all(tmp_path)
    assert name == "csv"
    assert {Path(record.image).name: record.split for record in found} == {
        "a.jpg": "train",
        "b.jpg": "val",
        "c.jpg": "test",
    }


def test_several_tables_must_be_named(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("image,caption\na.jpg,A dog\n", encoding="utf-8")
    with pytest.raises(CaptuneError, match=r"several CSV or TSV files: one\.csv, two\.csv"):
        read_all(tmp_path)


@pytest.mark.parametrize("below", ["", "Images", "images", "photos", "some/thing"])
def test_images_are_found_near_the_captions(tmp_path: Path, below: str) -> None:
    photos(tmp_path / below, "a.jpg")
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,A dog\n", encoding="utf-8")
    assert read_all(tmp_path / "captions.txt")[1][0].image == tmp_path / below / "a.jpg"


def test_images_elsewhere(tmp_path: Path) -> None:
    photos(tmp_path / "far" / "away", "a.jpg", "b.jpg")
    home = tmp_path / "home" / "me"
    home.mkdir(parents=True)
    (home / "data.csv").write_text("image,caption\n/kaggle/input/x/a.jpg,A dog\nC:\\x\\b.jpg,A cat\n", encoding="utf-8")
    with pytest.raises(CaptuneError, match="None of the 2 images") as caught:
        read_all(home)
    assert "--images" in caught.value.hint
    found = read_all(home, images=tmp_path / "far")[1]
    assert [record.image for record in found] == [tmp_path / "far" / "away" / name for name in ("a.jpg", "b.jpg")]
    with pytest.raises(CaptuneError, match="no folder of images"):
        read_all(home, images=tmp_path / "nowhere")


def test_names_with_composed_signs(tmp_path: Path) -> None:
    photos(tmp_path, unicodedata.normalize("NFD", "Tür.jpg"))
    (tmp_path / "captions.txt").write_text("image,caption\nTür.jpg,A door\n", encoding="utf-8")
    assert read_all(tmp_path)[1][0].image.is_file()


def test_a_few_images_of_many_names(tmp_path: Path) -> None:
    photos(tmp_path / "Images", "777.jpg")
    rows = "".join(f"{number}.jpg,A dog\n" for number in range(3000))
    (tmp_path / "captions.txt").write_text("image,caption\n" + rows, encoding="utf-8")
    found = read_all(tmp_path)[1]
    assert [record.image for record in found if record.image.exists()] == [tmp_path / "Images" / "777.jpg"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        ("image,caption\na.jpg,x\n".encode("utf-16") + b"\x00\xd8", "begins as UTF-16 and is none"),
        (b"image,caption\na.jpg,fine\na.jpg,caf\xe9\n", "line 3: byte 0xe9 at offset 34 is not UTF-8"),
        (b"image,caption\n", "no caption that can be used"),
        (b"hello world\n", "No captions were recognised"),
    ],
)
def test_unreadable_files_say_why(tmp_path: Path, content: bytes, said: str) -> None:
    photos(tmp_path, "a.jpg")
    (tmp_path / "captions.txt").write_bytes(content)
    for source in (tmp_path / "captions.txt", tmp_path):
        with pytest.raises(CaptuneError, match=said) as caught:
            read_all(source)
        assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("data.csv", "bild,satz\nb.jpg,A cat\n", r"data\.csv, line 1: expected a header"),
        ("data.json", '{"images": [\n  {"id": 1,}\n]}', r"data\.json, line 2, column \d+: not valid JSON"),
        ("data.json", '{"annotations": []}', "expected a list 'images'"),
        ("data.jsonl", "a dog\n", r"data\.jsonl, line 1: expected a JSON object"),
        ("data.token", "nothing here\n", r"data\.token, line 1: expected 'name\.jpg#0"),
    ],
)
def test_the_name_promises_a_format(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(CaptuneError, match=said):
        list(read_source(tmp_path / name)[1])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="There is no file or folder"):
        find_format(tmp_path / "missing")
    with pytest.raises(CaptuneError, match="No captions were recognised") as caught:
        find_format(tmp_path)
    assert "image,caption" in caught.value.hint
    assert "karpathy" in caught.value.hint
    with pytest.raises(UsageError, match="There is no dataset format 'kagle'") as unknown:
        read_source(tmp_path, "kagle")
    assert "Did you mean 'kaggle'" in unknown.value.hint


def test_two_general_tables_cannot_be_ordered(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    (tmp_path / "data.csv").write_text("image,caption\na.jpg,A dog\n", encoding="utf-8")
    (tmp_path / "data.jsonl").write_text('{"image": "a.jpg", "caption": "A dog"}\n', encoding="utf-8")
    with pytest.raises(CaptuneError, match="fits several dataset formats"):
        find_format(tmp_path)
    assert find_format(tmp_path / "data.csv")[0] == "csv"


def test_kaggle_wins_over_the_token_file(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,A dog\n", encoding="utf-8")
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog\n", encoding="utf-8")
    name, why = find_format(tmp_path)
    assert name == "kaggle"
    assert "captions.txt" in why


@pytest.mark.parametrize("source", [".", "Flickr8k_text", "Flickr8k_text/Flickr8k.token.txt"])
def test_the_original_archive_with_its_other_texts(tmp_path: Path, source: str) -> None:
    photos(tmp_path / "Flicker8k_Dataset", "a.jpg")
    text = tmp_path / "Flickr8k_text"
    text.mkdir()
    (text / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog\n", encoding="utf-8")
    (text / "ExpertAnnotations.txt").write_text("a.jpg\tb.jpg#2\t1\t1\t1\n", encoding="utf-8")
    (text / "CrowdFlowerAnnotations.txt").write_text("a.jpg\tb.jpg#2\t0\t1\t3\n", encoding="utf-8")
    (text / "Flickr_8k.trainImages.txt").write_text("a.jpg\n", encoding="utf-8")
    name, found, problems = read_all(tmp_path / source)
    assert (name, references(found), problems) == ("flickr-token", {"a.jpg": ("A dog",)}, [])
    assert found[0].image.is_file()
