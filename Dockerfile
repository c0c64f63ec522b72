# One wheel of the whole tree in one image; what a container runs is said in compose.yaml.
# Compilers, headers and the tree stay behind in the first stage.
FROM python:3.11-slim-bookworm AS tools
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

FROM tools AS build
COPY . .
# The builder is called as it is: pip would compile everything twice, the first time for the metadata.
RUN --mount=type=cache,target=/compiled PATH="/opt/build/bin:$PATH" \
    python -c "import mesonpy; mesonpy.build_wheel('/wheel', {'build-dir': '/compiled'})" \
 && /opt/build/bin/pip --python /opt/tickpath/bin/python install --no-deps --no-index /wheel/*.whl

# The DPDK part alone, for the image that has DPDK: nobody else waits for it.
FROM tools AS build-dpdk
RUN apt-get update && apt-get install -y --no-install-recommends libdpdk-dev && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/compiled-dpdk export PATH="/opt/build/bin:$PATH" again=; \
    [ ! -e /compiled-dpdk/build.ninja ] || again=--reconfigure; \
    meson setup $again /compiled-dpdk \
 && ninja -C /compiled-dpdk dpdk_capture/_dpdk.cpython-311-x86_64-linux-gnu.so \
 && mkdir /dpdk && cp /compiled-dpdk/dpdk_capture/_dpdk.*.so /dpdk/

FROM python:3.11-slim-bookworm AS runtime
RUN apt-get update && apt-get install -y --no-install-recommends libbpf1 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ENV PATH=/opt/tickpath/compose:/opt/tickpath/bin:$PATH PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT []
CMD ["tickpath", "--help"]

# For compose.dpdk.yaml: DPDK at run time with the drivers of NICs that are bound to vfio-pci, and a virtual one. Those of
# mlx4 and mlx5, which want what is around RDMA too, leave the NIC to the kernel and its wire probe.
FROM runtime AS tickpath-dpdk
RUN apt-get update && apt-get install -y --no-install-recommends \
      librte-bus-pci23 librte-bus-vdev23 librte-mempool-ring23 librte-net-af-packet23 \
      librte-net-atlantic23 librte-net-bnxt23 librte-net-e1000-23 librte-net-ena23 librte-net-enic23 librte-net-gve23 \
      librte-net-i40e23 librte-net-iavf23 librte-net-ice23 librte-net-igc23 librte-net-ixgbe23 librte-net-sfc23 \
      librte-net-virtio23 librte-net-vmxnet3-23 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=build /opt/tickpath /opt/tickpath
COPY --from=build-dpdk /dpdk/ /opt/tickpath/lib/python3.11/site-packages/tickpath/dpdk_capture/
COPY tools/compose /opt/tickpath/compose
USER 10001:10001

# The last one is what a build makes that names none.
FROM runtime AS tickpath
COPY --from=build /opt/tickpath /opt/tickpath
COPY tools/compose /opt/tickpath/compose
# Overridden in compose.yaml, by the operator's own numbers or for what needs a capability.
USER 10001:10001
