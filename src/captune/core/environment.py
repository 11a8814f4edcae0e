"""Every environment variable that captune, or what it stands on, reads: the docs' table, and a law's."""

from collections.abc import MutableMapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """A variable that sets no option of its own name; `read_by` are verbs, or a word for all of them."""

    name: str
    read_by: str
    meaning: str


OWN = "CAPTUNE_"
# Read by compose.yaml, not by captune.
OF_COMPOSE = ("CAPTUNE_BIND", "CAPTUNE_CPUS", "CAPTUNE_MODELS_DIR", "CAPTUNE_PORT", "CAPTUNE_RAM")
ALL = "every verb"
HUB = "every verb that reaches the Hugging Face Hub"
VARIABLES = (
    Variable("CAPTUNE_MODEL", "caption, video, webcam, inspect, serve, app", "`--model` where none is given."),
    Variable(
        "DATA_DIR", "train, tune, evaluate, capfilt", "`--data` where none is given: a folder of captune prepare."
    ),
    Variable("HF_TOKEN", HUB, "Token for private models and for pushing; never a flag. `hf auth login` works too."),
    Variable("HUGGINGFACE_TOKEN", HUB, "The same, if HF_TOKEN is not set."),
    Variable("HF_REPO_NAME", "push, train, tune", "Default repository of push, and for `--push-to auto`."),
    Variable("HUGGING_FACE_HUB_TOKEN", HUB, "An older name of HF_TOKEN."),
    Variable("HF_HOME", HUB, "Folder of downloads; default: ~/.cache/huggingface."),
    Variable("HF_ENDPOINT", HUB, "URL of another Hub, such as a mirror."),
    Variable("HF_HUB_OFFLINE", HUB, "1: never use the network for models."),
    Variable("TRANSFORMERS_OFFLINE", HUB, "The same."),
    Variable("KAGGLE_API_TOKEN", "prepare", "Token of kaggle.com/settings, for flickr8k and flickr30k."),
    Variable("KAGGLE_USERNAME", "prepare", "With KAGGLE_KEY, an older way to log in; or ~/.kaggle/kaggle.json."),
    Variable("KAGGLE_KEY", "prepare", "With KAGGLE_USERNAME."),
    Variable("KAGGLEHUB_CACHE", "prepare", "Folder of Kaggle's downloads; default: ~/.cache/kagglehub."),
    Variable("WANDB_API_KEY", "train, tune, doctor", "Login of Weights & Biases; `wandb login` works too."),
    Variable("WANDB_PROJECT", "train, tune", "Project of the run at Weights & Biases; default: captune."),
    Variable(
        "WANDB_RUN_NAME",
        "train, tune",
        "Name of the run there; names of trials begin with it; default: the folder's name.",
    ),
    Variable("WANDB_MODE", "train, tune, doctor", "online, offline or disabled; default: online if there is a login."),
    Variable("WANDB_BASE_URL", "train, tune, doctor", "URL of your own server."),
    Variable("WANDB_DATA_DIR", "train, tune", "Where Weights & Biases stages artifacts; offline it is the run folder."),
    Variable("MLFLOW_TRACKING_URI", "train, tune, doctor", "Where MLflow writes; default: the run folder."),
    Variable("MLFLOW_EXPERIMENT_NAME", "train, tune", "Experiment of MLflow; default: captune."),
    Variable("MLFLOW_ALLOW_FILE_STORE", "train, tune", "false: MLflow refuses to write into a folder."),
    Variable("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "train, tune", "How often MLflow retries a request; default: 2."),
    Variable("MLFLOW_HTTP_REQUEST_TIMEOUT", "train, tune", "Seconds that MLflow waits for a server; default: 20."),
    Variable("CAPTUNE_API_KEYS", "serve", "NAME=KEY,NAME=KEY: the keys that clients need."),
    Variable("CAPTUNE_CACHE", ALL, "Folder for data that captune downloads itself; default: ~/.cache/captune."),
    Variable("XDG_CACHE_HOME", ALL, "Folder of caches, if CAPTUNE_CACHE is not set."),
    Variable("HTTP_PROXY", "whatever uses the network", "Proxy for http addresses; HTTPS_PROXY, NO_PROXY likewise."),
    Variable("HTTPS_PROXY", "whatever uses the network", "Proxy for https addresses: http://user:password@host:port."),
    Variable("NO_PROXY", "whatever uses the network", "Hosts that need no proxy, separated by commas."),
    Variable("SSL_CERT_FILE", "whatever uses the network", "Certificates to trust, for a proxy that decrypts TLS."),
    Variable("REQUESTS_CA_BUNDLE", "whatever uses the network", "The same, for Kaggle and trackers."),
    Variable(
        "AWS_ACCESS_KEY_ID", "caption (s3://…)", "Login of S3, with AWS_SECRET_ACCESS_KEY; as AWS's tools read it."
    ),
    Variable("AWS_SECRET_ACCESS_KEY", "caption (s3://…)", "With AWS_ACCESS_KEY_ID."),
    Variable("OPENAI_API_KEY", "whatever captions", "Key of the server of `--model openai:…`; never a flag."),
    Variable("CUDA_VISIBLE_DEVICES", ALL, "Numbers of the cards that may be used."),
    Variable("OMP_NUM_THREADS", ALL, "Threads of numerical libraries; `--threads` sets the model's."),
    Variable("WORLD_SIZE", "train, evaluate", "Number of processes; set by torchrun and accelerate launch."),
    Variable("RANK", "train, evaluate", "This process's number; set by the launcher."),
    Variable("LOCAL_RANK", "train, evaluate", "Its number on this machine, and its card; set by the launcher."),
    Variable("ACCELERATE_USE_FSDP", "train", "Set by accelerate launch: means `--shard`."),
    Variable("ACCELERATE_USE_DEEPSPEED", "train", "Set by accelerate launch; refused."),
    Variable("RAY_USAGE_STATS_ENABLED", "caption (--engine ray)", "1: Ray reports its use; captune sets 0."),
    Variable("MLFLOW_DISABLE_TELEMETRY", "train, tune", "false: MLflow reports its use; captune sets true."),
    Variable("WANDB_ERROR_REPORTING", "train, tune", "true: wandb reports its errors; captune sets false."),
    Variable("NO_COLOR", ALL, "No colours on the terminal."),
    Variable("CAPTUNE_TRACEBACK", ALL, "1: a Python traceback for unexpected errors."),
    Variable("PYTHONPATH", "caption", "Passed to the processes that open images."),
    Variable("CAPTUNE_APP", "app", "What captune app hands to its page; not for you to set."),
)

# Libraries tell their makers how they are used, unless these say otherwise.
UNREPORTED = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}


def report_nothing(environment: MutableMapping[str, str]) -> None:
    """Let no library tell its maker how it is used, unless the environment asks for it."""
    for name, value in UNREPORTED.items():
        environment.setdefault(name, value)


def heed_hub_token(environment: MutableMapping[str, str]) -> None:
    """Let the Hub's client find a token that stands under the name HUGGINGFACE_TOKEN alone."""
    token = environment.get("HUGGINGFACE_TOKEN", "").strip()
    if token and not (environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN")):
        environment["HF_TOKEN"] = token
