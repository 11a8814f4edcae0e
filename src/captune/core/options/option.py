"""What an option is: a field with its help, in a group that refuses unknown keys."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from captune.core.aliases import with_new_names

# ISO 639, with a script or a country where a model tells them apart: de, zh, zh_Hant, pt_br.
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}([_-][A-Za-z]{2,4})?$")]


def option(default: Any, help: str, *, env: str | None = None, needs: str | None = None, **checks: Any) -> Any:
    """A field with its help and, where another tool's users expect one, an environment variable.

    `needs` is the option of its group without which it does nothing.
    """
    extra: Any = {name: value for name, value in (("env", env), ("needs", needs)) if value}
    return Field(default, description=help, json_schema_extra=extra or None, **checks)


class Options(BaseModel):
    """A frozen group of options; an unknown key is an error.

    `section` is its name in a configuration file, `panel` its heading in the help and the docs.
    """

    section: ClassVar[str] = ""
    panel: ClassVar[str] = ""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def __init_subclass__(cls, section: str = "", panel: str = "", **settings: Any) -> None:
        super().__init_subclass__(**settings)
        cls.section, cls.panel = section or cls.section, panel or cls.panel

    @model_validator(mode="before")
    @classmethod
    def _take_former_names(cls, values: Any) -> Any:
        return with_new_names(values) if isinstance(values, dict) else values


class OutsideOptions(Options, section="tables", panel="Paths in tables and lists"):
    """Which files of this machine tables and lists may name."""

    allow_outside: bool = option(
        False, "Accept images that a table or a list names outside its folder (or --images). Only for tables you trust."
    )


class TableOptions(OutsideOptions):
    """The same where images are looked for from a folder."""

    images: str | None = option(
        None,
        "Folder in which tables and lists may name images; default: the folder of a table, the "
        "working folder for a list.",
    )
