# The server with its weights and voices, on the CPU:
#   docker build -t stepflow-tts . && docker run --rm -p 127.0.0.1:8000:8000 stepflow-tts serve --host 0.0.0.0 --no-auth
FROM python:3.12-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# PyTorch's own index has the build for CPUs; the one on PyPI brings CUDA. Both come from one release.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu \
      torch==2.11.0 torchaudio==2.11.0
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[av,serve,wyoming]"
# Nobody in the container can write, but for /voices, which uploads may be kept in, and /tmp.
RUN useradd --no-log-init --uid 10001 --home-dir /tmp --shell /usr/sbin/nologin speaker \
 && install --directory --owner 10001 --mode 700 /voices
USER 10001
WORKDIR /tmp
ENV PYTHONUNBUFFERED=1
EXPOSE 8000 10200
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["stepflow-tts"]
# Beyond this machine, a server without tokens does not start: see docs/deploy.md.
CMD ["serve", "--host", "0.0.0.0"]
