# Three images from one file:
#   runtime     aggregator, bridge, an edge that only runs inference, the simulated line (default of compose.yaml)
#   edge-train  the same with torch: an edge that trains, `headgate model new`
#   tools       certificates and passwords for a try
#
#   docker build --target runtime -t headgate .
#   docker build --target edge-train --build-arg PIP_ARGS='--extra-index-url ADDRESS' -t headgate:train .
# PIP_ARGS: where pip must be told an index for the CPU build of torch, as in the Makefile.

FROM python:3.11-slim AS build
WORKDIR /src
RUN pip install --no-cache-dir 'setuptools>=77' wheel
COPY . .
# The wheel goes into the images, and the sources stay here.
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
LABEL org.opencontainers.image.title="Headgate" \
      org.opencontainers.image.description="Federated learning for factories over MQTT brokers that they already run" \
      org.opencontainers.image.licenses="Apache-2.0"
# A fixed id, so that volumes keep their owner from image to image. Fresh volumes take over the folders' owner.
RUN groupadd --gid 10001 headgate \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/headgate --shell /usr/sbin/nologin headgate \
 && install -d -o headgate -g headgate -m 0750 /var/lib/headgate /var/lib/headgate-model
COPY constraints.txt /tmp/constraints.txt

FROM base AS runtime
ARG PIP_ARGS=
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir $PIP_ARGS --constraint /tmp/constraints.txt /wheels/headgate-*.whl
USER 10001:10001
WORKDIR /var/lib/headgate
STOPSIGNAL SIGTERM
ENTRYPOINT ["headgate"]
CMD ["--help"]

FROM base AS edge-train
ARG PIP_ARGS=
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir $PIP_ARGS --constraint /tmp/constraints.txt "$(echo /wheels/headgate-*.whl)[train]"
USER 10001:10001
WORKDIR /var/lib/headgate
STOPSIGNAL SIGTERM
ENTRYPOINT ["headgate"]
CMD ["--help"]

FROM base AS tools
RUN apt-get update \
 && apt-get install -y --no-install-recommends mosquitto openssl \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o headgate -g headgate -m 0750 /secrets
COPY --chmod=0755 deploy/make-certificates /usr/local/bin/make-certificates
COPY deploy/hivemq /usr/local/share/headgate/hivemq
USER 10001:10001
ENTRYPOINT ["make-certificates"]
