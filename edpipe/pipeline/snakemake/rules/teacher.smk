rule train_teacher:
    input:
        unpack(inputs_of(teachers.make_teacher)),
    output:
        weights="artifacts/teachers/{dataset}/{teacher}/{subset}.safetensors",
        record="artifacts/teachers/{dataset}/{teacher}/{subset}.json",
    log:
        local("logs/train_teacher/{dataset}-{teacher}-{subset}.log"),
    wildcard_constraints:
        teacher=one_of(TRAINED),
    priority: 10  # students wait for these
    threads: training_threads_of(teachers.make_teacher)
    resources:
        gpu=training_gpus,
        nodes=NODES,
        mem_mb=8000,
        runtime=1440,
    params:
        knobs=knobs_of(teachers.make_teacher),
        code=code_of(teachers.make_teacher),
        knobs_digest=knobs_digest_of(teachers.make_teacher),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe train_teacher --dataset {wildcards.dataset} --teacher {wildcards.teacher} --subset {wildcards.subset}"
        " > {log} 2>&1"


rule fetch_teacher:
    input:
        unpack(inputs_of(teachers.make_teacher)),
    output:
        weights="artifacts/teachers/{dataset}/{teacher}/{subset}.safetensors",
        record="artifacts/teachers/{dataset}/{teacher}/{subset}.json",
    log:
        local("logs/fetch_teacher/{dataset}-{teacher}-{subset}.log"),
    wildcard_constraints:
        teacher=one_of(FETCHED),
    priority: 10  # students wait for these
    threads: training_threads_of(teachers.make_teacher)
    resources:
        gpu=training_gpus,
        nodes=NODES,
        mem_mb=8000,
        runtime=1440,
    params:
        knobs=knobs_of(teachers.make_teacher),
        code=code_of(teachers.make_teacher),
        knobs_digest=knobs_digest_of(teachers.make_teacher),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe fetch_teacher --dataset {wildcards.dataset} --teacher {wildcards.teacher} --subset {wildcards.subset}"
        " > {log} 2>&1"


rule evaluate_teacher:
    input:
        unpack(inputs_of(teachers.evaluate_teacher)),
    output:
        "artifacts/teacher_evaluations/{dataset}/{teacher}/{subset}.json",
    log:
        local("logs/evaluate_teacher/{dataset}-{teacher}-{subset}.log"),
    threads: threads_of(teachers.evaluate_teacher)
    resources:
        gpu=gpus,
        mem_mb=4000,
        runtime=120,
    params:
        knobs=knobs_of(teachers.evaluate_teacher),
        code=code_of(teachers.evaluate_teacher),
        knobs_digest=knobs_digest_of(teachers.evaluate_teacher),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe evaluate_teacher --dataset {wildcards.dataset} --teacher {wildcards.teacher}"
        " --subset {wildcards.subset} > {log} 2>&1"
