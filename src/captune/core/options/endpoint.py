"""Options of models behind a server."""

from captune.core.options.option import Options, option


class EndpointOptions(Options, section="endpoint", panel="Model behind a server"):
    """How a model of an OpenAI-compatible server is asked, and how much that may cost."""

    base_url: str | None = option(
        None,
        "Address of the API for a model named without one (openai:MODEL), such as http://localhost:11434/v1; default: "
        "OpenAI's.",
        env="OPENAI_BASE_URL",
    )
    concurrency: int = option(8, "Requests to the server at a time.", ge=1, le=1024)
    request_timeout: float = option(120.0, "Seconds that a request may take.", gt=0)
    retries: int = option(5, "How often a request that failed is sent again.", ge=0, le=100)
    requests_per_minute: float = option(0.0, "Most requests a minute; 0: no limit.", ge=0)
    max_requests: int = option(0, "Stop before more requests than this, those sent again included; 0: no limit.", ge=0)
    max_tokens_total: int = option(
        0, "Stop before more tokens than this, of prompts, images and captions; 0: no limit.", ge=0
    )
    max_cost: float = option(
        0.0, "Stop before the tokens cost more than this, at the prices of --price-input and --price-output; 0: no "
        "limit.", ge=0,
    )  # fmt: skip
    price_input: float = option(0.0, "Price of a million tokens of prompts and images.", ge=0)
    price_output: float = option(0.0, "Price of a million tokens of captions.", ge=0)
    image_side: int = option(
        1024, "Images are sent as JPEG, upright, their longer side at most this many pixels.", ge=32, le=8192
    )
    api_key_file: str | None = option(
        None, "File with the server's key; default: the environment variable OPENAI_API_KEY."
    )
    sight_check: bool = option(
        True, "Before the first image, ask for the colours of four drawn ones: some servers lose images silently."
    )
