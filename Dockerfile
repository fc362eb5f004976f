# The service in a container; docs/service.md tells how to run it.
#
#   docker build -t starry-night .                            CPU
#   docker build -t starry-night:cuda --build-arg TORCH=cu128 .   NVIDIA GPU
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY starrynight starrynight
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:${PYTHON}-slim-bookworm AS install
# cpu, or an index of download.pytorch.org such as cu128; its wheels bring CUDA's libraries with them
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1
COPY constraints.txt docker/install.sh /source/
COPY --from=wheel /wheel /wheel
RUN sh /source/install.sh /wheel/*.whl /opt/starry /source/constraints.txt "${TORCH}"

FROM python:${PYTHON}-slim-bookworm
# A volume takes the owner of the folder that it covers first.
RUN useradd --uid 10001 --no-create-home --home-dir /data starry \
  && install -d -o starry -g starry -m 700 /data /data/gallery /data/models
COPY --from=install /opt/starry /opt/starry
ENV PATH=/opt/starry/bin:$PATH STARRY_HOME=/data HOME=/data PYTHONDONTWRITEBYTECODE=1 \
  NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /data
VOLUME ["/data/gallery", "/data/models"]
EXPOSE 8470
# Needs no key, and starts no torch.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8470/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["starry", "serve", "--host", "0.0.0.0"]
