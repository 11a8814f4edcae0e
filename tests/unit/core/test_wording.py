from captune.core.wording import command_line, counted, listed


def test_one_is_no_plural() -> None:
    assert [counted(number, "image") for number in (0, 1, 2, 1234)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,234 images",
    ]
    assert [listed(["a", "b", "c"][:number]) for number in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_a_command_can_be_typed() -> None:
    assert command_line("library", "add", "Anna's [best]") == """captune library add 'Anna'"'"'s [best]'"""
