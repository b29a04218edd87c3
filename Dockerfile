# syntax=docker/dockerfile:1
# The images of Valence, one for each deployment; the last four stages are the targets:
#   docker build --target auth|inference|batch-worker|migrate -t valence-TARGET:TAG .
#
# BASE is CPython 3.11 on Debian. Pin it by digest for reproducible builds:
# --build-arg BASE=python:3.11-slim-bookworm@sha256:…

ARG BASE=python:3.11-slim-bookworm

# ---- builder: uv and the lock --------------------------------------------------------------------
FROM ${BASE} AS builder
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements.lock ./
# The lock contains uv and the dependencies of the members with their hashes, but not the members.
RUN awk '/^[^ ]/ {mine = /^uv==/} mine' requirements.lock >uv.txt && \
    pip install --quiet --no-cache-dir --require-hashes --requirement uv.txt && \
    printf 'valence-common\nvalence-ml\n' >members.txt

# ---- dependencies of each service; every file is checked against its hash in the lock ------------
# Byte code is validated by neither time nor hash: layers are reproducible and starts are fast.
FROM builder AS common-dependencies
COPY services/common/pyproject.toml common/
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --quiet /opt/valence && VIRTUAL_ENV=/opt/valence uv pip install --quiet \
      --require-hashes --constraints requirements.lock -r common/pyproject.toml && \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/valence/lib

FROM builder AS auth-dependencies
COPY services/common/pyproject.toml common/
COPY services/auth/pyproject.toml auth/
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --quiet /opt/valence && VIRTUAL_ENV=/opt/valence uv pip install --quiet \
      --require-hashes --constraints requirements.lock --excludes members.txt \
      -r common/pyproject.toml -r auth/pyproject.toml && \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/valence/lib

FROM builder AS inference-dependencies
# The default model is of the linear kind. Models of the joblib kind need scikit-learn:
# --build-arg ML_EXTRA=train
ARG ML_EXTRA=
COPY services/common/pyproject.toml common/
COPY services/inference/pyproject.toml inference/
COPY ml/pyproject.toml ml/
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --quiet /opt/valence && VIRTUAL_ENV=/opt/valence uv pip install --quiet \
      --require-hashes --constraints requirements.lock --excludes members.txt \
      -r common/pyproject.toml -r inference/pyproject.toml -r ml/pyproject.toml \
      ${ML_EXTRA:+--extra ${ML_EXTRA}} && \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/valence/lib

FROM builder AS batch-worker-dependencies
ARG ML_EXTRA=
COPY services/common/pyproject.toml common/
COPY services/batch-worker/pyproject.toml batch-worker/
COPY ml/pyproject.toml ml/
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --quiet /opt/valence && VIRTUAL_ENV=/opt/valence uv pip install --quiet \
      --require-hashes --constraints requirements.lock --excludes members.txt \
      -r common/pyproject.toml -r batch-worker/pyproject.toml -r ml/pyproject.toml \
      ${ML_EXTRA:+--extra ${ML_EXTRA}} && \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/valence/lib

# ---- code: each member without its dependencies --------------------------------------------------
FROM builder AS code
COPY services services
COPY ml ml
# The lock contains the build backend as well.
RUN --mount=type=cache,target=/root/.cache/uv \
    for member in services/common services/auth services/inference services/batch-worker ml; do \
      uv pip install --quiet --no-deps --require-build-hashes --build-constraints requirements.lock \
        --target "/code/${member##*/}" "./${member}" || exit; \
    done && \
    python -m compileall -q --invalidation-mode unchecked-hash \
      -s /code -p /opt/valence /code

# ---- runtime: no pip, no uv, no compiler, no shell wrapper, an unprivileged user -----------------
FROM ${BASE} AS runtime
RUN pip uninstall --yes --quiet --root-user-action ignore setuptools wheel pip && \
    groupadd --gid 10001 valence && \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir / --shell /usr/sbin/nologin valence
# Use Debian's time zones, wherever this Python was built to look for them.
ENV PATH=/opt/valence/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONTZPATH=/usr/share/zoneinfo \
    PYTHONUNBUFFERED=1
ARG VERSION=0.1.0
LABEL org.opencontainers.image.vendor="Valence" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
WORKDIR /srv/valence
USER 10001:10001

# ---- the deployments -----------------------------------------------------------------------------
# The commit comes last in each stage, so that a new commit rebuilds no layer.
FROM runtime AS migrate
LABEL org.opencontainers.image.title="valence-migrate" \
      org.opencontainers.image.description="Brings the schema up to date, or waits until it is"
COPY --from=common-dependencies /opt/valence /opt/valence
COPY --from=code /code/common /opt/valence/lib/python3.11/site-packages
COPY alembic alembic
CMD ["python", "-m", "valence_common.migrations", "upgrade"]
ARG REVISION=
LABEL org.opencontainers.image.revision="${REVISION}"

FROM runtime AS batch-worker
LABEL org.opencontainers.image.title="valence-batch-worker" \
      org.opencontainers.image.description="Claims chunks of batches, scores them, stores results"
COPY --from=batch-worker-dependencies /opt/valence /opt/valence
COPY --from=code /code/ml /opt/valence/lib/python3.11/site-packages
COPY --from=code /code/common /code/batch-worker /opt/valence/lib/python3.11/site-packages/
EXPOSE 9090
CMD ["python", "-m", "valence_batch_worker"]
ARG REVISION=
LABEL org.opencontainers.image.revision="${REVISION}"

FROM runtime AS inference
LABEL org.opencontainers.image.title="valence-inference" \
      org.opencontainers.image.description="Scores one text now, accepts batches, shows results"
COPY --from=inference-dependencies /opt/valence /opt/valence
COPY --from=code /code/ml /opt/valence/lib/python3.11/site-packages
COPY --from=code /code/common /code/inference /opt/valence/lib/python3.11/site-packages/
EXPOSE 8000 9090
CMD ["python", "-m", "valence_inference"]
ARG REVISION=
LABEL org.opencontainers.image.revision="${REVISION}"

FROM runtime AS auth
LABEL org.opencontainers.image.title="valence-auth" \
      org.opencontainers.image.description="Accounts, login and tokens"
COPY --from=auth-dependencies /opt/valence /opt/valence
COPY --from=code /code/common /code/auth /opt/valence/lib/python3.11/site-packages/
EXPOSE 8000 9090
CMD ["python", "-m", "valence_auth"]
ARG REVISION=
LABEL org.opencontainers.image.revision="${REVISION}"
