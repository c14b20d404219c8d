# The two commands of README in a clean Debian, from the root of a clone:
#   docker build -t progrpo .            a package index of your own: --build-arg PIP_INDEX_URL=...
#   docker run --rm progrpo              make reproduce && make test
#   docker run --rm -it progrpo bash     look around; `progrpo doctor` says what can be run
# This recipe has not been run by its authors: no Docker was at hand. What it installs is what CONTRIBUTING.md and `.ci/run` name.
FROM python:3.11-slim-bookworm

# make, git (DVC needs a checkout, and the tests copy it as git sees it)
RUN apt-get update \
 && apt-get install -y --no-install-recommends make git \
 && rm -rf /var/lib/apt/lists/*

# Not root, who may write everywhere, which some tests count on being refused
RUN useradd --create-home reader
USER reader
WORKDIR /home/reader/progrpo
COPY --chown=reader . .

ARG PIP_INDEX_URL
RUN make install
ENV PATH=/home/reader/progrpo/.venv/bin:$PATH

CMD ["bash", "-c", "make reproduce && make test"]
