#!/usr/bin/env bash
# The whole road of one CIFAR-10 experiment: preprocess, train, evaluate, visualise, test. Stops at the first failure.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: jobs/cifar_pipeline.sh [--help] [CONFIG [NAME=VALUE …]]

  preprocess  make dataset DATASET=cifar10 (the toy set where CONFIG or DATA=toy asks for it is made by training itself)
  train       make train PROJECT=cifar CONFIG=…
  evaluate    make eval SPLIT=val, the best checkpoint
  visualise   names every picture that the evaluation drew
  test        make eval SPLIT=test

CONFIG is an experiment in projects/cifar/configs (default: baseline). Further words go to make train as they are, for
example SET="n_iterations=2000" or DATA=toy. SOURCE=<folder or archive> goes to make dataset.
The exit code is that of the step that failed. From cron:

  0 3 * * *  /path/to/repository/jobs/cifar_pipeline.sh baseline >> /path/to/pipeline.log 2>&1
TEXT
}

case "${1:-}" in
    -h | --help) usage; exit 0 ;;
    -*) printf 'cifar_pipeline: unknown option %s; see --help\n' "$1" >&2; exit 2 ;;
esac

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
export PATH="${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/bin:/bin" # cron's own is short

config="${1:-baseline}"
[ $# -eq 0 ] || shift
tag="pipeline-$config-$(date -u +%Y%m%dT%H%M%S)-$$" # nothing else has it, so that RUN=$tag is this run
source_given=()
training=()
full=yes
if grep -qsE '^data:[[:space:]]*toy' "projects/cifar/configs/$config.yml"; then full=no; fi
for word in "$@"; do
    case "$word" in
        SOURCE=*) source_given=("$word") ;;
        TAG=*) printf 'cifar_pipeline: TAG is given by the job (%s), by which it finds its run again\n' "$tag" >&2; exit 2 ;;
        DATA=toy) full=no; training+=("$word") ;;
        DATA=full) full=yes; training+=("$word") ;;
        *=*) training+=("$word") ;;
        *) printf 'cifar_pipeline: %s: expected NAME=VALUE; see --help\n' "$word" >&2; exit 2 ;;
    esac
done

step() { printf '\n%s  %s\n' "$(date -u +%H:%M:%S)" "$*"; }

step "1/5 preprocess"
if [ "$full" = yes ]; then
    make dataset DATASET=cifar10 ${source_given[@]+"${source_given[@]}"} < /dev/null
else
    echo "toy data: made by the training if it is missing"
fi

step "2/5 train  CONFIG=$config TAG=$tag"
make train PROJECT=cifar "CONFIG=$config" "TAG=$tag" ${training[@]+"${training[@]}"} < /dev/null

step "3/5 evaluate on val"
said="$(make eval "RUN=$tag" SPLIT=val JSON=1 < /dev/null | tee /dev/stderr)"

step "4/5 visualise"
folder="$(printf '%s\n' "$said" | sed -n 's/^ *"folder": "\(.*\)",\{0,1\}$/\1/p' | tail -n 1)"
pictures="$(find "$folder/images" -type f -name '*.png' | sort)"
[ -n "$pictures" ] || { printf 'cifar_pipeline: %s/images holds no picture, expected some\n' "$folder" >&2; exit 1; }
printf '%s\n' "$pictures"

step "5/5 test"
make eval "RUN=$tag" SPLIT=test < /dev/null

step "done  make show RUN=$tag"
