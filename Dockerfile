# One image for web, worker and beat: the command names which (docker-compose.yml).

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/sync-worker
COPY pyproject.toml README.md LICENSE ./
COPY sync_worker ./sync_worker
COPY webhooks ./webhooks
COPY simulators ./simulators
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/sync-worker/bin/pip install --no-cache-dir /wheels/*.whl

FROM python:3.13-slim
COPY --from=build /opt/sync-worker /opt/sync-worker
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/sync-worker sync-worker
WORKDIR /var/lib/sync-worker
USER 10001
ENV PATH=/opt/sync-worker/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    WEB_BIND=0.0.0.0:8000
EXPOSE 8000
# Every process ends in order on SIGTERM: it finishes what it holds or hands it back.
STOPSIGNAL SIGTERM
# Of the web process. Whoever runs worker or beat from this image sets another (docker-compose.yml).
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['WEB_BIND'].rpartition(':')[2] + '/healthz', timeout=4)"]
ENTRYPOINT ["sync-worker"]
CMD ["web"]
