# ION on GPUs of NVIDIA, on a machine with Docker and the NVIDIA Container Toolkit:
#
#   docker build -t ion_d2 .
#   mkdir -p datasets output      # or Docker makes them, for root alone
#   docker run --rm -it --gpus all --shm-size 8g -v "$PWD/datasets:/home/ion/ion_d2/datasets" \
#       -v "$PWD/output:/home/ion/ion_d2/output" ion_d2
#
# The data workers hand pictures over in shared memory, of which Docker gives 64 MB without --shm-size.

# PyTorch, with the compiler of the CUDA version that it was built with: Detectron2 needs both.
FROM pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel

# git fetches Detectron2, g++ and ninja build it. The lists of packages are of no use afterwards.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git ninja-build \
    && rm -rf /var/lib/apt/lists/*

# Nothing below needs the rights of root. Files in mounted folders belong to the user of this number;
# `--build-arg USER_ID=$(id -u)` makes it yours.
ARG USER_ID=1000
RUN useradd --create-home --uid "$USER_ID" ion
USER ion

# An environment of that user's own, which sees the image's PyTorch and changes nothing of it.
RUN python -m venv --system-site-packages /home/ion/venv
ENV PATH=/home/ion/venv/bin:$PATH

# What builds Detectron2; it imports pkg_resources, which setuptools 82 no longer has.
RUN pip install --no-cache-dir 'setuptools<81' wheel

# Detectron2's main branch as of this commit. Its build looks for the PyTorch that is installed, so
# that pip must not isolate it. Images are built without a GPU: the operators for CUDA have to be asked
# for, and for which GPUs, here from T4 (7.5) and A100 (8.0) to H100 (9.0) and, as PTX, later ones.
ARG DETECTRON2=02b5c4e295e990042a714712c21dc79b731e8833
RUN FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="7.5;8.0;8.6;9.0+PTX" \
    pip install --no-cache-dir --no-build-isolation \
    "git+https://github.com/facebookresearch/detectron2.git@$DETECTRON2"

# The project, that is to say what .dockerignore lets in, where its programs are started.
WORKDIR /home/ion/ion_d2
COPY --chown=ion . .
RUN pip install --no-cache-dir -e '.[export,timm,web]'

# A shell, in which the README's `python` commands can be typed; `make` and the tests stay outside.
CMD ["bash"]
