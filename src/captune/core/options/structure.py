"""Options of captions that have fields."""

import warnings

from captune.core.options.option import Options, option

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # pydantic had a method of this name in its first version

    class StructureOptions(Options, section="structure", panel="Structured captions"):
        """What a caption has besides its text."""

        schema: str | None = option(  # type: ignore[assignment]
            None,
            "JSON Schema (a file, or the JSON itself) that captions of a model that answers prompts have to fit; its "
            "properties become fields of the rows.",
        )
        schema_retries: int = option(
            2, "How often an image is tried again whose answer does not fit the --schema.", ge=0, le=20, needs="schema"
        )
