"""Which images of Markdown have no alternative text, and where it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from captune.pages.alternative import written
from captune.pages.markdown import MarkdownImages
from captune.pages.page import Page, PageImage
from captune.pages.patch import Edit, edited


def page(source: str) -> Page:
    return Page(Path("a.md"), "a.md", source.encode(), "utf-8")


def images(source: str) -> list[PageImage]:
    return MarkdownImages(page(source)).images


def with_texts(source: str, text: str = "A dog") -> str:
    slots = [image.slot for image in images(source) if image.slot and not image.functional]
    return edited(source.encode(), [Edit(s.start, s.end, written(text, s, page(source))) for s in slots]).decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("![](a.png)", "![A dog](a.png)"),
        ('![ ](<a b.png> "T")', '![A dog](<a b.png> "T")'),
        ("x ![](a(1).png){ width=3 } ![](b.png 'T')", "x ![A dog](a(1).png){ width=3 } ![A dog](b.png 'T')"),
        ("![](<img/a b.png>)", "![A dog](<img/a b.png>)"),
        ("![][x]\n\n[x]: <img/a b.png>", "![A dog][x]\n\n[x]: <img/a b.png>"),
        ("![][one]\n\n[One]: a.png", "![A dog][one]\n\n[One]: a.png"),
        ("| a |\n|---|\n| ![](a.png) |", "| a |\n|---|\n| ![A dog](a.png) |"),
        ("- item\n\n    ![](a.png)", "- item\n\n    ![A dog](a.png)"),
        ("!!! note\n\n    ![](a.png)", "!!! note\n\n    ![A dog](a.png)"),
        ("![image](a.png)", "![A dog](a.png)"),
        ("![IMG\\_1234](a.png)", "![A dog](a.png)"),
        ('<p align="center"><img src="a.png"></p>', '<p align="center"><img src="a.png" alt="A dog"></p>'),
        ('{{< figure src="a.png" title="T" >}}', '{{< figure src="a.png" alt="A dog" title="T" >}}'),
        ("{{% figure\n  src=`a.png` %}}", '{{% figure\n  src=`a.png` alt="A dog" %}}'),
        ("![]({{ site.baseurl }}/a b.png)", "![A dog]({{ site.baseurl }}/a b.png)"),
        ("[text ![](a.png)](x)", "[text ![A dog](a.png)](x)"),
        ("\\`![](a.png)\\`", "\\`![A dog](a.png)\\`"),
        ("```\n![](a.png)\n```\n![](b.png)", "```\n![](a.png)\n```\n![A dog](b.png)"),
        ("---\ntitle: x\n---\n![](a.png)", "---\ntitle: x\n---\n![A dog](a.png)"),
    ],
)
def test_where_a_text_goes(before: str, after: str) -> None:
    assert with_texts(before) == after
    assert with_texts(after) == after


@pytest.mark.parametrize(
    "source",
    [
        "`![](a.png)`",
        "``a ` ![](a.png)``",
        "```md\n![](a.png)\n```",
        "- ~~~\n  ![](a.png)\n  ~~~",
        "> ```\n> ![](a.png)\n> ```",
        "Text:\n\n    ![](a.png)\n\n    ![](b.png)",
        "<!-- ![](a.png)\n\n![](b.png) -->",
        "<pre>\n![](a.png)\n</pre>",
        "{% highlight md %}![](a.png){% endhighlight %}",
        "{{< highlight md >}}![](a.png){{< /highlight >}}",
        "\\![](a.png",
        "![][nowhere]",
        "[](a.png) and ![x",
    ],
)
def test_what_is_no_image(source: str) -> None:
    assert images(source) == []


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("![A cat](a.png)", "described"),
        ("![A [big] cat](a.png)", "described"),
        ("![{{ text }}](a.png)", "described"),
        ('![](a.png){ alt="A cat" }', "described"),
        ('{{< figure src="a.png" caption="A cat" >}}', "described"),
        ("![](a.png){: role=presentation }", "decorative"),
        ('![](a.png){ aria-hidden="true" }', "decorative"),
        ('{{< figure src="a.png" alt="" >}}', "decorative"),
        ("![photo]\n\n[photo]: a.png", "suspicious"),
        ("---\nimage: a/b.jpg\n---", "listed"),
        ('+++\nimages = ["a.png"]\n+++', "listed"),
    ],
)
def test_what_is_left_alone(source: str, state: str) -> None:
    (image,) = images(source)
    assert (image.state, image.slot) == (state, None)


@pytest.mark.parametrize(
    "source",
    [
        "[![](a.png)](x)",
        "[ ![](a.png) ](x 'T')",
        "[![](a.png)][id]\n\n[id]: x",
        "[<img src='a.png'>](x)",
        "<a href='x'>![](a.png)</a>",
        "<a href='x'>\n<img src='a.png'>\n</a>",
        '{{< figure src="a.png" link="x" >}}',
    ],
)
def test_images_that_are_all_a_link_holds(source: str) -> None:
    (image,) = images(source)
    assert image.functional
    assert image.context.link == "x"


def test_code_beside_an_image_names_the_link() -> None:
    (image,) = images("[`code` ![](a.png)](x)")
    assert not image.functional


def test_the_context_of_an_image() -> None:
    source = """---
title: "Dogs & cats"
lang: en
---
Intro.

## The *big* [dogs](x) {#big}

They run. ![](a.png) And `jump`.

Other | Table
----- | -----
"""
    (image,) = images(source)
    context = image.context
    assert (context.title, context.heading, context.language) == ("Dogs & cats", "The big dogs", "en")
    assert context.nearby == "They run. And jump."


def test_offsets_hold_behind_letters_of_several_bytes() -> None:
    source = "\ufeffÄÖ 日本 ![](ä.png) `é` ![](ö.png)\r\n"
    assert with_texts(source, "Ein Hünd") == "\ufeffÄÖ 日本 ![Ein Hünd](ä.png) `é` ![Ein Hünd](ö.png)\r\n"


LONG = 50_000


@pytest.mark.parametrize(
    "line", ["A", " ", ">", "# ", "`", "[", "![", "<", "{{", "{", "- ", "| ", "![](", "<a b='", "[a]", "*"]
)
def test_very_long_lines_take_no_time_that_anybody_would_notice(line: str) -> None:
    source = f"```\n{' ' * LONG}\n```\n\nx{line * (LONG // len(line))}\n\n![](a.png)\n"
    assert [image.addresses for image in images(source)][-1:] == [("a.png",)]
