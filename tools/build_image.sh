#!/usr/bin/env bash
# Build an image, run its greeting and both sampling scripts, and print its size. For the GPU image,
# also check that the loader finds CUDA's libraries.
#
#   tools/build_image.sh Dockerfile.cpu [options of the build, such as --build-arg MODEL=117M]
#
# ENGINE is docker, podman or buildah. The default is the first of these that is installed.
#
# In a container, where no engine runs and no image can be pulled, root can build with buildah:
#
#   debootstrap --variant=minbase --include=python3-pip,ca-certificates trixie base
#   rm base/usr/lib/python3*/EXTERNALLY-MANAGED
#   container=$(buildah from scratch)
#   buildah add "$container" base / && buildah commit "$container" base
#   BUILDAH_ISOLATION=chroot ENGINE=buildah tools/build_image.sh Dockerfile.cpu \
#     --build-arg BASE_IMAGE=base --network host
set -euo pipefail
cd "$(dirname "$0")/.."

file=${1:-}
if [ ! -f "$file" ]; then
  echo "usage: tools/build_image.sh Dockerfile.cpu|Dockerfile.gpu [options of the build]" >&2
  exit 2
fi
shift
engine=${ENGINE:-$(command -v docker || command -v podman || command -v buildah)} ||
  { echo "tools/build_image.sh: install docker, podman or buildah" >&2; exit 2; }
engine=${engine##*/}
image=gpt-2:${file##*.}

inside() {
  if [ "$engine" = buildah ]; then
    buildah run "$container" -- "$@"
  else
    "$engine" run --rm --interactive "$image" "$@"
  fi
}

"$engine" build --file "$file" --tag "$image" "$@" .
if [ "$engine" = buildah ]; then
  container=$(buildah from "$image")
  trap 'buildah rm "$container" >/dev/null' EXIT
  inside cat tools/docker_greeting.txt
else
  inside  # the image's own command
fi

inside sh -c 'test "$(id -u)" != 0 && touch models/x checkpoint/x && rm models/x checkpoint/x' ||
  { echo "the user in $image is root, or cannot write" >&2; exit 1; }
inside python3 src/generate_unconditional_samples.py --nsamples 1 --length 60
echo "To be, or not to be" | inside python3 src/interactive_conditional_samples.py --length 60

if [ "${file##*.}" = gpu ]; then
  # The libraries that TensorFlow 2.21 opens by name, and those that these need.
  listed=$(inside /sbin/ldconfig -p)
  for library in cudart.so.12 cublas.so.12 cublasLt.so.12 cufft.so.11 cusolver.so.11 \
    cusparse.so.12 cudnn.so.9 cupti.so.12 nccl.so.2 nvJitLink.so.12 nvrtc.so.12; do
    grep -F "lib$library " <<<"$listed" || { echo "the loader lacks lib$library" >&2; exit 1; }
  done
fi
echo "size of $image: $("$engine" images --format '{{.Size}}' "$image")"
