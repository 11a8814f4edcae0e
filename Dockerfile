# captune as an image, for CPUs (`docker build .`), for NVIDIA cards (`--target cuda`), or small
# and without torch (`--target onnx`). How they are used: docs/containers.md.
#
#   PYTHON       tag of the base image; with its digest a build repeats for good:
#                --build-arg PYTHON=3.11-slim-trixie@sha256:...
#   EXTRAS       parts of captune in the image, such as torch,serve,app,video,lora,translate
#   TORCH_INDEX  where PyTorch's wheels come from besides PyPI; empty: from PyPI alone
#
# A registry of your own with a password: --secret id=pip,src=$HOME/.config/pip/pip.conf

ARG PYTHON=3.11-slim-trixie


FROM python:${PYTHON} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip wheel --no-deps --wheel-dir /wheel . \
 && python -m venv --without-pip /captune
COPY constraints.txt ./


FROM builder AS cpu-packages
ARG EXTRAS=torch,serve,app,video
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /captune install --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$(echo /wheel/*.whl)[$EXTRAS]"


# PyPI's torch for Linux brings CUDA with it: the host needs NVIDIA's driver and its container toolkit, the image
# nothing more. For older drivers: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
FROM builder AS cuda-packages
ARG EXTRAS=torch,serve,app,video
ARG TORCH_INDEX=
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /captune install --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$(echo /wheel/*.whl)[$EXTRAS]"


FROM builder AS onnx-packages
ARG EXTRAS=onnx,serve
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /captune install --constraint constraints.txt "$(echo /wheel/*.whl)[$EXTRAS]"


# What the three images share. /data is where relative paths lead, /cache holds downloaded models.
FROM python:${PYTHON} AS runtime
RUN useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /cache --shell /usr/sbin/nologin captune \
 && install --directory --owner=captune --group=captune --mode=1777 /cache /data \
 && install --directory /models
COPY deploy/health.py /captune-health.py
# A container with a limit on CPUs still sees all cores of its host: threads are a number here, to be raised with the
# limit. CAPTUNE_MODEL and CAPTUNE_HOST are what --model and --host are where they are not given.
ENV PATH=/captune/bin:$PATH \
    HOME=/cache \
    XDG_CACHE_HOME=/cache \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    OMP_NUM_THREADS=2 \
    CAPTUNE_HOST=0.0.0.0 \
    CAPTUNE_MODEL=/models/mine
WORKDIR /data
VOLUME ["/cache"]
EXPOSE 8000 8501
# The API or the page, whichever runs.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/captune-health.py", "http://127.0.0.1:8000/health/live", "http://127.0.0.1:8501/_stcore/health"]
# In exec form captune is process 1 and gets SIGTERM itself: what was accepted is answered before it ends.
ENTRYPOINT ["captune"]
CMD ["serve"]
LABEL org.opencontainers.image.title="captune" \
      org.opencontainers.image.description="Fine-tune, evaluate and serve image-captioning models." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/captune/captune"


FROM runtime AS onnx
COPY --from=onnx-packages /captune /captune
USER 10001:10001


FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-packages /captune /captune
USER 10001:10001


FROM runtime AS cpu
COPY --from=cpu-packages /captune /captune
USER 10001:10001
