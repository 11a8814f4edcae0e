"""Captions by a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, LM Studio, Ollama, hosted ones."""

from captune.inference.endpoint.model import EndpointModel as EndpointModel
