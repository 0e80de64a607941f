# nvdla-quant: from a trained network to NVDLA loadables and what each quantization choice costs.
# Every path carries only names of configuration records; no code parses a path.
#   <results>/{model}/{dataset}/
#       images/calibration-{calibrator}.npz  images/test-{shard}.npz     what was chosen, as the network sees it
#       network/{network}/deploy.prototxt  weights.caffemodel            as it is compiled; network.onnx, equalization.tsv
#       network/imported/{network.onnx,names.json,remarks.txt,size.json}  network/cut/  ONNX as it was read; Caffe's files, cut
#       {reference,quantized}/{shard}.npz, accuracy.json                 fp32; a quantized ONNX model in onnxruntime
#       tensorrt/{engine}.npz, .json  comparisons.json                   TensorRT's own scores; variants beside each other
#       calibration/{calibrator}/[fold-equalize/]{calibration.cache,table.raw.json,ranges.tsv}  as TensorRT, and as JSON
#       calibration/{calibrator}/{table}/table.fixed.json  changes.tsv   layer names, consistent scales
#       {target}/support.json                                            what the hardware can run, before compiling
#       {target}/{variant}/table.searched.json weights.{searched,steps}.npz  better scales, weights; search, refinement.tsv
#       {target}/{variant}/loadable.nvdla  compile.json  cost.json       NVDLA's program, and how long it takes
#       {target}/{variant}/dumps/{shard}.npz  {shard}.dimg/              what the device gives; as nvdla_runtime's files
#       {target}/{variant}/{accuracy,comparison,fidelity,verdict}.json   by labels, without them; layers.tsv: by layer
#   <results>/{summary,pairs,seeds,fidelity}.tsv summary.{tex,md} manifest.json report/  downloads/{digest}/{kind}/...
from snakemake.utils import min_version

min_version("9.19.0")

# A file of the user that names models stands for itself; one that does not is laid over the default.
if "models" not in config:

    configfile: "config.yaml"


report: "report/workflow.rst"


pathvars:
    logs="results/logs",
    benchmarks="results/benchmarks",
    case="<results>/{model}/{dataset}",
    case_logs="<logs>/{model}/{dataset}",
    case_benchmarks="<benchmarks>/{model}/{dataset}",


include: "rules/common.smk"
include: "rules/downloads.smk"
include: "rules/images.smk"
include: "rules/network.smk"
include: "rules/reference.smk"
include: "rules/calibration.smk"
include: "rules/tensorrt.smk"
include: "rules/tables.smk"
include: "rules/refinement.smk"
include: "rules/compilation.smk"
include: "rules/runtime.smk"
include: "rules/evaluation.smk"
include: "rules/fidelity.smk"
include: "rules/reporting.smk"
include: "rules/hooks.smk"


rule all:
    default_target: True
    input:
        final_outputs,
    message:
        "Every artefact of the sweep is up to date"
