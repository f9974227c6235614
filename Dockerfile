# docker build -t reasonx .   ·   docker run --rm -v "$PWD:/work" reasonx reasonx-eval list models
FROM python:3.11-slim
# a C compiler for the kernels that score depth and normals; git for the commit in a result's provenance
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev git && rm -rf /var/lib/apt/lists/*
COPY . /opt/reasonx
# pip takes the torch build of the index that it is given: --build-arg TORCH_INDEX=... for a CPU or another CUDA
ARG TORCH_INDEX=
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir --index-url "$TORCH_INDEX" torch; fi \
    && pip install --no-cache-dir --constraint /opt/reasonx/constraints.txt /opt/reasonx
WORKDIR /work
CMD ["reasonx-eval", "--help"]
