# One wheel of the whole tree in one image; what a container runs is said in compose.yaml.
# Compilers, headers and the tree stay behind in the first stage.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends clang gcc libbpf-dev libc6-dev libssl-dev pkgconf \
 && rm -rf /var/lib/apt/lists/*
RUN mkdir /wheel && python -m venv /opt/build && python -m venv --without-pip /opt/tickpath
WORKDIR /src
# What the code needs before the code: a change of the code fetches nothing again.
COPY pyproject.toml ./
COPY tools/dependencies tools/
RUN python tools/dependencies build >build.txt && python tools/dependencies run >run.txt \
 && /opt/build/bin/pip install --no-cache-dir --retries 5 -r build.txt \
 && /opt/build/bin/pip --python /opt/tickpath/bin/python install --no-cache-dir --retries 5 -r run.txt
COPY . .
# The builder is called as it is: pip would compile everything twice, the first time for the metadata.
RUN --mount=type=cache,target=/compiled PATH="/opt/build/bin:$PATH" \
    python -c "import mesonpy; mesonpy.build_wheel('/wheel', {'build-dir': '/compiled'})" \
 && /opt/build/bin/pip --python /opt/tickpath/bin/python install --no-deps --no-index /wheel/*.whl

FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libbpf1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/tickpath /opt/tickpath
COPY tools/compose /opt/tickpath/compose
ENV PATH=/opt/tickpath/compose:/opt/tickpath/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# Overridden in compose.yaml, by the operator's own numbers or for what needs a capability.
USER 10001:10001
ENTRYPOINT []
CMD ["tickpath", "--help"]
