localrules:
    partition_dataset,
    partition_by_confusion,


rule partition_dataset:
    input:
        unpack(inputs_of(data.partition_dataset)),
    output:
        "artifacts/partitions/{dataset}/{partition}.json",
    log:
        local("logs/partition_dataset/{dataset}-{partition}.log"),
    wildcard_constraints:
        partition=one_of(GIVEN),
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        knobs=knobs_of(data.partition_dataset),
        code=code_of(data.partition_dataset),
        knobs_digest=knobs_digest_of(data.partition_dataset),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe partition_dataset --dataset {wildcards.dataset} --partition {wildcards.partition} > {log} 2>&1"


rule partition_by_confusion:
    input:
        unpack(inputs_of(data.partition_dataset)),
    output:
        "artifacts/partitions/{dataset}/{partition}.json",
    log:
        local("logs/partition_by_confusion/{dataset}-{partition}.log"),
    wildcard_constraints:
        partition=one_of(CONFUSED),
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        knobs=knobs_of(data.partition_dataset),
        code=code_of(data.partition_dataset),
        knobs_digest=knobs_digest_of(data.partition_dataset),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe partition_by_confusion --dataset {wildcards.dataset} --partition {wildcards.partition} > {log} 2>&1"
