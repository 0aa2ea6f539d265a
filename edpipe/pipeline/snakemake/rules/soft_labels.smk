rule dump_soft_labels:
    input:
        unpack(inputs_of(teachers.dump_soft_labels)),
    output:
        soft_labels="artifacts/soft_labels/{dataset}/{teacher}/{subset}/views_{views}.h5",
        record="artifacts/soft_labels/{dataset}/{teacher}/{subset}/views_{views}.json",
    log:
        "logs/dump_soft_labels/{dataset}-{teacher}-{subset}-views_{views}.log",
    priority: 5  # students wait for these
    threads: threads_of(teachers.dump_soft_labels)
    resources:
        gpu=gpus,
        mem_mb=8000,
        runtime=720,
    params:
        knobs=knobs_of(teachers.dump_soft_labels),
        code=code_of(teachers.dump_soft_labels),
        knobs_digest=knobs_digest_of(teachers.dump_soft_labels),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe dump_soft_labels --dataset {wildcards.dataset} --teacher {wildcards.teacher} --subset {wildcards.subset}"
        " --views {wildcards.views} > {log} 2>&1"


rule verify_soft_labels:
    input:
        unpack(inputs_of(teachers.verify_soft_labels)),
    output:
        "artifacts/soft_labels/{dataset}/{teacher}/{subset}.json",
    log:
        "logs/verify_soft_labels/{dataset}-{teacher}-{subset}.log",
    priority: 5  # students wait for these
    threads: threads_of(teachers.verify_soft_labels)
    resources:
        gpu=gpus,
        mem_mb=8000,
        runtime=120,
    params:
        knobs=knobs_of(teachers.verify_soft_labels),
        code=code_of(teachers.verify_soft_labels),
        knobs_digest=knobs_digest_of(teachers.verify_soft_labels),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe verify_soft_labels --dataset {wildcards.dataset} --teacher {wildcards.teacher}"
        " --subset {wildcards.subset} > {log} 2>&1"
