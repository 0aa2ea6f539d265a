rule record_trajectory:
    input:
        unpack(inputs_of(teachers.record_trajectory)),
    output:
        trajectory="artifacts/trajectories/{dataset}/{teacher}/seed{seed}.h5",
        record="artifacts/trajectories/{dataset}/{teacher}/seed{seed}.json",
    log:
        "logs/record_trajectory/{dataset}-{teacher}-seed{seed}.log",
    wildcard_constraints:
        teacher=one_of(TRAINED),
    priority: 10  # students wait for these
    threads: threads_of(teachers.record_trajectory)
    resources:
        gpu=gpus,
        mem_mb=8000,
        runtime=1440,
    params:
        knobs=knobs_of(teachers.record_trajectory),
        code=code_of(teachers.record_trajectory),
        knobs_digest=knobs_digest_of(teachers.record_trajectory),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe record_trajectory --dataset {wildcards.dataset} --teacher {wildcards.teacher} --seed {wildcards.seed}"
        " > {log} 2>&1"
