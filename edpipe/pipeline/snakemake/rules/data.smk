rule pack_dataset:
    input:
        unpack(inputs_of(data.pack_dataset)),
    output:
        packed="artifacts/datasets/{dataset}.h5",
        record="artifacts/datasets/{dataset}.json",
    log:
        local("logs/pack_dataset/{dataset}.log"),
    threads: threads_of(data.pack_dataset)
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        knobs=knobs_of(data.pack_dataset),
        code=code_of(data.pack_dataset),
        knobs_digest=knobs_digest_of(data.pack_dataset),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}" " exec edpipe pack_dataset --dataset {wildcards.dataset} > {log} 2>&1"
