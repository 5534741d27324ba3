# The engine, its control plane and its load generator, without what training needs: docker build --tag tidegate .
#
# Runs as user 10001, with a root file system that nothing has to write to but /tmp (a tmpfs) and the folders of state.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tidegate
ENV PATH=/opt/tidegate/bin:$PATH
COPY deploy/requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY features features
COPY models models
COPY engine engine
COPY loadtest loadtest
RUN pip install --no-deps --no-build-isolation . && pip uninstall --yes pip \
    && find /opt/tidegate/lib -type d -name tests -prune -exec rm -r {} +

# Layers keep whole seconds. numba looks at the time of a source, to the nanosecond, before it takes what it compiled.
RUN find /opt/tidegate/lib -name '*.py' -exec touch --date=@1735689600 {} + \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/tidegate/lib

# Kernels for this processor and newer ones, compiled here and not at every start. For older ones:
# --build-arg NUMBA_CPU_NAME=x86-64 --build-arg NUMBA_CPU_FEATURES= and on arm64 the same with NUMBA_CPU_NAME=generic.
ARG NUMBA_CPU_NAME=x86-64-v3
ARG NUMBA_CPU_FEATURES=+avx2
RUN export NUMBA_CPU_NAME NUMBA_CPU_FEATURES NUMBA_CACHE_DIR=/opt/tidegate/kernels \
    && python -m loadtest generate --events 1000 --out /tmp/events.jsonl \
    && tidegate replay /tmp/events.jsonl --out /tmp/decisions.jsonl

FROM ${PYTHON}
RUN groupadd --gid 10001 tidegate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tidegate \
    && install -d -o tidegate -g tidegate /var/lib/tidegate
COPY --from=build /opt/tidegate /opt/tidegate
COPY --chmod=755 deploy/entrypoint deploy/healthy /usr/local/bin/
COPY deploy/tidegate.toml deploy/policy.toml deploy/load.toml /etc/tidegate/
ARG NUMBA_CPU_NAME=x86-64-v3
ARG NUMBA_CPU_FEATURES=+avx2
ENV PATH=/opt/tidegate/bin:$PATH \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/kernels \
    NUMBA_CPU_NAME=${NUMBA_CPU_NAME} \
    NUMBA_CPU_FEATURES=${NUMBA_CPU_FEATURES} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TIDEGATE_CONFIG=/etc/tidegate/tidegate.toml
USER 10001:10001
WORKDIR /var/lib/tidegate
VOLUME /var/lib/tidegate
EXPOSE 9464
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["healthy"]
ENTRYPOINT ["entrypoint"]
CMD ["tidegate", "run"]
