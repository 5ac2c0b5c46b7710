# docker build -t onnx-sipp . && docker run --rm -v "$PWD:/models" onnx-sipp in.onnx out.onnx --calib samples.npz
FROM python:3.12-slim

COPY pyproject.toml README.md LICENSE /src/
COPY onnx_sipp /src/onnx_sipp
RUN pip install --no-cache-dir /src && rm -r /src && mkdir -m 1777 /numba

# Whoever runs it (docker run --user) may compile what numba compiles at the first run.
ENV NUMBA_CACHE_DIR=/numba
WORKDIR /models
ENTRYPOINT ["onnx-sipp"]
CMD ["--help"]
