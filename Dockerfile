# chargewatch without engines: migrate, ingest, assess and serve. See compose.yaml.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/chargewatch
COPY pyproject.toml constraints.txt README.md CHANGELOG.md LICENSE ./
COPY src ./src
COPY migrations ./migrations
RUN /opt/chargewatch/bin/pip install -c constraints.txt .

FROM ${PYTHON_IMAGE}
# A user without rights, with a number that a Kubernetes policy can name.
RUN groupadd --gid 10001 chargewatch \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin chargewatch
COPY --from=build /opt/chargewatch /opt/chargewatch
ENV PATH=/opt/chargewatch/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CHARGEWATCH_HTTP_HOST=0.0.0.0 \
    CHARGEWATCH_LOG_FORMAT=json
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["chargewatch"]
CMD ["serve"]
