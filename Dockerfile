# Build: docker build -t headgate .
FROM python:3.12-slim-bookworm AS build

WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/headgate \
 && /opt/headgate/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
RUN /opt/headgate/bin/pip install --no-cache-dir hatchling \
 && /opt/headgate/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/headgate/bin/pip uninstall --yes hatchling pathspec pluggy trove-classifiers

FROM python:3.12-slim-bookworm

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headgate \
 && install -d -o headgate -g headgate -m 0700 /data
COPY --from=build /opt/headgate /opt/headgate
ENV PATH=/opt/headgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEADGATE_HOST=0.0.0.0 \
    HEADGATE_PORT=4000 \
    HEADGATE_DATA_DIR=/data
USER 10001
VOLUME /data
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4000/healthz', timeout=2)"]
CMD ["headgate", "serve"]
